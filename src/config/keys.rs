//! Every key of the file, declared once: its name, what it takes, what holds without it, what it means.
//!
//! The readers (`fleet`, `instance`, `health`) read by it, so an unknown key is one that does not stand here; `schema` makes
//! the JSON Schema of it, and a test the tables of `docs/configuration.md`. Knows no YAML and reads nothing itself.

use super::settings::{CacheBackend, Condition, Enforced, Engine, Framework, RestartPolicy};

/// A key of some map.
#[derive(Debug)]
pub struct Key {
    /// As written.
    pub name: &'static str,
    /// What may stand there.
    pub takes: Takes,
    /// What holds where it is not written.
    pub unset: Unset,
    /// What it means, for people; Markdown.
    pub about: &'static str,
}

/// What holds where a key is not written.
#[derive(Debug)]
pub enum Unset {
    /// The same as if this YAML stood there.
    Value(&'static str),
    /// The same as if this template stood there: a fact, derived from the name.
    Formula(&'static str),
    /// What no YAML says, in words.
    Words(&'static str),
    /// The key has to be written.
    Needed,
}

/// What a key takes. Every single value may also come out of `${VARIABLES}`, and a key may be set back with `~`.
#[derive(Debug)]
pub enum Takes {
    /// Nothing yet: the key is known, and refused.
    Later,
    /// A map with these keys.
    Map(&'static [Key]),
    /// A text that is not empty; the word says what it means, such as `path`.
    Text(&'static str),
    /// A name; the word says of what.
    Name(&'static str),
    /// Names of instances.
    Names,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// `true`.
    True,
    /// A whole number, both ends included.
    Whole(u32, u32),
    /// A duration; the words say so, and where it ends.
    Duration(&'static str),
    /// Bytes.
    Size,
    /// An address in digits.
    Address,
    /// `1`.
    Version,
    /// A status of HTTP, or a range of them.
    Status,
    /// A path of HTTP.
    UrlPath,
    /// Headers of HTTP.
    Headers,
    /// When a server starts again.
    Restart,
    /// A signal by name or number.
    Signal,
    /// A program and its arguments.
    Command,
    /// The same, with Compose's first words.
    Test,
    /// A list of commands.
    Commands,
    /// A list of some of these words.
    SomeOf(&'static [&'static str]),
    /// A list of texts; the word says what one means, such as `path`.
    Texts(&'static str),
    /// A list of whole numbers, both ends included.
    Wholes(u32, u32),
    /// Variables with their values.
    Environment,
    /// Files of variables, or one.
    EnvFiles(&'static [Key]),
    /// Names of variables.
    VariableNames,
    /// Names of instances, or a map from them to conditions.
    Dependencies(&'static [Key]),
    /// A map with these keys, or `off`.
    Brake(&'static [Key]),
    /// The keys of an instance.
    Instance,
    /// A map from names to instances.
    Instances,
    /// A map from names to presets.
    Presets,
    /// A map from names to profiles.
    Profiles,
}

pub const FRAMEWORKS: [(&str, Framework); 2] = [("generic", Framework::Generic), ("django", Framework::Django)];
pub const ENGINES: [(&str, Engine); 2] = [("sqlite", Engine::Sqlite), ("postgres", Engine::Postgres)];
pub const BACKENDS: [(&str, CacheBackend); 6] = [
    ("redis", CacheBackend::Redis),
    ("redis+locmem", CacheBackend::RedisLocmem),
    ("locmem", CacheBackend::Locmem),
    ("file", CacheBackend::File),
    ("database", CacheBackend::Database),
    ("dummy", CacheBackend::Dummy),
];
pub const CONDITIONS: [(&str, Condition); 3] = [
    ("service_started", Condition::ServiceStarted),
    ("service_healthy", Condition::ServiceHealthy),
    ("service_completed_successfully", Condition::ServiceCompletedSuccessfully),
];
pub const POLICIES: [(&str, RestartPolicy); 4] = [
    ("no", RestartPolicy::No),
    ("on-failure", RestartPolicy::OnFailure),
    ("always", RestartPolicy::Always),
    ("unless-stopped", RestartPolicy::UnlessStopped),
];
pub const SCHEMES: [(&str, &str); 2] = [("http", "http"), ("https", "https")];
pub const ENFORCED: [(&str, Enforced); 4] = [
    ("files", Enforced::Files),
    ("network", Enforced::Network),
    ("redis", Enforced::Redis),
    ("postgres", Enforced::Postgres),
];
/// What may be read; whether that is narrow.
pub const READS: [(&str, bool); 2] = [("all", false), ("narrow", true)];
/// What to do where the system cannot enforce; whether to go on.
pub const MISSING: [(&str, bool); 2] = [("refuse", false), ("warn", true)];
/// What to do about an unhealthy server; whether it is a failure.
pub const UNHEALTHY: [(&str, bool); 2] = [("restart", true), ("none", false)];

/// The words of a table of words and what they mean.
const fn words<T: Copy, const N: usize>(table: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut index = 0;
    while index < N {
        words[index] = table[index].0;
        index += 1;
    }
    words
}

const fn key(name: &'static str, takes: Takes, unset: Unset, about: &'static str) -> Key {
    Key { name, takes, unset, about }
}

const fn later(name: &'static str) -> Key {
    Key { name, takes: Takes::Later, unset: NONE, about: "" }
}

const NONE: Unset = Unset::Words("none");
const DURATION: Takes = Takes::Duration("duration");

/// The keys of the whole file.
pub static FILE: [Key; 9] = [
    key("version", Takes::Version, Unset::Value("1"), "for other tools; nothing else is known"),
    key(
        "name",
        Takes::Name("name"),
        Unset::Words("the folder's name"),
        "`{project}`: what the names of shared things begin with",
    ),
    key(
        "namespace",
        Takes::Name("name"),
        NONE,
        "comes before every lane's name, where several checkouts run side by side",
    ),
    key("state_dir", Takes::Text("path"), Unset::Value(".laneway"), "holds one directory per lane, and `.run`"),
    key(
        "restart_brake",
        Takes::Brake(&BRAKE),
        Unset::Value("{starts: 10, per: 1s}"),
        "at most so many restarts after failures in that time, over the whole fleet",
    ),
    key("defaults", Takes::Instance, NONE, "values for every instance"),
    key("instances", Takes::Instances, Unset::Needed, "the instances"),
    key("presets", Takes::Presets, NONE, "named choices of instances; each is a verb"),
    key("profiles", Takes::Profiles, NONE, "named overlays of values"),
];

/// The keys of `restart_brake`.
pub static BRAKE: [Key; 2] = [
    key("starts", Takes::Whole(1, 10_000), Unset::Value("10"), "so many restarts"),
    key("per", DURATION, Unset::Value("1s"), "in this time"),
];

/// The keys of a preset in its long form; the short one is its `instances`.
pub static PRESET: [Key; 2] = [
    key("instances", Takes::Names, Unset::Needed, "which instances it starts"),
    key("profile", Takes::Name("profile"), NONE, "the profile that they run with"),
];

/// The keys of a profile.
pub static PROFILE: [Key; 2] = [
    key("defaults", Takes::Instance, NONE, "values for every instance"),
    key("instances", Takes::Instances, NONE, "values for single instances"),
];

/// The keys of an instance, and of `defaults`.
pub static INSTANCE: [Key; 28] = [
    key(
        "command",
        Takes::Command,
        Unset::Needed,
        "the server: program and arguments. No shell. A program with a slash is relative to `working_dir`, one without \
         is looked for in the instance's `PATH`",
    ),
    key("working_dir", Takes::Text("path"), Unset::Value("."), "where it starts; relative to the file's folder"),
    key(
        "framework",
        Takes::OneOf(&const { words(&FRAMEWORKS) }),
        Unset::Value("generic"),
        "`django` adds `DJANGO_SERVER_INSTANCE`, `DJANGO_SERVER_PORT` and `PYTHONUNBUFFERED=1`",
    ),
    key(
        "host",
        Takes::Address,
        Unset::Value("127.0.0.1"),
        "the address that the server binds, in digits; `localhost` is 127.0.0.1",
    ),
    key("port", Takes::Whole(1, 65_535), NONE, "its port; workers have none"),
    key("environment", Takes::Environment, NONE, "variables. A name without a value is taken from the caller"),
    key(
        "env_file",
        Takes::EnvFiles(&ENV_FILE),
        NONE,
        "files of variables, later ones above earlier ones; `required: false` lets one be missing",
    ),
    key(
        "inherit_env",
        Takes::VariableNames,
        Unset::Value("[PATH, HOME, LANG, LC_ALL, TZ, USER]"),
        "what is taken from the caller's environment; nothing else is",
    ),
    key("pre_start", Takes::Commands, NONE, "run one after the other, in the lane, before the server"),
    key("pre_start_timeout", DURATION, Unset::Value("10m"), "for each of them"),
    key("depends_on", Takes::Dependencies(&DEPENDENCY), NONE, "whom it waits for"),
    key(
        "lane",
        Takes::Name("instance"),
        Unset::Words("itself"),
        "live in that instance's lane, with an own command, port and log",
    ),
    key("database", Takes::Map(&DATABASE), NONE, "where its data is"),
    key("cache", Takes::Map(&CACHE), NONE, "where it caches"),
    key("cookies", Takes::Map(&COOKIES), NONE, "what its cookies are called"),
    key(
        "static_root",
        Takes::Text("path"),
        Unset::Formula("{state}/staticfiles_{lane}"),
        "where collected static files go",
    ),
    key("media_root", Takes::Text("path"), Unset::Formula("{state}/media_{lane}"), "where uploads go"),
    key("secret", Takes::Map(&SECRET), NONE, "its secret key"),
    key("channels", Takes::Map(&CHANNELS), NONE, "its channel layer and task queue"),
    key(
        "healthcheck",
        Takes::Map(&HEALTHCHECK),
        Unset::Words("TCP where there is a port"),
        "how its health is checked",
    ),
    key(
        "restart",
        Takes::Restart,
        Unset::Value("on-failure"),
        "after which ends it starts again. `always` and `unless-stopped` do so after success too; `unless-stopped` also \
         remembers a stop over `down` and a reboot",
    ),
    key("restart_policy", Takes::Map(&RESTART_POLICY), NONE, "when it starts again"),
    key(
        "stop_signal",
        Takes::Signal,
        Unset::Value("SIGTERM"),
        "asks the server to end; `SIGTERM`, `TERM` and `15` are the same",
    ),
    key("stop_grace_period", DURATION, Unset::Value("10s"), "then it is killed"),
    key("logging", Takes::Map(&LOGGING), NONE, "how large its logs grow"),
    later("replicas"),
    later("listen"),
    key("isolation", Takes::Map(&ISOLATION), NONE, "what the system keeps it from"),
];

/// The keys of `isolation`.
pub static ISOLATION: [Key; 6] = [
    key(
        "enforce",
        Takes::SomeOf(&const { words(&ENFORCED) }),
        NONE,
        "`files`: it writes in its lane only; `network`: it binds its port only; `redis`: a user of its own, for its \
         keys only; `postgres`: a role of its own",
    ),
    key(
        "read",
        Takes::OneOf(&const { words(&READS) }),
        Unset::Value("all"),
        "`narrow`: it reads the program, the project, the system's libraries and its lane only (with `files`)",
    ),
    key("also_read", Takes::Texts("path"), NONE, "more that it may read (with `read: narrow`)"),
    key("also_write", Takes::Texts("path"), NONE, "more that it may write: no other lane's (with `files`)"),
    key(
        "connect",
        Takes::Wholes(1, 65_535),
        Unset::Words("everywhere"),
        "the only TCP ports that it may connect to, beside its own and those of its database, cache and channels (with \
         `network`)",
    ),
    key(
        "on_missing",
        Takes::OneOf(&const { words(&MISSING) }),
        Unset::Value("refuse"),
        "what happens where the kernel cannot enforce what is asked: no start, or a start without",
    ),
];

/// The keys of an `env_file` in its long form.
pub static ENV_FILE: [Key; 2] = [
    key("path", Takes::Text("path"), Unset::Needed, "the file; relative to the folder of `instances.yaml`"),
    key("required", Takes::Boolean, Unset::Value("true"), "whether it has to be there"),
];

/// The keys of one dependency in its long form.
pub static DEPENDENCY: [Key; 1] = [key(
    "condition",
    Takes::OneOf(&const { words(&CONDITIONS) }),
    Unset::Value("service_started"),
    "what it must have reached",
)];

/// The keys of `database`.
pub static DATABASE: [Key; 8] = [
    key(
        "engine",
        Takes::OneOf(&const { words(&ENGINES) }),
        Unset::Value("sqlite"),
        "a file, or a database of a server",
    ),
    key("path", Takes::Text("path"), Unset::Formula("{state}/db_{lane}.sqlite3"), "the file (sqlite)"),
    key(
        "url",
        Takes::Text("URL"),
        Unset::Words("needed for postgres"),
        "`postgres://user:password@host:port`; the database's name is filled in unless the URL has one",
    ),
    key(
        "name",
        Takes::Text("text"),
        Unset::Formula("{project}_erp_{lane}"),
        "the database (postgres), at most 63 bytes",
    ),
    key(
        "create",
        Takes::Boolean,
        Unset::Value("false"),
        "whether laneway makes the database and a role that owns it, called as `name` unless `url` has a user (postgres)",
    ),
    key(
        "admin_url",
        Takes::Text("URL"),
        Unset::Words("needed for `create`"),
        "the administrator who makes them, with CREATEROLE and CREATEDB; no server ever gets it. Without `url` its host and \
         port are the lane's too",
    ),
    key(
        "max_connections",
        Takes::Whole(1, 100_000),
        NONE,
        "most sessions of the role at a time (postgres, with `create`)",
    ),
    key(
        "template",
        Takes::Text("path or text"),
        NONE,
        "what the lane's database is a copy of when it is made: a file (sqlite), or a database (postgres, with `create`)",
    ),
];

/// The keys of `cache`.
pub static CACHE: [Key; 7] = [
    key(
        "backend",
        Takes::OneOf(&const { words(&BACKENDS) }),
        Unset::Value("locmem"),
        "a server, the process's own memory, a folder, a table, or nothing; `redis+locmem` is both, as two caches",
    ),
    key("url", Takes::Text("URL"), Unset::Words("needed for redis"), "`redis://`, `rediss://` or `unix://`"),
    key(
        "admin_url",
        Takes::Text("URL"),
        Unset::Words("needed where `isolation` enforces redis"),
        "the administrator who makes the lanes' users; no server ever gets it, and laneway itself asks by it",
    ),
    key("prefix", Takes::Text("text"), Unset::Formula("{project}_{lane}"), "what keys begin with"),
    key(
        "location",
        Takes::Text("text"),
        Unset::Formula("{project}-cache-{lane}"),
        "memory region, folder or table; of a folder the default is `{state}/cache_{lane}`, of a table `cache_{lane}`",
    ),
    key("timeout", DURATION, Unset::Value("5m"), "how long entries live; `CACHE_TIMEOUT` in seconds"),
    key("clear", Takes::Map(&CLEAR), NONE, "how `laneway cache clear` reaches what is cached in the process"),
];

/// The keys of `cache.clear`.
pub static CLEAR: [Key; 3] = [
    key(
        "path",
        Takes::UrlPath,
        Unset::Words("a restart, one instance after the other"),
        "POST `type=django`, `session` or `all` there, at the instance's own port; the process empties its own memory",
    ),
    key("headers", Takes::Headers, NONE, "sent along, such as `{Authorization: \"Bearer ${TOKEN}\"}`"),
    key("command", Takes::Command, NONE, "instead: run it in the lane, with `CACHE_CLEAR_TYPE` in its environment"),
];

/// The keys of `cookies`.
pub static COOKIES: [Key; 2] = [
    key("session", Takes::Text("text"), Unset::Formula("sessionid_{lane}"), "the cookie of the session"),
    key("csrf", Takes::Text("text"), Unset::Formula("csrftoken_{lane}"), "the cookie against forged requests"),
];

/// The keys of `secret`.
pub static SECRET: [Key; 2] = [
    key(
        "file",
        Takes::Text("path"),
        Unset::Formula("{state}/secrets/secret_key"),
        "at least 50 characters; made if it is missing",
    ),
    key("env", Takes::Boolean, Unset::Value("true"), "whether the value is also in the environment as `SECRET_KEY`"),
];

/// The keys of `channels`.
pub static CHANNELS: [Key; 2] = [
    key("url", Takes::Text("URL"), NONE, "`CHANNELS_URL`"),
    key(
        "prefix",
        Takes::Text("text"),
        Unset::Formula("{project}_{lane}"),
        "`CHANNEL_LAYER_PREFIX` and `CELERY_DEFAULT_QUEUE`",
    ),
];

/// The keys of `healthcheck`.
pub static HEALTHCHECK: [Key; 14] = [
    key("path", Takes::UrlPath, NONE, "GET it at the instance's address"),
    key("tcp", Takes::True, Unset::Words("where nothing else is asked"), "connect to the port"),
    key(
        "test",
        Takes::Test,
        NONE,
        "run it in the lane; exit code 0 is good. `[CMD, ...]`, `[CMD-SHELL, \"line\"]` and `[NONE]` work too",
    ),
    key("disable", Takes::Boolean, Unset::Value("false"), "no check"),
    key("expect_status", Takes::Status, Unset::Value("200-299"), "good answers"),
    key("headers", Takes::Headers, NONE, "sent along, such as `{Host: shop.example}`"),
    key("body", Takes::Text("text"), NONE, "must stand in the first 64 KiB of the body"),
    key(
        "scheme",
        Takes::OneOf(&const { words(&SCHEMES) }),
        Unset::Value("http"),
        "`https` needs a build with `--features tls`",
    ),
    key(
        "interval",
        DURATION,
        Unset::Value("5s"),
        "from one check to the next, once it was healthy; from 1s on in half seconds",
    ),
    key("timeout", Takes::Duration("duration, to `5m`"), Unset::Value("2s"), "for connecting and reading together"),
    key("retries", Takes::Whole(1, 1000), Unset::Value("3"), "bad answers in a row that make it unhealthy"),
    key("start_period", DURATION, Unset::Value("20s"), "a start may take this long and `retries` × `interval` more"),
    key("start_interval", DURATION, Unset::Value("200ms"), "from one check to the next until the first good answer"),
    key(
        "on_unhealthy",
        Takes::OneOf(&const { words(&UNHEALTHY) }),
        Unset::Value("restart"),
        "whether unhealthy is a failure",
    ),
];

/// The keys of `restart_policy`.
pub static RESTART_POLICY: [Key; 4] = [
    key("delay", DURATION, Unset::Value("1s"), "the first wait; doubles with each failure in a row"),
    key("max_delay", DURATION, Unset::Value("1m"), "it grows no further"),
    key(
        "max_attempts",
        Takes::Whole(1, 1_000_000),
        NONE,
        "restarts in a row before it gives up; the same as `on-failure:N`",
    ),
    key(
        "window",
        DURATION,
        Unset::Value("10s"),
        "healthy this long (running, without a check) is stable: failures are forgotten",
    ),
];

/// The keys of `logging`.
pub static LOGGING: [Key; 3] = [
    key("max_size", Takes::Size, Unset::Value("10m"), "of one log file"),
    key("max_files", Takes::Whole(1, 1000), Unset::Value("5"), "files kept, the current one among them"),
    key(
        "compress",
        Takes::Boolean,
        Unset::Value("false"),
        "whether full files are compressed (gzip), some time after they got their number; `laneway logs` reads them as \
         before",
    ),
];

/// The key called `name`.
pub fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}

impl Takes {
    /// The keys of the map that may stand there.
    pub fn below(&self) -> &'static [Key] {
        match self {
            Self::Map(keys) | Self::EnvFiles(keys) | Self::Dependencies(keys) | Self::Brake(keys) => keys,
            Self::Instance => &INSTANCE,
            _ => &[],
        }
    }
}

impl Key {
    /// Whether it works in this version.
    pub fn is_of_now(&self) -> bool {
        !matches!(self.takes, Takes::Later)
    }
}
