//! An `up` that stays: it wishes, shows changes and logs, and outlives every supervisor of its fleet. It ends when the
//! fleet is down, or when it is told to leave.
//!
//! All that happens arrives as news over one channel, and one loop decides. A service manager is told what it wants to
//! know, if one waits. `up` calls it, and knows how a fleet is started.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::ctl::{bring_down, finish, note, progress_line};
use super::logs::MergedLogs;
use super::notify::Notifier;
use super::out::eprintln;
use super::report::{DONE, Failure, INTERRUPTED, TERMINATED};
use super::signals;
use crate::control::{Change, Client, ClientError, StartRequest};
use crate::model::{Goal, InstanceName};
use crate::plan::Plan;
use crate::runtime::audit::Door;
use crate::runtime::clock::pause;
use crate::runtime::home::Home;
use crate::view::snapshot::{FleetStatus, InstanceStatus, Outcome};

/// How long a fleet may be without a supervisor before a word is said about it.
const PATIENCE: Duration = Duration::from_secs(2);
/// From one try to reach the next supervisor to the one after.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What an attached `up` is to whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A command of a person.
    Person,
    /// The main process of a service.
    Service,
    /// The first process of a container.
    Init,
}

impl Role {
    /// Of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        if signals::is_init() {
            Self::Init
        } else if Notifier::of_this_process().is_some() {
            Self::Service
        } else {
            Self::Person
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// With this exit code.
    Code(u8),
    /// Keeper and supervisor are gone, and nobody told them to go.
    Abandoned,
}

/// What happens.
enum News {
    Signal(Signal),
    Changed(Change),
    /// The supervisor hung up.
    Lost,
    /// Nobody holds the fleet's lock.
    Ended,
    Answered(Box<Result<Outcome, ClientError>>),
    BroughtDown(Result<u8, Failure>),
}

/// Whether a supervisor is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    Held,
    /// None yet, or not yet the next.
    Lost,
    /// The same, for so long that it has been said.
    Missed,
}

/// The command that stays.
pub struct Attached {
    role: Role,
    notifier: Option<Notifier>,
    sender: Sender<News>,
    news: Receiver<News>,
    contact: Contact,
    supervisor: Option<u32>,
    instances: BTreeMap<InstanceName, InstanceStatus>,
    /// The first signal that asks for the end, and how many there were.
    end: Option<Signal>,
    presses: u32,
    is_ready: bool,
}

/// What is followed.
pub struct Followed<'a> {
    /// The plan that runs.
    pub plan: &'a Plan,
    /// The instances whose changes and logs are shown.
    pub names: &'a [String],
    /// What is asked for; `None` = the fleet stays as it is.
    pub wish: Option<StartRequest>,
    /// Whether Ctrl-C and SIGTERM end the fleet, or this command only.
    pub stops_all: bool,
}

impl Attached {
    /// Listens to signals from now on: one that comes before there is something to stop is heard once there is.
    ///
    /// # Errors
    /// The system's.
    pub fn new(role: Role) -> Result<Self, Failure> {
        let (sender, news) = mpsc::channel();
        let heard = sender.clone();
        signals::listen(move |signal| {
            let _ = heard.send(News::Signal(signal));
        })?;
        Ok(Self {
            role,
            notifier: Notifier::of_this_process(),
            sender,
            news,
            contact: Contact::Lost,
            supervisor: None,
            instances: BTreeMap::new(),
            end: None,
            presses: 0,
            is_ready: false,
        })
    }

    /// Follows the fleet to its end.
    ///
    /// # Errors
    /// When the wish is refused, or the fleet cannot be brought down.
    pub fn follow(&mut self, followed: &Followed<'_>) -> Result<End, Failure> {
        let home = Home::of(&followed.plan.state_dir);
        let client = Client::new(home.clone());
        let mut logs = Some(MergedLogs::new(followed.plan, followed.names, true)?);
        self.watch(&client, &home);
        let mut wish = followed.wish.clone();
        loop {
            match self.next() {
                None => {
                    self.contact = Contact::Missed;
                    eprintln!("the supervisor does not answer for {} s; still trying", PATIENCE.as_secs());
                }
                Some(News::Changed(Change::Status(status))) => {
                    self.meet(status);
                    match wish.take() {
                        Some(wish) => self.ask(wish, &client, &home),
                        None if followed.wish.is_none() => self.ready(followed, &client, &mut logs),
                        None => {}
                    }
                }
                Some(News::Changed(Change::Instance(instance))) => self.show(*instance, followed.names),
                // What it is about changes again, or has been said: the answer to the wish is another connection's.
                Some(News::Changed(Change::Missed)) => {}
                Some(News::Lost) => self.contact = Contact::Lost,
                // The command that brings the fleet down says how that went.
                Some(News::Answered(_) | News::Ended) if self.end.is_some() => {}
                Some(News::Answered(answer)) => match *answer {
                    Ok(outcome) => self.settle(outcome, followed, &client, &mut logs)?,
                    // The fleet has ended, which is news of its own.
                    Err(error) if breaks_off(&error) => {}
                    Err(error) => return Err(error.into()),
                },
                Some(News::Signal(signal)) if followed.stops_all => self.stop(signal, &client, &home),
                Some(News::Signal(signal)) => {
                    eprintln!("\nleft; {} goes on. To stop it: laneway down", followed.plan.project);
                    return Ok(End::Code(if signal == Signal::SIGINT { INTERRUPTED } else { TERMINATED }));
                }
                Some(News::BroughtDown(result)) => {
                    let code = result?;
                    return Ok(End::Code(if self.end == Some(Signal::SIGINT) { INTERRUPTED } else { code }));
                }
                Some(News::Ended) if home.is_abandoned() => return Ok(End::Abandoned),
                Some(News::Ended) => {
                    self.tell("STOPPING=1");
                    eprintln!("the fleet is down");
                    return Ok(End::Code(DONE));
                }
            }
        }
    }

    /// The next news; `None` when the fleet has been without a supervisor for too long.
    fn next(&self) -> Option<News> {
        match self.contact {
            Contact::Lost => self.news.recv_timeout(PATIENCE).ok(),
            // Never fails: a sender is kept here.
            Contact::Held | Contact::Missed => self.news.recv().ok(),
        }
    }

    /// Follows one supervisor after the other, as long as the fleet's lock is held.
    fn watch(&self, client: &Client, home: &Home) {
        let (client, home, sender) = (client.clone(), home.clone(), self.sender.clone());
        std::thread::spawn(move || {
            loop {
                if let Ok(events) = client.events() {
                    for change in events {
                        let _ = sender.send(News::Changed(change));
                    }
                    let _ = sender.send(News::Lost);
                }
                if !home.is_locked() {
                    let _ = sender.send(News::Ended);
                    return;
                }
                pause(TRY_AGAIN);
            }
        });
    }

    /// Asks for the wish; the supervisor that breaks off is asked again, or the next one.
    fn ask(&self, wish: StartRequest, client: &Client, home: &Home) {
        let (client, home, sender) = (client.clone(), home.clone(), self.sender.clone());
        std::thread::spawn(move || {
            loop {
                let answer = client.post("/v1/start", &wish);
                if answer.as_ref().is_err_and(breaks_off) && home.is_locked() {
                    pause(TRY_AGAIN);
                    continue;
                }
                let _ = sender.send(News::Answered(Box::new(answer)));
                return;
            }
        });
    }

    /// A supervisor says how everything is: the first one, or one that came after another.
    fn meet(&mut self, status: FleetStatus) {
        let was = std::mem::replace(&mut self.contact, Contact::Held);
        let others = self.supervisor.replace(status.supervisor_pid).is_some_and(|pid| pid != status.supervisor_pid);
        let before = std::mem::take(&mut self.instances);
        self.instances = status.instances.into_iter().map(|instance| (instance.name.clone(), instance)).collect();
        if self.end.is_some() {
            return;
        }
        if others {
            let went_on = |old: &InstanceStatus| self.instances.get(&old.name).is_none_or(|new| new.pid == old.pid);
            let rest = if before.values().all(went_on) { "; the servers went on" } else { "" };
            eprintln!("the supervisor was replaced{rest}");
        } else if was == Contact::Missed {
            eprintln!("the supervisor answers again");
        }
        self.tell(&format!("STATUS={}", summary(self.instances.values())));
    }

    /// One instance changed; what those do that nobody asked for is not shown.
    fn show(&mut self, instance: InstanceStatus, names: &[String]) {
        let width = names.iter().map(String::len).max().unwrap_or(0);
        if self.end.is_none() && names.iter().any(|name| name == instance.name.as_str()) {
            eprintln!("{}", progress_line(&instance, width));
        }
        self.instances.insert(instance.name.clone(), instance);
        self.tell(&format!("STATUS={}", summary(self.instances.values())));
    }

    /// Says how the wish went: the table, then the trouble.
    fn settle(
        &mut self,
        outcome: Outcome,
        followed: &Followed<'_>,
        client: &Client,
        logs: &mut Option<MergedLogs>,
    ) -> Result<(), Failure> {
        show_outcome(&outcome);
        if outcome.done && logs.is_some() {
            // What led here is of interest only where it led to trouble.
            *logs = Some(MergedLogs::new(followed.plan, followed.names, true)?);
        }
        // The answer may overtake the changes that it is about: they come over another connection.
        self.instances.extend(outcome.instances.into_iter().map(|instance| (instance.name.clone(), instance)));
        self.ready(followed, client, logs);
        Ok(())
    }

    /// The fleet is as it was asked for, or it has been said why not: from now on it is followed.
    fn ready(&mut self, followed: &Followed<'_>, client: &Client, logs: &mut Option<MergedLogs>) {
        if std::mem::replace(&mut self.is_ready, true) {
            return;
        }
        keep_alive(client);
        self.tell(&format!("READY=1\nSTATUS={}", summary(self.instances.values())));
        let last = match self.role {
            Role::Service | Role::Init => "SIGTERM stops all",
            Role::Person if followed.stops_all => "Ctrl-C stops all",
            Role::Person => "Ctrl-C leaves, the fleet goes on",
        };
        eprintln!("logs follow; {last}");
        let logs = logs.take();
        std::thread::spawn(move || {
            // Ends with the process, or when nobody reads standard output any more.
            let _ = logs.map(|mut logs| logs.follow());
        });
    }

    /// First signal: down. Second: at once.
    fn stop(&mut self, signal: Signal, client: &Client, home: &Home) {
        self.presses += 1;
        let now = self.presses > 1;
        self.end.get_or_insert(signal);
        self.tell("STOPPING=1");
        match (now, self.role) {
            (true, _) => eprintln!("\nkilling all"),
            (false, Role::Person) => eprintln!("\nstopping all; Ctrl-C again kills at once"),
            (false, Role::Service | Role::Init) => eprintln!("stopping all; a second signal kills at once"),
        }
        let door = if signal == Signal::SIGINT && self.role == Role::Person { Door::Terminal } else { Door::Signal };
        // Its own thread, so that the next signal is heard.
        let (client, home, sender) = (client.clone().through(door), home.clone(), self.sender.clone());
        std::thread::spawn(move || {
            let mut patience = PATIENCE;
            let result = loop {
                match bring_down(&client, now) {
                    // Somebody else brought it down before.
                    Err(_) if !(home.is_locked() || home.is_abandoned()) => break Ok(DONE),
                    // That supervisor died over it, or somebody else's `down` is about to end; the next look tells.
                    Err(_) if !patience.is_zero() => patience = patience.saturating_sub(TRY_AGAIN),
                    result => break result,
                }
                pause(TRY_AGAIN);
            };
            let _ = sender.send(News::BroughtDown(result));
        });
    }

    fn tell(&self, assignments: &str) {
        if let Some(notifier) = &self.notifier {
            notifier.say(assignments);
        }
    }
}

/// Tells the service manager, as often as it wants, that the supervisor answers; and nothing when it does not.
fn keep_alive(client: &Client) {
    let (Some(period), Some(notifier)) = (Notifier::watchdog(), Notifier::of_this_process()) else { return };
    let client = client.clone();
    std::thread::spawn(move || {
        loop {
            if client.status().is_ok() {
                notifier.say("WATCHDOG=1");
            }
            pause(period / 2);
        }
    });
}

/// Whether the supervisor is gone or going, which says nothing about the request.
fn breaks_off(error: &ClientError) -> bool {
    match error {
        ClientError::NoSupervisor { .. } | ClientError::Silent | ClientError::Broken(_) => true,
        // On its way out, it refuses what it cannot answer any more.
        ClientError::Refused(status, _) => *status == 503,
        ClientError::Strange(_) => false,
    }
}

/// The table, then the trouble. Returns the exit code.
pub fn show_outcome(outcome: &Outcome) -> u8 {
    let code = finish(outcome);
    for instance in &outcome.instances {
        if let Some(warning) = note(instance).filter(|_| instance.is_well()) {
            eprintln!("{warning}");
        }
    }
    code
}

/// A fleet in one line.
#[must_use]
pub fn summary<'a>(instances: impl Iterator<Item = &'a InstanceStatus>) -> String {
    let wanted: Vec<_> = instances.filter(|instance| instance.goal == Goal::Up).collect();
    let ill: Vec<_> = wanted.iter().filter(|instance| !instance.is_well()).collect();
    let well = wanted.len() - ill.len();
    let names: Vec<_> = ill.iter().map(|instance| format!("{} is {}", instance.name, instance.phase)).collect();
    let rest = if names.is_empty() { String::new() } else { format!("; {}", names.join(", ")) };
    format!("{well} of {} as they shall be{rest}", wanted.len())
}
