//! The databases of lanes: made, looked at, saved, put back, dropped. Which engine a lane has is decided here and nowhere
//! else: `file` is for SQLite, `server` for PostgreSQL.
//!
//! Knows specs and services, no terminal and no supervisor: whether an instance runs is for `cli` to ask before it calls
//! what would disturb it. Each function is about the lane of one spec; guests of a lane have the owner's database.

mod backups;
mod file;
mod server;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use backups::{Backup, list as backups};

use crate::plan::spec::{Database, DatabaseSetup, Spec};
use crate::runtime::lane::LaneError;
use crate::services::postgres::PostgresError;
use crate::services::sqlite::SqliteError;

/// What could not be done, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What, and where.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Trouble {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<SqliteError> for Trouble {
    fn from(error: SqliteError) -> Self {
        Self { what: error.to_string(), hint: error.hint.map(str::to_owned) }
    }
}

impl From<PostgresError> for Trouble {
    fn from(error: PostgresError) -> Self {
        Self { what: error.to_string(), hint: error.hint }
    }
}

impl From<LaneError> for Trouble {
    fn from(error: LaneError) -> Self {
        Self::new(format!("the lane cannot be prepared: {error}"))
    }
}

/// Names the path of an error of the system's.
fn at(path: &Path) -> impl FnOnce(io::Error) -> Trouble + '_ {
    move |error| Trouble::new(format!("{}: {error}", path.display()))
}

/// How a database is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It is there and answers.
    Good,
    /// It is not there yet.
    Missing,
    /// It cannot be read or reached.
    Unreachable,
    /// Its contents are damaged.
    Damaged,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Missing => "missing",
            Self::Unreachable => "unreachable",
            Self::Damaged => "damaged",
        })
    }
}

/// A lane's database as it is found. What one engine does not have, or what cannot be known now, is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Whose lane.
    pub lane: String,
    /// `sqlite` or `postgres`.
    pub engine: &'static str,
    /// The file, or `role@host:port/database`.
    pub place: String,
    /// How it is.
    pub condition: Condition,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// How long it took to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<f64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// What only SQLite has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileStatus>,
    /// What only PostgreSQL has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// What there is to put back.
    pub backups: Vec<Backup>,
}

impl Status {
    /// That of a database of which nothing is known yet, nor anything wrong.
    fn new(spec: &Spec, engine: &'static str, place: String) -> Self {
        Self {
            lane: spec.facts.lane.to_string(),
            engine,
            place,
            condition: Condition::Good,
            trouble: None,
            answered_ms: None,
            size: None,
            tables: None,
            file: None,
            server: None,
            backups: Vec::new(),
        }
    }
}

/// A SQLite file.
#[derive(Clone, Debug, Serialize)]
pub struct FileStatus {
    /// `delete`, `wal` ...
    pub journal_mode: String,
    /// Bytes in the log beside it.
    pub wal_size: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages.
    pub pages: u64,
    /// Pages that hold nothing.
    pub free_pages: u64,
    /// What the integrity check found; nothing = sound.
    pub faults: Vec<String>,
}

/// A database on a server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    /// Of the server.
    pub version: String,
    /// Who owns the database.
    pub owner: String,
    /// Sessions of the role.
    pub connections: u32,
    /// Most sessions of the role; none = no limit.
    pub max_connections: Option<u32>,
    /// Whether every role of the server may connect.
    pub is_open_to_all: bool,
    /// What sessions of the lane are called.
    pub application_name: String,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Each thing in words; nothing = all was there.
    pub steps: Vec<String>,
}

/// Makes what is missing of the database of `spec`'s lane: where laneway is not asked to, nothing. Two at once make it once.
/// With `adopt` a role that is there already becomes the lane's.
///
/// # Errors
/// Says what the server or the disk did not want.
pub fn make(spec: &Spec, adopt: bool) -> Result<Made, Trouble> {
    match (&spec.facts.database, &spec.database_setup) {
        (Database::Sqlite { path }, Some(DatabaseSetup::Copy { template })) => file::make(spec, path, template),
        (Database::Postgres { url, name, .. }, Some(DatabaseSetup::Create { .. })) => {
            server::make(spec, url, name, adopt)
        }
        (Database::Sqlite { .. } | Database::Postgres { .. }, _) => Ok(Made::default()),
    }
}

/// Looks at the database of `spec`'s lane.
#[must_use]
pub fn status(spec: &Spec) -> Status {
    let mut status = match &spec.facts.database {
        Database::Sqlite { path } => file::status(spec, path),
        Database::Postgres { url, name, application_name } => server::status(spec, url, name, application_name),
    };
    status.backups = backups::list(spec);
    status
}

/// Saves the database of `spec`'s lane, in use or not, and returns the new file. `stamp` is the time as it stands in the
/// file's name; all but the newest `keep` backups are removed. `progress` hears how much of how much is done.
///
/// # Errors
/// When there is nothing to save, or no room for it.
pub fn backup(
    spec: &Spec,
    stamp: &str,
    keep: Option<usize>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Backup, Trouble> {
    let made = save(spec, stamp, progress)?;
    if let Some(keep) = keep {
        backups::prune(spec, keep)?;
    }
    Ok(made)
}

fn save(spec: &Spec, stamp: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Backup, Trouble> {
    backups::write(spec, stamp, |to| match &spec.facts.database {
        Database::Sqlite { path } => file::save(path, to, progress),
        Database::Postgres { .. } => server::save(spec, to),
    })
}

/// Puts a backup in the place of what the lane's database holds; what it held is saved before, and returned where there
/// was something.
///
/// # Errors
/// When one of the two cannot be read or written; then the database is what it was, or the message says where that is.
pub fn restore(
    spec: &Spec,
    from: &Path,
    stamp: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<PathBuf>, Trouble> {
    let stamp = format!("{stamp}-{}", backups::BEFORE_RESTORE);
    match &spec.facts.database {
        Database::Sqlite { path } => file::restore(spec, path, from, &stamp, progress),
        Database::Postgres { .. } => {
            make(spec, false)?;
            let aside = save(spec, &stamp, progress)?;
            server::restore(spec, from, &aside.path)?;
            Ok(Some(aside.path))
        }
    }
}

/// Removes the database of `spec`'s lane, with its role where laneway made one. Backups stay. Returns what went, in words.
///
/// # Errors
/// When there is none, when it is not laneway's to drop, or when the server or the disk does not let it.
pub fn drop(spec: &Spec) -> Result<Vec<String>, Trouble> {
    match &spec.facts.database {
        Database::Sqlite { path } => file::remove(path),
        Database::Postgres { url, name, .. } => server::remove(spec, url, name),
    }
}
