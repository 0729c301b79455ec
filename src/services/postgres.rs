//! PostgreSQL as its clients see it: roles, databases, sessions; made, looked at, dropped.
//!
//! Knows URLs and names, nothing of lanes; `upkeep` and `doctor` call it, on threads that may block. A password never goes
//! into a message, and to the server only as what it keeps of one (SCRAM-SHA-256), so that no log of statements holds it.
//! What is named in a statement goes through [`identifier`] and [`literal`].

use std::fmt;
use std::sync::mpsc;
use std::time::Duration;

use postgres::error::SqlState;
use postgres::{Client, Config, NoTls, Row};
use sha2::{Digest, Sha256};

/// What the server keeps of a name; it cuts the rest off, and two names could become one.
pub const MAX_NAME: usize = 63;

/// Parameters of a URL that are ours to know; a framework's own are left out.
const PARAMETERS: [&str; 12] = [
    "user",
    "password",
    "dbname",
    "options",
    "sslmode",
    "host",
    "hostaddr",
    "port",
    "keepalives",
    "keepalives_idle",
    "target_session_attrs",
    "channel_binding",
];

/// What went wrong, for those who decide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The URL cannot be one.
    Url,
    /// Nobody answers there, or not in time.
    Unreachable,
    /// The password or the user is not the server's.
    Refused,
    /// The server or the role has no connection left.
    Full,
    /// The user may not do it.
    Forbidden,
    /// It is there already.
    Exists,
    /// It is not there.
    Missing,
    /// Somebody else uses it.
    InUse,
    /// Anything else.
    Other,
}

/// What a server could not or would not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresError {
    /// `user@host:port/database`.
    pub server: String,
    /// Which kind.
    pub trouble: Trouble,
    /// What it answered.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}: {}", self.server, self.what)
    }
}

impl std::error::Error for PostgresError {}

/// A session of some client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The server's process.
    pub pid: i32,
    /// Which database.
    pub database: String,
    /// Which role.
    pub role: String,
    /// What the client says it is; `None` where the asking role may not see it.
    pub application_name: Option<String>,
    /// `active`, `idle`, `idle in transaction` ...; `None` as above.
    pub state: Option<String>,
    /// The client's address and port; `None` for a Unix socket, and as above.
    pub client: Option<String>,
    /// How long it has been in that state.
    pub since: Option<Duration>,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Most sessions at a time; `None` = no limit.
    pub max_connections: Option<u32>,
    /// May do everything.
    pub is_superuser: bool,
    /// What is said of it.
    pub comment: Option<String>,
    /// Sessions of it now.
    pub connections: u32,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Which role owns it.
    pub owner: String,
    /// Bytes; `None` where the asking role may not know.
    pub size: Option<u64>,
    /// Whether every role may connect.
    pub is_open_to_all: bool,
    /// Sessions in it now, the asking one not among them.
    pub connections: u32,
    /// What is said of it.
    pub comment: Option<String>,
}

/// What a role shall be.
#[derive(Clone, Copy, Debug)]
pub struct RoleWish<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its password.
    pub password: &'a str,
    /// Most sessions at a time; `None` = no limit.
    pub max_connections: Option<u32>,
    /// What is said of it.
    pub comment: &'a str,
}

/// A connection to a server.
pub struct Server {
    client: Client,
    shown: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.shown)
    }
}

impl Server {
    /// Connects to the server and database of `url`, as `application_name`. Every statement has `timeout` too.
    ///
    /// # Errors
    /// When nobody answers in time, or the server will not have us.
    pub fn connect(url: &str, application_name: &str, timeout: Duration) -> Result<Self, PostgresError> {
        let shown = shown(url);
        let mut config: Config = known_only(url).parse().map_err(|error: postgres::Error| PostgresError {
            server: shown.clone(),
            trouble: Trouble::Url,
            what: format!("this is no URL of a server: {}", cause(&error)),
            hint: Some("such as postgres://user:password@127.0.0.1:5432/database".to_owned()),
        })?;
        config.application_name(application_name).connect_timeout(timeout).tcp_user_timeout(timeout);
        if config.get_user().is_none() {
            config.user("postgres");
        }
        // The crate's own limit ends with the connection; a server that accepts it and falls silent would be waited for.
        let (found, answer) = mpsc::channel();
        let connecting = std::thread::Builder::new().name("postgres".to_owned()).spawn(move || {
            let _ = found.send(config.connect(NoTls));
        });
        let late = |what: &str| PostgresError {
            server: shown.clone(),
            trouble: Trouble::Unreachable,
            what: what.to_owned(),
            hint: Some("is the server running, and is this its address?".to_owned()),
        };
        connecting.map_err(|error| late(&format!("no thread to connect with: {error}")))?;
        let client = match answer.recv_timeout(timeout) {
            Ok(connected) => connected.map_err(|error| wrong(&shown, &error))?,
            Err(_) => return Err(late(&format!("no answer within {timeout:?}"))),
        };
        let mut server = Self { client, shown };
        let limit = timeout.as_millis();
        server.run(&format!("SET statement_timeout = {limit}; SET lock_timeout = {limit}"))?;
        Ok(server)
    }

    /// Who and where, for people.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// From here on a statement has this long.
    ///
    /// # Errors
    /// The server's.
    pub fn allow(&mut self, time: Duration) -> Result<(), PostgresError> {
        let limit = time.as_millis();
        self.run(&format!("SET statement_timeout = {limit}; SET lock_timeout = {limit}"))
    }

    /// Waits until nobody else who asked so in this database holds `name`. Held until the connection ends.
    ///
    /// # Errors
    /// When it takes longer than a statement may.
    pub fn lock(&mut self, name: &str) -> Result<(), PostgresError> {
        self.ask("SELECT pg_advisory_lock(hashtextextended($1, 0))", &[&name]).map(|_| ())
    }

    /// The server's version, such as `15.18`.
    ///
    /// # Errors
    /// The server's.
    pub fn version(&mut self) -> Result<String, PostgresError> {
        let rows = self.ask("SELECT split_part(current_setting('server_version'), ' ', 1)", &[])?;
        Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
    }

    /// Whether the connected role may do everything.
    ///
    /// # Errors
    /// The server's.
    pub fn is_superuser(&mut self) -> Result<bool, PostgresError> {
        let rows = self.ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[])?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Every client's session but this one.
    ///
    /// # Errors
    /// The server's.
    pub fn sessions(&mut self) -> Result<Vec<Session>, PostgresError> {
        let rows = self.ask(
            "SELECT pid, datname, usename, application_name, state, \
             CASE WHEN client_port > 0 THEN host(client_addr) || ':' || client_port END, \
             extract(epoch FROM now() - state_change)::float8 \
             FROM pg_stat_activity WHERE datname IS NOT NULL AND usename IS NOT NULL AND pid <> pg_backend_pid() \
             ORDER BY pid",
            &[],
        )?;
        let session = |row: &Row| Session {
            pid: row.get(0),
            database: row.get(1),
            role: row.get(2),
            application_name: row.get(3),
            state: row.get(4),
            client: row.get(5),
            since: row.get::<_, Option<f64>>(6).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        };
        Ok(rows.iter().map(session).collect())
    }

    /// The role `name`, if there is one.
    ///
    /// # Errors
    /// The server's.
    pub fn role(&mut self, name: &str) -> Result<Option<Role>, PostgresError> {
        let rows = self.ask(
            "SELECT rolconnlimit, rolsuper, shobj_description(oid, 'pg_authid'), \
             (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid) \
             FROM pg_roles r WHERE rolname = $1",
            &[&name],
        )?;
        Ok(rows.first().map(|row| Role {
            max_connections: u32::try_from(row.get::<_, i32>(0)).ok(),
            is_superuser: row.get(1),
            comment: row.get(2),
            connections: u32::try_from(row.get::<_, i64>(3)).unwrap_or(u32::MAX),
        }))
    }

    /// The database `name`, if there is one.
    ///
    /// # Errors
    /// The server's.
    pub fn database(&mut self, name: &str) -> Result<Option<Database>, PostgresError> {
        let rows = self.ask(
            "SELECT pg_get_userbyid(datdba), \
             CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) END, \
             datacl IS NULL OR EXISTS (SELECT FROM aclexplode(datacl) \
                                       WHERE grantee = 0 AND privilege_type = 'CONNECT'), \
             (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid AND pid <> pg_backend_pid()), \
             shobj_description(oid, 'pg_database') \
             FROM pg_database d WHERE datname = $1",
            &[&name],
        )?;
        Ok(rows.first().map(|row| Database {
            owner: row.get(0),
            size: row.get::<_, Option<i64>>(1).map(i64::unsigned_abs),
            is_open_to_all: row.get(2),
            connections: u32::try_from(row.get::<_, i64>(3)).unwrap_or(u32::MAX),
            comment: row.get(4),
        }))
    }

    /// The tables of the connected database, the server's own not among them.
    ///
    /// # Errors
    /// The server's.
    pub fn tables(&mut self) -> Result<u64, PostgresError> {
        let rows = self.ask(
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT LIKE 'pg\\_%' AND schemaname <> 'information_schema'",
            &[],
        )?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
    }

    /// Makes a role that may log in and nothing else.
    ///
    /// # Errors
    /// [`Trouble::Exists`] when it is there; else the server's.
    pub fn make_role(&mut self, wish: &RoleWish<'_>) -> Result<(), PostgresError> {
        let name = identifier(wish.name);
        // In one message, and so in one transaction: no role is there without its comment.
        let comment = literal(wish.comment);
        self.run(&format!("CREATE ROLE {name} {}; COMMENT ON ROLE {name} IS {comment}", attributes(wish)))
    }

    /// Makes an existing role what it shall be.
    ///
    /// # Errors
    /// The server's.
    pub fn mend_role(&mut self, wish: &RoleWish<'_>) -> Result<(), PostgresError> {
        let name = identifier(wish.name);
        let comment = literal(wish.comment);
        self.run(&format!("ALTER ROLE {name} {}; COMMENT ON ROLE {name} IS {comment}", attributes(wish)))
    }

    /// Makes a database that `owner` owns, of `template` where one is given. Every role may connect to it as yet.
    ///
    /// # Errors
    /// [`Trouble::Exists`] when it is there, [`Trouble::InUse`] when somebody is connected to the template; else the
    /// server's.
    pub fn make_database(&mut self, name: &str, owner: &str, template: Option<&str>) -> Result<(), PostgresError> {
        if !self.is_superuser()? {
            // Only who is a member of a role may give it something.
            self.run(&format!("GRANT {} TO CURRENT_USER", identifier(owner)))?;
        }
        let template = template.map(|template| format!(" TEMPLATE {}", identifier(template))).unwrap_or_default();
        self.run(&format!("CREATE DATABASE {} OWNER {}{template}", identifier(name), identifier(owner)))
    }

    /// Says something of a database.
    ///
    /// # Errors
    /// The server's.
    pub fn note_database(&mut self, name: &str, comment: &str) -> Result<(), PostgresError> {
        self.run(&format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(comment)))
    }

    /// Takes the right to connect from all but the owner.
    ///
    /// # Errors
    /// The server's.
    pub fn close_to_all(&mut self, name: &str) -> Result<(), PostgresError> {
        self.run(&format!("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC", identifier(name)))
    }

    /// Gives everything in the connected database that `from` owns to `to`: what a template brought along.
    ///
    /// # Errors
    /// The server's.
    pub fn hand_over(&mut self, to: &str) -> Result<(), PostgresError> {
        // Schemas first: who owns a table must be allowed to make one. What belongs to an extension, to the server or to a
        // table goes its own way.
        let statements = "WITH heir AS (SELECT oid FROM pg_roles WHERE rolname = $1), \
             ours AS (SELECT oid, nspname FROM pg_namespace \
                      WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'), \
             apart AS (SELECT classid, objid FROM pg_depend WHERE deptype IN ('e', 'a', 'i')) \
             SELECT format('ALTER SCHEMA %I OWNER TO %I', ours.nspname, $1) \
             FROM ours JOIN pg_namespace n USING (oid), heir \
             WHERE ours.nspname <> 'public' AND n.nspowner <> heir.oid \
             UNION ALL SELECT format('ALTER %s %I.%I OWNER TO %I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' \
                 WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, \
                 ours.nspname, c.relname, $1) \
             FROM pg_class c JOIN ours ON ours.oid = c.relnamespace, heir \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relowner <> heir.oid \
             AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM apart) \
             UNION ALL SELECT format('ALTER TYPE %I.%I OWNER TO %I', ours.nspname, t.typname, $1) \
             FROM pg_type t JOIN ours ON ours.oid = t.typnamespace, heir \
             WHERE t.typtype IN ('e', 'd', 'r') AND t.typowner <> heir.oid \
             AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM apart) \
             UNION ALL SELECT format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, $1) \
             FROM pg_proc p JOIN ours ON ours.oid = p.pronamespace, heir WHERE p.proowner <> heir.oid \
             AND ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM apart)";
        let rows = self.ask(statements, &[&to])?;
        let all: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if all.is_empty() { Ok(()) } else { self.run(&all.join(";")) }
    }

    /// Removes everything in the connected database that the connected role owns.
    ///
    /// # Errors
    /// The server's.
    pub fn empty(&mut self) -> Result<(), PostgresError> {
        self.run("DROP OWNED BY CURRENT_USER CASCADE")
    }

    /// Removes a database, and ends whoever is connected to it.
    ///
    /// # Errors
    /// [`Trouble::Missing`] when it is not there; else the server's.
    pub fn drop_database(&mut self, name: &str) -> Result<(), PostgresError> {
        self.run(&format!("DROP DATABASE {} WITH (FORCE)", identifier(name)))
    }

    /// Removes a role.
    ///
    /// # Errors
    /// [`Trouble::Missing`] when it is not there, [`Trouble::InUse`] when it owns something elsewhere; else the server's.
    pub fn drop_role(&mut self, name: &str) -> Result<(), PostgresError> {
        self.run(&format!("DROP ROLE {}", identifier(name)))
    }

    /// What the statement `question` counts: one row of one number.
    ///
    /// # Errors
    /// The server's.
    pub fn count(&mut self, question: &str) -> Result<u64, PostgresError> {
        let rows = self.ask(question, &[])?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
    }

    /// Carries out `statement`, such as a DELETE; how many rows it was about.
    ///
    /// # Errors
    /// The server's.
    pub fn change(&mut self, statement: &str) -> Result<u64, PostgresError> {
        self.client.execute(statement, &[]).map_err(|error| wrong(&self.shown, &error))
    }

    fn run(&mut self, statement: &str) -> Result<(), PostgresError> {
        self.client.batch_execute(statement).map_err(|error| wrong(&self.shown, &error))
    }

    fn ask(
        &mut self,
        question: &str,
        values: &[&(dyn postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.client.query(question, values).map_err(|error| wrong(&self.shown, &error))
    }
}

fn attributes(wish: &RoleWish<'_>) -> String {
    let kept = postgres_protocol::password::scram_sha_256(wish.password.as_bytes());
    format!("LOGIN CONNECTION LIMIT {} PASSWORD {}", limit(wish.max_connections), literal(&kept))
}

fn limit(max_connections: Option<u32>) -> String {
    max_connections.map_or_else(|| "-1".to_owned(), |most| most.to_string())
}

/// A name as it stands in a statement. What ends a text for the server (NUL) ends it here.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", before_nul(name).replace('"', "\"\""))
}

/// A text as it stands in a statement, whatever the server does with backslashes.
#[must_use]
pub fn literal(text: &str) -> String {
    let text = before_nul(text).replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

fn before_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or_default()
}

/// What tells one password from another and nothing of it: its first 64 bits of SHA-256. For random ones only.
#[must_use]
pub fn fingerprint(password: &str) -> String {
    let digest = Sha256::digest(password.as_bytes());
    digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// `url` with the password `password`, which is of letters that need no escape.
#[must_use]
pub fn with_password(url: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (login, host) = authority.rsplit_once('@').map_or(("", authority), |(login, host)| (login, host));
    let user = login.split_once(':').map_or(login, |(user, _)| user);
    format!("{scheme}://{user}:{password}@{host}{tail}")
}

/// `url` with another database.
#[must_use]
pub fn with_database(url: &str, database: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let Some((scheme, rest)) = address.split_once("://") else { return url.to_owned() };
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{}{query}", encoded(database))
}

/// Whether `url` names a database.
#[must_use]
pub fn has_database(url: &str) -> bool {
    let address = url.split('?').next().unwrap_or_default();
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split_once('/').is_some_and(|(_, database)| !database.is_empty())
}

/// A name as it stands in a URL.
#[must_use]
pub fn encoded(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().fold(String::new(), |text, byte| {
        if is_plain(byte) { format!("{text}{}", char::from(byte)) } else { format!("{text}%{byte:02X}") }
    })
}

/// What a program of PostgreSQL's takes from its environment instead of its arguments: names and values.
///
/// # Errors
/// When the URL cannot be one.
pub fn libpq_environment(url: &str) -> Result<Vec<(&'static str, String)>, PostgresError> {
    let config: Config = known_only(url).parse().map_err(|error: postgres::Error| PostgresError {
        server: shown(url),
        trouble: Trouble::Url,
        what: format!("this is no URL of a server: {}", cause(&error)),
        hint: None,
    })?;
    let host = config.get_hosts().first().map(|host| match host {
        postgres::config::Host::Tcp(host) => host.clone(),
        postgres::config::Host::Unix(path) => path.display().to_string(),
    });
    let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
    let all = [
        ("PGHOST", host),
        ("PGPORT", config.get_ports().first().map(ToString::to_string)),
        ("PGUSER", Some(config.get_user().unwrap_or("postgres").to_owned())),
        ("PGPASSWORD", password),
        ("PGDATABASE", config.get_dbname().map(str::to_owned)),
    ];
    Ok(all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// `user@host:port/database` of a URL, without its password and parameters.
#[must_use]
pub fn shown(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or_default();
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let Some((login, host)) = authority.rsplit_once('@') else { return rest.to_owned() };
    format!("{}@{host}{tail}", login.split(':').next().unwrap_or_default())
}

/// `url` without the parameters that only a framework knows.
fn known_only(url: &str) -> String {
    let Some((address, query)) = url.split_once('?') else { return url.to_owned() };
    let is_known = |pair: &&str| PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
    let known: Vec<&str> = query.split('&').filter(is_known).collect();
    if known.is_empty() { address.to_owned() } else { format!("{address}?{}", known.join("&")) }
}

fn wrong(server: &str, error: &postgres::Error) -> PostgresError {
    let (trouble, hint) = match error.code() {
        Some(code) => by_code(code),
        None => (Trouble::Unreachable, Some("is the server running, and is this its address?")),
    };
    let what = match error.as_db_error() {
        Some(answer) => match answer.detail() {
            Some(detail) => format!("{} ({})", answer.message(), detail.trim_end_matches('.')),
            None => answer.message().to_owned(),
        },
        None if cause(error).contains("TLS") => "it wants TLS, which laneway's own client does not speak".to_owned(),
        None => cause(error),
    };
    PostgresError { server: server.to_owned(), trouble, what, hint: hint.map(str::to_owned) }
}

fn by_code(code: &SqlState) -> (Trouble, Option<&'static str>) {
    let table: [(&[SqlState], Trouble, Option<&'static str>); 8] = [
        (
            &[SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION],
            Trouble::Refused,
            Some("is this the user, and is this its password?"),
        ),
        (
            &[SqlState::TOO_MANY_CONNECTIONS],
            Trouble::Full,
            Some("`laneway db status` shows who is connected; `database.max_connections` is the lane's own limit"),
        ),
        (
            &[SqlState::INSUFFICIENT_PRIVILEGE],
            Trouble::Forbidden,
            Some("the administrator needs CREATEROLE and CREATEDB, and has to own what is copied"),
        ),
        (
            &[SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_DATABASE, SqlState::UNIQUE_VIOLATION],
            Trouble::Exists,
            None,
        ),
        (&[SqlState::UNDEFINED_OBJECT, SqlState::INVALID_CATALOG_NAME], Trouble::Missing, None),
        (&[SqlState::OBJECT_IN_USE, SqlState::DEPENDENT_OBJECTS_STILL_EXIST], Trouble::InUse, None),
        (
            &[SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE],
            Trouble::InUse,
            Some("it took too long; somebody else holds what it needs"),
        ),
        (
            &[SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN],
            Trouble::Unreachable,
            Some("it is starting or ending; try again"),
        ),
    ];
    let found = table.into_iter().find(|(codes, ..)| codes.contains(code));
    found.map_or((Trouble::Other, None), |(_, trouble, hint)| (trouble, hint))
}

/// The innermost cause: the outer ones say less.
fn cause(error: &postgres::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        assert_eq!(identifier("a\"; DROP ROLE b; --"), "\"a\"\"; DROP ROLE b; --\"");
        assert_eq!(identifier("a\0b"), "\"a\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'; x"), "E'a\\\\''; x'");
    }

    #[test]
    fn urls_change_in_one_part_only() {
        assert_eq!(with_password("postgres://me@h:5432/d?x=1", "pw"), "postgres://me:pw@h:5432/d?x=1");
        assert_eq!(with_password("postgres://me:old@h/d", "pw"), "postgres://me:pw@h/d");
        assert_eq!(
            with_database("postgres://me:p@h:1/d?sslmode=disable", "ö b"),
            "postgres://me:p@h:1/%C3%B6%20b?sslmode=disable"
        );
        assert_eq!(with_database("postgres://h", "b"), "postgres://h/b");
        assert_eq!(shown("postgres://me:ge@heim@h:1/d?password=x"), "me@h:1/d");
        assert_eq!(shown("postgres://h/d"), "h/d");
        assert_eq!(known_only("postgres://h/d?pool=5&sslmode=disable&x=1"), "postgres://h/d?sslmode=disable");
        assert_eq!(known_only("postgres://h/d?pool=5"), "postgres://h/d");
    }

    #[test]
    fn programs_get_the_password_by_their_environment() {
        let environment = libpq_environment("postgres://me:p%40ss@127.0.0.1:5433/d").unwrap();
        let expected = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", "5433"),
            ("PGUSER", "me"),
            ("PGPASSWORD", "p@ss"),
            ("PGDATABASE", "d"),
        ];
        assert_eq!(environment, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn who_is_not_there_is_named_without_the_password() {
        // Port 1 is nobody's.
        let error = Server::connect("postgres://me:geheim@127.0.0.1:1/d", "t", Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.to_string(), "PostgreSQL me@127.0.0.1:1/d: connection refused");
        assert_eq!(error.trouble, Trouble::Unreachable);
        let error = Server::connect("postgres://me:ge#heim@h:x/d", "t", Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.trouble, Trouble::Url);
        assert!(!error.to_string().contains("heim"), "{error}");
    }

    #[test]
    fn a_server_that_falls_silent_is_not_waited_for() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://me@{}/d", silent.local_addr().unwrap());
        let error = Server::connect(&url, "t", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().ends_with("no answer within 50ms"), "{error}");
    }

    #[test]
    fn a_fingerprint_tells_passwords_apart() {
        assert_eq!(fingerprint("abc"), "ba7816bf8f01cfea");
    }
}
