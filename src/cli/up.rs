//! `laneway up`, and every preset: start a pair if none runs, wish, and stay attached.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};

use super::args::{Attachment, PresetUp, Up, Waiting};
use super::ctl::{self, bring_down, finish, note, progress_line, start_request};
use super::logs::MergedLogs;
use super::out::eprintln;
use super::place::Fleet;
use super::report::{DONE, FAILED, Failure, INTERRUPTED};
use crate::control::{Change, Client};
use crate::daemon::{self, Launch};
use crate::plan::{self, Plan};
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
    let plan = fleet.plan()?;
    let who = plan::select(&plan, &arguments.names)?;
    let names: Vec<String> = who.iter().map(|id| plan.spec(*id).name.to_string()).collect();
    let home = Home::of(&plan.state_dir);
    let Attachment { detach, waiting } = arguments.attachment;
    let is_attached = !(detach || waiting.wait);
    if is_attached {
        // A Ctrl-C before there is something to stop is heard once there is.
        hold_interrupt(SigmaskHow::SIG_BLOCK);
    }
    let is_ours = ensure(fleet, &plan, &home)?;
    let client = Client::new(home);
    if !is_attached {
        ctl::show_progress(&client, Some(&names));
        let outcome: Outcome = client.post("/v1/start", &start_request(names, waiting))?;
        return Ok(ExitCode::from(show(&outcome)));
    }
    attach(&client, &plan, &names, is_ours, Waiting { wait: true, ..waiting })
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

fn hold_interrupt(how: SigmaskHow) {
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    let _ = sigprocmask(how, Some(&interrupt), None);
}

/// Makes sure that a supervisor runs this plan; whether this call started it.
fn ensure(fleet: &Fleet, plan: &Plan, home: &Home) -> Result<bool, Failure> {
    let place = |error: std::io::Error| Failure::failed(format!("{}: {error}", home.directory().display()));
    let launch = Launch::new(fleet.source());
    // What laneway makes is for its user alone; servers get the caller's mask back.
    umask(Mode::from_bits_truncate(0o077));
    home.prepare().map_err(place)?;
    let mut waited = Duration::ZERO;
    loop {
        if let Some(lock) = home.lock().map_err(place)? {
            daemon::start(home, lock, &launch).map_err(|error| Failure::failed(error.to_string()))?;
            return Ok(true);
        }
        if Client::new(home.clone()).status().is_ok() {
            return same_plan(plan, home).map(|()| false);
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
    let changes = plan::diff(&running, plan);
    if changes.is_empty() {
        return Ok(());
    }
    let pid = Client::new(home.clone()).status().map_or(0, |status| status.supervisor_pid);
    let list: Vec<_> = changes.iter().map(|change| format!("\n  {change}")).collect();
    Err(Failure::Other {
        code: FAILED,
        what: format!("this fleet runs already (pid {pid}), with another plan:{}", list.concat()),
        hint: Some("laneway down, then up again; or ask with the same file, --profile and --set".to_owned()),
    })
}

/// Says how it went: the table, then the trouble. Returns the exit code.
fn show(outcome: &Outcome) -> u8 {
    let code = finish(outcome);
    for instance in &outcome.instances {
        if let Some(warning) = note(instance).filter(|_| instance.is_well()) {
            eprintln!("{warning}");
        }
    }
    code
}

/// What the attached command waits for.
enum News {
    Answered(Box<Result<Outcome, Failure>>),
    SupervisorEnded,
    BroughtDown(Result<u8, Failure>),
}

fn attach(
    client: &Client,
    plan: &Plan,
    names: &[String],
    is_ours: bool,
    waiting: Waiting,
) -> Result<ExitCode, Failure> {
    let mut logs = Some(MergedLogs::new(plan, names, true)?);
    let (sender, news) = mpsc::channel();
    let presses = on_interrupt(client.clone(), plan.project.clone(), is_ours, sender.clone())?;
    hold_interrupt(SigmaskHow::SIG_UNBLOCK);
    watch(client, names, Arc::clone(&presses), sender.clone())?;
    {
        let (client, sender, names) = (client.clone(), sender, names.to_vec());
        std::thread::spawn(move || {
            let answer = client.post("/v1/start", &start_request(names, waiting)).map_err(Failure::from);
            let _ = sender.send(News::Answered(Box::new(answer)));
        });
    }
    loop {
        match news.recv() {
            Ok(News::Answered(answer)) => {
                if presses.load(Ordering::Acquire) > 0 {
                    continue;
                }
                let outcome = (*answer)?;
                show(&outcome);
                if outcome.done {
                    // What led here is of interest only where it led to trouble.
                    logs = Some(MergedLogs::new(plan, names, true)?);
                }
                let last = if is_ours { "Ctrl-C stops all" } else { "Ctrl-C leaves, the fleet goes on" };
                eprintln!("logs follow; {last}");
                let followed = logs.take();
                std::thread::spawn(move || {
                    // Ends with the process, or when nobody reads standard output any more.
                    let _ = followed.map(|mut logs| logs.follow());
                });
            }
            Ok(News::BroughtDown(result)) => {
                result?;
                return Ok(ExitCode::from(INTERRUPTED));
            }
            Ok(News::SupervisorEnded) if presses.load(Ordering::Acquire) > 0 && is_ours => {}
            Ok(News::SupervisorEnded) | Err(_) => {
                eprintln!("the fleet is down");
                return Ok(ExitCode::from(DONE));
            }
        }
    }
}

/// First Ctrl-C: down (or only leave, if the fleet ran before). Second: at once.
fn on_interrupt(
    client: Client,
    project: String,
    is_ours: bool,
    sender: mpsc::Sender<News>,
) -> Result<Arc<AtomicU32>, Failure> {
    let presses = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&presses);
    ctrlc::set_handler(move || {
        let press = count.fetch_add(1, Ordering::AcqRel) + 1;
        if !is_ours {
            eprintln!("\nleft; {project} goes on. To stop it: laneway down");
            std::process::exit(i32::from(INTERRUPTED));
        }
        if press == 1 {
            eprintln!("\nstopping all; Ctrl-C again kills at once");
        } else {
            eprintln!("\nkilling all");
        }
        // Its own thread, so that the next press is heard.
        let (client, sender) = (client.clone(), sender.clone());
        std::thread::spawn(move || {
            let _ = sender.send(News::BroughtDown(bring_down(&client, press > 1)));
        });
    })
    .map_err(|error| Failure::failed(format!("Ctrl-C cannot be listened to: {error}")))?;
    Ok(presses)
}

/// Prints every change of `names`; what the others do is theirs.
fn watch(
    client: &Client,
    names: &[String],
    presses: Arc<AtomicU32>,
    sender: mpsc::Sender<News>,
) -> Result<(), Failure> {
    let events = client.events()?;
    let names = names.to_vec();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    std::thread::spawn(move || {
        for change in events {
            if let Change::Instance(instance) = change
                && names.iter().any(|name| name == instance.name.as_str())
                && presses.load(Ordering::Acquire) == 0
            {
                eprintln!("{}", progress_line(&instance, width));
            }
        }
        let _ = sender.send(News::SupervisorEnded);
    });
    Ok(())
}
