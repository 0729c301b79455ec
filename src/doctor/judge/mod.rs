//! Judges what was seen: pure, the evidence in, the findings out. One function a check; the table is the order in which
//! people read them.

mod cookies;
mod drift;
mod enforcement;
mod environment;
mod files;
mod lanes;
mod options;
mod ports;
mod secrets;
mod sessions;
mod settings;
mod stores;

use std::collections::BTreeMap;

use super::evidence::{Evidence, Instance};
use super::finding::{CheckReport, Finding, Outcome, Severity};

/// A check: its name, whether it needs what runs, and what it makes of the evidence.
struct Check {
    id: &'static str,
    is_live: bool,
    judge: fn(&Evidence<'_>) -> Verdict,
}

const fn fixed(id: &'static str, judge: fn(&Evidence<'_>) -> Verdict) -> Check {
    Check { id, is_live: false, judge }
}

const fn live(id: &'static str, judge: fn(&Evidence<'_>) -> Verdict) -> Check {
    Check { id, is_live: true, judge }
}

const CHECKS: [Check; 15] = [
    fixed("claims", lanes::claims),
    fixed("folders", lanes::folders),
    fixed("secrets", secrets::judge),
    fixed("settings", settings::judge),
    fixed("options", options::judge),
    fixed("control-sockets", options::control_sockets),
    fixed("ports", ports::judge),
    fixed("enforcement", enforcement::judge),
    live("environment", environment::judge),
    live("files", files::judge),
    live("database", files::database),
    live("cookies", cookies::judge),
    live("redis", stores::judge),
    live("sessions", sessions::judge),
    live("drift", drift::judge),
];

/// What came of a check.
#[derive(Debug, Default)]
struct Verdict {
    findings: Vec<Finding>,
    /// What was looked at; `None` if nothing could be.
    seen: Option<String>,
    /// What was not, and why.
    unseen: Vec<String>,
}

impl Verdict {
    fn seen(what: impl Into<String>) -> Self {
        Self { seen: Some(what.into()), ..Self::default() }
    }
}

/// All checks. Findings that are about none of `chosen` are left out; no `chosen` means all.
pub fn judge(evidence: &Evidence<'_>, chosen: &[String]) -> Vec<CheckReport> {
    let is_meant = |finding: &Finding| {
        chosen.is_empty() || finding.instances.is_empty() || finding.instances.iter().any(|name| chosen.contains(name))
    };
    let due = CHECKS.iter().filter(|check| evidence.live || !check.is_live);
    due.map(|check| {
        let Verdict { mut findings, seen, unseen } = (check.judge)(evidence);
        findings.retain(is_meant);
        findings.sort_by_key(|finding| finding.severity);
        let outcome = match (&seen, findings.is_empty()) {
            (_, false) => Outcome::Found,
            (Some(_), true) => Outcome::Passed,
            (None, true) => Outcome::Skipped,
        };
        CheckReport { id: check.id, outcome, seen: seen.unwrap_or_default(), unseen, findings }
    })
    // Of what nobody asked for there is nothing to say.
    .filter(|check| check.outcome != Outcome::Skipped || !check.unseen.is_empty() || check.id != "enforcement")
    .collect()
}

/// `3 instances`.
fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// `a`, `a and b`, `a, b and c`.
fn and(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Why instances could not be looked at, those with the same reason together.
fn reasons<'a>(why: impl Iterator<Item = (&'a Instance<'a>, &'a str)>) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (instance, why) in why {
        by_reason.entry(why).or_default().push(instance.spec.name.to_string());
    }
    let shown = |names: &[String]| match names {
        [first, second, rest @ ..] if rest.len() > 3 => format!("{first}, {second} and {} more", rest.len()),
        few => and(few),
    };
    by_reason.into_iter().map(|(why, names)| format!("{}: {why}", shown(&names))).collect()
}

/// Those that hold the same thing though they live in different lanes, in the order in which they came.
fn shared<'a, K: Ord, T>(
    holders: impl Iterator<Item = (K, &'a Instance<'a>, T)>,
) -> Vec<(K, Vec<(&'a Instance<'a>, T)>)> {
    let mut by_thing: BTreeMap<K, Vec<(&Instance<'_>, T)>> = BTreeMap::new();
    for (thing, instance, detail) in holders {
        by_thing.entry(thing).or_default().push((instance, detail));
    }
    let is_shared = |holders: &[(&Instance<'_>, T)]| {
        let first = holders.first().map(|(instance, _)| &instance.spec.facts.lane);
        holders.iter().any(|(instance, _)| Some(&instance.spec.facts.lane) != first)
    };
    by_thing.into_iter().filter(|(_, holders)| is_shared(holders)).collect()
}

/// The names of holders, each once.
fn names<T>(holders: &[(&Instance<'_>, T)]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (instance, _) in holders {
        if !names.iter().any(|name| name == instance.spec.name.as_str()) {
            names.push(instance.spec.name.to_string());
        }
    }
    names
}

fn fault(instances: Vec<String>, what: impl Into<String>, evidence: Vec<String>, hint: impl Into<String>) -> Finding {
    Finding { severity: Severity::Fault, instances, what: what.into(), evidence, hint: hint.into() }
}

fn risk(instances: Vec<String>, what: impl Into<String>, evidence: Vec<String>, hint: impl Into<String>) -> Finding {
    Finding { severity: Severity::Risk, ..fault(instances, what, evidence, hint) }
}
