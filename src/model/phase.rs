//! What is wanted and what is observed, as words. The data that belongs to a phase lives in `machine`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a person wants of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// It shall run.
    Up,
    /// It shall not.
    Down,
}

/// What is observed of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing of it runs, and nothing is meant to.
    Stopped,
    /// It shall start, but something is in the way: a dependency, a taken port, a missing program, the restart brake.
    Waiting,
    /// `pre_start` commands, then the server until its first good answer.
    Starting,
    /// The server runs.
    Running,
    /// It was told to end, and its process tree is not gone yet.
    Stopping,
    /// It failed and starts again by itself at a known time.
    Backoff,
    /// It failed and nothing more happens by itself.
    Failed,
    /// It ended by itself, successfully, and its policy lets it.
    Completed,
}

/// What is known of a server's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// There is no check, or nothing runs.
    Unknown,
    /// No good answer yet.
    Starting,
    /// A good answer in time, from the socket that this instance owns.
    Healthy,
    /// As many bad answers in a row as `retries` allows.
    Unhealthy,
    /// Somebody else listens on the instance's port.
    PortConflict,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Completed => "completed",
        })
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "-",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::PortConflict => "port-conflict",
        })
    }
}
