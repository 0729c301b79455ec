//! The plan: everything resolved, nothing left to guess at. What `machine` decides over and `runtime` carries out.
//!
//! Knows no YAML and no process; made by `build`, read by every room above.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

// What holds no placeholder is the same as written and as resolved; `config` owns those words.
pub use crate::config::{
    Brake, CacheBackend, Clear, Condition, Enforced, Framework, Logging, Preset, Restart, RestartPolicy,
};
use crate::model::{InstanceId, InstanceName, Signal};

use super::environment;

/// A whole fleet as resolved from one set of files, flags and variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// `{project}`: what the names of shared resources begin with.
    pub project: String,
    /// What comes before the lane's name in the formulas.
    pub namespace: Option<InstanceName>,
    /// The configuration file, absolute.
    pub file: PathBuf,
    /// Holds one directory per lane and `.run`; absolute.
    pub state_dir: PathBuf,
    /// The profile laid over the defaults.
    pub profile: Option<String>,
    /// Limits the restarts after failures over the whole fleet; `None` = off.
    pub restart_brake: Option<Brake>,
    /// Named choices of instances.
    pub presets: BTreeMap<String, Preset>,
    /// One per place. What a running fleet has at a place stays there when the file changes: `InstanceId` is the place.
    pub specs: Vec<Spec>,
    /// The places of the instances that the file has, in its order. At the others something retired that may still run.
    pub order: Vec<InstanceId>,
    /// Counts the plans that this fleet has run since it was started, from 0.
    pub revision: u64,
}

/// One instance of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: InstanceName,
    /// What is derived from the lane's name.
    pub facts: Facts,
    /// The server's program and arguments, placeholders filled in.
    pub command: Vec<String>,
    /// Where the server starts; absolute.
    pub working_dir: PathBuf,
    /// What the facts do not say of its environment: inherited, `env_file`, `environment`. `variables` has all.
    pub environment: BTreeMap<String, String>,
    /// Which of it came from the caller as it was.
    pub inherited: BTreeSet<String>,
    /// Commands that run to their end, in order, before the server.
    pub pre_start: Vec<Vec<String>>,
    /// For each of them.
    pub pre_start_timeout: Duration,
    /// How its health is checked; `None` = running is all that is known.
    pub healthcheck: Option<HealthCheck>,
    /// What happens after it ended.
    pub restart: Restart,
    /// Asks the server to end.
    pub stop_signal: Signal,
    /// How long it may take before it is killed.
    pub stop_grace_period: Duration,
    /// Whom it waits for.
    pub depends_on: Vec<Dependency>,
    /// How large its logs grow.
    pub logging: Logging,
    /// What the system keeps it from.
    #[serde(default)]
    pub isolation: Isolation,
    /// What laneway does for the lane's database before anything runs in it. Where there is something, it stands first in
    /// `pre_start`.
    #[serde(default)]
    pub database_setup: Option<DatabaseSetup>,
}

/// What the system keeps an instance from: not a rule that it follows, but one that it cannot break.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Which parts, in their order.
    pub enforce: Vec<Enforced>,
    /// It may read only what it needs.
    pub narrow_reads: bool,
    /// More that it may read; absolute.
    pub also_read: Vec<PathBuf>,
    /// More that it may write; absolute.
    pub also_write: Vec<PathBuf>,
    /// The only TCP ports that it may connect to, those of its facts among them; `None` = all.
    pub connect: Option<Vec<u16>>,
    /// It starts without, where the kernel cannot.
    pub may_be_missing: bool,
}

impl Isolation {
    /// Whether `what` is enforced.
    #[must_use]
    pub fn has(&self, what: Enforced) -> bool {
        self.enforce.contains(&what)
    }
}

/// What is derived from the name: one formula each, in `facts.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Which names the facts get in the environment.
    pub framework: Framework,
    /// Whose lane it lives in: its own name, unless `lane:` says otherwise.
    pub lane: InstanceName,
    /// The address that the server binds.
    pub host: IpAddr,
    /// The port; workers have none.
    pub port: Option<u16>,
    /// The lane's directory.
    pub state: PathBuf,
    /// Where its data is.
    pub database: Database,
    /// Where it caches.
    pub cache: Cache,
    /// Name of the session cookie.
    pub session_cookie: String,
    /// Name of the CSRF cookie.
    pub csrf_cookie: String,
    /// Collected static files.
    pub static_root: PathBuf,
    /// Uploaded files.
    pub media_root: PathBuf,
    /// TMPDIR.
    pub tmp: PathBuf,
    /// Directory of the logs.
    pub log_dir: PathBuf,
    /// A FIFO into which the server may write its access log; each instance of a shared lane has its own.
    pub access_log: PathBuf,
    /// The secret's file.
    pub secret_file: PathBuf,
    /// Whether the secret's value also goes into the environment.
    pub secret_in_environment: bool,
    /// Where the channel layer is, if it is somewhere.
    pub channels_url: Option<String>,
    /// Prefix of the channel layer and the task queue.
    pub channels_prefix: String,
}

/// Where a lane's data is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "engine")]
pub enum Database {
    /// A file.
    Sqlite {
        /// Absolute.
        path: PathBuf,
    },
    /// A database with its own role on a server.
    Postgres {
        /// With user, password, host, port and the database's name filled in.
        url: String,
        /// The database.
        name: String,
        /// What the server shows of its sessions.
        application_name: String,
    },
}

/// How a lane's database comes into being.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "how")]
pub enum DatabaseSetup {
    /// A file is copied.
    Copy {
        /// Absolute.
        template: PathBuf,
    },
    /// A role and its database are made on a server.
    Create {
        /// The role; its URL in `Database` has no password, `runtime` adds it as it adds the secret.
        role: String,
        /// Holds the role's password; made at the first need.
        password_file: PathBuf,
        /// The administrator. For no process but laneway's own.
        admin_url: String,
        /// Most sessions of the role at a time.
        max_connections: Option<u32>,
        /// The database that it begins as a copy of.
        template: Option<String>,
    },
}

/// Where a lane caches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Which kind.
    pub backend: CacheBackend,
    /// The server, for redis.
    pub url: Option<String>,
    /// The same by an administrator, for laneway itself; no process of an instance gets it.
    #[serde(default)]
    pub admin_url: Option<String>,
    /// Whom the lane is on that server, where it has a user of its own.
    #[serde(default)]
    pub user: Option<CacheUser>,
    /// What every key begins with, as Django joins it, with `:`.
    pub prefix: String,
    /// Name of the memory region, or the folder.
    pub location: String,
    /// How long entries live.
    pub timeout: Duration,
    /// How what is cached in a process is reached; `None` = by starting the process anew.
    #[serde(default)]
    pub clear: Option<Clear>,
}

/// The lane's own user on a Redis server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUser {
    /// Its name.
    pub name: String,
    /// The file of its password.
    pub password_file: PathBuf,
}

impl Cache {
    /// By which URL laneway itself asks the server.
    #[must_use]
    pub fn own_url(&self) -> Option<&str> {
        self.admin_url.as_deref().or(self.url.as_deref())
    }
}

/// How health is asked for, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The question.
    pub test: HealthTest,
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

impl HealthCheck {
    /// How long a start may take until the first good answer: Compose's start period, then `retries` intervals.
    #[must_use]
    pub fn start_deadline(&self) -> Duration {
        self.start_period + self.interval * self.retries
    }
}

/// The question of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthTest {
    /// A GET on the instance's port.
    Http {
        /// `http`, or `https` with the feature `tls`.
        scheme: String,
        /// Path and query.
        path: String,
        /// Good ones, inclusive.
        expect_status: (u16, u16),
        /// Sent along; `Host` may be among them.
        headers: BTreeMap<String, String>,
        /// Must stand in the body.
        body: Option<String>,
    },
    /// A connection to the instance's port.
    Tcp,
    /// A command in the lane; exit code 0 is good.
    Command(Vec<String>),
}

/// Whom an instance waits for, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Whom.
    pub on: InstanceId,
    /// Until when.
    pub condition: Condition,
}

impl Plan {
    /// The instance at `id`.
    ///
    /// # Panics
    /// Never for an id of this plan.
    #[must_use]
    pub fn spec(&self, id: InstanceId) -> &Spec {
        &self.specs[id.index()]
    }

    /// The instance of the file that is called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<InstanceId> {
        self.ids().find(|id| self.spec(*id).name.as_str() == name)
    }

    /// Whose lane `spec` lives in: its own, unless `lane:` says otherwise.
    #[must_use]
    pub fn owner<'a>(&'a self, spec: &'a Spec) -> &'a Spec {
        self.find(spec.facts.lane.as_str()).map_or(spec, |owner| self.spec(owner))
    }

    /// The instances of the file, in its order.
    pub fn ids(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.order.iter().copied()
    }

    /// Every place, those of retired instances among them.
    pub fn places(&self) -> impl Iterator<Item = InstanceId> + use<> {
        (0..u32::try_from(self.specs.len()).unwrap_or(u32::MAX)).map(InstanceId)
    }

    /// The places that the file has nothing for any more.
    pub fn retired(&self) -> impl Iterator<Item = InstanceId> + use<> {
        let mut is_retired = vec![true; self.specs.len()];
        for id in self.ids() {
            if let Some(place) = is_retired.get_mut(id.index()) {
                *place = false;
            }
        }
        self.places().zip(is_retired).filter(|(_, is_retired)| *is_retired).map(|(id, _)| id)
    }
}

/// A step of laneway's own in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnStep {
    /// The lane's database is made.
    Database,
    /// The lane's user on Redis is made, and its role on PostgreSQL looked at.
    Isolate,
}

impl OwnStep {
    /// As a person would type it.
    #[must_use]
    pub fn words(self, lane: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Database => &["laneway", "db", "create"],
            Self::Isolate => &["laneway", "isolate"],
        };
        words.iter().chain([&lane]).map(|word| (*word).to_owned()).collect()
    }
}

impl Spec {
    /// Its whole environment but the secret's value. Made when it is asked for: it is most of what a plan could weigh.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.environment.clone();
        variables.extend(environment::of_facts(self.name.as_str(), &self.facts));
        variables
    }

    /// Where its output goes. Instances that share a lane have a file each.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.facts.log_dir.join(format!("{}.log", self.name))
    }

    /// What laneway itself does before everything else, each as a command at the beginning of `pre_start`.
    #[must_use]
    pub fn own_steps(&self) -> Vec<OwnStep> {
        let database = self.database_setup.as_ref().map(|_| OwnStep::Database);
        let is_isolated = self.facts.cache.user.is_some() || self.isolation.has(Enforced::Postgres);
        database.into_iter().chain(is_isolated.then_some(OwnStep::Isolate)).collect()
    }

    /// Where people reach it: the address that it binds, or loopback for a wildcard.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let address = std::net::SocketAddr::new(self.facts.reachable_host(), self.facts.port?);
        Some(format!("http://{address}/"))
    }
}

impl Facts {
    /// The literal address to connect to: a wildcard is reached over loopback.
    #[must_use]
    pub fn reachable_host(&self) -> IpAddr {
        match self.host {
            IpAddr::V4(host) if host.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            IpAddr::V6(host) if host.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            host => host,
        }
    }
}
