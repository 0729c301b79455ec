//! The names that facts have in the environment: one table, for putting them in and for keeping others out.
//!
//! The secret's value is never in a plan: its row has a name and no value, and `runtime` adds it at the start.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Fault;

use super::spec::{CacheBackend, Database, Facts, Framework};

/// A name in the environment.
struct Row {
    name: &'static str,
    /// Which key decides over it.
    key: &'static str,
    /// Whether only Django gets it.
    django: bool,
    value: fn(&str, &Facts) -> Option<String>,
}

const fn row(name: &'static str, key: &'static str, value: fn(&str, &Facts) -> Option<String>) -> Row {
    Row { name, key, django: false, value }
}

const fn django(name: &'static str, key: &'static str, value: fn(&str, &Facts) -> Option<String>) -> Row {
    Row { name, key, django: true, value }
}

const TABLE: [Row; 25] = [
    row("INSTANCE_NAME", "the instance's name", |instance, _| Some(instance.to_owned())),
    row("HOST", "host", |_, facts| Some(facts.host.to_string())),
    row("PORT", "port", |_, facts| facts.port.map(|port| port.to_string())),
    django("DJANGO_SERVER_INSTANCE", "the instance's name", |instance, _| Some(instance.to_owned())),
    django("DJANGO_SERVER_PORT", "port", |_, facts| facts.port.map(|port| port.to_string())),
    row("DATABASE_URL", "database", |_, facts| Some(database_url(&facts.database))),
    row("DATABASE_NAME", "database", |_, facts| Some(database_name(&facts.database))),
    // What PostgreSQL's own library says of its sessions unless it is told otherwise.
    row("PGAPPNAME", "database", |_, facts| match &facts.database {
        Database::Sqlite { .. } => None,
        Database::Postgres { application_name, .. } => Some(application_name.clone()),
    }),
    row("CACHE_BACKEND", "cache.backend", |_, facts| Some(backend(facts.cache.backend).to_owned())),
    row("CACHE_URL", "cache.url", |_, facts| facts.cache.url.clone()),
    row("CACHE_KEY_PREFIX", "cache.prefix", |_, facts| Some(facts.cache.prefix.clone())),
    row("CACHE_LOCATION", "cache.location", |_, facts| Some(facts.cache.location.clone())),
    row("CACHE_TIMEOUT", "cache.timeout", |_, facts| Some(facts.cache.timeout.as_secs().to_string())),
    row("SESSION_COOKIE_NAME", "cookies.session", |_, facts| Some(facts.session_cookie.clone())),
    row("CSRF_COOKIE_NAME", "cookies.csrf", |_, facts| Some(facts.csrf_cookie.clone())),
    row("STATIC_ROOT", "static_root", |_, facts| Some(shown(&facts.static_root))),
    row("MEDIA_ROOT", "media_root", |_, facts| Some(shown(&facts.media_root))),
    row("TMPDIR", "state_dir", |_, facts| Some(shown(&facts.tmp))),
    row("LOG_DIR", "state_dir", |_, facts| Some(shown(&facts.log_dir))),
    row("ACCESS_LOG", "state_dir", |_, facts| Some(shown(&facts.access_log))),
    row("SECRET_KEY_FILE", "secret.file", |_, facts| Some(shown(&facts.secret_file))),
    row("SECRET_KEY", "secret", |_, _| None),
    row("CHANNEL_LAYER_PREFIX", "channels.prefix", |_, facts| Some(facts.channels_prefix.clone())),
    row("CHANNELS_URL", "channels.url", |_, facts| facts.channels_url.clone()),
    row("CELERY_DEFAULT_QUEUE", "channels.prefix", |_, facts| Some(facts.channels_prefix.clone())),
];

/// Set unless the user says otherwise: a server that buffers its output shows nothing when it dies.
const DJANGO_DEFAULTS: [(&str, &str); 1] = [("PYTHONUNBUFFERED", "1")];

/// Longest path of a Unix socket.
const MAX_SOCKET_PATH: usize = 107;

/// The facts as variables.
pub fn of_facts(instance: &str, facts: &Facts) -> BTreeMap<String, String> {
    let rows = TABLE.iter().filter(|row| !row.django || facts.framework == Framework::Django);
    rows.filter_map(|row| Some((row.name.to_owned(), (row.value)(instance, facts)?))).collect()
}

/// What holds for a framework and a server unless the user says otherwise.
pub fn defaults(instance: &str, command: &[String], facts: &Facts) -> impl Iterator<Item = (String, String)> {
    let defaults = if facts.framework == Framework::Django { DJANGO_DEFAULTS.as_slice() } else { &[] };
    let defaults = defaults.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    defaults.chain(gunicorn(instance, command, facts))
}

/// gunicorn 27 puts its control socket into `XDG_RUNTIME_DIR`, else into the home directory, where all instances share it and
/// the first that stops takes it away from the others. Older ones would refuse its option, but none minds this variable.
fn gunicorn(instance: &str, command: &[String], facts: &Facts) -> Option<(String, String)> {
    let is_gunicorn = command.iter().any(|word| word.contains("gunicorn"));
    // A guest in the lane would meet the owner there.
    let is_owner = facts.lane.as_str() == instance;
    let fits = facts.tmp.join("gunicorn.ctl").as_os_str().len() <= MAX_SOCKET_PATH;
    (is_gunicorn && is_owner && fits).then(|| ("XDG_RUNTIME_DIR".to_owned(), shown(&facts.tmp)))
}

/// Why `name` may not be set by hand, if it may not: it would go round the check that no two lanes share a fact.
pub fn reserved(name: &str) -> Option<Fault> {
    if name.starts_with("LANEWAY_") {
        return Some(
            Fault::new(format!("{name} is laneway's own")).hint("names that begin with LANEWAY_ are reserved"),
        );
    }
    let row = TABLE.iter().find(|row| row.name == name)?;
    let fault = Fault::new(format!("{name} is a fact of the lane, and nothing goes round its check"));
    Some(match row.key {
        "the instance's name" => fault.hint("it is the instance's name; take the variable out"),
        key => fault.hint(format!("write `{key}` instead")),
    })
}

/// Whether `name` is set by a fact.
pub fn is_fact(name: &str) -> bool {
    TABLE.iter().any(|row| row.name == name)
}

/// The key that decides over the fact that is called `name` in the environment.
pub fn key_of(name: &str) -> Option<&'static str> {
    TABLE.iter().find(|row| row.name == name).map(|row| row.key)
}

fn database_url(database: &Database) -> String {
    match database {
        // Three slashes and an absolute path; dj-database-url and django-environ decode what is encoded here.
        Database::Sqlite { path } => format!("sqlite:///{}", encoded(&shown(path))),
        Database::Postgres { url, .. } => url.clone(),
    }
}

fn database_name(database: &Database) -> String {
    match database {
        Database::Sqlite { path } => shown(path),
        Database::Postgres { name, .. } => name.clone(),
    }
}

fn backend(backend: CacheBackend) -> &'static str {
    match backend {
        CacheBackend::Redis => "redis",
        CacheBackend::RedisLocmem => "redis+locmem",
        CacheBackend::Locmem => "locmem",
        CacheBackend::File => "file",
        CacheBackend::Database => "database",
        CacheBackend::Dummy => "dummy",
    }
}

fn encoded(path: &str) -> String {
    path.chars().fold(String::new(), |mut url, c| {
        match c {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3F"),
            '#' => url.push_str("%23"),
            '+' => url.push_str("%2B"),
            ' ' => url.push_str("%20"),
            c => url.push(c),
        }
        url
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
