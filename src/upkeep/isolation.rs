//! What services keep an instance from: a user of its own on Redis, who reaches its keys only, and a role of its own on
//! PostgreSQL, who reaches its database only.
//!
//! Made before anything runs in the lane, and again when a Redis server forgot its users. A server that lets others in
//! anyway is refused: a fence beside an open gate protects nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use super::database::Trouble;
use crate::plan::spec::{Database, DatabaseSetup, Enforced, Facts, Spec};
use crate::runtime::lane;
use crate::services::postgres;
use crate::services::redis::{self, Connection, Server};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a lane's user may do on Redis: what Django's cache and sessions, `channels_redis` and laneway's own clearing by
/// prefix need. None of it reaches another lane's keys, stops the server or changes it. SCAN shows the names of all keys.
const COMMANDS: [&str; 36] = [
    "bzpopmin",
    "decr",
    "decrby",
    "del",
    "eval",
    "evalsha",
    "exec",
    "exists",
    "expire",
    "get",
    "incr",
    "incrby",
    "mget",
    "mset",
    "multi",
    "persist",
    "pexpire",
    "ping",
    "psubscribe",
    "pttl",
    "publish",
    "punsubscribe",
    "scan",
    "select",
    "set",
    "setex",
    "subscribe",
    "ttl",
    "unlink",
    "unsubscribe",
    "zadd",
    "zcount",
    "zpopmin",
    "zrange",
    "zrem",
    "zremrangebyscore",
];

/// Does and looks at all that `spec` is isolated by; what was done, in words.
///
/// # Errors
/// When a server cannot be reached, refuses, or lets others in anyway.
pub fn ensure(spec: &Spec) -> Result<Vec<String>, Trouble> {
    let mut done = Vec::new();
    if let Some(user) = &spec.facts.cache.user {
        let mut admin = admin(&spec.facts)?;
        refuse_open_door(&mut admin)?;
        grant(&mut admin, spec)?;
        prove(spec)?;
        done.push(format!("{}: user {} reaches {} only", admin.server(), user.name, prefixes(&spec.facts).join(", ")));
    }
    if spec.isolation.has(Enforced::Postgres) {
        done.extend(role(spec)?);
    }
    Ok(done)
}

/// Makes the users of `specs` that their server has forgotten; their names.
///
/// # Errors
/// When a server cannot be reached, or refuses.
pub fn restore<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Result<Vec<String>, Trouble> {
    let mut connections: Vec<(String, Connection, Vec<String>)> = Vec::new();
    let mut made = Vec::new();
    for spec in specs {
        let (Some(user), Some(url)) = (&spec.facts.cache.user, &spec.facts.cache.admin_url) else { continue };
        let known = connections.iter().position(|(of, ..)| of == url);
        let index = known.unwrap_or(connections.len());
        if known.is_none() {
            let mut admin = admin(&spec.facts)?;
            let users = admin.command(&[b"ACL", b"USERS"])?;
            let users = users.items().iter().filter_map(redis::Reply::text).collect();
            connections.push((url.clone(), admin, users));
        }
        if let Some((_, admin, users)) = connections.get_mut(index)
            && !users.contains(&user.name)
        {
            grant(admin, spec)?;
            made.push(user.name.clone());
        }
    }
    Ok(made)
}

/// Each part that a server holds `spec` to, and what is not as it should be. Nothing is changed.
#[must_use]
pub fn look(spec: &Spec) -> Vec<(Enforced, Result<(), Trouble>)> {
    let mut seen = Vec::new();
    if let Some(user) = &spec.facts.cache.user {
        let looked = admin(&spec.facts).and_then(|mut admin| {
            refuse_open_door(&mut admin)?;
            compare(&mut admin, &user.name, &spec.facts)?;
            prove(spec)
        });
        seen.push((Enforced::Redis, looked));
    }
    if spec.isolation.has(Enforced::Postgres) {
        seen.push((Enforced::Postgres, role(spec).map(drop)));
    }
    seen
}

/// What the user of a lane may do, in the words of ACL SETUSER, after `reset`.
fn rules(facts: &Facts) -> Vec<String> {
    let prefixes = prefixes(facts);
    let reached = prefixes.iter().flat_map(|prefix| [format!("~{prefix}"), format!("&{prefix}")]);
    std::iter::once("on".to_owned()).chain(reached).chain(COMMANDS.map(|command| format!("+{command}"))).collect()
}

/// Refuses a user who has other rules than those that were given to it.
fn compare(admin: &mut Connection, name: &str, facts: &Facts) -> Result<(), Trouble> {
    let user = admin.command(&[b"ACL", b"GETUSER", name.as_bytes()])?;
    let trouble = |what: String| {
        let what = format!("{}: the user {name} {what}", admin.server());
        Err(Trouble { what, hint: Some("laneway isolate gives it its rules again".to_owned()) })
    };
    let field = |wanted: &str| -> Vec<String> {
        let at = user.items().iter().position(|item| item.text().as_deref() == Some(wanted));
        let Some(value) = at.and_then(|at| user.items().get(at + 1)) else { return Vec::new() };
        // A list before Redis 7, since then one line.
        match value.text() {
            Some(line) => line.split_whitespace().map(str::to_owned).collect(),
            None => value.items().iter().map(|item| item.text().unwrap_or_else(|| "(...)".to_owned())).collect(),
        }
    };
    if user.items().is_empty() {
        return trouble("is not there".to_owned());
    }
    let marked = |mark: char, words: Vec<String>| -> Vec<String> {
        words.into_iter().map(|word| format!("{mark}{}", word.trim_start_matches(mark))).collect()
    };
    let mut has: BTreeSet<String> = field("commands").into_iter().filter(|word| word != "-@all").collect();
    has.extend(field("flags").into_iter().filter(|flag| ["on", "nopass"].contains(&flag.as_str())));
    has.extend(marked('~', field("keys")).into_iter().chain(marked('&', field("channels"))));
    has.extend(field("selectors"));
    if field("passwords").len() > 1 {
        has.insert("a second password".to_owned());
    }
    let given: BTreeSet<String> = rules(facts).into_iter().collect();
    let words = |rules: BTreeSet<&String>| rules.into_iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let (more, less) = (words(has.difference(&given).collect()), words(given.difference(&has).collect()));
    match (more.as_str(), less.as_str()) {
        ("", "") => Ok(()),
        (more, "") => trouble(format!("has more than its rules: {more}")),
        ("", less) => trouble(format!("lacks of its rules: {less}")),
        (more, less) => trouble(format!("has more than its rules: {more}; and lacks: {less}")),
    }
}

fn admin(facts: &Facts) -> Result<Connection, Trouble> {
    let url = facts.cache.admin_url.as_deref().unwrap_or_default();
    Ok(Server::parse(url)?.open(PATIENCE)?)
}

/// What keys and channels of the lane begin with.
fn prefixes(facts: &Facts) -> Vec<String> {
    let mut prefixes = vec![format!("{}:*", facts.cache.prefix)];
    if facts.channels_url.is_some() && facts.channels_prefix != facts.cache.prefix {
        prefixes.push(format!("{}:*", facts.channels_prefix));
    }
    prefixes
}

/// Whoever needs no password to be everybody needs no user of his own.
fn refuse_open_door(admin: &mut Connection) -> Result<(), Trouble> {
    let default = admin.command(&[b"ACL", b"GETUSER", b"default"])?;
    let fields: Vec<String> =
        default.items().iter().flat_map(|item| item.items().iter().filter_map(redis::Reply::text)).collect();
    let has = |flag: &str| fields.iter().any(|field| field == flag);
    if has("on") && has("nopass") {
        return Err(Trouble {
            what: format!("{}: anybody who connects without a name may do everything there", admin.server()),
            hint: Some(
                "give the default user a password (`requirepass`), or turn it off: ACL SETUSER default off".into(),
            ),
        });
    }
    Ok(())
}

fn grant(admin: &mut Connection, spec: &Spec) -> Result<(), Trouble> {
    let Some(user) = &spec.facts.cache.user else { return Ok(()) };
    let password = lane::cache_password(spec)?.unwrap_or_default();
    let mut words = vec!["ACL".to_owned(), "SETUSER".to_owned(), user.name.clone(), "reset".to_owned()];
    words.push(format!(">{password}"));
    words.extend(rules(&spec.facts));
    let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
    admin.command(&words)?;
    Ok(())
}

/// The lane's own way in works.
fn prove(spec: &Spec) -> Result<(), Trouble> {
    for (_, url) in lane::cache_urls(spec)? {
        Server::parse(&url)?.open(PATIENCE)?.ping()?;
    }
    Ok(())
}

/// A role of the lane's own, that is no superuser, has a limit, and whose database is closed to all others.
fn role(spec: &Spec) -> Result<Option<String>, Trouble> {
    let (Some(url), Database::Postgres { name, application_name, .. }) =
        (lane::database_url(spec)?, &spec.facts.database)
    else {
        return Ok(None);
    };
    let mut server = postgres::Server::connect(&url, application_name, PATIENCE)?;
    let shown = server.shown().to_owned();
    let refused =
        |what: &str, hint: &str| Err(Trouble { what: format!("{shown}: {what}"), hint: Some(hint.to_owned()) });
    if server.is_superuser()? {
        return refused("the role is a superuser, whom nothing is kept from", "use a role of the lane's own");
    }
    let database = server.database(name)?;
    if let (Some(DatabaseSetup::Create { role, .. }), Some(database)) = (&spec.database_setup, &database)
        && database.owner != *role
    {
        let (what, name) = (format!("the database belongs to the role {}", database.owner), postgres::identifier(name));
        return refused(&what, &format!("ALTER DATABASE {name} OWNER TO {}", postgres::identifier(role)));
    }
    if database.is_some_and(|database| database.is_open_to_all) {
        let hint = format!("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC", postgres::identifier(name));
        return refused("every role of the server may connect to the database", &hint);
    }
    if server.count("SELECT count(*) FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0")? == 0 {
        let hint = "`database: {create: true, max_connections: 20}`, or ALTER ROLE ... CONNECTION LIMIT 20";
        return refused("the role may open every session that the server has", hint);
    }
    Ok(Some(format!("{shown}: a role of its own, no superuser, with a limit; nobody else may connect")))
}
