//! `laneway apply`: the fleet that runs takes over what its file says now.

use std::process::ExitCode;

use super::args::Apply;
use super::ctl::{show_progress, waiting_for};
use super::out::println;
use super::paint;
use super::place::Fleet;
use super::report::{self, DONE, FAILED, Failure};
use crate::control::ApplyRequest;
use crate::model::{Goal, InstanceName};
use crate::plan::Change;
use crate::view::snapshot::{Applied, InstanceStatus};

/// `laneway apply`.
///
/// # Errors
/// Exit code 2 when the file is wrong, 3 when nothing runs.
pub fn run(fleet: &Fleet, arguments: &Apply) -> Result<ExitCode, Failure> {
    let source = fleet.source();
    if source.profile.is_some() || !source.set.is_empty() {
        return Err(Failure::usage(
            "apply keeps the --profile and --set that the fleet was started with",
            "laneway down, then up with the others",
        ));
    }
    let client = fleet.client().map_err(|failure| failure.or_hint("laneway up"))?;
    let (wait, timeout_seconds) = waiting_for(arguments.waiting);
    if !arguments.dry_run {
        show_progress(&client, None);
    }
    let request = ApplyRequest { wait, timeout_seconds, dry_run: arguments.dry_run };
    let Applied { changes, outcome } = client.post("/v1/apply", &request)?;
    for change in &changes {
        println!("{}", line(change, &outcome.instances, arguments.dry_run));
    }
    if changes.is_empty() {
        println!("{}", if outcome.instances.is_empty() { "nothing changed" } else { "taken over" });
    }
    if !arguments.dry_run && !outcome.instances.is_empty() {
        println!("{}", paint::table(&outcome.instances));
    }
    report::troubles(&outcome.troubles);
    Ok(ExitCode::from(if outcome.done { DONE } else { FAILED }))
}

/// A change, and what follows from it. Names and parts only: values may be secrets.
fn line(change: &Change, instances: &[InstanceStatus], dry_run: bool) -> String {
    let (name, what, effect) = match change {
        Change::Fleet { part } => return format!("{part}: changed"),
        Change::Added { name } => (name, "added".to_owned(), if dry_run { Some("would start") } else { None }),
        Change::Removed { name } => (name, "removed".to_owned(), if dry_run { Some("would stop") } else { None }),
        Change::Changed { name, parts, restarts } => {
            (name, format!("changed ({})", parts.join(", ")), Some(effect(name, *restarts, instances, dry_run)))
        }
    };
    match effect {
        Some(effect) => format!("{name}: {what}: {effect}"),
        None => format!("{name}: {what}"),
    }
}

fn effect(name: &InstanceName, restarts: bool, instances: &[InstanceStatus], dry_run: bool) -> &'static str {
    let is_down = instances.iter().any(|instance| instance.name == *name && instance.goal == Goal::Down);
    match (is_down, restarts, dry_run) {
        (true, _, _) => "stays stopped",
        (false, true, true) => "would restart",
        (false, true, false) => "restarted",
        (false, false, true) => "would need no restart",
        (false, false, false) => "without a restart",
    }
}
