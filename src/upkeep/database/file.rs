//! Databases that are files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Condition, FileStatus, Made, Status, Trouble, at, backups};
use crate::plan::spec::Spec;
use crate::runtime::clock::Clock;
use crate::runtime::lane;
use crate::services::sqlite::{self, SqliteError};

/// Copies `template` to `path`, unless there is something already.
pub fn make(spec: &Spec, path: &Path, template: &Path) -> Result<Made, Trouble> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(Made::default());
    }
    if let Some(folder) = path.parent() {
        lane::directory(spec, folder)?;
    }
    let half = path.with_extension(format!("new-{}", std::process::id()));
    let named = |error: SqliteError| Trouble::from(error).hint("`database.template` names it");
    sqlite::copy(template, &half, &mut |_, _| {}).map_err(named)?;
    // A name that is there is not replaced: whoever comes second uses the first one's.
    let linked = fs::hard_link(&half, path);
    sqlite::discard(&half);
    match linked {
        Ok(()) => Ok(Made { steps: vec![format!("made {} from {}", path.display(), template.display())] }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Made::default()),
        Err(error) => Err(at(path)(error)),
    }
}

pub fn status(spec: &Spec, path: &Path) -> Status {
    let mut status = Status::new(spec, "sqlite", path.display().to_string());
    if matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        status.condition = Condition::Missing;
        status.trouble = Some(Trouble::new("there is no file yet").hint(match spec.database_setup {
            Some(_) => format!("laneway db create {} makes it from its template, a start does so too", spec.facts.lane),
            None => format!(
                "laneway db migrate {} makes it, a start whose `pre_start` migrates does so too",
                spec.facts.lane
            ),
        }));
        return status;
    }
    let clock = Clock::start();
    let asked = clock.now();
    let looked = sqlite::facts(path);
    let answered = clock.now().since(asked);
    match looked.and_then(|facts| Ok((facts, sqlite::faults(path)?))) {
        Ok((facts, faults)) => {
            if let Some(fault) = faults.first() {
                status.condition = Condition::Damaged;
                let hint = format!("laneway db restore {} puts a backup in its place", spec.facts.lane);
                status.trouble = Some(Trouble::new(format!("damaged: {fault}")).hint(hint));
            }
            status.answered_ms = Some(answered.as_secs_f64() * 1e3);
            status.size = Some(facts.size);
            status.tables = Some(facts.tables);
            status.file = Some(FileStatus {
                journal_mode: facts.journal_mode,
                wal_size: facts.wal_size,
                page_size: facts.page_size,
                pages: facts.pages,
                free_pages: facts.free_pages,
                faults,
            });
        }
        Err(error) => {
            status.condition = Condition::Unreachable;
            status.trouble = Some(error.into());
        }
    }
    status
}

pub fn save(path: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Trouble> {
    Ok(sqlite::copy(path, to, progress)?)
}

/// Puts `from` in its place. What was there is saved, by its bytes if SQLite cannot read it any more.
pub fn restore(
    spec: &Spec,
    path: &Path,
    from: &Path,
    stamp: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<PathBuf>, Trouble> {
    // Before anything is touched.
    if let Some(fault) = sqlite::faults(from)?.first() {
        return Err(Trouble::new(format!("{}: is damaged: {fault}", from.display())).hint("choose another backup"));
    }
    if fs::symlink_metadata(path).is_err() {
        if let Some(folder) = path.parent() {
            lane::directory(spec, folder)?;
        }
        sqlite::copy(from, path, progress)?;
        return Ok(None);
    }
    if sqlite::faults(path)?.is_empty() {
        let aside = backups::write(spec, stamp, |to| save(path, to, &mut |_, _| {}))?;
        sqlite::overwrite(from, path, progress)?;
        return Ok(Some(aside.path));
    }
    // Broken, and perhaps all there is: nothing of it is lost.
    let aside = path.with_extension(format!("{stamp}.broken"));
    for file in sqlite::files(path) {
        let ending = file.as_os_str().to_string_lossy().strip_prefix(&*path.to_string_lossy()).map(str::to_owned);
        let mut to = aside.as_os_str().to_owned();
        to.push(ending.unwrap_or_default());
        fs::rename(&file, &to).map_err(at(&file))?;
    }
    sqlite::copy(from, path, progress)?;
    Ok(Some(aside))
}

pub fn remove(path: &Path) -> Result<Vec<String>, Trouble> {
    let files = sqlite::files(path);
    if files.is_empty() {
        return Err(Trouble::new(format!("{} is not there", path.display())));
    }
    for file in &files {
        fs::remove_file(file).map_err(at(file))?;
    }
    Ok(files.into_iter().map(|file| file.display().to_string()).collect())
}
