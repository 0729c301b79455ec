//! Where each value of a resolved instance comes from: a line of a file, an argument, a formula, a default.
//!
//! Says it of what the files come to now; knows no terminal. The keys are those of the file, not of the plan.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{Collector, Instance, LANE_KEYS, Place, Settings};

use super::build::{Giver, Variable, env_file_path, environment_of};
use super::lane::Lane;
use super::spec::{Database, HealthTest, Plan, Spec};
use super::{environment, facts};

/// One value and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// As in the file, such as `cache.timeout`.
    #[serde(skip)]
    pub key: String,
    /// As resolved.
    pub value: Value,
    /// From where.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Origin {
    /// A file of the settings.
    File {
        /// As messages show it.
        file: String,
        /// From 1.
        line: u32,
        /// What else it is said of, or by which profile.
        #[serde(skip_serializing_if = "Option::is_none")]
        part: Option<String>,
    },
    /// `--set` of this path.
    Set {
        /// Such as `instances.web.port`.
        path: String,
    },
    /// The name of the instance, or of its lane.
    Name {
        /// Such as `{project}_{lane}`.
        formula: &'static str,
    },
    /// Another key, which has its own origin.
    Key {
        /// Such as `cache.prefix`.
        key: &'static str,
    },
    /// A line of an `env_file`.
    EnvFile {
        /// Absolute.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The environment of whoever calls, as `inherit_env` says.
    Caller,
    /// laneway's own default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, part: None } => write!(f, "{file}:{line}"),
            Self::File { file, line, part: Some(part) } => write!(f, "{file}:{line} ({part})"),
            Self::Set { path } => write!(f, "--set {path}"),
            Self::Name { formula } => write!(f, "from the name: {formula}"),
            Self::Key { key } => write!(f, "from {key}"),
            Self::EnvFile { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Caller => f.write_str("from the caller (inherit_env)"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Every value of `spec`, in the order of the reference; variables last. What was written with a variable that `is_secret`
/// names is left out, and `secret` stands for it.
#[must_use]
pub fn explain(
    settings: &Settings,
    plan: &Plan,
    spec: &Spec,
    caller: &BTreeMap<String, String>,
    is_secret: &dyn Fn(&str) -> bool,
    secret: &str,
) -> Vec<Explained> {
    let Some(instance) = settings.instances.iter().find(|instance| instance.name == spec.name) else {
        return Vec::new();
    };
    // Everything was reported when the plan was built.
    let collector = Collector::over(&settings.sources);
    let lane = Lane { settings, instance, collector: &collector };
    let mut table = Table { settings, lane: &lane, spec, is_secret, secret, rows: Vec::new() };
    table.what_runs(plan);
    table.lane();
    table.health();
    table.ends();
    table.variables(caller);
    table.rows
}

struct Table<'a> {
    settings: &'a Settings,
    lane: &'a Lane<'a>,
    spec: &'a Spec,
    is_secret: &'a dyn Fn(&str) -> bool,
    secret: &'a str,
    rows: Vec<Explained>,
}

impl Table<'_> {
    fn what_runs(&mut self, plan: &Plan) {
        let (lane, spec) = (self.lane, self.spec);
        self.add("command", &spec.command);
        self.add("working_dir", &spec.working_dir);
        self.add("framework", spec.facts.framework);
        self.add("host", spec.facts.host);
        self.add("port", spec.facts.port);
        for (index, file) in lane.instance.env_file.iter().enumerate() {
            self.add_at(format!("env_file[{index}]"), file.place, json!(env_file_path(lane, file)));
        }
        self.add("inherit_env", &lane.instance.inherit_env);
        for (index, command) in spec.pre_start.iter().enumerate() {
            self.add(&format!("pre_start[{index}]"), command);
        }
        self.add("pre_start_timeout", spec.pre_start_timeout);
        for dependency in &spec.depends_on {
            let name = &plan.spec(dependency.on).name;
            if let Some(written) = lane.instance.depends_on.iter().find(|written| written.on == *name) {
                self.add_at(format!("depends_on.{name}"), written.place, json!(dependency.condition));
            }
        }
    }

    fn lane(&mut self) {
        let facts = &self.spec.facts;
        self.add("lane", &facts.lane);
        match &facts.database {
            Database::Sqlite { path } => {
                self.add("database.engine", "sqlite");
                self.add("database.path", path);
            }
            Database::Postgres { url, name, application_name: _ } => {
                self.add("database.engine", "postgres");
                self.add("database.url", url);
                self.add("database.name", name);
            }
        }
        self.add("cache.backend", facts.cache.backend);
        self.add("cache.url", &facts.cache.url);
        self.add("cache.prefix", &facts.cache.prefix);
        self.add("cache.location", &facts.cache.location);
        self.add("cache.timeout", facts.cache.timeout);
        self.add("cookies.session", &facts.session_cookie);
        self.add("cookies.csrf", &facts.csrf_cookie);
        self.add("static_root", &facts.static_root);
        self.add("media_root", &facts.media_root);
        self.add("secret.file", &facts.secret_file);
        self.add("secret.env", facts.secret_in_environment);
        self.add("channels.url", &facts.channels_url);
        self.add("channels.prefix", &facts.channels_prefix);
    }

    fn health(&mut self) {
        let Some(check) = &self.spec.healthcheck else {
            let source = if self.lane.instance.origins.contains_key("healthcheck.test") {
                "healthcheck.test"
            } else {
                "healthcheck.disable"
            };
            return self.add_from("healthcheck", source, "none");
        };
        match &check.test {
            HealthTest::Http { scheme, path, expect_status: (least, most), headers, body } => {
                self.add("healthcheck.path", path);
                self.add("healthcheck.scheme", scheme);
                let status = if least == most { least.to_string() } else { format!("{least}-{most}") };
                self.add("healthcheck.expect_status", status);
                for (name, value) in headers {
                    self.add_from(&format!("healthcheck.headers.{name}"), "healthcheck.headers", value);
                }
                self.add("healthcheck.body", body);
            }
            HealthTest::Tcp => self.add("healthcheck.tcp", true),
            HealthTest::Command(words) => self.add("healthcheck.test", words),
        }
        self.add("healthcheck.interval", check.interval);
        self.add("healthcheck.timeout", check.timeout);
        self.add("healthcheck.retries", check.retries);
        self.add("healthcheck.start_period", check.start_period);
        self.add("healthcheck.start_interval", check.start_interval);
        let unhealthy = if check.restart_unhealthy { "restart" } else { "none" };
        self.add("healthcheck.on_unhealthy", unhealthy);
    }

    fn ends(&mut self) {
        let (spec, restart) = (self.spec, &self.spec.restart);
        self.add("restart", restart.policy);
        self.add("restart_policy.delay", restart.delay);
        self.add("restart_policy.max_delay", restart.max_delay);
        let attempts = "restart_policy.max_attempts";
        let source = if self.lane.instance.origins.contains_key(attempts) { attempts } else { "restart" };
        self.add_from(attempts, source, restart.max_attempts);
        self.add("restart_policy.window", restart.window);
        self.add("stop_signal", spec.stop_signal);
        self.add("stop_grace_period", spec.stop_grace_period);
        self.add("logging.max_size", size(spec.logging.max_size));
        self.add("logging.max_files", spec.logging.max_files);
        self.add("logging.compress", spec.logging.compress);
    }

    fn variables(&mut self, caller: &BTreeMap<String, String>) {
        for (name, Variable { value, from }) in environment_of(self.lane, &self.spec.facts, caller) {
            let key = format!("environment.{name}");
            let origin = match from {
                Giver::Written => {
                    self.add(&key, value);
                    continue;
                }
                Giver::Caller => Origin::Caller,
                Giver::Framework => Origin::Default,
                Giver::EnvFile(file, line) => Origin::EnvFile { file, line },
                Giver::Fact => environment::key_of(&name).map_or(Origin::Default, |key| Origin::Key { key }),
            };
            // What a key may not show, its variable may not either.
            let value = match origin {
                Origin::Key { key } if self.is_below_of_secret(key) => json!(self.secret),
                _ => json!(value),
            };
            self.rows.push(Explained { key, value, origin });
        }
    }

    /// A value and the key that says it.
    fn add(&mut self, key: &str, value: impl Serialize) {
        self.add_from(key, key, value);
    }

    /// A value that `source` says, where that is not the key under which it is shown; nothing where there is no value.
    fn add_from(&mut self, key: &str, source: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or_default();
        if value.is_null() {
            return;
        }
        let origin = match (self.place(source), facts::formula(source, self.spec.facts.cache.backend)) {
            (Some(place), _) => self.written(place),
            (None, Some(formula)) => Origin::Name { formula },
            (None, None) => Origin::Default,
        };
        let value = self.veiled(source, value);
        self.rows.push(Explained { key: key.to_owned(), value, origin });
    }

    fn add_at(&mut self, key: String, place: Place, value: Value) {
        let value = if self.is_of_secret(place) { json!(self.secret) } else { value };
        self.rows.push(Explained { key, value, origin: self.written(place) });
    }

    /// Who says `key`: what belongs to a lane is said by its owner.
    fn whose(&self, key: &str) -> &Instance {
        let first = key.split('.').next().unwrap_or(key);
        if LANE_KEYS.contains(&first) { self.lane.owner() } else { self.lane.instance }
    }

    /// Where `key` is written.
    fn place(&self, key: &str) -> Option<Place> {
        let origins = &self.whose(key).origins;
        origins.get(key).or_else(|| origins.get(&format!("{key}[0]"))).copied()
    }

    /// Whether a secret went into `key`, or into a key below it.
    fn is_below_of_secret(&self, key: &str) -> bool {
        let is_below = |path: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.whose(key).origins.iter().any(|(path, place)| is_below(path) && self.is_of_secret(*place))
    }

    fn written(&self, place: Place) -> Origin {
        let file = self.settings.sources.name(place);
        match file.strip_prefix("--set ") {
            Some(path) => Origin::Set { path: path.to_owned() },
            None => Origin::File {
                file: file.to_owned(),
                line: place.line,
                part: self.settings.part_of(place).map(str::to_owned),
            },
        }
    }

    /// `value` without what came out of a secret variable; of a list only the items that did.
    fn veiled(&self, key: &str, value: Value) -> Value {
        let veil = |key: &str, value: Value| match self.place(key) {
            Some(place) if self.is_of_secret(place) => json!(self.secret),
            _ => value,
        };
        match value {
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                items.map(|(index, item)| veil(&format!("{key}[{index}]"), item)).collect()
            }
            value => veil(key, value),
        }
    }

    /// Whether what is written at `place` names a variable that promises a secret.
    fn is_of_secret(&self, place: Place) -> bool {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let written = self.settings.sources.slice(place);
        written.split('$').skip(1).any(|after| {
            let name = after.trim_start_matches('{');
            (self.is_secret)(name.split(|c| !is_letter(c)).next().unwrap_or(name))
        })
    }
}

/// Bytes as people write them.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")];
    match units.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit)) {
        Some((unit, letter)) => format!("{}{letter}", bytes / unit),
        None => bytes.to_string(),
    }
}
