//! How a new plan differs from a running one, by names only: values may be secrets.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{InstanceId, InstanceName};

use super::environment::is_fact;
use super::spec::{Cache, Facts, Plan, Spec};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// The fleet itself: `state_dir`, `restart_brake`, `presets` ...
    Fleet {
        /// Which part.
        part: String,
    },
    /// An instance that was not there.
    Added {
        /// Which.
        name: InstanceName,
    },
    /// An instance that is no more.
    Removed {
        /// Which.
        name: InstanceName,
    },
    /// An instance that is different.
    Changed {
        /// Which.
        name: InstanceName,
        /// What of it, such as `command`, `facts.port`, `environment.DEBUG`.
        parts: Vec<String>,
        /// A server that runs has to begin anew for it.
        restarts: bool,
    },
}

/// Whose environment two plans inherit from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// The same process's: every difference is the file's.
    One,
    /// Those of two terminals, which differ in what no plan means.
    Two,
}

/// What must change for `old` to become `new`; nothing when they are equal. In the order of the new plan, removed ones last.
#[must_use]
pub fn diff(old: &Plan, new: &Plan, callers: Callers) -> Vec<Change> {
    let mut changes: Vec<Change> = fleet_parts(old, new).into_iter().map(|part| Change::Fleet { part }).collect();
    let before = by_name(old);
    for spec in new.ids().map(|id| new.spec(id)) {
        let name = spec.name.clone();
        match before.get(&spec.name) {
            None => changes.push(Change::Added { name }),
            Some(was) => {
                let parts = spec_parts(old, was, new, spec, callers);
                if !parts.is_empty() {
                    changes.push(Change::Changed { name, parts, restarts: needs_restart(was, spec) });
                }
            }
        }
    }
    let after = by_name(new);
    let removed = old.ids().map(|id| &old.spec(id).name).filter(|name| !after.contains_key(name));
    changes.extend(removed.map(|name| Change::Removed { name: name.clone() }));
    changes
}

/// Whether the instance at this place is in both files, at the same place, and the same in everything.
#[must_use]
pub fn is_same(before: &Plan, now: &Plan, id: InstanceId) -> bool {
    let is = now.spec(id);
    let has = |plan: &Plan| plan.order.contains(&id) && plan.spec(id).name == is.name;
    has(before) && has(now) && spec_parts(before, before.spec(id), now, is, Callers::Two).is_empty()
}

fn by_name(plan: &Plan) -> BTreeMap<&InstanceName, &Spec> {
    plan.ids().map(|id| (&plan.spec(id).name, plan.spec(id))).collect()
}

/// Whether a server that was started as `was` has to begin anew to be `is`. It does for what goes into its process;
/// what laneway looks up when it needs it takes effect without.
#[must_use]
pub fn needs_restart(was: &Spec, is: &Spec) -> bool {
    // Every field is named, so that a new one has to be given its side.
    let Spec { facts, command, working_dir, environment, pre_start, .. } = is;
    let Spec {
        name: _,
        facts: _,
        command: _,
        working_dir: _,
        environment: _,
        pre_start: _,
        inherited: _,
        pre_start_timeout: _,
        healthcheck: _,
        restart: _,
        stop_signal: _,
        stop_grace_period: _,
        depends_on: _,
        logging: _,
        database_setup: _,
    } = was;
    // How a cache is reached from outside is no part of the process.
    let inside = |facts: &Facts| Facts { cache: Cache { clear: None, ..facts.cache.clone() }, ..facts.clone() };
    (inside(facts), command, working_dir, environment, pre_start)
        != (inside(&was.facts), &was.command, &was.working_dir, &was.environment, &was.pre_start)
}

fn fleet_parts(old: &Plan, new: &Plan) -> Vec<String> {
    let parts = [
        ("project", old.project == new.project),
        ("namespace", old.namespace == new.namespace),
        ("file", old.file == new.file),
        ("state_dir", old.state_dir == new.state_dir),
        ("profile", old.profile == new.profile),
        ("restart_brake", old.restart_brake == new.restart_brake),
        ("presets", old.presets == new.presets),
    ];
    parts.into_iter().filter(|(_, is_equal)| !is_equal).map(|(part, _)| part.to_owned()).collect()
}

fn spec_parts(old: &Plan, was: &Spec, new: &Plan, is: &Spec, callers: Callers) -> Vec<String> {
    if was == is && dependencies(old, was) == dependencies(new, is) {
        return Vec::new();
    }
    let mut parts = Vec::new();
    compare("", &serialised(old, was), &serialised(new, is), &mut parts);
    // The variable of a fact changes with the fact, and that one is named already. What comes from the caller is not
    // the plan's: another terminal has another PATH.
    let is_callers = |spec: &Spec, name: &str| spec.inherited.contains(name) || !spec.environment.contains_key(name);
    parts.retain(|part| match part.strip_prefix("environment.") {
        Some(name) => !(is_fact(name) || callers == Callers::Two && is_callers(was, name) && is_callers(is, name)),
        None => part != "inherited",
    });
    parts
}

/// Through its serialised form, so that a new field is never forgotten here.
fn serialised(plan: &Plan, spec: &Spec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    // Positions in the plan change when another instance comes or goes; names do not.
    if let Some(map) = value.as_object_mut() {
        map.insert("depends_on".to_owned(), dependencies(plan, spec).into());
    }
    value
}

fn dependencies(plan: &Plan, spec: &Spec) -> Vec<String> {
    let named = spec.depends_on.iter().map(|on| format!("{} {:?}", plan.spec(on.on).name, on.condition));
    named.collect()
}

fn compare(path: &str, old: &Value, new: &Value, parts: &mut Vec<String>) {
    if old == new {
        return;
    }
    // Below a fact or a variable the difference says no more than its name does.
    let is_open = matches!(path, "" | "facts" | "environment" | "healthcheck");
    let (Value::Object(was), Value::Object(is)) = (old, new) else {
        parts.push(path.to_owned());
        return;
    };
    if !is_open {
        parts.push(path.to_owned());
        return;
    }
    let mut keys: Vec<&String> = was.keys().chain(is.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare(&below, was.get(key).unwrap_or(&Value::Null), is.get(key).unwrap_or(&Value::Null), parts);
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet { part } => write!(f, "{part} differs"),
            Self::Added { name } => write!(f, "{name} is new"),
            Self::Removed { name } => write!(f, "{name} is gone"),
            Self::Changed { name, parts, .. } => write!(f, "{name} differs in {}", parts.join(", ")),
        }
    }
}
