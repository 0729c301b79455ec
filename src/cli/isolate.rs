//! `laneway isolate`: the users and roles that `isolation` asks for, made by hand; and the same as a step of a start.

use std::process::ExitCode;

use super::args::SomeNames;
use super::audit::audited;
use super::out::println;
use super::place::Fleet;
use super::report::{DONE, Failure};
use crate::plan;
use crate::plan::spec::{OwnStep, Spec};
use crate::runtime::audit::Act;
use crate::runtime::lane;
use crate::upkeep::database::Trouble;
use crate::upkeep::isolation;

/// `laneway isolate`.
///
/// # Errors
/// Exit code 2 for an unknown name; when a server cannot be reached, refuses, or lets others in anyway.
pub fn run(fleet: &Fleet, arguments: &SomeNames) -> Result<ExitCode, Failure> {
    let plan = fleet.running_plan_or_plan()?;
    let wanted = plan::select(&plan, &arguments.names)?.into_iter().map(|id| plan.spec(id));
    let wanted: Vec<_> = wanted.filter(|spec| spec.own_steps().contains(&OwnStep::Isolate)).collect();
    if wanted.is_empty() {
        let what = "`isolation` asks for nothing on Redis or PostgreSQL";
        return Err(Failure::usage(what, "such as `isolation: {enforce: [redis]}`"));
    }
    let names = wanted.iter().map(|spec| spec.name.to_string()).collect();
    audited(&plan.state_dir, &Act::of_command("isolate", names), || wanted.into_iter().try_for_each(isolate))?;
    Ok(ExitCode::from(DONE))
}

/// What the supervisor starts before a lane's first `pre_start` command. Its output is in the lane's log.
#[must_use]
pub fn make_by_supervisor() -> ExitCode {
    let spec = std::env::var(lane::SPEC_VARIABLE).ok().and_then(|spec| serde_json::from_str::<Spec>(&spec).ok());
    let Some(spec) = spec else {
        return Failure::usage("this one is not started by hand", "laneway isolate").report();
    };
    isolate(&spec).map_or_else(Failure::report, |()| ExitCode::from(DONE))
}

fn isolate(spec: &Spec) -> Result<(), Failure> {
    let failed = |Trouble { what, hint }: Trouble| {
        let failure = Failure::failed(format!("{}: {what}", spec.name));
        match hint {
            Some(hint) => failure.or_hint(&hint),
            None => failure,
        }
    };
    for line in isolation::ensure(spec).map_err(failed)? {
        println!("{}: {line}", spec.name);
    }
    Ok(())
}
