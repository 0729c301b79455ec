//! A Redis server, as a client sees it: whether it answers, what it holds, which keys begin with a prefix, and their removal.
//!
//! The only file that knows the crate. It blocks, each answer for as long as the caller says; it reads no clock (who wants to
//! know how long an answer took measures it), and it knows no instance. What it does to keys it does to those of one prefix,
//! in small steps between which the server serves others: FLUSHDB, which Django's own `cache.clear()` is, does not occur.
//! Called by `upkeep`, the doctor, and the thread that publishes health.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError, Value};
use serde::Serialize;

/// Slots that one SCAN looks at. A server is busy with one for well under a millisecond; twice as many saved no time.
const SCAN_COUNT: usize = 1000;
/// Keys that one UNLINK removes.
const UNLINK_BATCH: usize = 500;

/// Where a server is, and who asks.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Server {
    place: Place,
    username: Option<String>,
    password: Option<String>,
    database: i64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    Tcp(String, u16),
    Unix(std::path::PathBuf),
}

/// What went wrong, and with which server. Never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{server}: {said}")]
pub struct Error {
    /// The server, as `Server` prints itself.
    pub server: String,
    /// Which kind of trouble.
    pub fault: Fault,
    /// What the server, or the system, said.
    pub said: String,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The URL cannot be used.
    Url,
    /// Nobody answers there, or the connection ended.
    Unreachable,
    /// No answer in time.
    Slow,
    /// The password or the user is wrong, or one is missing.
    Login,
    /// This user may not do this.
    Forbidden,
    /// `maxmemory` is reached and nothing may be evicted.
    Full,
    /// A replica, or a server that cannot save and therefore takes no writes.
    ReadOnly,
    /// It reads its data from the disk after a start.
    Loading,
    /// Anything else it says.
    Other,
}

/// `url` with another user, whose name and password are of letters that need no escape.
#[must_use]
pub fn with_login(url: &str, user: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{user}:{password}@{host}{tail}")
}

impl Fault {
    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Url => Some("redis://[user:password@]host[:port][/database] or unix:///path/to/socket[?db=N]"),
            Self::Unreachable => Some("is it running, and is this its address? try `redis-cli ping`"),
            Self::Slow => Some("a long command or swapping holds it up: `redis-cli slowlog get`"),
            Self::Login => Some("the user and the password stand in `cache.url`; `${VAR}` keeps them out of the file"),
            Self::Forbidden => Some("`redis-cli acl getuser NAME` shows what the user may do"),
            Self::Full => Some("raise `maxmemory`, choose a `maxmemory-policy` that evicts, or clear a cache"),
            Self::ReadOnly => Some("use the primary, or mend what keeps it from saving: `redis-cli info persistence`"),
            Self::Loading => Some("try again in a moment"),
            Self::Other => None,
        }
    }
}

impl Server {
    /// The server of a URL as redis-py reads it: `redis://[user:password@]host[:port][/database]`, or
    /// `unix://[user:password@]/path[?db=N]`.
    ///
    /// # Errors
    /// When it is none, or asks for TLS.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
        // What stands before an `@` may be a password.
        let fault = |said: &str| Error {
            server: if scheme.is_empty() {
                "the URL".to_owned()
            } else {
                format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default())
            },
            fault: Fault::Url,
            said: said.to_owned(),
        };
        let (readable, database) = match scheme {
            "redis" => (url.to_owned(), query(rest, "db")),
            "unix" => (unix(rest), None),
            "rediss" => return Err(fault("TLS (rediss://) is not spoken by laneway")),
            _ => return Err(fault("is no URL of a Redis server")),
        };
        let info =
            readable.into_connection_info().map_err(|error| fault(error.detail().unwrap_or(&error.to_string())))?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Place::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            _ => return Err(fault("is no URL of a Redis server")),
        };
        let database = match database {
            Some(number) => number.parse().map_err(|_| fault("the number of the database is none"))?,
            None => info.redis_settings().db(),
        };
        let text = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
        let login = info.redis_settings();
        Ok(Self { place, username: text(login.username()), password: text(login.password()), database })
    }

    /// Whether both are one database of one server, whoever asks.
    #[must_use]
    pub fn is_same_database(&self, other: &Self) -> bool {
        self.place == other.place && self.database == other.database
    }

    /// The same database, asked as `other` asks the server where that is the same.
    #[must_use]
    pub fn by_the_login_of(self, other: Self) -> Self {
        if self.place == other.place { Self { database: self.database, ..other } } else { self }
    }

    /// The user that it is asked as; `default` where none is named.
    #[must_use]
    pub fn username(&self) -> &str {
        self.username.as_deref().unwrap_or("default")
    }

    /// Connects, logs in and chooses the database. Connecting and each answer may take `patience`.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(&self, patience: Duration) -> Result<Connection, Error> {
        let address = match &self.place {
            Place::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
            Place::Unix(path) => ConnectionAddr::Unix(path.clone()),
        };
        let failed = |error: RedisError| self.error(&error);
        // The library's own login forgets what the server said; what it says of itself would stand in ACL LOG.
        let quiet = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info: ConnectionInfo = address.into_connection_info().map_err(failed)?.set_redis_settings(quiet);
        let client = redis::Client::open(info).map_err(failed)?;
        let inner = client.get_connection_with_timeout(patience).map_err(failed)?;
        inner.set_read_timeout(Some(patience)).map_err(failed)?;
        inner.set_write_timeout(Some(patience)).map_err(failed)?;
        let mut connection = Connection { inner, server: self.clone() };
        match (&self.username, &self.password) {
            (Some(user), Some(password)) => connection.command(&[b"AUTH", user.as_bytes(), password.as_bytes()])?,
            (None, Some(password)) => connection.command(&[b"AUTH", password.as_bytes()])?,
            (_, None) => Reply::Nil,
        };
        if self.database != 0 {
            connection.command(&[b"SELECT", self.database.to_string().as_bytes()])?;
        }
        Ok(connection)
    }

    fn error(&self, error: &RedisError) -> Error {
        let text = error.to_string();
        let (fault, said) = match error.kind() {
            ErrorKind::InvalidClientConfig => (Fault::Url, error.detail().unwrap_or(&text).to_owned()),
            ErrorKind::Io if error.is_timeout() => (Fault::Slow, "no answer in time".to_owned()),
            ErrorKind::Io | ErrorKind::Parse => (Fault::Unreachable, unreachable(error)),
            _ => {
                let said = match (error.code(), error.detail()) {
                    (Some(code), Some(detail)) => format!("{code} {detail}"),
                    (Some(code), None) => code.to_owned(),
                    _ => text,
                };
                (fault(&said), said)
            }
        };
        Error { server: self.to_string(), fault, said }
    }
}

/// The server without its password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.username.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        match &self.place {
            Place::Tcp(host, port) if host.contains(':') => {
                write!(f, "redis://{user}[{host}]:{port}/{}", self.database)
            }
            Place::Tcp(host, port) => write!(f, "redis://{user}{host}:{port}/{}", self.database),
            Place::Unix(path) => write!(f, "unix://{user}{}?db={}", path.display(), self.database),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The value of `name` in the query of a URL.
fn query<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = url.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// A `unix://` URL as redis-py reads it, as the library reads it: user and password behind the path instead of before it.
fn unix(rest: &str) -> String {
    let (login, path) = match rest.find('/') {
        Some(at) => (rest[..at].trim_end_matches('@'), &rest[at..]),
        None => ("", rest),
    };
    let (path, asked) = path.split_once('?').unwrap_or((path, ""));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let plain = |text: &str| text.replace('+', "%2B");
    let asked = format!("?{asked}");
    let database = query(&asked, "db").unwrap_or("0");
    format!("unix://{path}?db={database}&user={}&pass={}", plain(user), plain(password))
}

/// The system's words; the library's are `Connection refused (os error 111)`.
fn unreachable(error: &RedisError) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    match text {
        "failed to fill whole buffer" | "" => "the connection ended".to_owned(),
        text => text.to_lowercase(),
    }
}

fn fault(said: &str) -> Fault {
    match said.split(' ').next().unwrap_or_default() {
        "NOAUTH" | "WRONGPASS" => Fault::Login,
        "ERR" if said.contains("AUTH") || said.contains("invalid password") => Fault::Login,
        "NOPERM" => Fault::Forbidden,
        "OOM" => Fault::Full,
        "READONLY" | "MISCONF" => Fault::ReadOnly,
        "LOADING" => Fault::Loading,
        _ => Fault::Other,
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A whole number.
    Whole(i64),
    /// Bytes, or one of the server's short words such as `OK`.
    Bytes(Vec<u8>),
    /// Several.
    List(Vec<Reply>),
}

impl Reply {
    fn of(value: Value) -> Self {
        match value {
            Value::Int(number) => Self::Whole(number),
            Value::BulkString(bytes) => Self::Bytes(bytes),
            Value::SimpleString(text) => Self::Bytes(text.into_bytes()),
            Value::Okay => Self::Bytes(b"OK".to_vec()),
            Value::Array(items) => Self::List(items.into_iter().map(Self::of).collect()),
            // The rest exists only in a version of the protocol that is not asked for.
            _ => Self::Nil,
        }
    }

    /// The number, where it is one or reads as one.
    #[must_use]
    pub fn whole(&self) -> Option<i64> {
        match self {
            Self::Whole(number) => Some(*number),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Self::Nil | Self::List(_) => None,
        }
    }

    /// The text; what is no UTF-8 in it is replaced.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Whole(number) => Some(number.to_string()),
            Self::Nil | Self::List(_) => None,
        }
    }

    /// The items of a list; none of anything else.
    #[must_use]
    pub fn items(&self) -> &[Reply] {
        match self {
            Self::List(items) => items,
            Self::Nil | Self::Whole(_) | Self::Bytes(_) => &[],
        }
    }
}

/// What a server tells of itself. The memory, hits and misses are those of the whole server, not of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Its version.
    pub version: String,
    /// Bytes that its data takes.
    pub used_memory: u64,
    /// Its limit in bytes; `None` = none.
    pub max_memory: Option<u64>,
    /// What it does at the limit, such as `noeviction`.
    pub max_memory_policy: String,
    /// Look-ups that found something, since it was started.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Keys that it threw out for want of memory.
    pub evicted: u64,
    /// Keys in this database.
    pub keys: u64,
}

impl Info {
    /// Whether it refuses to store more: it evicts nothing, and less than a hundredth of its memory is left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let is_at = |limit| self.used_memory >= limit - limit / 100;
        self.max_memory_policy == "noeviction" && self.max_memory.is_some_and(is_at)
    }
}

/// One client of the server: a line of CLIENT LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Every field by the server's name for it: `id`, `addr`, `name`, `user`, `db`, `cmd`, `age` and so on.
    pub fields: BTreeMap<String, String>,
}

impl Client {
    /// A field; empty where the server does not tell it.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// How far a walk over the keys is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Keys that the server has looked at, of all prefixes; near the end it may be a little more than there are.
    pub looked_at: u64,
    /// Keys that are gone so far.
    pub removed: u64,
}

/// The pattern of SCAN for every key that begins with `start`, whatever characters it holds.
#[must_use]
pub fn pattern(start: &str) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(start.len() + 1);
    for byte in start.bytes() {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'^' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

/// An open connection.
pub struct Connection {
    inner: redis::Connection,
    server: Server,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.server)
    }
}

impl Connection {
    /// Whom it leads to.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Any command, such as `&[b"ACL", b"GETUSER", b"x"]`. Nobody's command is shown in an error.
    ///
    /// # Errors
    /// When the server refuses it, or does not answer.
    pub fn command(&mut self, words: &[&[u8]]) -> Result<Reply, Error> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.inner).map(Reply::of).map_err(|error| self.server.error(&error))
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// When there is none.
    pub fn ping(&mut self) -> Result<(), Error> {
        self.command(&[b"PING"]).map(|_| ())
    }

    /// What the server tells of itself.
    ///
    /// # Errors
    /// When it does not answer, or this user may not ask.
    pub fn info(&mut self) -> Result<Info, Error> {
        let text = self.command(&[b"INFO"])?.text().unwrap_or_default();
        Ok(info(&text, self.server.database))
    }

    /// Keys in this database, of all prefixes.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn key_count(&mut self) -> Result<u64, Error> {
        Ok(self.command(&[b"DBSIZE"])?.whole().and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
    }

    /// Who is connected.
    ///
    /// # Errors
    /// When the server does not answer, or this user may not ask.
    pub fn clients(&mut self) -> Result<Vec<Client>, Error> {
        let text = self.command(&[b"CLIENT", b"LIST"])?.text().unwrap_or_default();
        Ok(clients(&text))
    }

    /// Stores a value that ends by itself after `lifetime`.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn set(&mut self, key: &[u8], value: &[u8], lifetime: Duration) -> Result<(), Error> {
        let milliseconds = lifetime.as_millis().max(1).to_string();
        self.command(&[b"SET", key, value, b"PX", milliseconds.as_bytes()]).map(|_| ())
    }

    /// Stores many values that end by themselves after `lifetime`, in one go.
    ///
    /// # Errors
    /// When the server does not take one of them; the others are stored.
    pub fn set_all(&mut self, values: &[(Vec<u8>, Vec<u8>)], lifetime: Duration) -> Result<(), Error> {
        let milliseconds = lifetime.as_millis().max(1).to_string();
        for part in values.chunks(UNLINK_BATCH) {
            let mut pipe = redis::pipe();
            for (key, value) in part {
                pipe.cmd("SET").arg(key).arg(value).arg("PX").arg(&milliseconds).ignore();
            }
            pipe.query::<()>(&mut self.inner).map_err(|error| self.first_error(&error))?;
        }
        Ok(())
    }

    /// Bytes that a key and its value take; `None` when it is gone.
    ///
    /// # Errors
    /// When the server does not answer, or this user may not ask.
    pub fn memory_of(&mut self, key: &[u8]) -> Result<Option<u64>, Error> {
        let size = self.command(&[b"MEMORY", b"USAGE", key])?;
        Ok(size.whole().and_then(|size| u64::try_from(size).ok()))
    }

    /// Shows every key that begins with `start` to `see`. A key may be seen twice where the table grows meanwhile.
    ///
    /// # Errors
    /// When the server stops answering.
    pub fn walk(&mut self, start: &str, see: impl FnMut(&[u8])) -> Result<(), Error> {
        self.walk_and_tell(start, see, |_| {})
    }

    /// The same; `told` hears how far it is.
    ///
    /// # Errors
    /// When the server stops answering.
    pub fn walk_and_tell(
        &mut self,
        start: &str,
        mut see: impl FnMut(&[u8]),
        mut told: impl FnMut(Progress),
    ) -> Result<(), Error> {
        let pattern = pattern(start);
        let mut progress = Progress::default();
        let mut cursor = b"0".to_vec();
        loop {
            let (next, keys) = self.scan(&cursor, &pattern, &[])?.0;
            progress.looked_at += SCAN_COUNT as u64;
            told(progress);
            for key in &keys {
                see(key);
            }
            if next == b"0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Removes keys that begin with `start`: those for which `pick` names a bucket. `told` hears how far it is. What is
    /// written meanwhile may stay. Returns how many are gone of each bucket.
    ///
    /// # Errors
    /// When the server stops answering, or refuses. What was removed until then is gone.
    pub fn remove(
        &mut self,
        start: &str,
        mut pick: impl FnMut(&[u8]) -> Option<usize>,
        mut told: impl FnMut(Progress),
    ) -> Result<BTreeMap<usize, u64>, Error> {
        let pattern = pattern(start);
        let mut progress = Progress::default();
        let (mut cursor, mut is_over) = (b"0".to_vec(), false);
        let mut waiting: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        let mut gone = BTreeMap::new();
        loop {
            let fullest = waiting.iter_mut().max_by_key(|(_, keys)| keys.len()).filter(|(_, keys)| !keys.is_empty());
            let is_empty = fullest.is_none();
            let (bucket, batch) = fullest.map_or((0, Vec::new()), |(bucket, keys)| {
                (*bucket, keys.split_off(keys.len().saturating_sub(UNLINK_BATCH)))
            });
            let left: usize = waiting.values().map(Vec::len).sum();
            let removed = if is_over && is_empty {
                return Ok(gone);
            } else if is_over || left > UNLINK_BATCH {
                self.unlink(&batch)?
            } else {
                // What goes and what comes in one round trip.
                let ((next, keys), removed) = self.scan(&cursor, &pattern, &batch)?;
                progress.looked_at += SCAN_COUNT as u64;
                for key in keys {
                    if let Some(bucket) = pick(&key) {
                        waiting.entry(bucket).or_default().push(key);
                    }
                }
                is_over = next == b"0";
                cursor = next;
                removed
            };
            *gone.entry(bucket).or_default() += removed;
            progress.removed += removed;
            told(progress);
        }
    }

    fn unlink(&mut self, keys: &[Vec<u8>]) -> Result<u64, Error> {
        let mut command = redis::cmd("UNLINK");
        command.arg(keys);
        command.query(&mut self.inner).map_err(|error| self.server.error(&error))
    }

    /// One step of a walk, and the removal of `gone` with it: ((where to go on, the keys), how many are gone).
    #[expect(clippy::type_complexity, reason = "the answer of SCAN, and a number")]
    fn scan(
        &mut self,
        cursor: &[u8],
        pattern: &[u8],
        gone: &[Vec<u8>],
    ) -> Result<((Vec<u8>, Vec<Vec<u8>>), u64), Error> {
        let mut pipe = redis::pipe();
        pipe.cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
        if gone.is_empty() {
            let (step,) = pipe.query(&mut self.inner).map_err(|error| self.first_error(&error))?;
            return Ok((step, 0));
        }
        pipe.cmd("UNLINK").arg(gone);
        pipe.query(&mut self.inner).map_err(|error| self.first_error(&error))
    }

    /// The first refusal of several commands that were sent at once.
    fn first_error(&self, error: &RedisError) -> Error {
        match error.clone().into_server_errors().as_deref() {
            Some([(_, first), ..]) => self.server.error(&RedisError::from(first.clone())),
            _ => self.server.error(error),
        }
    }
}

/// Keys that change on a server, as they do: its broadcast of what clients may no longer hold (`CLIENT TRACKING`), which
/// costs it far less than MONITOR and shows no value. It speaks of all databases of the server alike.
pub struct Changes {
    connection: Connection,
    heard: mpsc::Receiver<redis::PushInfo>,
}

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The keys that were written, removed, or ended by themselves.
    pub keys: BTreeSet<Vec<u8>>,
    /// Somebody threw everything away (FLUSHDB, FLUSHALL).
    pub all: bool,
}

impl Connection {
    /// Listens for changes from now on.
    ///
    /// # Errors
    /// When the server refuses (it is older than Redis 6, or this user may not), or does not answer.
    pub fn changes(mut self) -> Result<Changes, Error> {
        let (sender, heard) = mpsc::channel();
        self.inner.set_push_sender(sender);
        self.command(&[b"HELLO", b"3"])?;
        self.command(&[b"CLIENT", b"TRACKING", b"ON", b"BCAST"])?;
        Ok(Changes { connection: self, heard })
    }
}

impl Changes {
    /// What changed since it was last asked. What was done before is known: the server speaks of it before it answers.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn take(&mut self) -> Result<Changed, Error> {
        self.connection.ping()?;
        let mut changed = Changed::default();
        for push in self.heard.try_iter().filter(|push| push.kind == redis::PushKind::Invalidate) {
            for value in push.data {
                match value {
                    Value::Array(keys) => changed.keys.extend(keys.into_iter().filter_map(|key| match key {
                        Value::BulkString(key) => Some(key),
                        _ => None,
                    })),
                    Value::Nil => changed.all = true,
                    _ => {}
                }
            }
        }
        Ok(changed)
    }
}

/// What INFO's text says, for the database `number`.
fn info(text: &str, number: i64) -> Info {
    let fields: BTreeMap<_, _> = text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let word = |name: &str| fields.get(name).copied().unwrap_or_default();
    let count = |name: &str| word(name).parse().unwrap_or_default();
    let keys = word(&format!("db{number}")).split(',').find_map(|part| part.strip_prefix("keys=")?.parse().ok());
    Info {
        version: word("redis_version").to_owned(),
        used_memory: count("used_memory"),
        max_memory: Some(count("maxmemory")).filter(|limit| *limit > 0),
        max_memory_policy: word("maxmemory_policy").to_owned(),
        hits: count("keyspace_hits"),
        misses: count("keyspace_misses"),
        evicted: count("evicted_keys"),
        keys: keys.unwrap_or_default(),
    }
}

fn clients(text: &str) -> Vec<Client> {
    let fields = |line: &str| {
        let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        Client { fields: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    };
    text.lines().filter(|line| !line.is_empty()).map(fields).collect()
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        Server::parse(url).map_or_else(|error| format!("error {error}"), |server| server.to_string())
    }

    #[test]
    fn urls_are_read_as_django_reads_them_and_shown_without_the_password() {
        assert_eq!(shown("redis://127.0.0.1:6379/0"), "redis://127.0.0.1:6379/0");
        assert_eq!(shown("redis://cache"), "redis://cache:6379/0");
        assert_eq!(shown("redis://:geheim@cache/3"), "redis://cache:6379/3");
        assert_eq!(shown("redis://chat:ge%40heim@cache:1/3?db=4"), "redis://chat@cache:1/4");
        assert_eq!(shown("redis://[::1]:7000"), "redis://[::1]:7000/0");
        assert_eq!(shown("unix:///run/redis.sock?db=2"), "unix:///run/redis.sock?db=2");
        assert_eq!(shown("unix://chat:ge+heim@/run/redis.sock"), "unix://chat@/run/redis.sock?db=0");
        let server = Server::parse("redis://chat:ge%40h%2Bm@cache").unwrap();
        assert_eq!((server.username.as_deref(), server.password.as_deref()), (Some("chat"), Some("ge@h+m")));
        let server = Server::parse("unix://chat:a+b@/x").unwrap();
        assert_eq!((server.username(), server.password.as_deref()), ("chat", Some("a+b")));
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused_without_the_password() {
        for url in ["rediss://x:geheim@h", "http://x:geheim@h", "geheim", "redis://:geheim@", "redis://x:geheim@h/zwei"]
        {
            let error = Server::parse(url).unwrap_err();
            assert_eq!(error.fault, Fault::Url);
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
        assert!(shown("rediss://cache").contains("TLS"));
    }

    #[test]
    fn a_pattern_takes_every_character_of_a_prefix_as_itself() {
        assert_eq!(pattern("context7_chat:"), b"context7_chat:*");
        assert_eq!(pattern(r"a*b?[c]^\:"), br"a\*b\?\[c\]\^\\:*");
    }

    #[test]
    fn the_servers_words_are_sorted_into_kinds() {
        assert_eq!(fault("WRONGPASS invalid username-password pair or user is disabled."), Fault::Login);
        assert_eq!(fault("NOAUTH Authentication required."), Fault::Login);
        assert_eq!(fault("ERR AUTH <password> called without any password configured"), Fault::Login);
        assert_eq!(fault("OOM command not allowed when used memory > 'maxmemory'."), Fault::Full);
        assert_eq!(fault("NOPERM this user has no permissions to run the 'flushdb' command"), Fault::Forbidden);
        assert_eq!(fault("ERR unknown command"), Fault::Other);
    }

    #[test]
    fn info_and_client_list_are_read() {
        let text = "# Server\r\nredis_version:7.0.15\r\nused_memory:1000\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n\
                    keyspace_hits:5\r\nkeyspace_misses:2\r\ndb0:keys=7,expires=1,avg_ttl=3\r\ndb1:keys=9,expires=0,avg_ttl=0\r\n";
        let told = info(text, 1);
        assert_eq!((told.version.as_str(), told.used_memory, told.max_memory, told.keys), ("7.0.15", 1000, None, 9));
        assert_eq!((told.hits, told.misses, info(text, 5).keys), (5, 2, 0));
        let full = |used_memory, limit, policy: &str| {
            Info { used_memory, max_memory: limit, max_memory_policy: policy.to_owned(), ..Info::default() }.is_full()
        };
        let of = Some(1000);
        assert!(full(990, of, "noeviction") && full(2000, of, "noeviction"));
        assert!(!full(989, of, "noeviction") && !full(2000, of, "allkeys-lru") && !full(2000, None, "noeviction"));
        let all = clients("id=3 addr=127.0.0.1:5 name= user=chat cmd=get\nid=4 addr=/run/x:0 name=a=b user=default\n");
        assert_eq!((all[0].field("user"), all[0].field("name"), all[1].field("name")), ("chat", "", "a=b"));
    }
}
