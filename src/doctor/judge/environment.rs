//! What processes really have in their environment, against the plan. Values are never shown.

use super::{Verdict, and, count, fault, reasons};
use crate::doctor::evidence::{Evidence, Instance, Process};
use crate::plan;
use crate::services::redis::with_login;

/// Every process of every instance that runs.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let running: Vec<_> = evidence.instances.iter().filter(|instance| !instance.processes.is_empty()).collect();
    let at_rest = evidence.instances.iter().filter(|instance| instance.processes.is_empty());
    let mut verdict = Verdict { unseen: reasons(at_rest.map(|i| (i, "it does not run"))), ..Verdict::default() };
    if running.is_empty() {
        return verdict;
    }
    let processes: usize = running.iter().map(|instance| instance.processes.len()).sum();
    let of = count(running.len(), "instance");
    verdict.seen = Some(format!("{processes} processes of {of}, each as planned"));
    for instance in running {
        let unreadable: Vec<_> = instance.processes.iter().filter(|p| p.environment.is_none()).collect();
        if let Some(process) = unreadable.first() {
            verdict.unseen.push(format!("{}: pid {} may not be looked into", instance.spec.name, process.pid));
        }
        for process in &instance.processes {
            one(instance, process, evidence, &mut verdict);
        }
    }
    verdict
}

fn one(instance: &Instance<'_>, process: &Process, evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let Some(real) = &process.environment else { return };
    let is_first = instance.processes.first().is_some_and(|first| first.pid == process.pid);
    let planned = &instance.planned;
    let is_fact = |name: &str| plan::key_of(name).is_some();
    // Children may have what their parents give them; but facts are facts for all that have any. What comes from the caller
    // is no lane's: programs such as pyenv put themselves into PATH.
    let is_callers = |name: &String| instance.spec.inherited.contains(name);
    let wanted = planned.iter().filter(|(name, _)| (is_first && !is_callers(name)) || is_fact(name));
    let has_any = real.keys().any(|name| is_fact(name));
    if !has_any && !is_first {
        return;
    }
    let user = instance.spec.facts.cache.user.as_ref();
    let is_planned = |name: &String, value: &String| {
        let is_with_login = |real: &String| match (name.as_str(), user) {
            ("DATABASE_URL", _) => without_password(real) == *value,
            ("CACHE_URL" | "CHANNELS_URL", Some(user)) => {
                without_password(real) == without_password(&with_login(value, &user.name, "any"))
            }
            _ => false,
        };
        real.get(name).is_some_and(|real| real == value || is_with_login(real))
    };
    let different: Vec<&String> = wanted.filter(|(name, value)| !is_planned(name, value)).map(|(n, _)| n).collect();
    let unplanned = real.keys().filter(|n| is_fact(n) && n.as_str() != "SECRET_KEY" && !planned.contains_key(*n));
    let mut names: Vec<String> = different.into_iter().chain(unplanned).cloned().collect();
    names.sort();
    if names.is_empty() {
        return;
    }
    let name = instance.spec.name.to_string();
    let mut parties = vec![name.clone()];
    let mut seen = vec![format!("pid {} ({})", process.pid, process.command)];
    for variable in &names {
        let state = match (planned.get(variable), real.get(variable)) {
            (Some(_), None) => "is missing".to_owned(),
            (None, _) => "is there, and the plan gives it none".to_owned(),
            (Some(_), Some(value)) => match neighbour(variable, value, instance, evidence) {
                Some(other) => {
                    if !parties.contains(&other) {
                        parties.push(other.clone());
                    }
                    format!("is {other}'s")
                }
                None => "is not what the plan gives".to_owned(),
            },
        };
        seen.push(format!("{variable} {state}"));
    }
    if verdict.findings.iter().any(|known| known.instances == parties && known.evidence.get(1..) == seen.get(1..)) {
        return;
    }
    let what = format!("{name} has another environment than its lane: {}", and(&names));
    let hint = "take out what sets these in the command or a wrapper around it; where the plan has changed since, \
                laneway restart";
    verdict.findings.push(fault(parties, what, seen, format!("{hint} {name}")));
}

/// A URL as the plan has it where laneway makes the role: its password is added at the start.
fn without_password(url: &str) -> String {
    let login = url.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    match login.and_then(|(login, _)| login.split_once(':')) {
        Some((_, password)) => url.replacen(&format!(":{password}@"), "@", 1),
        None => url.to_owned(),
    }
}

/// Whose value that is, if it is that of another lane and not one that all share.
fn neighbour(variable: &str, value: &str, instance: &Instance<'_>, evidence: &Evidence<'_>) -> Option<String> {
    let others = evidence.instances.iter().filter(|other| other.spec.facts.lane != instance.spec.facts.lane);
    let mut holders = others.filter(|other| other.planned.get(variable).is_some_and(|theirs| theirs == value));
    let first = holders.next()?;
    Some(first.spec.name.to_string())
}
