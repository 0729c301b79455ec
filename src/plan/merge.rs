//! A new plan in place of the one that runs: who stays keeps its place, since runs, records and logs go by it.
//!
//! Knows nothing of processes: whether a place is free is asked of whoever calls, which is `runtime` at a reload and
//! `daemon` at a start beside servers that outlived laneway.

use std::collections::{BTreeSet, HashMap};

use super::spec::{Dependency, Plan, Spec};
use crate::model::{InstanceId, InstanceName};

/// `new`, with the instances that `old` has too at their old places. An instance that `new` has no more is retired: it
/// stays at its place, after the order of the file, until that is given to a new one because nothing of it runs any more
/// (`is_free`, asked of places that were retired in `old`).
#[must_use]
pub fn merge(old: &Plan, new: Plan, is_free: impl Fn(InstanceId) -> bool) -> Plan {
    let known: HashMap<&InstanceName, InstanceId> = old.places().map(|id| (&old.spec(id).name, id)).collect();
    let kept: BTreeSet<InstanceId> = new.specs.iter().filter_map(|spec| known.get(&spec.name).copied()).collect();
    let mut free = old.retired().filter(|id| !kept.contains(id) && is_free(*id));
    let mut beyond = (0..).map(InstanceId).skip(old.specs.len());
    // Each instance of the file, in its order, and where it goes.
    let order: Vec<InstanceId> = new
        .specs
        .iter()
        .filter_map(|spec| known.get(&spec.name).copied().or_else(|| free.next()).or_else(|| beyond.next()))
        .collect();

    let mut specs: Vec<Option<Spec>> = old.specs.iter().cloned().map(Some).collect();
    let count = order.iter().map(|id| id.index() + 1).max().unwrap_or(0).max(specs.len());
    specs.resize(count, None);
    for (spec, id) in new.specs.into_iter().zip(&order) {
        let on = |on: InstanceId| order.get(on.index()).copied();
        let depends_on = spec.depends_on.iter().filter_map(|d| Some(Dependency { on: on(d.on)?, ..*d })).collect();
        if let Some(place) = specs.get_mut(id.index()) {
            *place = Some(Spec { depends_on, ..spec });
        }
    }
    let specs: Vec<Spec> = specs.into_iter().flatten().collect();
    let merged = Plan { specs, order, revision: old.revision + 1, ..new };
    without_strangers(old, merged)
}

/// Who is retired no longer depends on whom somebody else has taken the place of.
fn without_strangers(old: &Plan, mut merged: Plan) -> Plan {
    let name_of = |plan: &Plan, id: InstanceId| plan.specs.get(id.index()).map(|spec| spec.name.clone());
    for id in merged.retired().collect::<Vec<_>>() {
        let mut depends_on = merged.spec(id).depends_on.clone();
        depends_on.retain(|dependency| name_of(old, dependency.on) == name_of(&merged, dependency.on));
        if let Some(spec) = merged.specs.get_mut(id.index()) {
            spec.depends_on = depends_on;
        }
    }
    merged
}
