//! Whether what runs is what the file says, and what lies on the disk what the servers were started with.

use super::{Verdict, and, risk};
use crate::doctor::evidence::{Evidence, Instance};
use crate::plan::Change;

/// The file against the running plan, and secrets against what processes have.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    match evidence.drift {
        None => verdict.unseen.push("the file was not read".to_owned()),
        Some(Err(problems)) => {
            let seen = problems.lines().map(str::to_owned).collect();
            let what = "what runs can no longer be started from its file";
            verdict.findings.push(risk(Vec::new(), what, seen, "laneway check"));
        }
        Some(Ok(changes)) => {
            verdict.seen = Some("what runs is what the file says".to_owned());
            if !changes.is_empty() {
                let parties = changes.iter().filter_map(name).collect();
                let what = "what runs is not what the file says";
                let seen = changes.iter().map(in_words).collect();
                let hint = "laneway apply takes it over (--profile and --set stay those of the start); \
                            laneway apply --dry-run says what would follow";
                verdict.findings.push(risk(parties, what, seen, hint));
            }
        }
    }
    let stale: Vec<String> =
        evidence.instances.iter().filter(|i| has_old_secret(i)).map(|i| i.spec.name.to_string()).collect();
    if !stale.is_empty() {
        let what = format!("{} run with a secret that is no longer the one of its file", and(&stale));
        let seen =
            stale.iter().map(|name| format!("{name}: SECRET_KEY differs from what the file holds now")).collect();
        let hint = format!("laneway restart {}: all its logins end", stale.join(" "));
        verdict.findings.push(risk(stale, what, seen, hint));
    }
    verdict
}

fn name(change: &Change) -> Option<String> {
    match change {
        Change::Fleet { .. } => None,
        Change::Added { name } | Change::Removed { name } | Change::Changed { name, .. } => Some(name.to_string()),
    }
}

/// Names and parts only: values may be secrets.
fn in_words(change: &Change) -> String {
    match change {
        Change::Fleet { part } => format!("{part}: changed"),
        Change::Added { name } => format!("{name}: added, and does not run"),
        Change::Removed { name } => format!("{name}: removed, and goes on"),
        Change::Changed { name, parts, restarts } => {
            let effect = if *restarts { "needs a restart" } else { "needs no restart" };
            format!("{name}: changed ({}), {effect}", parts.join(", "))
        }
    }
}

fn has_old_secret(instance: &Instance<'_>) -> bool {
    instance.secret.exists
        && instance.secret.error.is_none()
        && instance.processes.first().is_some_and(|process| process.has_other_secret)
}
