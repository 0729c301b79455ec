//! What services keep an instance from: a user of its own on Redis, who reaches its keys only, and a role of its own on
//! PostgreSQL, who reaches its database only.
//!
//! Made before anything runs in the lane, and again when a Redis server forgot its users. A server that lets others in
//! anyway is refused: a fence beside an open gate protects nobody.

use std::time::Duration;

use super::database::Trouble;
use crate::plan::spec::{Database, Enforced, Facts, Spec};
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
    let mut words =
        vec!["ACL".to_owned(), "SETUSER".to_owned(), user.name.clone(), "reset".to_owned(), "on".to_owned()];
    words.push(format!(">{password}"));
    for prefix in prefixes(&spec.facts) {
        words.extend([format!("~{prefix}"), format!("&{prefix}")]);
    }
    words.extend(COMMANDS.iter().map(|command| format!("+{command}")));
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
    if server.database(name)?.is_some_and(|database| database.is_open_to_all) {
        let hint = format!("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC", postgres::identifier(name));
        return refused("every role of the server may connect to the database", &hint);
    }
    if server.count("SELECT count(*) FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0")? == 0 {
        let hint = "`database: {create: true, max_connections: 20}`, or ALTER ROLE ... CONNECTION LIMIT 20";
        return refused("the role may open every session that the server has", hint);
    }
    Ok(Some(format!("{shown}: a role of its own, no superuser, with a limit; nobody else may connect")))
}
