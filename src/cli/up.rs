//! `laneway up`, and every preset: start a pair if none runs, wish, and stay attached.

use std::process::ExitCode;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};

use super::args::{Attachment, PresetUp, Up, Waiting};
use super::attached::{Attached, End, Followed, Role, show_outcome};
use super::ctl::{self, start_request};
use super::out::eprintln;
use super::place::Fleet;
use super::report::{FAILED, Failure};
use crate::control::{Client, ClientError};
use crate::daemon::{self, Launch};
use crate::plan::{self, Callers, Plan};
use crate::runtime::clock::pause;
use crate::runtime::home::Home;
use crate::view::snapshot::Outcome;

/// How long somebody else's start may take until it answers.
const OTHERS: Duration = Duration::from_secs(10);
/// From one look at it to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// `laneway up`.
///
/// # Errors
/// Everything that is wrong with the file; a fleet that runs with another plan.
pub fn run(fleet: &Fleet, arguments: &Up) -> Result<ExitCode, Failure> {
    let Attachment { detach, waiting } = arguments.attachment;
    if !(detach || waiting.wait) {
        return attach(fleet, &arguments.names, waiting);
    }
    let plan = fleet.plan()?;
    let names = chosen(&plan, &arguments.names)?;
    let home = Home::of(&plan.state_dir);
    ensure(fleet, &plan, &home)?;
    let client = Client::new(home);
    ctl::show_progress(&client, Some(&names));
    let outcome: Outcome = client.post("/v1/start", &start_request(asked(&arguments.names, names), waiting))?;
    Ok(ExitCode::from(show_outcome(&outcome)))
}

fn attach(fleet: &Fleet, words: &[String], waiting: Waiting) -> Result<ExitCode, Failure> {
    let role = Role::of_this_process();
    let mut attached = Attached::new(role)?;
    loop {
        let plan = match role {
            Role::Person => fleet.plan()?,
            // Started anew beside a fleet that runs, it follows that one, whatever became of the file.
            Role::Service | Role::Init => fleet.running_plan_or_plan()?,
        };
        let names = chosen(&plan, words)?;
        let is_started = ensure(fleet, &plan, &Home::of(&plan.state_dir))?;
        // The main process of a service does not start what somebody stopped while it was away.
        let wishes = is_started || role == Role::Person;
        let wish = wishes.then(|| start_request(asked(words, names.clone()), Waiting { wait: true, ..waiting }));
        let stops_all = is_started || role != Role::Person;
        match (attached.follow(&Followed { plan: &plan, names: &names, wish, stops_all })?, role) {
            (End::Code(code), _) => return Ok(ExitCode::from(code)),
            (End::Abandoned, Role::Init) => eprintln!("keeper and supervisor ended unasked; starting them anew"),
            (End::Abandoned, Role::Person | Role::Service) => {
                return Err(Failure::failed(
                    "keeper and supervisor ended unasked; servers that run go on without them",
                )
                .or_hint("laneway up"));
            }
        }
    }
}

/// The instances that `words` mean.
fn chosen(plan: &Plan, words: &[String]) -> Result<Vec<String>, Failure> {
    let who = plan::select(plan, words)?;
    Ok(who.into_iter().map(|id| plan.spec(id).name.to_string()).collect())
}

/// Whom the request names. Who names nobody means all, but for those that were stopped and shall stay so.
fn asked(words: &[String], names: Vec<String>) -> Vec<String> {
    if words.is_empty() { Vec::new() } else { names }
}

/// A preset: its instances, with its profile.
///
/// # Errors
/// As `run`; exit code 2 if there is no such preset.
pub fn preset(
    fleet: Fleet,
    names: Vec<String>,
    profile: Option<String>,
    flags: &PresetUp,
) -> Result<ExitCode, Failure> {
    run(&fleet.with_profile(profile), &Up { names, attachment: flags.attachment })
}

/// Makes sure that a supervisor runs this plan; whether this call started it.
pub fn ensure(fleet: &Fleet, plan: &Plan, home: &Home) -> Result<bool, Failure> {
    let place = |error: std::io::Error| Failure::failed(format!("{}: {error}", home.directory().display()));
    let launch = Launch::new(fleet.source(), plan);
    // What laneway makes is for its user alone; servers get the caller's mask back.
    umask(Mode::from_bits_truncate(0o077));
    home.prepare().map_err(place)?;
    let mut waited = Duration::ZERO;
    loop {
        if let Some(lock) = home.lock().map_err(place)? {
            daemon::start(home, lock, &launch).map_err(|error| Failure::failed(error.to_string()))?;
            return Ok(true);
        }
        match Client::new(home.clone()).status() {
            Ok(_) => return same_plan(plan, home).map(|()| false),
            Err(error @ ClientError::Silent) => return Err(error.into()),
            Err(_) => {}
        }
        if waited >= OTHERS {
            return Err(Failure::failed(format!(
                "another laneway holds {} and does not answer\n  hint: see {}",
                home.directory().join("lock").display(),
                home.log().display()
            )));
        }
        pause(LOOK_AGAIN);
        waited += LOOK_AGAIN;
    }
}

/// A second `up` with an equal plan is a client of the first; with another it would be a surprise.
fn same_plan(plan: &Plan, home: &Home) -> Result<(), Failure> {
    let Some(running) = home.running_plan() else { return Ok(()) };
    let changes = plan::diff(&running, plan, Callers::Two);
    if changes.is_empty() {
        return Ok(());
    }
    let pid = Client::new(home.clone()).status().map_or(0, |status| status.supervisor_pid);
    let list: Vec<_> = changes.iter().map(|change| format!("\n  {change}")).collect();
    Err(Failure::Other {
        code: FAILED,
        what: format!("this fleet runs already (pid {pid}), with another plan:{}", list.concat()),
        hint: Some(
            "laneway apply takes changes of the file over; other files, --profile or --set take laneway down, then up"
                .to_owned(),
        ),
    })
}
