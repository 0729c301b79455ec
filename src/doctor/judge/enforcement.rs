//! Enforced isolation: what the file asks for is really so. Where nothing is asked for, there is nothing to say.

use std::collections::{BTreeMap, BTreeSet};

use super::{Verdict, and, count, fault, risk};
use crate::doctor::evidence::{Evidence, Held};
use crate::plan::spec::Enforced;
use crate::runtime::landlock;

/// Every part of every instance; those that lack the same for the same reason together.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut impossible: BTreeMap<(String, &str, bool), Vec<String>> = BTreeMap::new();
    let (mut held, mut holding): (Vec<String>, usize) = (Vec::new(), 0);
    let mut unseen: BTreeSet<String> = BTreeSet::new();
    for instance in &evidence.instances {
        let name = instance.spec.name.to_string();
        let mut outside = None;
        let mut holds = false;
        for part in &instance.enforcement {
            let word = part.part.to_string();
            match &part.held {
                Held::Yes => {
                    holds = true;
                    if !held.contains(&word) {
                        held.push(word);
                    }
                }
                Held::Unseen => drop(unseen.insert(word)),
                Held::Impossible(why) => {
                    let key = (word, why.as_str(), instance.spec.isolation.may_be_missing);
                    impossible.entry(key).or_default().push(name.clone());
                }
                Held::Outside(processes) => outside = Some(processes.clone()),
                Held::No { what, hint } => {
                    let hint = hint.clone().unwrap_or_else(|| format!("laneway isolate {name}"));
                    let said = format!("{name} is not held to what `isolation` asks on {}", service(part.part));
                    verdict.findings.push(fault(vec![name.clone()], said, vec![what.clone()], hint));
                }
            }
        }
        holding += usize::from(holds);
        if let Some(processes) = outside {
            let what = format!("{name} has processes that never entered its rules");
            verdict.findings.push(fault(vec![name.clone()], what, processes, format!("laneway restart {name}")));
        }
    }
    for ((part, why, may_be_missing), names) in impossible {
        let what = format!("{part} cannot be enforced for {}", and(&names));
        let seen = vec![format!("isolation: {part}: {why}")];
        verdict.findings.push(if may_be_missing {
            risk(names, what, seen, "a newer kernel, or take it out of `enforce`")
        } else {
            fault(names, what, seen, landlock::HINT)
        });
    }
    if holding > 0 {
        let state = if evidence.live { "held to" } else { "can be held to" };
        verdict.seen =
            Some(format!("{} {state} what `isolation` asks: {}", count(holding, "instance"), held.join(", ")));
    }
    if !unseen.is_empty() {
        let parts: Vec<_> = unseen.into_iter().collect();
        verdict.unseen.push(format!("{}: looked at while the fleet runs", and(&parts)));
    }
    verdict
}

fn service(part: Enforced) -> &'static str {
    match part {
        Enforced::Redis => "Redis",
        Enforced::Postgres => "PostgreSQL",
        Enforced::Files | Enforced::Network => "this machine",
    }
}
