//! Caches in a folder: Django's files in it, and nothing else. No link is followed, so nobody leads a removal elsewhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Cleared, Count, Kind, Lane, Status, Trouble};
use crate::services::django::FILE_ENDING;

/// The files of the cache, with their sizes. A folder that is not there yet holds none.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>, Trouble> {
    let wrong = |error: &io::Error| Trouble::new(format!("{}: {error}", folder.display()));
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(&error)),
        Ok(found) if !found.is_dir() => {
            let what = format!("{} is no folder but something else, perhaps a link", folder.display());
            return Err(Trouble::new(what).hint("mend `cache.location`, or remove what is there"));
        }
        Ok(_) => {}
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| wrong(&error))?.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.ends_with(FILE_ENDING));
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            files.push((entry.path(), entry.metadata().map_or(0, |metadata| metadata.len())));
        }
    }
    Ok(files)
}

fn folder<'a>(lane: &'a Lane<'_>) -> &'a Path {
    Path::new(&lane.owner.facts.cache.location)
}

pub fn survey(lane: &Lane<'_>, status: &mut Status) {
    match files(folder(lane)) {
        Ok(files) => {
            status.reachable = Some(true);
            status.bytes = Some(files.iter().map(|(_, size)| size).sum());
            status.count = Some(Count { cached: files.len() as u64, ..Count::default() });
        }
        Err(trouble) => (status.reachable, status.trouble) = (Some(false), Some(trouble)),
    }
}

/// The name of a file does not tell what is in it, so sessions go with the rest, and the rest with sessions.
pub fn clear(lane: &Lane<'_>, kind: Kind, cleared: &mut Cleared) {
    let files = match files(folder(lane)) {
        Ok(files) => files,
        Err(trouble) => {
            cleared.trouble = Some(trouble);
            return;
        }
    };
    for (path, _) in files {
        match fs::remove_file(&path) {
            Ok(()) => cleared.gone.cached += 1,
            // The app was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                cleared.trouble.get_or_insert(Trouble::new(format!("{}: {error}", path.display())));
            }
        }
    }
    match kind {
        Kind::All => {}
        Kind::Django => {
            cleared.notes.push("cached copies of sessions went too: a file does not tell what it is".to_owned());
        }
        Kind::Session => {
            cleared.notes.push("all of the folder went: a file does not tell whether it is a session".to_owned());
        }
    }
}
