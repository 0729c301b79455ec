//! Verbs about the file: config, check.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{Check, Config};
use super::ctl::to_json;
use super::out::println;
use super::place::Fleet;
use super::report::{DONE, FAILED, Failure, say};
use super::secrets;
use crate::config;
use crate::model::InstanceId;
use crate::plan::{self, Callers, Explained, Plan};
use crate::runtime::landlock;
use crate::runtime::registry::Registry;

/// `laneway config`: of what runs, else of the file.
///
/// # Errors
/// Everything that is wrong with the file; exit code 2 for an unknown name.
pub fn config(fleet: &Fleet, arguments: &Config) -> Result<ExitCode, Failure> {
    if arguments.explain {
        return explain(fleet, arguments);
    }
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let plan = fleet.running_plan_or_plan()?;
    let mut document = serde_json::to_value(&plan).map_err(|error| failed(&error))?;
    tidy(&mut document);
    by_name(&plan, &plan::select(&plan, &arguments.names)?, &mut document);
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

/// The list of specs as a map of the chosen instances, as in the file.
fn by_name(plan: &Plan, chosen: &[InstanceId], document: &mut Value) {
    let Some(fleet) = document.as_object_mut() else { return };
    fleet.shift_remove("order");
    fleet.shift_remove("revision");
    let Some(Value::Array(mut specs)) = fleet.shift_remove("specs") else { return };
    let named = chosen.iter().filter_map(|id| {
        let mut spec = specs.get_mut(id.index())?.take();
        let map = spec.as_object_mut()?;
        map.shift_remove("inherited");
        let conditions =
            plan.spec(*id).depends_on.iter().map(|dependency| {
                (plan.spec(dependency.on).name.to_string(), json!({"condition": dependency.condition}))
            });
        map.insert("depends_on".to_owned(), Value::Object(conditions.collect()));
        let name = map.shift_remove("name")?;
        Some((name.as_str()?.to_owned(), spec))
    });
    fleet.insert("instances".to_owned(), Value::Object(named.collect()));
}

/// `laneway config --explain`: of the file, since what runs does not know where it was written.
fn explain(fleet: &Fleet, arguments: &Config) -> Result<ExitCode, Failure> {
    let running = fleet.running().and_then(|home| home.running_plan());
    let profile = fleet.source().profile.clone().or_else(|| running.as_ref()?.profile.clone());
    let fleet = fleet.clone().with_profile(profile);
    let plan = fleet.plan()?;
    let (settings, problems) = config::read(fleet.source());
    let Some(settings) = settings else { return Err(problems.into()) };
    let chosen = plan::select(&plan, &arguments.names)?;
    let caller = &fleet.source().environment;
    let secrets = secrets_of(&settings.variables, caller);
    let explained = chosen.into_iter().map(|id| {
        let spec = plan.spec(id);
        let mut values = plan::explain(&settings, &plan, spec, caller, &secrets::is_secret, SECRET);
        for value in &mut values {
            veil(value, &secrets);
        }
        (spec.name.as_str(), values)
    });
    if arguments.json {
        let instances: serde_json::Map<String, Value> = explained
            .map(|(name, values)| {
                let values = values.into_iter().map(|value| (value.key.clone(), json!(value)));
                (name.to_owned(), Value::Object(values.collect()))
            })
            .collect();
        println!("{}", to_json(&json!({"instances": instances}))?);
    } else {
        for (index, (name, values)) in explained.enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            println!("{gap}{}", explained_table(name, &values));
        }
    }
    if running.is_some_and(|running| !plan::diff(&running, &plan, Callers::Two).is_empty()) {
        let words = "this is what the file says; what runs is different";
        say(words, Some("laneway apply --dry-run shows the difference"));
    }
    Ok(ExitCode::from(DONE))
}

/// What stands for a secret here, where nothing reveals it.
const SECRET: &str = "(secret)";
/// Longer values push their origin to the right, alone.
const WIDEST: usize = 56;

/// The values of all variables whose names promise a secret: an `env_file` may give one another name.
fn secrets_of<'a>(used: &'a BTreeMap<String, Option<String>>, caller: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let used = used.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let named = used.chain(caller).filter(|(name, value)| secrets::is_secret(name) && !value.is_empty());
    named.map(|(_, value)| value.as_str()).collect()
}

/// Hides what is secret, and makes a value one for people.
fn veil(explained: &mut Explained, known: &[&str]) {
    tidy(&mut explained.value);
    secrets::hide(&mut explained.value);
    let Value::String(text) = &mut explained.value else { return };
    if known.contains(&text.as_str()) {
        SECRET.clone_into(text);
        return;
    }
    let headers = |prefix: &str| explained.key.split_once(prefix);
    let named = headers("environment.").or(headers("healthcheck.headers.")).or(headers("cache.clear.headers."));
    let shown = match named {
        Some(("", name)) if explained.key.starts_with("environment.") => secrets::shown(name, text),
        Some(("", name)) => secrets::header(name, text),
        _ => return,
    };
    *text = if shown == secrets::HIDDEN { SECRET.to_owned() } else { shown };
}

fn explained_table(name: &str, values: &[Explained]) -> String {
    let rows: Vec<(&str, String, String)> = values
        .iter()
        .map(|explained| (explained.key.as_str(), flow(&explained.value), explained.origin.to_string()))
        .collect();
    let width = |text: &str| text.chars().count();
    let keys = rows.iter().map(|(key, ..)| width(key)).max().unwrap_or(0);
    let values = rows.iter().map(|(_, value, _)| width(value)).filter(|width| *width <= WIDEST).max().unwrap_or(0);
    let lines = rows.iter().map(|(key, value, origin)| format!("\n  {key:keys$}  {value:values$}  {origin}"));
    format!("{name}{}", lines.collect::<String>())
}

/// A value as it would be written into the file.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Whether a text needs no quotes to be read as one.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() || ", []{}\"'".contains(c)) || text == SECRET
}

/// `laneway check`.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn check(fleet: &Fleet, arguments: &Check) -> Result<ExitCode, Failure> {
    let (plan, claims) = fleet.proven()?;
    let others = Registry::of_user().map(|registry| registry.others(&plan)).unwrap_or_default();
    let collisions = plan::foreign_collisions(&claims, &others);
    let claims = claims.len();
    let missing: Vec<_> = landlock::refusals(&plan).map(|(spec, what)| (spec.name.to_string(), what)).collect();
    if arguments.json {
        let collisions: Vec<_> = collisions.iter().map(ToString::to_string).collect();
        let (instances, presets) = (plan.specs.len(), plan.presets.len());
        println!(
            "{}",
            to_json(&serde_json::json!({
                "file": plan.file, "instances": instances, "presets": presets, "claims": claims, "collisions": collisions,
                "missing": missing.iter().map(|(name, what)| format!("{name}: {what}")).collect::<Vec<_>>(),
            }))?
        );
    } else if collisions.is_empty() {
        println!("{}: {} instances, {claims} claims, none shared", plan.file.display(), plan.specs.len());
    }
    for collision in &collisions {
        say(&collision.to_string(), None);
    }
    for (name, what) in &missing {
        say(&format!("{name}: {what}"), Some(landlock::HINT));
    }
    Ok(ExitCode::from(if collisions.is_empty() && missing.is_empty() { DONE } else { FAILED }))
}
