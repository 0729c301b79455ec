//! Verbs about the file: config, check.

use std::process::ExitCode;

use super::args::{Check, Config};
use super::ctl::to_json;
use super::out::println;
use super::place::Fleet;
use super::report::{DONE, FAILED, Failure, say};
use crate::plan;
use crate::runtime::registry::Registry;

/// `laneway config`: of what runs, else of the file.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn config(fleet: &Fleet, arguments: &Config) -> Result<ExitCode, Failure> {
    let plan = fleet.running_plan_or_plan()?;
    if arguments.json {
        println!("{}", to_json(&plan)?);
    } else {
        let text = serde_yaml::to_string(&plan).map_err(|error| Failure::failed(error.to_string()))?;
        println!("{}", text.trim_end());
    }
    Ok(ExitCode::from(DONE))
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
