//! The one place of the formulas: what a lane owns, derived from its name.
//!
//! A formula is a template like the user's own; a value in the settings takes its place. The names that facts get in the
//! environment stand in `environment`; that no two lanes share a fact is checked in `claims`.

use crate::config::{CacheBackend, Clear, Enforced, Engine, Fault, is_token};

use super::build;
use super::lane::Lane;
use super::spec::{Cache, CacheUser, Database, DatabaseSetup, Facts};

const DATABASE_FILE: &str = "{state}/db_{lane}.sqlite3";
const DATABASE_NAME: &str = "{project}_erp_{lane}";
const APPLICATION_NAME: &str = "{project}_{lane}";
const CACHE_PREFIX: &str = "{project}_{lane}";
const CACHE_REGION: &str = "{project}-cache-{lane}";
const CACHE_FOLDER: &str = "{state}/cache_{lane}";
const CACHE_TABLE: &str = "cache_{lane}";
const SESSION_COOKIE: &str = "sessionid_{lane}";
const CSRF_COOKIE: &str = "csrftoken_{lane}";
const STATIC_ROOT: &str = "{state}/staticfiles_{lane}";
const MEDIA_ROOT: &str = "{state}/media_{lane}";
const TEMPORARY: &str = "{state}/tmp";
const LOGS: &str = "{state}/log";
const ACCESS_LOG: &str = "{state}/log/access.log";
/// A guest in a lane writes beside the owner, not into its file.
const GUEST_ACCESS_LOG: &str = "{state}/log/{instance}.access.fifo";
const SECRET_FILE: &str = "{state}/secrets/secret_key";
const REDIS_USER: &str = "{project}_{lane}";
const REDIS_PASSWORD: &str = "{state}/secrets/redis_password";
const DATABASE_PASSWORD: &str = "{state}/secrets/database_password";
const CHANNELS_PREFIX: &str = "{project}_{lane}";

/// What PostgreSQL takes of a name; it cuts the rest off, and two names could become one.
const MAX_DATABASE_NAME: usize = 63;

/// The facts of `lane`'s instance: those of the lane from its owner, the rest its own; and how the lane's database comes
/// into being, where that is laneway's.
pub fn derive(lane: &Lane<'_>) -> (Facts, Option<DatabaseSetup>) {
    let instance = lane.instance;
    let owner = lane.owner;
    let is_guest = owner.name != instance.name;
    let home = Lane { instance: owner, ..*lane };
    let text = |key: &str, own: Option<&String>, formula: &str| home.fill(key, own.map_or(formula, String::as_str));
    let path = |key: &str, own: Option<&String>, formula: &str| home.path(key, own.map_or(formula, String::as_str));
    let (database, setup) = database(&home);
    let facts = Facts {
        framework: instance.framework,
        lane: owner.name.clone(),
        host: instance.host,
        port: instance.port,
        state: lane.state(),
        database,
        cache: cache(&home),
        session_cookie: text("cookies.session", owner.session_cookie.as_ref(), SESSION_COOKIE),
        csrf_cookie: text("cookies.csrf", owner.csrf_cookie.as_ref(), CSRF_COOKIE),
        static_root: path("static_root", owner.static_root.as_ref(), STATIC_ROOT),
        media_root: path("media_root", owner.media_root.as_ref(), MEDIA_ROOT),
        tmp: path("", None, TEMPORARY),
        log_dir: path("", None, LOGS),
        access_log: lane.path("", if is_guest { GUEST_ACCESS_LOG } else { ACCESS_LOG }),
        secret_file: path("secret.file", owner.secret_file.as_ref(), SECRET_FILE),
        secret_in_environment: owner.secret_env,
        channels_url: owner.channels_url.as_ref().map(|url| home.fill("channels.url", url)),
        channels_prefix: text("channels.prefix", owner.channels_prefix.as_ref(), CHANNELS_PREFIX),
    };
    if !is_guest {
        check(lane, &facts);
    }
    (facts, setup)
}

/// The formula of the fact that `key` decides over, where there is one.
pub fn formula(key: &str, backend: CacheBackend) -> Option<&'static str> {
    Some(match key {
        "database.path" => DATABASE_FILE,
        "database.name" => DATABASE_NAME,
        "cache.prefix" => CACHE_PREFIX,
        "cache.location" => match backend {
            CacheBackend::File => CACHE_FOLDER,
            CacheBackend::Database => CACHE_TABLE,
            CacheBackend::Redis | CacheBackend::RedisLocmem | CacheBackend::Locmem | CacheBackend::Dummy => {
                CACHE_REGION
            }
        },
        "cookies.session" => SESSION_COOKIE,
        "cookies.csrf" => CSRF_COOKIE,
        "static_root" => STATIC_ROOT,
        "media_root" => MEDIA_ROOT,
        "secret.file" => SECRET_FILE,
        "channels.prefix" => CHANNELS_PREFIX,
        _ => return None,
    })
}

fn database(home: &Lane<'_>) -> (Database, Option<DatabaseSetup>) {
    let own = &home.instance.database;
    if own.engine == Engine::Sqlite {
        let path = home.path("database.path", own.path.as_deref().unwrap_or(DATABASE_FILE));
        let template = own.template.as_ref().map(|template| home.path("database.template", template));
        if template.as_ref() == Some(&path) {
            let place = home.instance.origin("database.template");
            home.report(place, "database.template", Fault::new("is the lane's own database").hint("name another file"));
        }
        return (Database::Sqlite { path }, template.map(|template| DatabaseSetup::Copy { template }));
    }
    let place = || home.instance.origin("database.url");
    let formula = home.fill("database.name", own.name.as_deref().unwrap_or(DATABASE_NAME));
    let admin_url = own.admin_url.as_ref().map(|url| home.fill("database.admin_url", url)).filter(|_| own.create);
    if let Some(admin_url) = &admin_url
        && !is_of_postgres(admin_url)
    {
        let fault = Fault::new("is no URL of a PostgreSQL server").hint("it begins with postgres://");
        home.report(home.instance.origin("database.admin_url"), "database.admin_url", fault);
    }
    let url = match (&own.url, &admin_url) {
        (Some(url), _) => home.fill("database.url", url),
        // The same server; neither its user nor its database.
        (None, Some(admin_url)) => {
            let server = parts(admin_url).1;
            if server.is_empty() {
                let fault = Fault::new("is missing, and `admin_url` names no host to take");
                home.report(home.instance.origin("database"), "database.url", fault.hint("write both with a host"));
            }
            format!("postgres://{server}")
        }
        (None, None) => {
            let fault = Fault::new("is missing, and postgres needs to know its server");
            let hint = "such as \"postgres://user:password@127.0.0.1:5432\"; the database's name is filled in";
            // Whoever left out `admin_url` has been told.
            if !own.create {
                home.report(home.instance.origin("database"), "database.url", fault.hint(hint));
            }
            let database = Database::Postgres { url: String::new(), name: formula, application_name: String::new() };
            return (database, None);
        }
    };
    let (url, name) = with_database(home, &url, formula);
    let (url, role) = if own.create { with_role(home, &url, &name) } else { (url, String::new()) };
    for (what, key, name) in [("database", "database.name", &name), ("role", "database.url", &role)] {
        if own.create && name.contains(|c: char| "/@:?#%\\\"'".contains(c) || c.is_whitespace() || c.is_control()) {
            let what = format!("the {what}'s name `{}` does not fit into a URL", name.escape_debug());
            home.report(home.instance.origin(key), key, Fault::new(what).hint("letters, digits, `_`, `-` and `.` do"));
        }
        if name.len() > MAX_DATABASE_NAME {
            let what = format!("the {what}'s name `{name}` is longer than {MAX_DATABASE_NAME} bytes");
            home.report(home.instance.origin(key), key, Fault::new(what).hint("shorten it"));
        }
    }
    if admin_url.as_deref().is_some_and(|admin_url| user_of(admin_url) == Some(&role)) {
        let fault = Fault::new(format!("has the administrator `{role}`, who cannot be the lane's own role"));
        home.report(place(), "database.url", fault.hint("take the user out of `url` to get the lane's own"));
    }
    let setup = admin_url.map(|admin_url| DatabaseSetup::Create {
        role,
        password_file: home.path("", DATABASE_PASSWORD),
        admin_url,
        max_connections: own.max_connections,
        template: own.template.as_ref().map(|template| home.fill("database.template", template)),
    });
    (Database::Postgres { url, name, application_name: home.fill("", APPLICATION_NAME) }, setup)
}

fn is_of_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// User and password, the server, and what follows it, of a URL.
fn parts(url: &str) -> (Option<&str>, &str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, server) = authority.rsplit_once('@').map_or((None, authority), |(login, server)| (Some(login), server));
    (login, server, tail)
}

/// The user of a URL.
pub(super) fn user_of(url: &str) -> Option<&str> {
    parts(url).0.map(|login| login.split(':').next().unwrap_or_default())
}

/// The URL with a role in it, and that role: the URL's own user where it has one, else one called as the database.
fn with_role(home: &Lane<'_>, url: &str, database: &str) -> (String, String) {
    let (login, server, tail) = parts(url);
    if login.is_some_and(|login| login.contains(':')) {
        let fault = Fault::new("has a password, and with `create: true` laneway makes one that nobody has to know");
        let hint = "take it out; it is kept beside the lane's secret";
        home.report(home.instance.origin("database.url"), "database.url", fault.hint(hint));
    }
    let role = user_of(url).filter(|user| !user.is_empty()).unwrap_or(database);
    (format!("postgres://{role}@{server}{tail}"), role.to_owned())
}

/// The URL with a database in it, and that database: the URL's own where it names one.
fn with_database(home: &Lane<'_>, url: &str, name: String) -> (String, String) {
    let place = home.instance.origin("database.url");
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        let fault = Fault::new("is no URL of a PostgreSQL server").hint("it begins with postgres://");
        home.report(place, "database.url", fault);
        return (url.to_owned(), name);
    };
    let (address, query) = rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
    let (server, path) = address.split_once('/').unwrap_or((address, ""));
    let name = match path.trim_end_matches('/') {
        "" => name,
        own if home.instance.database.name.is_some() && own != name => {
            let what = format!("names the database `{own}`, and `database.name` names `{name}`");
            home.report(place, "database.url", Fault::new(what).hint("keep one of the two"));
            name
        }
        own => own.to_owned(),
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    (format!("postgres://{server}/{name}{query}"), name)
}

fn cache(home: &Lane<'_>) -> Cache {
    let own = &home.instance.cache;
    let location = own.location.as_deref();
    let location = match own.backend {
        CacheBackend::File => home.path("cache.location", location.unwrap_or(CACHE_FOLDER)).display().to_string(),
        CacheBackend::Database => home.fill("cache.location", location.unwrap_or(CACHE_TABLE)),
        CacheBackend::Redis | CacheBackend::RedisLocmem | CacheBackend::Locmem | CacheBackend::Dummy => {
            home.fill("cache.location", location.unwrap_or(CACHE_REGION))
        }
    };
    let is_redis = matches!(own.backend, CacheBackend::Redis | CacheBackend::RedisLocmem);
    let url = own.url.as_ref().filter(|_| is_redis).map(|url| home.fill("cache.url", url));
    if let Some(url) = &url
        && !["redis://", "rediss://", "unix://"].iter().any(|scheme| url.starts_with(scheme))
    {
        let fault = Fault::new("is no URL of a Redis server").hint("such as \"redis://127.0.0.1:6379/0\"");
        home.report(home.instance.origin("cache.url"), "cache.url", fault);
    }
    let prefix = home.fill("cache.prefix", own.prefix.as_deref().unwrap_or(CACHE_PREFIX));
    let admin_url = own.admin_url.as_ref().filter(|_| is_redis).map(|url| home.fill("cache.admin_url", url));
    let is_enforced = home.instance.isolation.enforce.contains(&Enforced::Redis);
    let user = is_enforced
        .then(|| CacheUser { name: home.fill("", REDIS_USER), password_file: home.path("", REDIS_PASSWORD) });
    Cache { backend: own.backend, url, admin_url, user, prefix, location, timeout: own.timeout, clear: clear(home) }
}

fn clear(home: &Lane<'_>) -> Option<Clear> {
    let owner = home.instance;
    match owner.cache.clear.as_ref()? {
        Clear::Command(words) => Some(Clear::Command(build::command(home, "cache.clear.command", words))),
        Clear::Http { .. } if owner.port.is_none() => {
            let fault = Fault::new("is asked for at the port, and this instance has none");
            home.report(owner.origin("cache.clear.path"), "cache.clear.path", fault.hint("use `command`"));
            None
        }
        Clear::Http { path, headers } => Some(Clear::Http {
            path: home.fill("cache.clear.path", path),
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), home.fill("cache.clear.headers", value)))
                .collect(),
        }),
    }
}

/// What a fact must look like, whoever wrote it.
fn check(lane: &Lane<'_>, facts: &Facts) {
    let report = |key: &str, fault: Fault| lane.report(lane.instance.origin(key), key, fault);
    for (key, name) in [("cookies.session", &facts.session_cookie), ("cookies.csrf", &facts.csrf_cookie)] {
        if !name.bytes().all(is_token) && !name.contains('{') {
            let fault = Fault::new(format!("`{}` is no name of a cookie", name.escape_debug()));
            report(key, fault.hint("letters, digits and !#$%&'*+-.^_`|~ make one (RFC 6265)"));
        }
    }
    if facts.session_cookie == facts.csrf_cookie {
        report("cookies.csrf", Fault::new("is the session cookie's name too").hint("give each its own name"));
    }
    for (key, prefix) in [("cache.prefix", &facts.cache.prefix), ("channels.prefix", &facts.channels_prefix)] {
        if prefix.contains(|c: char| c.is_whitespace() || c.is_control()) {
            report(
                key,
                Fault::new("holds spaces or control characters").hint("letters, digits, `_`, `-`, `.` and `:`"),
            );
        } else if prefix.starts_with(':') || prefix.ends_with(':') {
            report(
                key,
                Fault::new("begins or ends with `:`").hint("the `:` before each key is put in by the framework"),
            );
        } else if prefix.contains(['*', '?', '[', ']', '\\']) {
            report(
                key,
                Fault::new("holds a character that matches others when keys are searched").hint("not * ? [ ] \\"),
            );
        }
    }
    check_served(facts, &report);
}

/// What a web server gives to everybody may not hold what nobody shall have, nor what a cleaning would delete.
fn check_served(facts: &Facts, report: &dyn Fn(&str, Fault)) {
    let mut private = vec![("the secret", &facts.secret_file), ("the logs", &facts.log_dir)];
    if let Database::Sqlite { path } = &facts.database {
        private.push(("the database", path));
    }
    for (key, served) in [("static_root", &facts.static_root), ("media_root", &facts.media_root)] {
        if let Some((what, _)) = private.iter().find(|(_, path)| path.starts_with(served)) {
            let fault = Fault::new(format!("holds {what}, and what lies there is served to everybody"));
            report(key, fault.hint("give it a directory of its own"));
        }
    }
    if facts.static_root.starts_with(&facts.media_root) || facts.media_root.starts_with(&facts.static_root) {
        let fault = Fault::new("and static_root lie in each other, so `collectstatic --clear` would delete uploads");
        report("media_root", fault.hint("give each a directory of its own"));
    }
}
