//! `laneway kill`: a signal to the main process of instances, without a wish that they stop.

use std::process::ExitCode;

use super::args::Kill;
use super::out::println;
use super::place::Fleet;
use super::report::{self, DONE, FAILED, Failure};
use crate::control::KillRequest;
use crate::view::snapshot::Outcome;

/// `laneway kill`.
///
/// # Errors
/// Exit code 2 for an unknown name, 3 when nothing runs.
pub fn run(fleet: &Fleet, arguments: &Kill) -> Result<ExitCode, Failure> {
    let client = fleet.client()?;
    // `--all` is the request that names nobody.
    let request = KillRequest { instances: arguments.names.clone(), signal: arguments.signal };
    let outcome: Outcome = client.post("/v1/kill", &request)?;
    if outcome.instances.is_empty() {
        return Err(Failure::not_running("no instance runs, so none was signalled"));
    }
    for instance in &outcome.instances {
        if outcome.troubles.iter().all(|trouble| trouble.name != instance.name) {
            println!("{}: {} sent", instance.name, arguments.signal);
        }
    }
    report::troubles(&outcome.troubles);
    Ok(ExitCode::from(if outcome.done { DONE } else { FAILED }))
}
