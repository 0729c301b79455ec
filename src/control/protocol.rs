//! What goes over the socket besides the snapshots of `view`. Unknown fields are refused: a typo is no wish.

use serde::{Deserialize, Serialize};

use crate::model::Signal;

/// The header in which a client says through which door a wish came (`cli`, `terminal`, `signal`); without it, `api`.
pub const DOOR: &str = "laneway-door";

/// Body of `POST /v1/start` and `/v1/restart`. A start that names nobody leaves alone who was stopped and is
/// `restart: unless-stopped`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StartRequest {
    /// Names, globs, presets; none = all.
    pub instances: Vec<String>,
    /// When it is answered.
    pub wait: WaitFor,
    /// How long, for `healthy`.
    pub timeout_seconds: Option<f64>,
}

/// Body of `POST /v1/apply`. It names no file: what the fleet was launched with is read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApplyRequest {
    /// When it is answered.
    pub wait: WaitFor,
    /// How long, for `healthy`.
    pub timeout_seconds: Option<f64>,
    /// Only say what it would change.
    pub dry_run: bool,
}

/// When a start is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// Once the servers exist.
    #[default]
    Started,
    /// Once they are healthy, or run where there is no check.
    Healthy,
}

/// Body of `POST /v1/stop`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopRequest {
    /// Names, globs, presets; none = all.
    pub instances: Vec<String>,
}

/// Body of `POST /v1/kill`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KillRequest {
    /// Names, globs, presets; none = whoever runs.
    pub instances: Vec<String>,
    /// What to send: `SIGHUP`, `hup`, `1`.
    pub signal: Signal,
}

impl Default for KillRequest {
    fn default() -> Self {
        Self { instances: Vec::new(), signal: Signal::KILL }
    }
}

/// Body of `POST /v1/down`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DownRequest {
    /// Without grace.
    pub now: bool,
}

/// Answer to `POST /v1/upgrade`: the binary proved itself, and the supervisor is about to become it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Its version.
    pub version: String,
}

/// Why a request was not understood or cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub hint: Option<String>,
}
