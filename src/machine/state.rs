//! What is observed of an instance: the states, each with the data that belongs to it, and what can be read off them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Work;
use super::checks::{Checked, Checks};
use super::event::{Obstacle, Survivor};
use crate::model::{Exit, Health, InstanceId, Mono, Phase, Run, Signal};

/// What is observed of an instance. Data lives in the variant that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing of it runs, and nothing is meant to.
    Stopped,
    /// It shall start, but not yet.
    Waiting(Waiting),
    /// A `pre_start` command, or the server until its first good answer.
    Starting(Starting),
    /// The server runs.
    Running {
        /// Which run.
        run: Run,
        /// Its first process.
        pid: u32,
        /// Since when.
        since: Mono,
        /// What its answers say.
        checks: Checks,
    },
    /// It was asked to end.
    Stopping(Stopping),
    /// Its first process is gone, the rest of its tree is being cleared.
    Sweeping(Sweeping),
    /// It failed and begins again by itself.
    Backoff {
        /// When.
        until: Mono,
        /// Why it ended.
        failure: Failure,
    },
    /// It failed and does not begin again by itself.
    Failed {
        /// Why it ended.
        failure: Failure,
    },
    /// It ended with success, and its policy lets it.
    Completed,
}

/// Why an instance that shall start has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// The fleet has not let it begin yet.
    Turn {
        /// Why it begins.
        cause: Cause,
        /// Whom it waits for.
        on: Vec<InstanceId>,
    },
    /// Too many restarts in the fleet.
    Brake {
        /// Until then.
        until: Mono,
    },
    /// Something is in the way.
    Obstacle {
        /// What.
        obstacle: Obstacle,
        /// Which work it hinders.
        work: Work,
        /// When to look again.
        look_at: Mono,
        /// The look under way.
        looking: Option<Run>,
    },
}

/// Why an instance begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A person wants it.
    Wish,
    /// It ended with success, and its policy wants it to run.
    Policy,
    /// It failed, and its policy wants it to run.
    Failure,
}

/// A start under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starting {
    /// Which run.
    pub run: Run,
    /// Its first process; `None` until it is born.
    pub pid: Option<u32>,
    /// How far it is.
    pub stage: Stage,
    /// When it began.
    pub since: Mono,
    /// When it has taken too long.
    pub deadline: Option<Mono>,
}

/// How far a start is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The `pre_start` command at this position runs.
    PreStart(usize),
    /// The server runs and has not given a good answer.
    Server(Checks),
}

impl Stage {
    /// What runs.
    pub(super) fn work(&self) -> Work {
        match self {
            Self::PreStart(command) => Work::PreStart(*command),
            Self::Server(_) => Work::Server,
        }
    }
}

/// A stop under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// Which run.
    pub run: Run,
    /// Its first process; `None` until it is born.
    pub pid: Option<u32>,
    /// When it is killed; once that was done, when it is looked for.
    pub deadline: Mono,
    /// Grace is over.
    pub killed: bool,
    /// Who is still there long after the kill.
    pub left: Vec<Survivor>,
    /// What comes afterwards.
    pub then: Then,
}

/// The clearing of a run whose first process is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweeping {
    /// Which run.
    pub run: Run,
    /// Who would not go.
    pub left: Vec<Survivor>,
    /// When to try again.
    pub again_at: Option<Mono>,
    /// What comes afterwards.
    pub then: Then,
}

/// What comes after a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Nothing.
    Rest,
    /// A start as if for the first time.
    Fresh,
    /// The next stage of the same start.
    Next(usize),
    /// It ended with success: the policy decides.
    Success,
    /// It failed: the policy decides.
    Failure(FailureKind),
}

/// A failure, and what was known of the server at that time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// How long the run had lived.
    pub lived: Duration,
    /// The last health check before it.
    pub last_check: Option<Checked>,
    /// What a person sent to the run before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
}

/// A signal that a person sent to the first process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Which.
    pub signal: Signal,
    /// When.
    pub at: Mono,
}

/// What counts as a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The server ended by itself.
    Exited {
        /// How.
        exit: Exit,
        /// It never gave a good answer.
        before_ready: bool,
    },
    /// A `pre_start` command ended badly.
    PreStart {
        /// Its position.
        command: usize,
        /// How.
        exit: Exit,
    },
    /// A `pre_start` command took too long.
    PreStartTimeout {
        /// Its position.
        command: usize,
        /// The deadline that passed.
        after: Duration,
    },
    /// No good answer in the time that a start may take.
    NotReady {
        /// The deadline that passed.
        after: Duration,
    },
    /// Too many bad answers in a row.
    Unhealthy {
        /// How many.
        bad: u32,
    },
}

impl State {
    /// The phase, as a word.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            State::Stopped => Phase::Stopped,
            State::Waiting(_) => Phase::Waiting,
            State::Starting(_) | State::Sweeping(Sweeping { then: Then::Next(_), .. }) => Phase::Starting,
            State::Running { .. } => Phase::Running,
            State::Stopping(_) | State::Sweeping(_) => Phase::Stopping,
            State::Backoff { .. } => Phase::Backoff,
            State::Failed { .. } => Phase::Failed,
            State::Completed => Phase::Completed,
        }
    }

    /// The health, as a word.
    #[must_use]
    pub fn health(&self) -> Health {
        self.checks().map_or(Health::Unknown, |checks| checks.health)
    }

    /// The checks of the server that runs.
    #[must_use]
    pub fn checks(&self) -> Option<&Checks> {
        match self {
            State::Starting(Starting { stage: Stage::Server(checks), .. }) | State::Running { checks, .. } => {
                Some(checks)
            }
            State::Starting(_)
            | State::Stopped
            | State::Waiting(_)
            | State::Stopping(_)
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => None,
        }
    }

    /// The position of the `pre_start` command that runs, or whose rest is being cleared.
    #[must_use]
    pub fn pre_start(&self) -> Option<usize> {
        match self {
            State::Starting(Starting { stage: Stage::PreStart(command), .. }) => Some(*command),
            State::Sweeping(Sweeping { then: Then::Next(next), .. }) => next.checked_sub(1),
            State::Starting(_)
            | State::Sweeping(_)
            | State::Stopped
            | State::Waiting(_)
            | State::Running { .. }
            | State::Stopping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => None,
        }
    }

    /// The run that facts may be about.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        match self {
            State::Starting(starting) => Some(starting.run),
            State::Running { run, .. } => Some(*run),
            State::Stopping(stopping) => Some(stopping.run),
            State::Sweeping(sweeping) => Some(sweeping.run),
            State::Waiting(Waiting::Obstacle { looking, .. }) => *looking,
            State::Waiting(Waiting::Turn { .. } | Waiting::Brake { .. })
            | State::Stopped
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => None,
        }
    }

    /// The first process of the run, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self {
            State::Starting(starting) => starting.pid,
            State::Running { pid, .. } => Some(*pid),
            State::Stopping(stopping) => stopping.pid,
            State::Sweeping(_)
            | State::Stopped
            | State::Waiting(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => None,
        }
    }

    /// Since when the process named by `pid` lives.
    #[must_use]
    pub fn running_since(&self) -> Option<Mono> {
        match self {
            State::Starting(Starting { since, pid: Some(_), .. }) | State::Running { since, .. } => Some(*since),
            State::Starting(_)
            | State::Stopped
            | State::Waiting(_)
            | State::Stopping(_)
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => None,
        }
    }

    /// Whether something of it runs and was not asked to end.
    pub(super) fn is_live(&self) -> bool {
        matches!(
            self,
            State::Starting(_)
                | State::Running { .. }
                | State::Waiting(Waiting::Obstacle { looking: Some(_), .. })
                | State::Sweeping(Sweeping { then: Then::Next(_), .. })
        )
    }

    /// Who of it would not go.
    #[must_use]
    pub fn survivors(&self) -> &[Survivor] {
        match self {
            State::Stopping(stopping) => &stopping.left,
            State::Sweeping(sweeping) => &sweeping.left,
            State::Stopped
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => &[],
        }
    }

    /// When it must be looked at again if nothing happens.
    pub(super) fn deadline(&self) -> Option<Mono> {
        match self {
            State::Starting(Starting { pid: Some(_), stage: Stage::Server(checks), deadline, .. }) => {
                [checks.due, *deadline].into_iter().flatten().min()
            }
            State::Starting(Starting { pid: Some(_), stage: Stage::PreStart(_), deadline, .. }) => *deadline,
            State::Running { checks, .. } => checks.due,
            State::Stopping(stopping) => stopping.pid.map(|_| stopping.deadline),
            State::Sweeping(sweeping) => sweeping.again_at,
            State::Backoff { until, .. } | State::Waiting(Waiting::Brake { until }) => Some(*until),
            State::Waiting(Waiting::Obstacle { look_at, looking: None, .. }) => Some(*look_at),
            State::Starting(Starting { pid: None, .. })
            | State::Waiting(Waiting::Obstacle { looking: Some(_), .. } | Waiting::Turn { .. })
            | State::Stopped
            | State::Failed { .. }
            | State::Completed => None,
        }
    }
}
