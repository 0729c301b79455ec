//! Who listens: each port of the fleet belongs to its instance, and nobody listens where the plan says nothing of.

use super::{Verdict, count, fault, risk};
use crate::doctor::evidence::{Evidence, Instance, Listening};

/// The sockets that really listen.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut looked = 0;
    for instance in &evidence.instances {
        looked += usize::from(instance.spec.facts.port.is_some());
        own_port(instance, evidence, &mut verdict);
        other_ports(instance, evidence, &mut verdict);
    }
    if looked == 0 {
        verdict.unseen.push("no instance has a port".to_owned());
        return verdict;
    }
    let ports = count(looked, "port");
    let state = if evidence.live { "each answered by its instance alone" } else { "nobody else listens there" };
    verdict.seen = Some(format!("{ports}, {state}"));
    verdict
}

/// Whoever listens where this instance does or is about to, and is not part of it.
fn own_port(instance: &Instance<'_>, evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let facts = &instance.spec.facts;
    let Some(port) = facts.port else { return };
    let name = instance.spec.name.to_string();
    let meets = |listening: &Listening| {
        let (mine, host) = (listening.address.ip(), facts.host);
        listening.address.port() == port && (mine == host || mine.is_unspecified() || host.is_unspecified())
    };
    for listening in evidence.listeners.iter().filter(|listening| meets(listening)) {
        if listening.instance.as_deref() == Some(name.as_str()) {
            continue;
        }
        let seen = format!("{} is held by {}", listening.address, holder(listening));
        let (parties, what) = match &listening.instance {
            Some(other) => {
                (vec![name.clone(), other.clone()], format!("{other} listens on port {port}, which is {name}'s"))
            }
            None => (vec![name.clone()], format!("a stranger listens on port {port}, which is {name}'s")),
        };
        let hint = match listening.pid {
            Some(pid) if listening.instance.is_none() => format!("end pid {pid}, or give {name} another port"),
            _ => format!("let each server take its own {{port}}; laneway env {name} shows it as PORT"),
        };
        verdict.findings.push(fault(parties, what, vec![seen], hint));
    }
    let is_there = evidence.listeners.iter().any(|l| l.instance.as_deref() == Some(name.as_str()) && meets(l));
    if !instance.processes.is_empty() && instance.phase.as_deref() == Some("running") && !is_there {
        let elsewhere = evidence.listeners.iter().filter(|l| l.instance.as_deref() == Some(name.as_str()));
        let elsewhere: Vec<String> = elsewhere.map(|l| format!("it listens on {}", l.address)).collect();
        let seen = if elsewhere.is_empty() { vec!["it listens nowhere".to_owned()] } else { elsewhere };
        let what = format!("{name} runs and does not listen on its port {port}");
        verdict.findings.push(fault(vec![name], what, seen, "let the command bind {host}:{port}"));
    }
}

/// Ports on which an instance listens beside its own: nobody checks that two do not want the same.
fn other_ports(instance: &Instance<'_>, evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let name = instance.spec.name.as_str();
    let own = instance.spec.facts.port;
    for listening in evidence.listeners.iter().filter(|l| l.instance.as_deref() == Some(name)) {
        let port = listening.address.port();
        let is_others = evidence.instances.iter().any(|other| other.spec.facts.port == Some(port));
        if Some(port) == own || is_others {
            continue;
        }
        let what = format!("{name} also listens on port {port}, which the plan does not know");
        let seen = format!("{} is held by {}", listening.address, holder(listening));
        let hint = "make it an instance of its own with `lane:` and a `port`, or let it bind no second port";
        verdict.findings.push(risk(vec![name.to_owned()], what, vec![seen], hint));
    }
}

fn holder(listening: &Listening) -> String {
    match (&listening.instance, listening.pid) {
        (Some(name), Some(pid)) => format!("pid {pid} of {name} ({})", listening.command),
        (None, Some(pid)) => format!("pid {pid} ({})", listening.command),
        (_, None) => listening.command.clone(),
    }
}
