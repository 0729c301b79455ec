//! Caches of lanes: what is in them, and how they are emptied, each kind of store by its own way.
//!
//! Knows the plan and the services. Whom to ask, what to show and how to restart an instance is `cli`'s: it chooses the
//! lanes, asks for a survey, and clears. A lane that several instances share is looked at and cleared once. What cannot be
//! reached is told before anything is removed, and one lane's trouble is no other's.

mod folder;
mod keys;
mod process;
mod rows;
mod statics;

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::database::Trouble;
use crate::model::{InstanceId, InstanceName};
use crate::plan::Plan;
use crate::plan::spec::{CacheBackend, Framework, Spec};
use crate::runtime::clock::Clock;
use crate::services::redis::{Info, Progress};
pub use process::{Memory, ask};
pub use statics::{Collected, collect, files_in};

/// What is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What is cached, and all sessions.
    All,
    /// What is cached, but sessions.
    Django,
    /// All sessions, wherever they are kept.
    Session,
}

impl Kind {
    fn takes_cached(self) -> bool {
        self != Self::Session
    }

    fn takes_sessions(self) -> bool {
        self != Self::Django
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::All => "all",
            Self::Django => "django",
            Self::Session => "session",
        })
    }
}

impl From<crate::services::redis::Error> for Trouble {
    fn from(error: crate::services::redis::Error) -> Self {
        Self { what: error.to_string(), hint: error.fault.hint().map(str::to_owned) }
    }
}

/// A lane whose cache is asked for.
#[derive(Clone, Debug)]
pub struct Lane<'a> {
    /// Whose lane it is.
    pub owner: &'a Spec,
    /// The instances of it that were asked for, in the order of the file.
    pub members: Vec<&'a Spec>,
}

impl Lane<'_> {
    fn backend(&self) -> CacheBackend {
        self.owner.facts.cache.backend
    }

    /// Whether what is cached lies in processes alone.
    #[must_use]
    pub fn is_in_process(&self) -> bool {
        self.backend() == CacheBackend::Locmem
    }

    /// Whether something of `kind` lies in the process of one of its members.
    #[must_use]
    pub fn has_memory(&self, kind: Kind) -> bool {
        self.members.iter().any(|member| Memory::of(member, kind) != Memory::None)
    }

    fn is_django(&self) -> bool {
        self.owner.facts.framework == Framework::Django
    }
}

/// The lanes in which `asked` live, each once.
#[must_use]
pub fn lanes<'a>(plan: &'a Plan, asked: &[InstanceId]) -> Vec<Lane<'a>> {
    let mut lanes: Vec<Lane<'a>> = Vec::new();
    for member in asked.iter().map(|id| plan.spec(*id)) {
        let is_same = |lane: &&mut Lane<'a>| lane.owner.facts.lane == member.facts.lane;
        if let Some(lane) = lanes.iter_mut().find(is_same) {
            lane.members.push(member);
        } else {
            lanes.push(Lane { owner: plan.owner(member), members: vec![member] });
        }
    }
    lanes
}

/// What was found in a lane's cache, or is gone from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What is cached, but sessions.
    pub cached: u64,
    /// Sessions in the cache: those that live there, and copies of rows.
    pub session_keys: u64,
    /// Rows of `django_session`, those that are over among them.
    pub session_rows: u64,
    /// Sessions that still hold: whoever is logged in by one has to log in again without it.
    pub live_sessions: u64,
}

/// A server that several lanes may lean on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerFacts {
    /// What it says of itself, of all its clients.
    #[serde(flatten)]
    pub info: Info,
    /// Whether it is at the limit, or next to it, and then refuses to store more.
    pub is_full: bool,
}

/// The cache of one lane.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Whose lane.
    pub lane: InstanceName,
    /// Which store.
    pub backend: CacheBackend,
    /// Where it is: the server, the folder, the table, the name of the region in the process.
    pub place: String,
    /// What its keys begin with.
    pub prefix: String,
    /// How long entries live.
    #[serde(rename = "timeout_seconds", serialize_with = "seconds")]
    pub timeout: Duration,
    /// Whether the store answers; `None` where only the process itself could ask.
    pub reachable: Option<bool>,
    /// How long a server took to answer, in milliseconds.
    pub answer_ms: Option<f64>,
    /// What is in it; `None` where it cannot be told.
    pub count: Option<Count>,
    /// Bytes that it takes: of a server estimated from some of the keys.
    pub bytes: Option<u64>,
    /// The server.
    pub server: Option<ServerFacts>,
    /// What went wrong.
    pub trouble: Option<Trouble>,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

impl Status {
    fn of(lane: &Lane<'_>) -> Self {
        let cache = &lane.owner.facts.cache;
        Self {
            lane: lane.owner.facts.lane.clone(),
            backend: cache.backend,
            place: cache.location.clone(),
            prefix: cache.prefix.clone(),
            timeout: cache.timeout,
            reachable: None,
            answer_ms: None,
            count: None,
            bytes: None,
            server: None,
            trouble: None,
        }
    }
}

/// Hears how far a long work is: keys looked at, of how many.
pub type Told<'a> = &'a mut dyn FnMut(Progress, u64);

/// What is in the caches of `lanes`; one for each, in their order.
#[must_use]
pub fn survey(lanes: &[Lane<'_>], told: Told<'_>) -> Vec<Status> {
    let mut found: Vec<Status> = lanes.iter().map(Status::of).collect();
    keys::survey(lanes, &mut found, &Clock::start(), told);
    for (lane, status) in lanes.iter().zip(&mut found) {
        match lane.backend() {
            CacheBackend::Redis | CacheBackend::RedisLocmem | CacheBackend::Locmem => {}
            CacheBackend::File => folder::survey(lane, status),
            CacheBackend::Database => rows::survey(lane, status),
            CacheBackend::Dummy => (status.reachable, status.count) = (Some(true), Some(Count::default())),
        }
        if status.trouble.is_none() {
            rows::survey_sessions(lane, status);
        }
    }
    found
}

/// What came of clearing the cache of one lane.
#[derive(Clone, Debug, Serialize)]
pub struct Cleared {
    /// Whose lane.
    pub lane: InstanceName,
    /// Which store.
    pub backend: CacheBackend,
    /// What is gone from it, as far as it can be counted.
    pub gone: Count,
    /// What else there is to know.
    pub notes: Vec<String>,
    /// Why not all of it is gone.
    pub trouble: Option<Trouble>,
}

/// Clears what of `kind` lies outside of the processes of `lanes`; one answer for each, in their order. What lies inside
/// is asked for by [`Memory`].
#[must_use]
pub fn clear(lanes: &[Lane<'_>], kind: Kind, told: Told<'_>) -> Vec<Cleared> {
    let mut all: Vec<Cleared> = lanes
        .iter()
        .map(|lane| Cleared {
            lane: lane.owner.facts.lane.clone(),
            backend: lane.backend(),
            gone: Count::default(),
            notes: Vec::new(),
            trouble: None,
        })
        .collect();
    let servers = keys::connect(lanes, &mut all);
    for (lane, cleared) in lanes.iter().zip(&mut all) {
        // The rows first: a visitor in between would have a cached copy made again from its row.
        if kind.takes_sessions() && cleared.trouble.is_none() {
            rows::end_sessions(lane, cleared);
        }
    }
    keys::clear(lanes, servers, kind, &mut all, told);
    for (lane, cleared) in lanes.iter().zip(&mut all).filter(|(_, cleared)| cleared.trouble.is_none()) {
        match lane.backend() {
            CacheBackend::File => folder::clear(lane, kind, cleared),
            CacheBackend::Database => rows::clear(lane, kind, cleared),
            CacheBackend::Redis | CacheBackend::RedisLocmem | CacheBackend::Locmem | CacheBackend::Dummy => {}
        }
    }
    all
}
