//! Verbs about the file: config, check.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::args::{Check, Config};
use super::ctl::to_json;
use super::out::println;
use super::place::Fleet;
use super::report::{DONE, FAILED, Failure, say};
use super::secrets;
use crate::plan::{self, Plan};
use crate::runtime::registry::Registry;

/// `laneway config`: of what runs, else of the file.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn config(fleet: &Fleet, arguments: &Config) -> Result<ExitCode, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let plan = fleet.running_plan_or_plan()?;
    let mut document = serde_json::to_value(&plan).map_err(|error| failed(&error))?;
    tidy(&mut document);
    by_name(&plan, &mut document);
    if !arguments.reveal {
        secrets::hide(&mut document);
    }
    if arguments.json {
        println!("{}", to_json(&document)?);
    } else {
        let text = serde_yaml::to_string(&document).map_err(|error| failed(&error))?;
        println!("{}", text.trim_end());
    }
    Ok(ExitCode::from(DONE))
}

/// Durations as people write them, and nothing that is not there.
fn tidy(value: &mut Value) {
    if let Some(duration) = duration(value) {
        *value = Value::String(humantime::format_duration(duration).to_string().replace(' ', ""));
        return;
    }
    match value {
        Value::Array(list) => list.iter_mut().for_each(tidy),
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(tidy);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn duration(value: &Value) -> Option<Duration> {
    let map = value.as_object().filter(|map| map.len() == 2)?;
    let nanos = u32::try_from(map.get("nanos")?.as_u64()?).ok()?;
    Some(Duration::new(map.get("secs")?.as_u64()?, nanos))
}

/// The list of specs as a map of instances, as in the file.
fn by_name(plan: &Plan, document: &mut Value) {
    let Some(fleet) = document.as_object_mut() else { return };
    fleet.shift_remove("order");
    fleet.shift_remove("revision");
    let Some(Value::Array(mut specs)) = fleet.shift_remove("specs") else { return };
    let named = plan.ids().filter_map(|id| {
        let mut spec = specs.get_mut(id.index())?.take();
        let map = spec.as_object_mut()?;
        map.shift_remove("inherited");
        let name = map.shift_remove("name")?;
        Some((name.as_str()?.to_owned(), spec))
    });
    fleet.insert("instances".to_owned(), Value::Object(named.collect()));
}

/// `laneway check`.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn check(fleet: &Fleet, arguments: &Check) -> Result<ExitCode, Failure> {
    let plan = fleet.plan()?;
    let collisions = Registry::of_user().map(|registry| registry.collisions(&plan)).unwrap_or_default();
    let claims = plan::claims(&plan).len();
    if arguments.json {
        let collisions: Vec<_> = collisions.iter().map(ToString::to_string).collect();
        let (instances, presets) = (plan.specs.len(), plan.presets.len());
        println!(
            "{}",
            to_json(&serde_json::json!({
                "file": plan.file, "instances": instances, "presets": presets, "claims": claims, "collisions": collisions,
            }))?
        );
    } else if collisions.is_empty() {
        println!("{}: {} instances, {claims} claims, none shared", plan.file.display(), plan.specs.len());
    }
    for collision in &collisions {
        say(&collision.to_string(), None);
    }
    Ok(ExitCode::from(if collisions.is_empty() { DONE } else { FAILED }))
}
