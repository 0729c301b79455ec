//! What `isolation` asks for, and whether it holds: what this kernel can do, which processes entered their rules, whom the
//! lane is on its servers.

use crate::doctor::evidence::{Enforcement, Held, Process};
use crate::plan::spec::{Enforced, Spec};
use crate::runtime::landlock;
use crate::runtime::processes::command_line;
use crate::upkeep::isolation;

/// Looks at each part that `spec` asks for; at what runs only if that is to be looked at.
pub fn look(spec: &Spec, processes: &[Process], is_live: bool) -> Vec<Enforcement> {
    let missing = landlock::missing(&spec.isolation);
    let services = if is_live { isolation::look(spec) } else { Vec::new() };
    let outside = processes.iter().filter(|process| !landlock::holds(process.pid));
    let outside: Vec<String> =
        outside.map(|process| format!("pid {} ({})", process.pid, command_line(process.pid))).collect();
    let held = |part: Enforced| match part {
        Enforced::Files | Enforced::Network => match missing.iter().find(|(lacking, _)| *lacking == part) {
            Some((_, why)) => Held::Impossible(why.clone()),
            None if outside.is_empty() => Held::Yes,
            None => Held::Outside(outside.clone()),
        },
        Enforced::Redis | Enforced::Postgres => match services.iter().find(|(looked_at, _)| *looked_at == part) {
            Some((_, Ok(()))) => Held::Yes,
            Some((_, Err(trouble))) => Held::No { what: trouble.what.clone(), hint: trouble.hint.clone() },
            None => Held::Unseen,
        },
    };
    spec.isolation.enforce.iter().map(|part| Enforcement { part: *part, held: held(*part) }).collect()
}
