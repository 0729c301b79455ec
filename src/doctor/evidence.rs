//! What was seen, in plain values. `gather` fills it, `judge` reads it; nobody prints it: it holds values of variables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::plan::spec::{Enforced, Plan, Spec};
use crate::plan::{Change, Claim, Collision};

/// Everything that was seen of one fleet.
pub struct Evidence<'a> {
    /// The plan that runs, else the one of the file.
    pub plan: &'a Plan,
    /// Whether what runs was looked at.
    pub live: bool,
    /// The instances of the plan, in the order of the file.
    pub instances: Vec<Instance<'a>>,
    /// Every two claims to the same.
    pub shared_claims: Vec<(Claim, Claim)>,
    /// How many claims there are.
    pub claims: usize,
    /// Where another fleet of this user claims the same.
    pub foreign: Vec<Collision>,
    /// The Redis servers that the plan names, each with its database.
    pub stores: Vec<Store>,
    /// The PostgreSQL servers that the plan names.
    pub database_servers: Vec<DatabaseServer>,
    /// What other fleets' keys begin with.
    pub foreign_prefixes: Vec<String>,
    /// Who listens, on whatever port.
    pub listeners: Vec<Listening>,
    /// How what the file says differs from what runs; the problems of a file that cannot be read.
    pub drift: Option<&'a Result<Vec<Change>, String>>,
}

/// One instance.
pub struct Instance<'a> {
    /// As resolved.
    pub spec: &'a Spec,
    /// What `status` calls its phase, when the fleet runs.
    pub phase: Option<String>,
    /// Its processes, the first one first; none when it does not run.
    pub processes: Vec<Process>,
    /// Its secret's file.
    pub secret: Secret,
    /// Its folders and files as the disk tells them apart: what it is, path, device and number.
    pub places: Vec<(&'static str, PathBuf, Identity)>,
    /// What the framework says that the app's settings are, in this lane.
    pub settings: Asked<Settings>,
    /// What its pages set.
    pub cookies: Asked<Vec<Cookie>>,
    /// What happened while it alone was asked for a write.
    pub write: Asked<Write>,
    /// Each part of `isolation` that it asks for.
    pub enforcement: Vec<Enforcement>,
    /// The environment that the plan gives it.
    pub planned: BTreeMap<String, String>,
}

/// A part of `isolation` that is asked for.
pub struct Enforcement {
    /// Which.
    pub part: Enforced,
    /// Whether it is so.
    pub held: Held,
}

/// Whether what is asked for is so.
pub enum Held {
    /// It is; of what does not run: it can be.
    Yes,
    /// Nobody looked: it takes a server, and nothing runs.
    Unseen,
    /// This kernel cannot; why.
    Impossible(String),
    /// These processes never entered the rules.
    Outside(Vec<String>),
    /// The server would let it do otherwise.
    No {
        /// What was seen there.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// What came of a question.
pub enum Asked<T> {
    /// It makes no sense here: no framework, no port, not running. Why.
    Not(String),
    /// It was asked, and could not answer. Why.
    Failed(String),
    /// The answer.
    Got(T),
}

impl<T> Asked<T> {
    /// The answer, if there is one.
    pub fn got(&self) -> Option<&T> {
        match self {
            Self::Got(answer) => Some(answer),
            Self::Not(_) | Self::Failed(_) => None,
        }
    }

    /// Why there is none.
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Got(_) => None,
            Self::Not(why) | Self::Failed(why) => Some(why),
        }
    }
}

/// Names a file on this machine, whatever its paths are: device and number.
pub type Identity = (u64, u64);

/// One process of an instance.
#[derive(Clone)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its command line, for people.
    pub command: String,
    /// What it was started with; `None` if that cannot be read.
    pub environment: Option<BTreeMap<String, String>>,
    /// Its open regular files.
    pub files: Vec<OpenFile>,
    /// The sockets that it holds.
    pub sockets: Vec<u64>,
    /// Whether its `SECRET_KEY` is another one than that in its lane's file.
    pub has_other_secret: bool,
}

/// A regular file that a process has open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenFile {
    /// Under which name.
    pub path: PathBuf,
    /// Which file.
    pub identity: Identity,
    /// Whether it may write there.
    pub writes: bool,
}

/// What stands in a secret's file; never the secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secret {
    /// Why it cannot be read, but for not being there yet.
    pub error: Option<String>,
    /// Whether it is there.
    pub exists: bool,
    /// Its permissions.
    pub mode: u32,
    /// How many characters it has.
    pub length: usize,
    /// How many different ones.
    pub distinct: usize,
    /// Tells it from others within one run of the doctor.
    pub fingerprint: u64,
}

/// Somebody who listens for TCP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// Which process, where that can be seen.
    pub pid: Option<u32>,
    /// Its command line, or whose it is.
    pub command: String,
    /// The instance that it belongs to.
    pub instance: Option<String>,
}

/// A cookie that a server sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// `Path`, as set.
    pub path: String,
    /// Which page set it.
    pub page: String,
    /// It was sent and taken back: it is one that the server looks at.
    pub is_taken_back: bool,
}

/// What happened while an instance was asked for a write.
pub struct Write {
    /// What was asked.
    pub page: String,
    /// The answer's status.
    pub status: u16,
    /// What its processes had open for writing meanwhile and not before: the process and the file.
    pub opened: Vec<(u32, OpenFile)>,
    /// What changed meanwhile in the folders of the lanes and beside the app.
    pub changed: Vec<PathBuf>,
    /// Keys that changed meanwhile on the Redis servers of the fleet.
    pub keys: Vec<String>,
    /// Somebody threw away all keys meanwhile.
    pub flushed: bool,
}

/// A database of a Redis server that instances use.
pub struct Store {
    /// Where, without password.
    pub server: String,
    /// Whose cache or channels are planned there.
    pub users: Vec<String>,
    /// What was seen; or why nothing was.
    pub content: Result<StoreContent, String>,
}

/// What is in a Redis database, and who is there.
#[derive(Default)]
pub struct StoreContent {
    /// How many keys were looked at.
    pub looked_at: usize,
    /// Whether that were all.
    pub is_whole: bool,
    /// How many keys begin like this, up to the first `:`, and one of them.
    pub starts: BTreeMap<String, (usize, String)>,
    /// Who is connected to this database.
    pub clients: Vec<StoreClient>,
}

/// A PostgreSQL server that instances use.
pub struct DatabaseServer {
    /// Host and port.
    pub server: String,
    /// Whose databases are planned there.
    pub users: Vec<String>,
    /// What was seen while the instances were asked for writes; or why nothing was.
    pub sessions: Result<Vec<Session>, String>,
}

/// A kind of session: many of one client count once.
pub struct Session {
    /// Which database.
    pub database: String,
    /// Which role.
    pub role: String,
    /// What the client calls itself; `None` where the asking role may not see it.
    pub application_name: Option<String>,
    /// The instance that holds the other end, where that was still there to be looked at.
    pub instance: Option<String>,
    /// The other end, for people.
    pub who: String,
}

/// A connection to a Redis server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreClient {
    /// The instance that holds it.
    pub instance: Option<String>,
    /// The process, where it is one of this machine.
    pub pid: Option<u32>,
    /// Where from, and as whom, for people.
    pub who: String,
    /// What it asked for last.
    pub last: String,
}

/// What Django says of the settings that it really has in a lane.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// By alias.
    pub databases: BTreeMap<String, DatabaseSetting>,
    /// By alias.
    pub caches: BTreeMap<String, CacheSetting>,
    /// `SESSION_COOKIE_NAME`.
    pub session_cookie: String,
    /// `CSRF_COOKIE_NAME`.
    pub csrf_cookie: String,
    /// `STATIC_ROOT`.
    pub static_root: Option<PathBuf>,
    /// `MEDIA_ROOT`.
    pub media_root: Option<PathBuf>,
    /// What Python takes for temporary files.
    pub temporary: Option<PathBuf>,
    /// `FILE_UPLOAD_TEMP_DIR`.
    pub upload_temporary: Option<PathBuf>,
    /// Tells `SECRET_KEY` from others within one run of the doctor.
    pub secret_fingerprint: String,
    /// How many characters `SECRET_KEY` has.
    pub secret_length: usize,
    /// How many different ones.
    pub secret_distinct: usize,
    /// Whether `runserver` is that of an ASGI server.
    pub asgi_runserver: bool,
}

/// One of `DATABASES`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DatabaseSetting {
    /// `ENGINE`.
    pub engine: String,
    /// `NAME`.
    pub name: String,
    /// `HOST`.
    pub host: String,
    /// `PORT`.
    pub port: String,
    /// `CONN_MAX_AGE` in seconds; `None` is for ever.
    pub conn_max_age: Option<f64>,
    /// The names of its `OPTIONS`.
    pub options: Vec<String>,
}

/// One of `CACHES`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CacheSetting {
    /// `BACKEND`.
    pub backend: String,
    /// `LOCATION` without passwords.
    pub location: Vec<String>,
    /// `KEY_PREFIX`.
    pub key_prefix: String,
    /// The names of its `OPTIONS`.
    pub options: Vec<String>,
}
