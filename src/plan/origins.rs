//! Where each value of a resolved instance comes from: a line of a file, an argument, a formula, a default.
//!
//! Says it of what the files come to now; knows no terminal. The keys are those of the file, not of the plan.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::config::{Clear, Collector, Instance, LANE_KEYS, Place, Settings};
use crate::model::InstanceName;

use super::build::{Giver, env_file_path, environment_of};
use super::lane::Lane;
use super::spec::{Database, DatabaseSetup, HealthTest, Plan, Spec};
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
    let named = |name: &InstanceName| settings.instances.iter().find(|instance| instance.name == *name);
    let Some(instance) = named(&spec.name) else { return Vec::new() };
    let owner = instance.lane.as_ref().and_then(named).unwrap_or(instance);
    // Everything was reported when the plan was built.
    let collector = Collector::over(&settings.sources);
    let lane = Lane { settings, instance, owner, collector: &collector };
    let mut table = Table { settings, lane: &lane, spec, is_secret, secret, rows: Vec::new() };
    table.keys(plan);
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

/// The keys in the order of the reference, and where their values are in a spec.
const ROWS: [(&str, &str); 59] = [
    ("command", "/command"),
    ("working_dir", "/working_dir"),
    ("framework", "/facts/framework"),
    ("host", "/facts/host"),
    ("port", "/facts/port"),
    ("env_file", ""),
    ("inherit_env", ""),
    ("pre_start", "/pre_start"),
    ("pre_start_timeout", "/pre_start_timeout"),
    ("depends_on", ""),
    ("lane", "/facts/lane"),
    ("database.engine", "/facts/database/engine"),
    ("database.path", "/facts/database/path"),
    ("database.url", "/facts/database/url"),
    ("database.name", "/facts/database/name"),
    ("database.create", ""),
    ("database.admin_url", "/database_setup/admin_url"),
    ("database.max_connections", "/database_setup/max_connections"),
    ("database.template", "/database_setup/template"),
    ("cache.backend", "/facts/cache/backend"),
    ("cache.url", "/facts/cache/url"),
    ("cache.admin_url", "/facts/cache/admin_url"),
    ("cache.prefix", "/facts/cache/prefix"),
    ("cache.location", "/facts/cache/location"),
    ("cache.timeout", "/facts/cache/timeout"),
    ("cache.clear.path", "/facts/cache/clear/http/path"),
    ("cache.clear.headers", ""),
    ("cache.clear.command", "/facts/cache/clear/command"),
    ("cookies.session", "/facts/session_cookie"),
    ("cookies.csrf", "/facts/csrf_cookie"),
    ("static_root", "/facts/static_root"),
    ("media_root", "/facts/media_root"),
    ("secret.file", "/facts/secret_file"),
    ("secret.env", "/facts/secret_in_environment"),
    ("channels.url", "/facts/channels_url"),
    ("channels.prefix", "/facts/channels_prefix"),
    ("healthcheck", "/healthcheck/test"),
    ("healthcheck.interval", "/healthcheck/interval"),
    ("healthcheck.timeout", "/healthcheck/timeout"),
    ("healthcheck.retries", "/healthcheck/retries"),
    ("healthcheck.start_period", "/healthcheck/start_period"),
    ("healthcheck.start_interval", "/healthcheck/start_interval"),
    ("healthcheck.on_unhealthy", "/healthcheck/restart_unhealthy"),
    ("restart", "/restart/policy"),
    ("restart_policy.delay", "/restart/delay"),
    ("restart_policy.max_delay", "/restart/max_delay"),
    ("restart_policy.max_attempts", "/restart/max_attempts"),
    ("restart_policy.window", "/restart/window"),
    ("stop_signal", "/stop_signal"),
    ("stop_grace_period", "/stop_grace_period"),
    ("logging.max_size", ""),
    ("logging.max_files", "/logging/max_files"),
    ("logging.compress", "/logging/compress"),
    ("isolation.enforce", "/isolation/enforce"),
    ("isolation.read", "/isolation/narrow_reads"),
    ("isolation.also_read", "/isolation/also_read"),
    ("isolation.also_write", "/isolation/also_write"),
    ("isolation.connect", "/isolation/connect"),
    ("isolation.on_missing", "/isolation/may_be_missing"),
];

impl Table<'_> {
    fn keys(&mut self, plan: &Plan) {
        let (instance, spec) = (self.lane.instance, self.spec);
        let document = serde_json::to_value(spec).unwrap_or_default();
        for (key, pointer) in ROWS {
            let value = document.pointer(pointer).cloned().unwrap_or_default();
            match key {
                "env_file" => {
                    for (index, file) in instance.env_file.iter().enumerate() {
                        let path = env_file_path(self.lane, file).display().to_string();
                        self.add_at(format!("env_file[{index}]"), file.place, Value::from(path));
                    }
                }
                "cache.clear.headers" => {
                    if let Some(Clear::Http { headers, .. }) = &spec.facts.cache.clear {
                        for (name, value) in headers {
                            let key = format!("cache.clear.headers.{name}");
                            self.add_from(&key, "cache.clear.headers", Value::from(value.as_str()));
                        }
                    }
                }
                "inherit_env" => self.add(key, Value::from(instance.inherit_env.clone())),
                "pre_start" => {
                    // The one that nobody wrote is laneway's own.
                    let own = spec.own_steps().len();
                    for (index, command) in spec.pre_start.iter().skip(own).enumerate() {
                        self.add(&format!("pre_start[{index}]"), Value::from(command.clone()));
                    }
                }
                "depends_on" => {
                    for (written, resolved) in instance.depends_on.iter().zip(&spec.depends_on) {
                        let condition = serde_json::to_value(resolved.condition).unwrap_or_default();
                        let name = &plan.spec(resolved.on).name;
                        self.add_at(format!("depends_on.{name}"), written.place, condition);
                    }
                }
                // Without it the server is the administrator's.
                "database.url" if self.place(key).is_none() => self.add_from(key, "database.admin_url", value),
                "database.create" => {
                    if let Database::Postgres { .. } = spec.facts.database {
                        let is_created = matches!(spec.database_setup, Some(DatabaseSetup::Create { .. }));
                        self.add(key, Value::from(is_created));
                    }
                }
                "healthcheck" => self.question(&value),
                "healthcheck.on_unhealthy" => {
                    let words = value.as_bool().map(|restarts| if restarts { "restart" } else { "none" });
                    self.add(key, Value::from(words));
                }
                "isolation.read" | "isolation.on_missing" if spec.isolation.enforce.is_empty() => {}
                "isolation.read" => self.add(key, Value::from(if value == true { "narrow" } else { "all" })),
                "isolation.on_missing" => self.add(key, Value::from(if value == true { "warn" } else { "refuse" })),
                "isolation.enforce" | "isolation.also_read" | "isolation.also_write"
                    if value.as_array().is_none_or(Vec::is_empty) => {}
                // Also said by `restart: on-failure:N`.
                "restart_policy.max_attempts" if self.place(key).is_none() => self.add_from(key, "restart", value),
                "logging.max_size" => self.add(key, Value::from(size(spec.logging.max_size))),
                key => self.add(key, value),
            }
        }
    }

    /// What a health check asks.
    fn question(&mut self, test: &Value) {
        match self.spec.healthcheck.as_ref().map(|check| &check.test) {
            None => {
                let none = if self.place("healthcheck.test").is_some() { "test" } else { "disable" };
                self.add_from("healthcheck", &format!("healthcheck.{none}"), Value::from("none"));
            }
            Some(HealthTest::Tcp) => self.add("healthcheck.tcp", Value::from(true)),
            Some(HealthTest::Command(words)) => self.add("healthcheck.test", Value::from(words.clone())),
            Some(HealthTest::Http { expect_status: (least, most), headers, .. }) => {
                for key in ["path", "scheme", "body"] {
                    let value = test.pointer(&format!("/http/{key}")).cloned().unwrap_or_default();
                    self.add(&format!("healthcheck.{key}"), value);
                }
                let status = if least == most { least.to_string() } else { format!("{least}-{most}") };
                self.add("healthcheck.expect_status", Value::from(status));
                for (name, value) in headers {
                    let key = format!("healthcheck.headers.{name}");
                    self.add_from(&key, "healthcheck.headers", Value::from(value.as_str()));
                }
            }
        }
    }

    fn variables(&mut self, caller: &BTreeMap<String, String>) {
        let mut givers: Vec<(String, Giver)> = Vec::new();
        let mut note = |name: &str, giver| givers.push((name.to_owned(), giver));
        environment_of(self.lane, &self.spec.facts, caller, &mut note);
        for (name, value) in self.spec.variables() {
            let key = format!("environment.{name}");
            let last = givers.iter().rposition(|(given, _)| *given == name).map(|at| givers.remove(at).1);
            let origin = match last {
                Some(Giver::Written) => {
                    self.add(&key, Value::from(value));
                    continue;
                }
                Some(Giver::Caller) => Origin::Caller,
                Some(Giver::EnvFile(file, line)) => Origin::EnvFile { file, line },
                Some(Giver::Framework) => Origin::Default,
                None => environment::key_of(&name).map_or(Origin::Default, |key| Origin::Key { key }),
            };
            // What a key may not show, its variable may not either.
            let value = match origin {
                Origin::Key { key } if self.is_below_of_secret(key) => Value::from(self.secret),
                _ => Value::from(value),
            };
            self.rows.push(Explained { key, value, origin });
        }
    }

    /// A value and the key that says it.
    fn add(&mut self, key: &str, value: Value) {
        self.add_from(key, key, value);
    }

    /// A value that `source` says, where that is not the key under which it is shown; nothing where there is no value.
    fn add_from(&mut self, key: &str, source: &str, value: Value) {
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
        let value = if self.is_of_secret(place) { Value::from(self.secret) } else { value };
        self.rows.push(Explained { key, value, origin: self.written(place) });
    }

    /// Who says `key`: what belongs to a lane is said by its owner.
    fn whose(&self, key: &str) -> &Instance {
        let first = key.split('.').next().unwrap_or(key);
        if LANE_KEYS.contains(&first) { self.lane.owner } else { self.lane.instance }
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
            Some(place) if self.is_of_secret(place) => Value::from(self.secret),
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
