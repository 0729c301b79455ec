//! Backups of one lane: files in `{state}/backup`, each with the time in its name. Knows names and files, no engine.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Trouble, at};
use crate::plan::spec::{Database, Spec};
use crate::runtime::lane;

/// Marks what was saved because something else took its place; such a file is never pruned.
pub const BEFORE_RESTORE: &str = "before-restore";

/// A saved database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

fn directory(spec: &Spec) -> PathBuf {
    spec.facts.state.join("backup")
}

fn extension(spec: &Spec) -> &'static str {
    match spec.facts.database {
        Database::Sqlite { .. } => "sqlite3",
        Database::Postgres { .. } => "dump",
    }
}

/// The backups of the lane's database, the newest first.
#[must_use]
pub fn list(spec: &Spec) -> Vec<Backup> {
    let (prefix, extension) = (format!("{}-", spec.facts.lane), extension(spec));
    let entries = fs::read_dir(directory(spec)).into_iter().flatten().flatten();
    let mut found: Vec<Backup> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let is_one = path.file_stem()?.to_str()?.starts_with(&prefix) && path.extension()? == extension;
            is_one.then(|| Backup { size: entry.metadata().map_or(0, |metadata| metadata.len()), path })
        })
        .collect();
    // The time in the name sorts as text.
    found.sort_by(|a, b| b.path.file_stem().cmp(&a.path.file_stem()));
    found
}

/// Makes a backup by `fill`, which gets the path of a file that is not there yet. It has its name only once it is whole.
///
/// # Errors
/// `fill`'s, and when the directory cannot be written.
pub fn write(spec: &Spec, stamp: &str, fill: impl FnOnce(&Path) -> Result<(), Trouble>) -> Result<Backup, Trouble> {
    let directory = directory(spec);
    lane::directory(spec, &directory)?;
    let half = directory.join(format!(".{}-{stamp}-{}.half", spec.facts.lane, std::process::id()));
    let done = fill(&half).and_then(|()| name(spec, stamp, &half));
    let _ = fs::remove_file(&half);
    let path = done?;
    let size = fs::metadata(&path).map_err(at(&path))?.len();
    Ok(Backup { path, size })
}

/// Gives the file its name; a second one of the same second gets a number.
fn name(spec: &Spec, stamp: &str, half: &Path) -> Result<PathBuf, Trouble> {
    let (directory, extension) = (directory(spec), extension(spec));
    for number in 1..1000 {
        let number = if number == 1 { String::new() } else { format!("-{number}") };
        let path = directory.join(format!("{}-{stamp}{number}.{extension}", spec.facts.lane));
        match fs::hard_link(half, &path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(&path)(error)),
        }
    }
    Err(Trouble::new(format!("{}: there are a thousand backups of this second", directory.display())))
}

/// Removes all but the newest `keep` backups that somebody asked for.
///
/// # Errors
/// Names the file that cannot be removed.
pub fn prune(spec: &Spec, keep: usize) -> Result<(), Trouble> {
    let is_asked_for = |backup: &Backup| !backup.path.to_string_lossy().contains(BEFORE_RESTORE);
    for old in list(spec).into_iter().filter(is_asked_for).skip(keep) {
        fs::remove_file(&old.path).map_err(at(&old.path))?;
    }
    Ok(())
}
