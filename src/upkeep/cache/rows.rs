//! What of a cache lies in the lane's own database: Django's cache table, and its sessions.
//!
//! The statements are the same for SQLite and PostgreSQL. A database or a table that is not there holds nothing.

use std::time::Duration;

use super::{Cleared, Count, Kind, Lane, Status, Trouble};
use crate::plan::spec::Database;
use crate::runtime::lane::database_url;
use crate::services::django::SESSION_TABLE;
use crate::services::postgres::{Server, identifier, literal};
use crate::services::sqlite;

/// For connecting, and for each statement.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who asks, as the server shows it.
const ASKER: &str = "laneway";

/// A database that answers, or a file that is there.
enum Rows<'a> {
    Sqlite(&'a std::path::Path),
    Postgres(Box<Server>),
}

impl<'a> Rows<'a> {
    /// `None` where there is no file yet.
    fn open(lane: &'a Lane<'_>) -> Result<Option<Self>, Trouble> {
        match &lane.owner.facts.database {
            Database::Sqlite { path } if !path.exists() => Ok(None),
            Database::Sqlite { path } => Ok(Some(Self::Sqlite(path))),
            Database::Postgres { url, .. } => {
                // As the app does it, with the password of the lane's role.
                let own = database_url(lane.owner).map_err(|error| Trouble::new(error.to_string()))?;
                let url = own.as_deref().unwrap_or(url);
                Ok(Some(Self::Postgres(Box::new(Server::connect(url, ASKER, PATIENCE)?))))
            }
        }
    }

    fn count(&mut self, question: &str) -> Result<u64, Trouble> {
        Ok(match self {
            Self::Sqlite(path) => sqlite::count(path, question)?,
            Self::Postgres(server) => server.count(question)?,
        })
    }

    fn change(&mut self, statement: &str) -> Result<u64, Trouble> {
        Ok(match self {
            Self::Sqlite(path) => sqlite::change(path, statement)?,
            Self::Postgres(server) => server.change(statement)?,
        })
    }

    fn has_table(&mut self, table: &str) -> Result<bool, Trouble> {
        let table = literal(table);
        let found = match self {
            Self::Sqlite(_) => self.count(&format!("SELECT count(*) FROM sqlite_schema WHERE name = {table}"))?,
            Self::Postgres(_) => self.count(&format!("SELECT count(*) FROM pg_tables WHERE tablename = {table}"))?,
        };
        Ok(found > 0)
    }
}

/// Rows of sessions: all, and those that still hold.
fn sessions(lane: &Lane<'_>) -> Result<(u64, u64), Trouble> {
    let Some(mut rows) = Rows::open(lane)? else { return Ok((0, 0)) };
    if !rows.has_table(SESSION_TABLE)? {
        return Ok((0, 0));
    }
    let all = rows.count(&format!("SELECT count(*) FROM {SESSION_TABLE}"))?;
    let live = rows.count(&format!("SELECT count(*) FROM {SESSION_TABLE} WHERE expire_date > CURRENT_TIMESTAMP"))?;
    Ok((all, live))
}

/// Adds the sessions in the database to what was found.
pub fn survey_sessions(lane: &Lane<'_>, status: &mut Status) {
    if !lane.is_django() {
        return;
    }
    match sessions(lane) {
        Ok((0, 0)) => {}
        Ok((all, live)) => {
            let count = status.count.get_or_insert_default();
            count.session_rows += all;
            count.live_sessions += live;
        }
        Err(trouble) => status.trouble = Some(trouble),
    }
}

/// Removes every session from the database: those that are over, which is Django's `clearsessions`, and those that hold.
pub fn end_sessions(lane: &Lane<'_>, cleared: &mut Cleared) {
    if !lane.is_django() {
        return;
    }
    let end = || -> Result<(u64, u64), Trouble> {
        let (all, live) = sessions(lane)?;
        if all == 0 {
            return Ok((0, 0));
        }
        let Some(mut rows) = Rows::open(lane)? else { return Ok((0, 0)) };
        Ok((rows.change(&format!("DELETE FROM {SESSION_TABLE}"))?, live))
    };
    match end() {
        Ok((gone, live)) => {
            cleared.gone.session_rows += gone;
            cleared.gone.live_sessions += live;
        }
        Err(trouble) => cleared.trouble = Some(trouble),
    }
}

/// The rows of the cache table that are this lane's; `_` and `%` stand for nothing in a prefix here.
fn own(lane: &Lane<'_>) -> String {
    let start = format!("{}:", lane.owner.facts.cache.prefix);
    format!("substr(cache_key, 1, {}) = {}", start.chars().count(), literal(&start))
}

const IS_SESSION: &str = "cache_key LIKE '%:django.contrib.sessions.cache%'";
const IS_COPY: &str = "cache_key LIKE '%:django.contrib.sessions.cached|_db%' ESCAPE '|'";
const HOLDS: &str = "expires > CURRENT_TIMESTAMP";

pub fn survey(lane: &Lane<'_>, status: &mut Status) {
    let table = &lane.owner.facts.cache.location;
    let look = || -> Result<Option<(Count, u64)>, Trouble> {
        let Some(mut rows) = Rows::open(lane)? else { return Ok(None) };
        if !rows.has_table(table)? {
            return Ok(None);
        }
        let (table, own) = (identifier(table), own(lane));
        let mut count = |more: &str| rows.count(&format!("SELECT count(*) FROM {table} WHERE {own}{more}"));
        let (all, sessions) = (count("")?, count(&format!(" AND {IS_SESSION}"))?);
        let live = count(&format!(" AND {IS_SESSION} AND NOT {IS_COPY} AND {HOLDS}"))?;
        let bytes = format!("SELECT coalesce(sum(length(cache_key) + length(value)), 0) FROM {table} WHERE {own}");
        let found = Count { cached: all - sessions, session_keys: sessions, live_sessions: live, session_rows: 0 };
        Ok(Some((found, rows.count(&bytes)?)))
    };
    match look() {
        Ok(Some((count, bytes))) => {
            (status.reachable, status.count, status.bytes) = (Some(true), Some(count), Some(bytes));
        }
        Ok(None) => {
            status.reachable = Some(false);
            status.trouble = Some(no_table(table));
        }
        Err(trouble) => (status.reachable, status.trouble) = (Some(false), Some(trouble)),
    }
}

fn no_table(table: &str) -> Trouble {
    Trouble::new(format!("there is no table {table} in the lane's database"))
        .hint("manage.py createcachetable makes it; `pre_start` is a good place for that")
}

pub fn clear(lane: &Lane<'_>, kind: Kind, cleared: &mut Cleared) {
    let table = &lane.owner.facts.cache.location;
    let remove = || -> Result<Count, Trouble> {
        let Some(mut rows) = Rows::open(lane)? else { return Err(no_table(table)) };
        if !rows.has_table(table)? {
            return Err(no_table(table));
        }
        let (table, own) = (identifier(table), own(lane));
        let mut gone = Count::default();
        if kind.takes_cached() {
            gone.cached = rows.change(&format!("DELETE FROM {table} WHERE {own} AND NOT ({IS_SESSION})"))?;
        }
        if kind.takes_sessions() {
            let live =
                format!("SELECT count(*) FROM {table} WHERE {own} AND {IS_SESSION} AND NOT {IS_COPY} AND {HOLDS}");
            gone.live_sessions = rows.count(&live)?;
            gone.session_keys = rows.change(&format!("DELETE FROM {table} WHERE {own} AND {IS_SESSION}"))?;
        }
        Ok(gone)
    };
    match remove() {
        Ok(gone) => {
            cleared.gone.cached += gone.cached;
            cleared.gone.session_keys += gone.session_keys;
            cleared.gone.live_sessions += gone.live_sessions;
        }
        Err(trouble) => cleared.trouble = Some(trouble),
    }
}
