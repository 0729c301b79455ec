//! The fleets of this user that run on this machine, in `$XDG_STATE_HOME/laneway/`: to find a fleet without reading its
//! file, and to check new claims against it. An entry whose fleet is gone is removed by whoever meets it; a fleet whose
//! supervisor is just being replaced is not gone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::home::Home;
use super::processes::{Identity, Process};
use super::records::{FNV_BASIS, fnv};
use crate::plan::{self, Foreign, Plan};

/// Where the entries are.
#[derive(Clone, Debug)]
pub struct Registry {
    directory: PathBuf,
}

/// A fleet that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    file: PathBuf,
    state_dir: PathBuf,
    /// Its supervisor: pid and start time name one process of this boot, whatever was deleted meanwhile.
    supervisor: u32,
    start_time: u64,
}

impl Entry {
    fn of_this_process(plan: &Plan) -> Self {
        let supervisor = std::process::id();
        let start_time = Process::read(supervisor).map_or(0, |process| process.start_time);
        Self { file: plan.file.clone(), state_dir: plan.state_dir.clone(), supervisor, start_time }
    }

    fn lives(&self) -> bool {
        self.supervisor_lives() || Home::of(&self.state_dir).is_locked()
    }

    fn supervisor_lives(&self) -> bool {
        Identity { pid: self.supervisor, start_time: self.start_time }.lives()
    }
}

impl Registry {
    /// Of this user; `None` where there is neither `XDG_STATE_HOME` nor `HOME`.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
        Some(Self { directory: state.join("laneway") })
    }

    /// Registers the fleet of `plan`.
    ///
    /// # Errors
    /// The system's.
    pub fn enter(&self, plan: &Plan) -> io::Result<()> {
        // One after the other: a reload may come while the first entry waits for its disk.
        static ENTERING: Mutex<()> = Mutex::new(());
        let _turn = ENTERING.lock().unwrap_or_else(PoisonError::into_inner);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let entry = Entry::of_this_process(plan);
        let claims = Foreign { folder: folder(&plan.file), claims: plan::claims(plan) };
        self.write(&self.claims_of(&entry), &serde_json::to_vec(&claims)?)?;
        self.write(&self.path_of(&entry), &serde_json::to_vec(&entry)?)
    }

    /// Takes the fleet of `plan` out.
    pub fn leave(&self, plan: &Plan) {
        self.remove(&Entry::of_this_process(plan));
    }

    /// The state directory of the fleet that runs from `file`, if one does.
    #[must_use]
    pub fn state_dir_of(&self, file: &Path) -> Option<PathBuf> {
        let prefix = format!("{:016x}-", hash(file));
        self.entries(&prefix).into_iter().find(|entry| entry.file == file).map(|entry| entry.state_dir)
    }

    /// The supervisor that runs in the state directory of `plan`, if another process than this one does. The lock says
    /// so too, but somebody may have deleted it.
    #[must_use]
    pub fn occupant(&self, plan: &Plan) -> Option<u32> {
        let mut others = self.entries("").into_iter().filter(|entry| entry.supervisor != std::process::id());
        // Who asks may hold the lock itself.
        let is_there = |entry: &Entry| entry.state_dir == plan.state_dir && entry.supervisor_lives();
        others.find(is_there).map(|entry| entry.supervisor)
    }

    /// What the other running fleets than that of `plan` claim.
    #[must_use]
    pub fn others(&self, plan: &Plan) -> Vec<Foreign> {
        let others = self.entries("").into_iter().filter(|entry| entry.state_dir != plan.state_dir);
        others.filter_map(|entry| serde_json::from_slice(&fs::read(self.claims_of(&entry)).ok()?).ok()).collect()
    }

    /// The fleets that run whose entry begins with `prefix`.
    fn entries(&self, prefix: &str) -> Vec<Entry> {
        let Ok(files) = fs::read_dir(&self.directory) else { return Vec::new() };
        let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
        let names = names
            .filter(|name| name.starts_with(prefix) && Path::new(name).extension().is_some_and(|kind| kind == "fleet"));
        let entries =
            names.filter_map(|name| serde_json::from_slice::<Entry>(&fs::read(self.directory.join(name)).ok()?).ok());
        entries
            .filter(|entry| {
                let lives = entry.lives();
                if !lives {
                    self.remove(entry);
                }
                lives
            })
            .collect()
    }

    fn remove(&self, entry: &Entry) {
        let _ = fs::remove_file(self.path_of(entry));
        let _ = fs::remove_file(self.claims_of(entry));
    }

    fn path_of(&self, entry: &Entry) -> PathBuf {
        self.directory.join(format!("{:016x}-{:016x}.fleet", hash(&entry.file), hash(&entry.state_dir)))
    }

    fn claims_of(&self, entry: &Entry) -> PathBuf {
        self.path_of(entry).with_extension("claims")
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let beside = self.directory.join(format!(".new-{}", std::process::id()));
        let _ = fs::remove_file(&beside);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?.write_all(content)?;
        fs::rename(beside, path)
    }
}

fn folder(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Names an entry, so that it is found without a search. Equal hashes are told apart by the content.
fn hash(path: &Path) -> u64 {
    fnv(FNV_BASIS, path.as_os_str().as_encoded_bytes())
}
