//! What the API carries and the tools show: the state of a fleet at one moment, in plain values.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::explain::{Explanation, explain};
use crate::machine::{Fleet, Survivor, Trouble};
use crate::model::{Goal, Health, InstanceId, InstanceName, Mono, Phase, in_words};
use crate::plan::Change;

/// A fleet at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// `{project}`.
    pub project: String,
    /// The configuration file.
    pub file: PathBuf,
    /// The profile that it runs with.
    pub profile: Option<String>,
    /// Process of the supervisor.
    pub supervisor_pid: u32,
    /// Process of the keeper.
    pub keeper_pid: u32,
    /// Since the supervisor started.
    pub uptime_seconds: f64,
    /// Everything is on its way down.
    pub ending: bool,
    /// In the order of the file.
    pub instances: Vec<InstanceStatus>,
}

/// An instance at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: InstanceName,
    /// What is wanted.
    pub goal: Goal,
    /// What is observed.
    pub phase: Phase,
    /// What its answers say.
    pub health: Health,
    /// Whether it has a health check.
    pub checked: bool,
    /// Since phase and health are what they are.
    pub since_seconds: f64,
    /// Its port.
    pub port: Option<u16>,
    /// Where people reach it.
    pub url: Option<String>,
    /// Its first process.
    pub pid: Option<u32>,
    /// How long that lives.
    pub uptime_seconds: Option<f64>,
    /// Counts its runs; never goes back.
    pub generation: u64,
    /// Starts that its policy asked for since a person did.
    pub restarts: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Who would not go.
    pub survivors: Vec<Survivor>,
    /// Where its output is.
    pub log: PathBuf,
    /// What is or was wrong with its logs.
    pub log_troubles: Vec<LogTrouble>,
    /// Something that a person should know though it runs.
    pub warning: Option<String>,
    /// What the state means.
    #[serde(flatten)]
    pub explanation: Explanation,
}

impl InstanceStatus {
    /// As wished: healthy, running where there is no check, or completed.
    #[must_use]
    pub fn is_well(&self) -> bool {
        match self.phase {
            Phase::Running => self.health == Health::Healthy || !self.checked,
            Phase::Completed => true,
            Phase::Stopped | Phase::Waiting | Phase::Starting | Phase::Stopping | Phase::Backoff | Phase::Failed => {
                false
            }
        }
    }
}

impl InstanceStatus {
    /// In one word how it is: its health where that is known, else its phase.
    #[must_use]
    pub fn word(&self) -> String {
        match self.phase {
            Phase::Running if self.checked => self.health.to_string(),
            phase => phase.to_string(),
        }
    }
}

/// A log that cannot be written, or could not for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogTrouble {
    /// Which log.
    pub log: PathBuf,
    /// Why it is not written; `None` if it is again.
    pub what: Option<String>,
    /// Since when.
    pub for_seconds: f64,
    /// Bytes that wait in memory.
    pub waiting_bytes: u64,
    /// Bytes that were dropped since the fleet came up.
    pub dropped_bytes: u64,
    /// The file system that it is on.
    pub file_system: String,
}

impl LogTrouble {
    /// In one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Self { waiting_bytes, dropped_bytes, file_system, .. } = self;
        let log = self.log.display();
        match &self.what {
            Some(what) => {
                let since = in_words(Duration::try_from_secs_f64(self.for_seconds).unwrap_or_default());
                format!(
                    "{log} cannot be written for {since}: {what} ({file_system}); {waiting_bytes} bytes wait, \
                     {dropped_bytes} bytes were dropped"
                )
            }
            None => format!("{dropped_bytes} bytes were dropped from {log} while it could not be written"),
        }
    }
}

/// What the driver knows beside the machine's state.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Where the instance's output is.
    pub log: PathBuf,
    /// What is or was wrong with its logs.
    pub log_troubles: Vec<LogTrouble>,
    /// Something that a person should know though it runs.
    pub warning: Option<String>,
}

/// The instance `id` at `now`.
#[must_use]
pub fn instance(fleet: &Fleet, id: InstanceId, now: Mono, surroundings: Surroundings) -> InstanceStatus {
    let spec = fleet.plan().spec(id);
    let instance = fleet.instance(id);
    InstanceStatus {
        name: spec.name.clone(),
        goal: instance.goal,
        phase: instance.state.phase(),
        health: instance.state.health(),
        checked: spec.healthcheck.is_some(),
        since_seconds: now.since(instance.since).as_secs_f64(),
        port: spec.facts.port,
        url: spec.url(),
        pid: instance.state.pid(),
        uptime_seconds: instance.state.running_since().map(|since| now.since(since).as_secs_f64()),
        generation: instance.generation,
        restarts: instance.restarts,
        failures: instance.failures,
        survivors: instance.state.survivors().to_vec(),
        log: surroundings.log,
        log_troubles: surroundings.log_troubles,
        warning: surroundings.warning,
        explanation: explain(fleet, id, now),
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Everything is as wished.
    pub done: bool,
    /// Whom it failed for, and why.
    pub troubles: Vec<TroubleStatus>,
    /// Those that the request was about, afterwards.
    pub instances: Vec<InstanceStatus>,
    /// Those that it left alone: a person stopped them, and `restart: unless-stopped` remembers it.
    #[serde(default)]
    pub kept_stopped: Vec<InstanceName>,
}

/// What came of an apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// How what the file says differs from what ran; by names only, since values may be secrets.
    pub changes: Vec<Change>,
    /// What followed from it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Why a wish is not fulfilled for one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TroubleStatus {
    /// Which.
    pub name: InstanceName,
    /// For people.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Puts a machine's trouble into words.
#[must_use]
pub fn trouble(fleet: &Fleet, id: InstanceId, trouble: Trouble, status: &InstanceStatus) -> TroubleStatus {
    let explanation = &status.explanation;
    let (what, hint) = match trouble {
        Trouble::NotUp => (format!("{}: {}", status.phase, explanation.reason), explanation.hint.clone()),
        Trouble::NoProcess => (format!("it is {}: there is no process that could get a signal", status.phase), None),
        Trouble::Dependency { on } => {
            let on = &fleet.plan().spec(on).name;
            (explanation.reason.clone(), Some(format!("laneway why {on}")))
        }
        Trouble::TimedOut => (
            format!("the time is up while it is {}: {}", status.phase, explanation.reason),
            explanation.hint.clone().or_else(|| Some(format!("laneway why {}", status.name))),
        ),
        Trouble::Survivors => {
            let who: Vec<_> = fleet
                .instance(id)
                .state
                .survivors()
                .iter()
                .map(|left| format!("pid {} ({}), {}", left.pid, left.command, left.state))
                .collect();
            (format!("still there after the kill: {}", who.join("; ")), None)
        }
        Trouble::Retired => ("it was taken out of the file meanwhile".to_owned(), None),
        Trouble::Ending => ("laneway is on its way down".to_owned(), Some("laneway up".to_owned())),
        Trouble::Overruled => ("another request said the contrary meanwhile".to_owned(), None),
    };
    TroubleStatus { name: status.name.clone(), what, hint }
}
