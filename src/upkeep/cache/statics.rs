//! Static files: collected beside those that are served, then exchanged with them in one step, so that no reader misses a
//! file. `collectstatic --clear` in place leaves holes for one read in forty.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Lane, Trouble, process};
use crate::plan::spec::{Plan, Spec};
use crate::runtime::exchange::{Exchanged, exchange};

/// What `collectstatic` is called with.
const COLLECT: [&str; 2] = ["collectstatic", "--noinput"];
/// What Django's storage with hashed names leaves: servers read it at their start.
const MANIFEST: &str = "staticfiles.json";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Where they are.
    pub folder: PathBuf,
    /// Files that were there.
    pub before: u64,
    /// Files that are there now.
    pub after: u64,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// Collects the static files of a lane anew.
///
/// # Errors
/// When there is no `manage.py` to collect with, when it fails, or puts nothing there; then nothing has changed.
pub fn collect(plan: &Plan, lane: &Lane<'_>) -> Result<Collected, Trouble> {
    let spec = lane.owner;
    let folder = &spec.facts.static_root;
    let command = command(spec).ok_or_else(|| {
        Trouble::new("there is no manage.py in `command` or `pre_start` to collect static files with")
            .hint("`--type static` is for Django")
    })?;
    let beside = beside(folder).ok_or_else(|| Trouble::new(format!("{} has no name", folder.display())))?;
    let wrong = |path: &Path, error: io::Error| Trouble::new(format!("{}: {error}", path.display()));
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(&beside, error)),
        _ => {}
    }
    // Made here, since its parent need not be the lane's to write.
    fs::create_dir(&beside).map_err(|error| wrong(&beside, error))?;
    let root = beside.display().to_string();
    let collected = process::run(plan, spec, &command, &[("STATIC_ROOT", &root)], std::slice::from_ref(&beside))
        .map(|_| files_in(&beside))
        .and_then(|files| match files {
            0 => Err(Trouble::new(format!("`{}` put nothing into STATIC_ROOT", command.join(" ")))
                .hint("STATIC_ROOT of the settings has to come from the environment: `laneway env NAME`")),
            files => Ok(files),
        });
    let after = collected.inspect_err(|_| drop(fs::remove_dir_all(&beside)))?;
    let before = files_in(folder);
    let exchanged = exchange(&beside, folder).map_err(|error| wrong(folder, error))?;
    let mut notes = Vec::new();
    if exchanged == Exchanged::InTwoSteps {
        notes.push("this file system cannot exchange two folders: for a moment there was none".to_owned());
    }
    if folder.join(MANIFEST).exists() {
        notes.push(format!("servers read {MANIFEST} at their start: laneway restart {}", spec.facts.lane));
    }
    if let Err(error) = fs::remove_dir_all(&beside) {
        notes.push(format!("the old ones are still in {}: {error}", beside.display()));
    }
    Ok(Collected { folder: folder.clone(), before, after, notes })
}

/// How many files lie in a folder, however deep; a link counts as a file.
#[must_use]
pub fn files_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.file_type().is_ok_and(|kind| kind.is_dir()) { files_in(&entry.path()) } else { 1 })
        .sum()
}

/// `manage.py` as the instance calls it, and what comes before it.
fn command(spec: &Spec) -> Option<Vec<String>> {
    let is_manage = |word: &String| Path::new(word).file_name().is_some_and(|name| name == "manage.py");
    let of = |words: &Vec<String>| Some(words.get(..=words.iter().position(is_manage)?)?.to_vec());
    let mut found = std::iter::once(&spec.command).chain(&spec.pre_start).find_map(of)?;
    found.extend(COLLECT.map(str::to_owned));
    Some(found)
}

/// Where new files are collected: in the same folder, so that a rename is enough.
fn beside(folder: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(folder.file_name()?);
    name.push(format!(".new-{}", std::process::id()));
    Some(folder.with_file_name(name))
}
