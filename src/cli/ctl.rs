//! Verbs that talk to a supervisor: down, start, stop, restart, status, why.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use super::args::{Down, Names, Start, Status, Waiting, Why};
use super::out::{eprintln, println};
use super::paint;
use super::place::{Fleet, UNWATCHED_HINT, unwatched_in_words};
use super::report::{self, DONE, FAILED, Failure, NOT_RUNNING};
use super::up;
use crate::control::{Change, Client, DownRequest, StartRequest, StopRequest, WaitFor};
use crate::model::{Goal, InstanceId, InstanceName, Phase, in_words};
use crate::plan::spec::Spec;
use crate::plan::{self, Plan};
use crate::runtime::home::Home;
use crate::runtime::processes::pidfd_of;
use crate::view::snapshot::{FleetStatus, InstanceStatus, Outcome};
use crate::view::table;

/// How long keeper and supervisor may take to end once everything is down, in milliseconds.
const LAST_BREATH: u16 = 10_000;

/// `laneway down`.
///
/// # Errors
/// Exit code 3 when nothing runs.
pub fn down(fleet: &Fleet, arguments: &Down) -> Result<ExitCode, Failure> {
    let client = match fleet.home_at_rest().filter(|home| !home.unwatched().is_empty()) {
        // Whoever is to be ended needs somebody who ends it in order.
        Some(home) => {
            up::ensure(fleet, &fleet.plan()?, &home)?;
            Client::new(home)
        }
        None => fleet.client()?,
    };
    Ok(ExitCode::from(bring_down(&client, arguments.now)?))
}

/// Brings everything down and waits until laneway itself is gone; the exit code.
///
/// # Errors
/// When the supervisor breaks off.
pub fn bring_down(client: &Client, now: bool) -> Result<u8, Failure> {
    let status = client.status()?;
    let keeper = pidfd_of(status.keeper_pid).ok();
    show_progress(client, None);
    let outcome: Outcome = client.post("/v1/down", &DownRequest { now })?;
    report::troubles(&outcome.troubles);
    if let Some(keeper) = keeper {
        let ended = poll(&mut [PollFd::new(keeper.as_fd(), PollFlags::POLLIN)], PollTimeout::from(LAST_BREATH));
        if ended != Ok(1) {
            let what = format!("the servers are down, but laneway's keeper (pid {}) has not ended", status.keeper_pid);
            return Err(Failure::failed(what));
        }
    }
    if outcome.done {
        eprintln!("{} is down", status.project);
    }
    Ok(if outcome.done { DONE } else { FAILED })
}

/// `laneway start`, `laneway restart`.
///
/// # Errors
/// Exit code 2 for an unknown name, 3 when nothing runs.
pub fn start(fleet: &Fleet, path: &str, arguments: &Start) -> Result<ExitCode, Failure> {
    let client = fleet.client().map_err(|failure| failure.or_hint("laneway up"))?;
    show_progress(&client, Some(&arguments.names));
    let request = start_request(arguments.names.clone(), arguments.waiting);
    Ok(ExitCode::from(finish(&client.post(path, &request)?)))
}

/// The wish of `up`, `start` and `restart`.
#[must_use]
pub fn start_request(instances: Vec<String>, waiting: Waiting) -> StartRequest {
    let (wait, timeout_seconds) = waiting_for(waiting);
    StartRequest { instances, wait, timeout_seconds }
}

/// When a wish counts as fulfilled, and after how long it does not, in seconds.
#[must_use]
pub fn waiting_for(waiting: Waiting) -> (WaitFor, Option<f64>) {
    let wait = if waiting.wait { WaitFor::Healthy } else { WaitFor::Started };
    (wait, Some(waiting.wait_timeout.as_secs_f64()))
}

/// `laneway stop`.
///
/// # Errors
/// Exit code 2 for an unknown name, 3 when nothing runs.
pub fn stop(fleet: &Fleet, arguments: &Names) -> Result<ExitCode, Failure> {
    let client = fleet.client()?;
    show_progress(&client, Some(&arguments.names));
    let outcome: Outcome = client.post("/v1/stop", &StopRequest { instances: arguments.names.clone() })?;
    let code = ExitCode::from(finish(&outcome));
    // Somebody may have asked for `down` meanwhile: then nobody is left behind.
    let plan = fleet.running().and_then(|home| home.running_plan());
    if let (Some(plan), Ok(status)) = (plan, client.status()) {
        for (left, missing) in left_behind(&plan, &outcome, &status) {
            eprintln!("{left} goes on without {missing}, on which it depends");
        }
    }
    Ok(code)
}

/// Who runs on though something that it depends on was stopped.
fn left_behind(plan: &Plan, outcome: &Outcome, status: &FleetStatus) -> Vec<(InstanceName, InstanceName)> {
    let is_stopped = |name: &InstanceName| outcome.instances.iter().any(|instance| instance.name == *name);
    let runs = |name: &InstanceName| status.instances.iter().any(|i| i.name == *name && i.goal == Goal::Up);
    let on =
        |spec: &Spec| spec.depends_on.iter().map(|dependency| plan.spec(dependency.on).name.clone()).find(is_stopped);
    plan.ids()
        .map(|id| plan.spec(id))
        .filter(|spec| runs(&spec.name))
        .filter_map(|spec| Some((spec.name.clone(), on(spec)?)))
        .collect()
}

/// Says what came of a request: data to standard output, trouble to standard error. Returns the exit code.
#[must_use]
pub fn finish(outcome: &Outcome) -> u8 {
    println!("{}", paint::table(&outcome.instances));
    for name in &outcome.kept_stopped {
        eprintln!("{name} stays stopped (restart: unless-stopped); laneway start {name} starts it");
    }
    report::troubles(&outcome.troubles);
    if outcome.done { DONE } else { FAILED }
}

/// Prints each change of `names` (globs, presets; none = all) to standard error while the command waits for its answer.
pub fn show_progress(client: &Client, names: Option<&[String]>) {
    use std::io::IsTerminal;
    if !std::io::stderr().is_terminal() {
        return;
    }
    let Ok(mut events) = client.events() else { return };
    let Some(Change::Status(first)) = events.next() else { return };
    let wanted = names.and_then(|names| chosen(&first, names).ok());
    let width = first.instances.iter().map(|instance| instance.name.as_str().len()).max().unwrap_or(0);
    std::thread::spawn(move || {
        for change in events {
            if let Change::Instance(instance) = change
                && wanted.as_ref().is_none_or(|wanted| wanted.contains(&instance.name))
            {
                eprintln!("{}", progress_line(&instance, width));
            }
        }
    });
}

/// One change, for people.
#[must_use]
pub fn progress_line(instance: &InstanceStatus, width: usize) -> String {
    let words = paint::state(instance);
    if instance.phase == Phase::Stopped {
        return format!("{:width$}  {words}", instance.name);
    }
    let reason = &instance.explanation.reason;
    let next = match &instance.explanation.next {
        Some(next) if matches!(instance.phase, Phase::Backoff | Phase::Waiting | Phase::Failed) => format!("; {next}"),
        _ => String::new(),
    };
    format!("{:width$}  {words}: {reason}{next}", instance.name)
}

/// The names among `status` that `words` mean.
fn chosen(status: &FleetStatus, words: &[String]) -> Result<BTreeSet<InstanceName>, ()> {
    let names = status.instances.iter().map(|instance| &instance.name);
    let found: BTreeSet<_> =
        names.filter(|name| words.iter().any(|word| plan::glob(word, name.as_str()))).cloned().collect();
    if found.is_empty() { Err(()) } else { Ok(found) }
}

/// `laneway status`.
///
/// # Errors
/// Exit code 2 for an unknown name or a broken file while nothing runs.
pub fn status(fleet: &Fleet, arguments: &Status) -> Result<ExitCode, Failure> {
    let Some(home) = fleet.running() else { return status_at_rest(fleet, arguments) };
    let status = status_of(&home, &arguments.names)?;
    if arguments.json {
        println!("{}", to_json(&status)?);
    } else {
        println!("{}", paint::table(&status.instances));
        for instance in &status.instances {
            if let Some(note) = note(instance) {
                eprintln!("{note}");
            }
            // One that is over is history, for `why`.
            for trouble in instance.log_troubles.iter().filter(|trouble| trouble.what.is_some()) {
                eprintln!("{}: {}", instance.name, trouble.in_words());
            }
        }
        if status.ending {
            eprintln!("laneway is on its way down");
        }
    }
    Ok(ExitCode::from(exit_code(&status.instances)))
}

/// What a person should see of an instance that is not well, below the table.
#[must_use]
pub fn note(instance: &InstanceStatus) -> Option<String> {
    let explanation = &instance.explanation;
    let calm = instance.is_well() || instance.phase == Phase::Stopped;
    if calm {
        return instance.warning.as_ref().map(|warning| format!("{}: {warning}", instance.name));
    }
    let next = explanation.next.as_ref().map(|next| format!("; {next}")).unwrap_or_default();
    let hint = explanation.hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
    Some(format!("{}: {}{next}{hint}", instance.name, explanation.reason))
}

/// 0: all that are wanted are well; 3: all stopped; 1: anything else.
fn exit_code(instances: &[InstanceStatus]) -> u8 {
    if instances.iter().all(|instance| instance.phase == Phase::Stopped) {
        return NOT_RUNNING;
    }
    let well = instances.iter().filter(|instance| instance.goal == Goal::Up).all(InstanceStatus::is_well);
    let settled = instances.iter().filter(|i| i.goal == Goal::Down).all(|i| i.phase == Phase::Stopped);
    if well && settled { DONE } else { FAILED }
}

/// How the fleet at `home` is, as far as `names` (none = all) ask for it.
///
/// # Errors
/// Exit code 2 for an unknown name; when the supervisor does not answer.
pub fn status_of(home: &Home, names: &[String]) -> Result<FleetStatus, Failure> {
    only(Client::new(home.clone()).status()?, home, names)
}

/// The same status with those that `names` (none = all) mean.
///
/// # Errors
/// Exit code 2 for an unknown name.
pub fn only(mut status: FleetStatus, home: &Home, names: &[String]) -> Result<FleetStatus, Failure> {
    if !names.is_empty() {
        let names = names_of(home, names)?;
        status.instances.retain(|instance| names.contains(&instance.name));
    }
    Ok(status)
}

/// The instances of the plan that runs at `home` that `words` mean.
///
/// # Errors
/// Exit code 2 for an unknown name.
pub fn names_of(home: &Home, words: &[String]) -> Result<BTreeSet<InstanceName>, Failure> {
    let plan = home.running_plan().ok_or_else(|| Failure::failed("the running plan cannot be read"))?;
    let wanted = plan::select(&plan, words)?;
    Ok(wanted.into_iter().map(|id| plan.spec(id).name.clone()).collect())
}

/// Instances of a file from which nothing runs, or nothing that is watched.
#[derive(Debug)]
pub struct AtRest {
    plan: Plan,
    wanted: Vec<InstanceId>,
    unwatched: Vec<(InstanceName, u32)>,
}

impl AtRest {
    /// Those that `names` (none = all) mean.
    ///
    /// # Errors
    /// Everything that is wrong with the file; exit code 2 for an unknown name.
    pub fn new(fleet: &Fleet, names: &[String]) -> Result<Self, Failure> {
        let plan = fleet.plan()?;
        let wanted = plan::select(&plan, names)?;
        let unwatched = Home::of(&plan.state_dir).unwatched();
        Ok(Self { plan, wanted, unwatched })
    }

    /// An object for each.
    #[must_use]
    pub fn json(&self) -> Vec<(InstanceName, serde_json::Value)> {
        let shown = |id: &InstanceId| {
            let name = &self.plan.spec(*id).name;
            let pid = self.unwatched.iter().find(|(other, _)| other == name).map(|(_, pid)| pid);
            let phase = if pid.is_some() { Phase::Running } else { Phase::Stopped };
            (name.clone(), serde_json::json!({"name": name, "phase": phase, "pid": pid, "watched": false}))
        };
        self.wanted.iter().map(shown).collect()
    }

    /// The table; none where somebody runs unwatched, since nothing is known of them.
    #[must_use]
    pub fn table(&self) -> Option<String> {
        let row = |id: &InstanceId| (self.plan.spec(*id).name.to_string(), self.plan.spec(*id).facts.port);
        self.unwatched.is_empty().then(|| table::at_rest(&self.wanted.iter().map(row).collect::<Vec<_>>()))
    }

    /// Why, and what to do.
    #[must_use]
    pub fn why(&self) -> Failure {
        if self.unwatched.is_empty() {
            let what = format!("nothing runs from {}; start it with: laneway up", self.plan.file.display());
            return Failure::not_running(what);
        }
        Failure::not_running(unwatched_in_words(&self.unwatched)).or_hint(UNWATCHED_HINT)
    }
}

/// The instances of the file, all stopped.
fn status_at_rest(fleet: &Fleet, arguments: &Status) -> Result<ExitCode, Failure> {
    let rest = AtRest::new(fleet, &arguments.names)?;
    if arguments.json {
        let instances: Vec<_> = rest.json().into_iter().map(|(_, instance)| instance).collect();
        let all = serde_json::json!({"project": rest.plan.project, "file": rest.plan.file, "instances": instances});
        println!("{}", to_json(&all)?);
    } else if let Some(table) = rest.table() {
        println!("{table}");
        eprintln!("{}", rest.why().in_words());
    } else {
        return Err(rest.why());
    }
    Ok(ExitCode::from(NOT_RUNNING))
}

/// `laneway why`.
///
/// # Errors
/// Exit code 2 for an unknown name, 3 when nothing runs.
pub fn why(fleet: &Fleet, arguments: &Why) -> Result<ExitCode, Failure> {
    let instance = fleet.client()?.instance(&arguments.name)?;
    if arguments.json {
        println!("{}", to_json(&instance)?);
        return Ok(ExitCode::from(DONE));
    }
    let age = in_words(Duration::from_secs_f64(instance.since_seconds));
    println!("{}: {}, for {age}", instance.name, paint::state(&instance));
    let explanation = &instance.explanation;
    let mut lines = vec![("why", explanation.reason.clone())];
    lines.extend(explanation.evidence.iter().map(|evidence| ("seen", evidence.clone())));
    if let (Some(pid), Some(uptime)) = (instance.pid, instance.uptime_seconds) {
        lines.push(("process", format!("pid {pid}, for {}", in_words(Duration::from_secs_f64(uptime)))));
    }
    if instance.restarts > 0 || instance.failures > 0 {
        lines.push((
            "restarts",
            format!("{} since it was asked to start; failures in a row: {}", instance.restarts, instance.failures),
        ));
    }
    lines.extend(
        instance.survivors.iter().map(|left| ("left", format!("pid {} ({}), {}", left.pid, left.command, left.state))),
    );
    lines.extend(explanation.next.iter().map(|next| ("next", next.clone())));
    lines.extend(instance.log_troubles.iter().map(|trouble| ("logs", trouble.in_words())));
    if !instance.enforced.is_empty() {
        let enforced: Vec<_> = instance.enforced.iter().map(ToString::to_string).collect();
        lines.push(("isolation", format!("enforced: {}", enforced.join(", "))));
    }
    lines.extend(instance.warning.iter().map(|warning| ("warning", warning.clone())));
    lines.extend(explanation.hint.iter().map(|hint| ("hint", hint.clone())));
    lines.push(("log", instance.log.display().to_string()));
    for (what, text) in lines {
        println!("  {what:<9} {text}");
    }
    Ok(ExitCode::from(DONE))
}

/// Indented JSON.
///
/// # Errors
/// Never for what is written here.
pub fn to_json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))
}
