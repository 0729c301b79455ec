//! SQLite files: what they are, whether they are sound, copies of them while somebody writes, and their contents put back.
//!
//! Knows paths and nothing of lanes; `upkeep` and `doctor` call it, on threads that may block. What only looks opens the file
//! read-only and makes nothing. Nobody waits for a lock longer than `PATIENCE`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// How long a lock of somebody else's is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pages copied at a time: writers come in between.
const SLICE: i32 = 1024;
/// So often a copy begins anew because somebody wrote in between; then it is made in one piece, and writers wait for it.
const PATIENT_STARTS: u32 = 3;

const NO_DATABASE: &str = "is no SQLite database";
const DAMAGED: &str = "is damaged";

/// What could not be done with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteError {
    /// Which file.
    pub path: PathBuf,
    /// What happened.
    pub what: String,
    /// What to do.
    pub hint: Option<&'static str>,
}

impl fmt::Display for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for SqliteError {}

/// A file as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the log beside it that are not in the file yet (journal mode WAL).
    pub wal_size: u64,
    /// `delete`, `wal` ...
    pub journal_mode: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages.
    pub pages: u64,
    /// Pages that hold nothing.
    pub free_pages: u64,
    /// Tables, SQLite's own not among them.
    pub tables: u64,
}

/// What `path` is.
///
/// # Errors
/// When it is not there, cannot be read, or is no database.
pub fn facts(path: &Path) -> Result<Facts, SqliteError> {
    let connection = look(path)?;
    let ask = |pragma: &str| -> Result<u64, SqliteError> {
        let value = connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
        Ok(value.map_err(|error| wrong(path, &error))?.unsigned_abs())
    };
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    Ok(Facts {
        size: fs::metadata(path).map_err(|error| unreadable(path, &error))?.len(),
        wal_size: fs::metadata(beside(path, "-wal")).map_or(0, |metadata| metadata.len()),
        journal_mode: text(&connection, "PRAGMA journal_mode").map_err(|error| wrong(path, &error))?,
        page_size: ask("page_size")?,
        pages: ask("page_count")?,
        free_pages: ask("freelist_count")?,
        tables: connection
            .query_row(tables, [], |row| row.get::<_, i64>(0))
            .map_err(|error| wrong(path, &error))?
            .unsigned_abs(),
    })
}

/// The rows of each table, by name; reads the whole file.
///
/// # Errors
/// As [`facts`].
pub fn rows(path: &Path) -> Result<Vec<(String, u64)>, SqliteError> {
    let connection = look(path)?;
    let found = || -> rusqlite::Result<Vec<(String, u64)>> {
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                      ORDER BY name";
        let mut tables = connection.prepare(tables)?;
        let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let counted = names.into_iter().map(|name| {
            let count = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
            let rows: i64 = connection.query_row(&count, [], |row| row.get(0))?;
            Ok((name, rows.unsigned_abs()))
        });
        counted.collect()
    };
    found().map_err(|error| wrong(path, &error))
}

/// What the statement `question` counts: one row of one number.
///
/// # Errors
/// As [`facts`], and when the statement cannot be carried out.
pub fn count(path: &Path, question: &str) -> Result<u64, SqliteError> {
    let connection = look(path)?;
    let counted = connection.query_row(question, [], |row| row.get::<_, i64>(0));
    counted.map(i64::unsigned_abs).map_err(|error| wrong(path, &error))
}

/// Carries out `statement`, such as a DELETE, on a file that others may use meanwhile; how many rows it was about.
///
/// # Errors
/// When the file is not there, cannot be written, or the statement cannot be carried out.
pub fn change(path: &Path, statement: &str) -> Result<u64, SqliteError> {
    fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    let change = || -> rusqlite::Result<usize> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.execute(statement, [])
    };
    change().map(|rows| rows as u64).map_err(|error| wrong(path, &error))
}

/// What SQLite finds wrong in the file; nothing in a sound one. Reads all of it.
///
/// # Errors
/// When it cannot be read so far.
pub fn faults(path: &Path) -> Result<Vec<String>, SqliteError> {
    let connection = match look(path) {
        Err(error) if error.what == NO_DATABASE || error.what.starts_with(DAMAGED) => return Ok(vec![error.what]),
        opened => opened?,
    };
    let found = || -> rusqlite::Result<Vec<String>> {
        let mut check = connection.prepare("PRAGMA integrity_check(20)")?;
        check.query_map([], |row| row.get(0))?.collect()
    };
    match found() {
        Ok(mut found) => {
            found.retain(|line| line != "ok");
            Ok(found)
        }
        // Where it cannot even begin to check, that is the finding.
        Err(error) if is_damage(&error) => Ok(vec![words(&error)]),
        Err(error) => Err(wrong(path, &error)),
    }
}

/// Copies `from`, which others may use meanwhile, into the new file `to`, for its user alone and brought to the disk. The
/// copy is one moment of the database. `progress` hears how many of how many pages are done.
///
/// # Errors
/// When one of the two cannot be read or written, or when the copy is not sound; then `to` is not there.
pub fn copy(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), SqliteError> {
    let source = look(from)?;
    // SQLite would give it the mode of a file that everybody may read.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(|error| unreadable(to, &error))?;
    let copied = copy_into(&source, from, to, progress)
        .and_then(|()| File::open(to).and_then(|file| file.sync_all()).map_err(|error| unreadable(to, &error)));
    if copied.is_err() {
        discard(to);
    }
    copied
}

fn copy_into(
    source: &Connection,
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), SqliteError> {
    let mut target = Connection::open(to).map_err(|error| wrong(to, &error))?;
    transfer(source, &mut target, from, to, progress)?;
    let verdict = text(&target, "PRAGMA quick_check(1)").map_err(|error| wrong(to, &error))?;
    if verdict == "ok" {
        return Ok(());
    }
    let what = format!("is damaged, and so would be its copy: {verdict}");
    Err(SqliteError { path: from.to_owned(), what, hint: Some("`laneway db restore` puts an earlier state back") })
}

/// Puts the contents of `from` in the place of those of `to`, which others may use meanwhile: at one moment they see all
/// of it. A crash in between leaves what was.
///
/// # Errors
/// When one of the two cannot be read or written, or `from` is not sound.
pub fn overwrite(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), SqliteError> {
    if let Some(fault) = faults(from)?.first() {
        let what = format!("is damaged: {fault}");
        return Err(SqliteError { path: from.to_owned(), what, hint: Some("choose another backup") });
    }
    let source = look(from)?;
    let open = || -> rusqlite::Result<Connection> {
        let target = Connection::open(to)?;
        target.busy_timeout(PATIENCE)?;
        Ok(target)
    };
    let mut target = open().map_err(|error| wrong(to, &error))?;
    transfer(&source, &mut target, from, to, progress)
}

/// Copies all pages. The source is free between two slices, unless its writers make it begin anew too often.
fn transfer(
    source: &Connection,
    target: &mut Connection,
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), SqliteError> {
    let backup = Backup::new(source, target).map_err(|error| wrong(to, &error))?;
    let (mut slice, mut starts, mut left_before) = (SLICE, 0, i32::MAX);
    loop {
        let step = backup.step(slice).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::ReadOnly | ErrorCode::DiskFull | ErrorCode::CannotOpen) => wrong(to, &error),
            _ => wrong(from, &error),
        })?;
        let state = backup.progress();
        let pages = |count: i32| u64::from(count.unsigned_abs());
        progress(pages(state.pagecount.saturating_sub(state.remaining)), pages(state.pagecount));
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            // The connections have waited for it already.
            _ => {
                let what = format!("is locked by somebody else for more than {} s", PATIENCE.as_secs());
                let hint = Some("a long transaction holds it; `laneway doctor` names who has the file open");
                return Err(SqliteError { path: from.to_owned(), what, hint });
            }
        }
        if state.remaining > left_before {
            starts += 1;
            if starts >= PATIENT_STARTS {
                slice = -1;
            }
        }
        left_before = state.remaining;
    }
}

/// Removes a file and what SQLite puts beside it.
pub fn discard(path: &Path) {
    for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm"), beside(path, "-journal")] {
        let _ = fs::remove_file(file);
    }
}

/// The file and what of it SQLite keeps beside it: none of them is complete without the others.
#[must_use]
pub fn files(path: &Path) -> Vec<PathBuf> {
    let all = [path.to_owned(), beside(path, "-wal"), beside(path, "-shm"), beside(path, "-journal")];
    all.into_iter().filter(|file| fs::symlink_metadata(file).is_ok()).collect()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Opens a file to look at it.
fn look(path: &Path) -> Result<Connection, SqliteError> {
    fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    let open = |name: &str, extra: OpenFlags| -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
        let connection = Connection::open_with_flags(name, flags)?;
        connection.busy_timeout(PATIENCE)?;
        // The first page is read here and not before.
        connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
        Ok(connection)
    };
    let name = path.to_str().ok_or_else(|| unreadable(path, &io::Error::other("its name is not UTF-8")))?;
    match open(name, OpenFlags::empty()) {
        // A file of journal mode WAL needs a second one beside it, which cannot be made here. Without a log to read, the
        // file is all there is.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && !beside(path, "-wal").exists() => {
            let uri = format!("file:{}?immutable=1", name.replace('%', "%25").replace('?', "%3f").replace('#', "%23"));
            open(&uri, OpenFlags::SQLITE_OPEN_URI).map_err(|_| wrong(path, &error))
        }
        opened => opened.map_err(|error| wrong(path, &error)),
    }
}

fn text(connection: &Connection, question: &str) -> rusqlite::Result<String> {
    connection.query_row(question, [], |row| row.get(0))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

fn wrong(path: &Path, error: &rusqlite::Error) -> SqliteError {
    let (what, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            format!("is locked by somebody else for more than {} s", PATIENCE.as_secs()),
            Some("a long transaction holds it; `laneway doctor` names who has the file open"),
        ),
        Some(ErrorCode::NotADatabase) => (NO_DATABASE.to_owned(), None),
        Some(ErrorCode::DatabaseCorrupt) => {
            (format!("{DAMAGED}: {}", words(error)), Some("`laneway db restore` puts an earlier state back"))
        }
        Some(ErrorCode::ReadOnly) => (
            format!("cannot be written: {}", words(error)),
            Some("SQLite writes files beside the database, so its directory has to be writable too"),
        ),
        Some(ErrorCode::CannotOpen) => (
            format!("cannot be opened: {}", words(error)),
            Some("the file and its directory have to be writable: SQLite makes files beside it"),
        ),
        Some(ErrorCode::DiskFull) => ("the disk is full".to_owned(), None),
        _ => (words(error), None),
    };
    SqliteError { path: path.to_owned(), what, hint }
}

fn unreadable(path: &Path, error: &io::Error) -> SqliteError {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "is not there".to_owned(),
        io::ErrorKind::AlreadyExists => "is there already".to_owned(),
        _ => error.to_string(),
    };
    SqliteError { path: path.to_owned(), what, hint: None }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("laneway-sqlite-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn database(&self, name: &str, journal: &str, rows: u32) -> PathBuf {
            let path = self.0.join(name);
            let connection = Connection::open(&path).unwrap();
            text(&connection, &format!("PRAGMA journal_mode = {journal}")).unwrap();
            connection.execute_batch("CREATE TABLE \"a \"\" b\" (x TEXT); CREATE TABLE c (x)").unwrap();
            let all = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT ?1) INSERT INTO c SELECT x FROM n";
            connection.execute(all, [rows]).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn count(path: &Path) -> u64 {
        rows(path).unwrap().into_iter().find(|(name, _)| name == "c").unwrap().1
    }

    #[test]
    fn a_file_is_looked_at_without_a_trace() {
        let folder = Folder::new("look");
        for journal in ["delete", "wal"] {
            let path = folder.database(journal, journal, 3);
            let facts = facts(&path).unwrap();
            assert_eq!((facts.journal_mode.as_str(), facts.tables, facts.page_size), (journal, 2, 4096));
            assert_eq!(facts.size, facts.pages * facts.page_size);
            assert_eq!(rows(&path).unwrap(), [("a \" b".to_owned(), 0), ("c".to_owned(), 3)]);
            assert_eq!(faults(&path).unwrap(), Vec::<String>::new());
        }
        let missing = facts(&folder.0.join("missing")).unwrap_err();
        assert_eq!(missing.what, "is not there");
        fs::write(folder.0.join("text"), "x".repeat(5000)).unwrap();
        assert_eq!(facts(&folder.0.join("text")).unwrap_err().what, "is no SQLite database");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 3 + wal_leftovers(&folder.0), "nothing was made");
    }

    /// Whoever reads a file in journal mode WAL without being allowed to write leaves what it needed beside it.
    fn wal_leftovers(folder: &Path) -> usize {
        files(&folder.join("wal")).len() - 1
    }

    #[test]
    fn a_copy_is_one_moment_of_a_database_in_use() {
        let folder = Folder::new("copy");
        for journal in ["delete", "wal"] {
            let path = folder.database(journal, journal, 1000);
            let writer = Connection::open(&path).unwrap();
            writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO c VALUES (1)").unwrap();
            let to = folder.0.join(format!("{journal}.copy"));
            let mut last = (0, 0);
            copy(&path, &to, &mut |done, of| last = (done, of)).unwrap();
            assert!(last.0 == last.1 && last.1 > 0, "{last:?}");
            writer.execute_batch("COMMIT").unwrap();
            assert_eq!((count(&path), count(&to)), (1001, 1000));
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(copy(&path, &to, &mut |_, _| {}).unwrap_err().what.contains("there already"));
        }
    }

    #[test]
    fn contents_are_put_back_under_those_who_use_them() {
        let folder = Folder::new("restore");
        for journal in ["delete", "wal"] {
            let path = folder.database(journal, journal, 10);
            let to = folder.0.join(format!("{journal}.copy"));
            copy(&path, &to, &mut |_, _| {}).unwrap();
            let user = Connection::open(&path).unwrap();
            user.execute_batch("DELETE FROM c; INSERT INTO c VALUES ('later')").unwrap();
            overwrite(&to, &path, &mut |_, _| {}).unwrap();
            assert_eq!(user.query_row("SELECT count(*) FROM c", [], |row| row.get::<_, i64>(0)).unwrap(), 10);
            assert_eq!(text(&user, "PRAGMA journal_mode").unwrap(), journal);
        }
    }

    #[test]
    fn damage_is_found_and_not_copied() {
        let folder = Folder::new("damage");
        let path = folder.database("broken", "delete", 5000);
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len() - 8192;
        bytes[8192..end].fill(0x5a);
        fs::write(&path, bytes).unwrap();
        assert!(!faults(&path).unwrap().is_empty());
        let to = folder.0.join("copy");
        assert!(copy(&path, &to, &mut |_, _| {}).unwrap_err().what.contains("damaged"));
        assert!(!to.exists());
        let good = folder.database("good", "delete", 1);
        assert!(overwrite(&path, &good, &mut |_, _| {}).unwrap_err().what.contains("damaged"));
        assert_eq!(count(&good), 1);
    }
}
