//! The settings as written: typed and layered, with defaults, before any placeholder is filled in.
//!
//! Texts called templates may hold placeholders; `plan` fills them in. Every default that is no formula stands here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{InstanceName, Signal};

use super::problem::{Place, Sources};

/// All files, the profile and the `--set`s as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `{project}`.
    pub project: String,
    /// Comes before the lane's name in every formula, where several checkouts run side by side.
    pub namespace: Option<InstanceName>,
    /// The first file, absolute.
    pub file: PathBuf,
    /// Its folder: what relative paths are relative to.
    pub root: PathBuf,
    /// Absolute.
    pub state_dir: PathBuf,
    /// The profile laid over the values.
    pub profile: Option<String>,
    /// Limits the restarts after failures over the whole fleet; `None` = off.
    pub restart_brake: Option<Brake>,
    /// Named choices of instances.
    pub presets: BTreeMap<String, Preset>,
    /// The names of all profiles, in the order of the file.
    pub profiles: Vec<String>,
    /// In the order of the file.
    pub instances: Vec<Instance>,
    /// The variables that the files use, and where they got their value; never printed, for some are secrets.
    pub variables: BTreeMap<String, Option<String>>,
    /// What of the files is said of more than one instance, or by the profile.
    pub parts: Vec<Part>,
    /// The texts, for messages.
    pub sources: Arc<Sources>,
}

impl Settings {
    /// Which part of its file `place` is in, in words; `None` where it is an instance's own.
    #[must_use]
    pub fn part_of(&self, place: Place) -> Option<&str> {
        let holds =
            |part: &&Part| part.place.file == place.file && (part.place.start..part.place.end).contains(&place.start);
        self.parts.iter().find(holds).map(|part| part.words.as_str())
    }
}

/// A part of a file that is no instance's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// All of it.
    pub place: Place,
    /// What it is, such as `defaults`.
    pub words: String,
}

/// At most `starts` restarts after failures in each `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// How many.
    pub starts: u32,
    /// In what time.
    pub per: Duration,
}

impl Default for Brake {
    fn default() -> Self {
        Self { starts: 10, per: Duration::from_secs(1) }
    }
}

/// A named choice of instances, and the values to run them with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preset {
    /// Which instances, in the order of the file.
    pub instances: Vec<InstanceName>,
    /// Which profile.
    pub profile: Option<String>,
}

/// One instance as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name.
    pub name: InstanceName,
    /// Where its name stands.
    pub place: Place,
    /// Where each value stands, by its key path inside the instance, such as `cache.timeout`.
    pub origins: BTreeMap<String, Place>,
    /// Which names the facts get in the environment.
    pub framework: Framework,
    /// Template; relative to the file's folder, which is also the default.
    pub working_dir: Option<String>,
    /// Templates.
    pub command: Vec<String>,
    /// Templates.
    pub environment: BTreeMap<String, String>,
    /// Files of variables, later ones above earlier ones.
    pub env_file: Vec<EnvFile>,
    /// What is taken from the caller's environment.
    pub inherit_env: Vec<String>,
    /// The address to bind.
    pub host: IpAddr,
    /// The port; workers have none.
    pub port: Option<u16>,
    /// Whose lane it lives in, when not its own.
    pub lane: Option<InstanceName>,
    /// Where its data is.
    pub database: DatabaseSettings,
    /// Where it caches.
    pub cache: CacheSettings,
    /// Template.
    pub session_cookie: Option<String>,
    /// Template.
    pub csrf_cookie: Option<String>,
    /// Template.
    pub static_root: Option<String>,
    /// Template.
    pub media_root: Option<String>,
    /// Template.
    pub secret_file: Option<String>,
    /// Whether the secret's value goes into the environment.
    pub secret_env: bool,
    /// Template.
    pub channels_url: Option<String>,
    /// Template.
    pub channels_prefix: Option<String>,
    /// How large its logs grow.
    pub logging: Logging,
    /// How its health is checked.
    pub healthcheck: Option<HealthSettings>,
    /// What happens after it ended.
    pub restart: Restart,
    /// Asks the server to end.
    pub stop_signal: Signal,
    /// How long it may take.
    pub stop_grace_period: Duration,
    /// Whom it waits for.
    pub depends_on: Vec<DependencySettings>,
    /// Commands before the server; templates.
    pub pre_start: Vec<Vec<String>>,
    /// For each of them.
    pub pre_start_timeout: Duration,
}

impl Instance {
    /// An instance of which nothing is written but its name.
    #[must_use]
    pub fn new(name: InstanceName, place: Place) -> Self {
        Self {
            name,
            place,
            origins: BTreeMap::new(),
            framework: Framework::Generic,
            working_dir: None,
            command: Vec::new(),
            environment: BTreeMap::new(),
            env_file: Vec::new(),
            inherit_env: ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER"].map(str::to_owned).to_vec(),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: None,
            lane: None,
            database: DatabaseSettings::default(),
            cache: CacheSettings::default(),
            session_cookie: None,
            csrf_cookie: None,
            static_root: None,
            media_root: None,
            secret_file: None,
            secret_env: true,
            channels_url: None,
            channels_prefix: None,
            logging: Logging::default(),
            healthcheck: None,
            restart: Restart::default(),
            stop_signal: Signal::TERM,
            stop_grace_period: Duration::from_secs(10),
            depends_on: Vec::new(),
            pre_start: Vec::new(),
            pre_start_timeout: Duration::from_mins(10),
        }
    }

    /// Where the value of `key` stands; the instance's name where it comes from a formula or a default.
    #[must_use]
    pub fn origin(&self, key: &str) -> Place {
        self.origins.get(key).copied().unwrap_or(self.place)
    }
}

/// A file of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFile {
    /// Template; relative to the file's folder.
    pub path: String,
    /// Whether it must exist.
    pub required: bool,
    /// Where it is named.
    pub place: Place,
}

/// Where the data is, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Which kind.
    pub engine: Engine,
    /// Template; for sqlite.
    pub path: Option<String>,
    /// Template; for postgres.
    pub url: Option<String>,
    /// Template; for postgres.
    pub name: Option<String>,
    /// Whether laneway makes it; for postgres.
    pub create: bool,
    /// Template; who makes it.
    pub admin_url: Option<String>,
    /// Most sessions of its role; for postgres.
    pub max_connections: Option<u32>,
    /// Template; a file or a database that it begins as a copy of.
    pub template: Option<String>,
}

/// Kinds of database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// A file.
    #[default]
    Sqlite,
    /// A server.
    Postgres,
}

/// Where an instance caches, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Which kind.
    pub backend: CacheBackend,
    /// Template; for redis.
    pub url: Option<String>,
    /// Template.
    pub prefix: Option<String>,
    /// Template.
    pub location: Option<String>,
    /// How long entries live.
    pub timeout: Duration,
    /// How what is cached in a process is reached; templates.
    pub clear: Option<Clear>,
}

/// How what is cached in a process is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clear {
    /// A POST to the instance's own port.
    Http {
        /// Path and query.
        path: String,
        /// Sent along.
        headers: BTreeMap<String, String>,
    },
    /// A command in the lane.
    Command(Vec<String>),
}

impl Default for CacheSettings {
    fn default() -> Self {
        // Five minutes is what Django takes when nothing is said.
        let timeout = Duration::from_mins(5);
        Self { backend: CacheBackend::Locmem, url: None, prefix: None, location: None, timeout, clear: None }
    }
}

/// Which names the facts get in the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framework {
    /// The names without DJANGO.
    Generic,
    /// And those with it.
    Django,
}

/// Kinds of cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheBackend {
    /// A Redis server.
    #[serde(rename = "redis")]
    Redis,
    /// Alias `default` on Redis, alias `local` in the process.
    #[serde(rename = "redis+locmem")]
    RedisLocmem,
    /// In the process.
    #[serde(rename = "locmem")]
    Locmem,
    /// In a folder.
    #[serde(rename = "file")]
    File,
    /// In a table.
    #[serde(rename = "database")]
    Database,
    /// Nowhere.
    #[serde(rename = "dummy")]
    Dummy,
}

/// How health is asked for, and how often, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// The question.
    pub test: TestSettings,
    /// From one check to the next, once it was healthy.
    pub interval: Duration,
    /// One deadline over connecting and reading.
    pub timeout: Duration,
    /// Bad answers in a row that make it unhealthy.
    pub retries: u32,
    /// Bad answers in this time after the start do not count.
    pub start_period: Duration,
    /// From one check to the next until the first good answer.
    pub start_interval: Duration,
    /// Whether unhealthy is a failure.
    pub restart_unhealthy: bool,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            test: TestSettings::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            retries: 3,
            start_period: Duration::from_secs(20),
            start_interval: Duration::from_millis(200),
            restart_unhealthy: true,
        }
    }
}

/// The question of a health check, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestSettings {
    /// A GET on the instance's port.
    Http {
        /// `http`, or `https` with the feature `tls`.
        scheme: String,
        /// Template.
        path: String,
        /// Good ones, inclusive.
        expect_status: (u16, u16),
        /// Templates.
        headers: BTreeMap<String, String>,
        /// Must stand in the body.
        body: Option<String>,
    },
    /// A connection to the instance's port.
    Tcp,
    /// Templates.
    Command(Vec<String>),
}

/// What happens after the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// After which ends.
    pub policy: RestartPolicy,
    /// Before the second restart in a row; doubles from there.
    pub delay: Duration,
    /// It grows no further.
    pub max_delay: Duration,
    /// Failures in a row after which it gives up; `None` = never.
    pub max_attempts: Option<u32>,
    /// After this long in good health it counts as stable, and failures are forgotten.
    pub window: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::OnFailure,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_mins(1),
            max_attempts: None,
            window: Duration::from_secs(10),
        }
    }
}

/// After which ends a server is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// None.
    No,
    /// Failures.
    OnFailure,
    /// All.
    Always,
    /// All, unless a person stopped it.
    UnlessStopped,
}

/// Whom an instance waits for, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependencySettings {
    /// Whom.
    pub on: InstanceName,
    /// Until when.
    pub condition: Condition,
    /// Where it is named.
    pub place: Place,
}

/// What a dependency must have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its server was started.
    ServiceStarted,
    /// It is healthy, or runs where there is no check.
    ServiceHealthy,
    /// It ended with success.
    ServiceCompletedSuccessfully,
}

/// How large an instance's logs grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// Bytes of one file.
    pub max_size: u64,
    /// Files kept, the current one among them.
    pub max_files: u32,
    /// Rotated files are compressed.
    #[serde(default)]
    pub compress: bool,
}

impl Default for Logging {
    fn default() -> Self {
        Self { max_size: 10 * 1024 * 1024, max_files: 5, compress: false }
    }
}
