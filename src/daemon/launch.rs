//! Starting a pair: what a client hands to the keeper, and how it hears that the supervisor is ready.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::libc::{O_CLOEXEC, O_DIRECTORY};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use crate::config::Source;
use crate::keeper::memory;
use crate::keeper::protocol::{Kept, Order};
use crate::keeper::table::Table;
use crate::plan::Plan;
use crate::runtime::home::Home;
use crate::runtime::link::start_keeper;

/// What a supervisor is to run. The environment comes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// `-f`, absolute; the first is the base.
    pub files: Vec<PathBuf>,
    /// Where the client stood.
    pub directory: PathBuf,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set`.
    pub set: Vec<String>,
    /// The client's soft limit of open files: servers get it back.
    pub descriptors: u64,
    /// The client's file mode mask: servers get it back.
    pub umask: u32,
    /// The name of the fleet in the markers of its processes, once it runs: somebody may delete the file that says it.
    #[serde(default)]
    pub fleet: Option<String>,
    /// What the client read the file as, for the first supervisor: it need not read it again.
    #[serde(default)]
    pub resolved: Option<Plan>,
    /// The plan that runs, for the next supervisor: a file that was broken meanwhile never disturbs it.
    #[serde(default)]
    pub running: Option<Plan>,
    /// The plan that is about to take its place: it has, once the records are about it.
    #[serde(default)]
    pub next: Option<Plan>,
}

/// Why a supervisor did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It said so itself.
    #[error("{0}")]
    Refused(String),
    /// It ended without a word.
    #[error("the supervisor ended before it was ready\n  hint: see {}", .0.display())]
    Silent(PathBuf),
    /// It could not even be started.
    #[error("cannot start the keeper: {0}")]
    System(#[from] io::Error),
}

impl Launch {
    /// From what a client was asked for, what that came to, and what it was started with.
    #[must_use]
    pub fn new(source: &Source, plan: &Plan) -> Self {
        let mask = umask(Mode::empty());
        umask(mask);
        Self {
            files: source.files.clone(),
            directory: source.directory.clone(),
            profile: source.profile.clone(),
            set: source.set.clone(),
            descriptors: getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft),
            umask: mask.bits(),
            fleet: None,
            resolved: Some(plan.clone()),
            running: None,
            next: None,
        }
    }

    /// Takes out the plan that runs; `revision` is that of the plan that the records are about.
    #[must_use]
    pub fn take_plan(&mut self, revision: u64) -> Option<Plan> {
        let next = self.next.take().filter(|next| next.revision == revision);
        let running = self.running.take();
        next.or(running)
    }

    /// Written down, for whoever reads it with `read`.
    ///
    /// # Errors
    /// When memory is full.
    pub fn to_memory(&self) -> io::Result<OwnedFd> {
        let mut text = File::from(memory::create(c"laneway-launch", 0)?);
        text.write_all(&serde_json::to_vec(self)?)?;
        Ok(text.into())
    }

    /// What stands there.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(descriptor: OwnedFd) -> io::Result<Self> {
        let mut file = File::from(descriptor);
        file.rewind()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// As the source of settings, with the environment of this process.
    #[must_use]
    pub fn source(&self) -> Source {
        Source {
            files: self.files.clone(),
            directory: self.directory.clone(),
            profile: self.profile.clone(),
            set: self.set.clone(),
            environment: readable_environment(),
        }
    }
}

/// The variables of this process that are text; a file cannot speak of the others.
#[must_use]
pub fn readable_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Starts keeper and supervisor, which take over `lock`, and waits until the supervisor answers.
///
/// # Errors
/// What the supervisor says, or why there is none.
pub fn start(home: &Home, lock: OwnedFd, launch: &Launch) -> Result<(), LaunchError> {
    // The launch has the caller's limit; a few descriptors must be had even where that is tiny.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let text = launch.to_memory()?;
    let (ready, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let run_dir: OwnedFd =
        File::options().read(true).custom_flags(O_DIRECTORY | O_CLOEXEC).open(home.directory())?.into();
    let mut table = Table::new()?;
    for (what, descriptor) in
        [(Kept::Lock, &lock), (Kept::Launch, &text), (Kept::Ready, &theirs), (Kept::RunDir, &run_dir)]
    {
        table.add(&Order::Keep(what), descriptor.as_fd())?;
    }
    start_keeper(table, Command::spawn)?;
    drop((lock, theirs));
    let mut said = String::new();
    File::from(ready).read_to_string(&mut said)?;
    match said.strip_prefix(READY) {
        Some(_) => Ok(()),
        None if said.trim().is_empty() => Err(LaunchError::Silent(home.log())),
        None => Err(LaunchError::Refused(said.trim_end().to_owned())),
    }
}

/// What a supervisor says when it is.
pub(super) const READY: &str = "ready\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    #[test]
    fn a_plan_counts_once_the_records_are_about_it() {
        let scratch = Scratch::with("instances: {a: {command: [x]}}");
        let plan = crate::plan::resolve(&scratch.source()).unwrap();
        let launch = |next: Option<Plan>| {
            let kept = Launch { running: Some(plan.clone()), next, ..Launch::new(&scratch.source(), &plan) };
            Launch::read(kept.to_memory().unwrap()).unwrap()
        };
        let next = Plan { revision: 1, ..plan.clone() };
        for (revision, expected) in [(0, &plan), (1, &next)] {
            assert_eq!(launch(Some(next.clone())).take_plan(revision).as_ref(), Some(expected));
        }
        assert_eq!(launch(None).take_plan(7).as_ref(), Some(&plan));
    }
}
