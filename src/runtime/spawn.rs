//! The one way in which a process of an instance is made: server, `pre_start` command, command probe alike.
//!
//! A helper thread makes them one after the other, so that an exec on a hung disk blocks nobody else. The child starts
//! clean whatever laneway was started with: own session, empty signal mask, default dispositions, descriptors 0 to 2,
//! original limit and umask, a raised OOM score (so that the kernel takes it before the supervisor).

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use tokio::sync::oneshot;

use super::birth::{Program, give_birth};
use super::cgroup::{Cgroup, Cgroups};
use super::look;
use super::processes;
use super::tree::Tree;
use crate::machine::Obstacle;

/// What a process shall be.
#[derive(Debug)]
pub struct Job {
    /// Names the run among all of this fleet; part of its marker.
    pub label: String,
    /// Program (absolute) and arguments; the first is what it is called.
    pub program: PathBuf,
    /// With the program's name first.
    pub arguments: Vec<String>,
    /// Where it starts.
    pub directory: PathBuf,
    /// All of its environment but the marker.
    pub environment: BTreeMap<OsString, OsString>,
    /// Its standard output and error.
    pub output: OwnedFd,
}

/// What processes get back that laneway changed for itself.
#[derive(Clone, Copy, Debug)]
pub struct Original {
    /// Soft limit of open files.
    pub descriptors: u64,
    /// File mode mask.
    pub umask: u32,
}

/// Finds out what is to be made; whatever of it touches the disk happens in the helper thread too.
type Prepare = Box<dyn FnOnce() -> Result<Job, Obstacle> + Send>;
type Reply = oneshot::Sender<Result<Tree, Obstacle>>;

/// The environment variable that marks every process of every run.
pub const MARKER: &str = "LANEWAY_RUN";

/// Hands jobs to the helper thread.
#[derive(Clone, Debug)]
pub struct Spawner {
    jobs: mpsc::Sender<(Prepare, Reply)>,
    /// First processes of runs: to be reaped by their run, and by nobody else.
    known: Arc<Mutex<HashSet<u32>>>,
}

impl Spawner {
    /// Starts the helper thread. `fleet` goes into the marker of every process.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(fleet: String, cgroups: Option<Cgroups>, original: Original) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<(Prepare, Reply)>();
        let known = Arc::new(Mutex::new(HashSet::new()));
        let spawner = Self { jobs, known: Arc::clone(&known) };
        std::thread::Builder::new().name("spawner".to_owned()).stack_size(256 * 1024).spawn(move || {
            for (prepare, reply) in queue {
                let made = prepare().and_then(|job| {
                    make(&job, &fleet, cgroups.as_ref(), original, &known)
                        .map_err(|error| look::spawn_error(&error, &job.program))
                });
                // Nobody waits any more: the tree is dropped and its processes with it.
                if let Err(Ok(tree)) = reply.send(made) {
                    tree.kill();
                }
            }
        })?;
        Ok(spawner)
    }

    /// Makes a process.
    ///
    /// # Errors
    /// What is in the way, by `prepare`, fork or exec.
    pub async fn spawn(
        &self,
        prepare: impl FnOnce() -> Result<Job, Obstacle> + Send + 'static,
    ) -> Result<Tree, Obstacle> {
        let (reply, made) = oneshot::channel();
        let gone = || Obstacle::Resources { error: "the spawner thread is gone".to_owned() };
        self.jobs.send((Box::new(prepare), reply)).map_err(|_| gone())?;
        made.await.map_err(|_| gone())?
    }

    /// Reaps children that are no run's first process: orphans of servers, which come to us as subreaper.
    pub fn reap_strangers(&self) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in processes::children_of(std::process::id()) {
            if !known.contains(&pid) {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(0));
                let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
            }
        }
    }

    /// Living children that are no run's first process.
    #[must_use]
    pub fn strangers(&self) -> Vec<u32> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        processes::children_of(std::process::id()).into_iter().filter(|pid| !known.contains(pid)).collect()
    }

    /// A run's first process was reaped; its number may come again as anything.
    pub fn forget(&self, pid: u32) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }
}

fn make(
    job: &Job,
    fleet: &str,
    cgroups: Option<&Cgroups>,
    original: Original,
    known: &Mutex<HashSet<u32>>,
) -> io::Result<Tree> {
    let cgroup = cgroups.and_then(|cgroups| cgroups.make(&job.label).ok());
    let marker = format!("{fleet}:{}", job.label);
    let pipe = fstat(&job.output)?.st_ino;
    let mut environment: Vec<_> = job.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    environment.push((MARKER.into(), marker.clone().into()));
    let program = Program {
        path: job.program.as_os_str(),
        arguments: &job.arguments,
        environment,
        directory: job.directory.as_os_str(),
        input: open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?,
        output: job.output.try_clone()?,
        cgroup: cgroup.as_ref().map(Cgroup::directory).transpose()?,
        descriptors: original.descriptors,
        umask: original.umask,
    };
    match give_birth(&program, known) {
        Ok(newborn) => {
            let cgroup = cgroup.filter(|cgroup| newborn.is_in_cgroup || dismiss(cgroup));
            Ok(Tree::new(newborn, marker, cgroup, pipe))
        }
        Err(error) => {
            cgroup.as_ref().map(dismiss);
            Err(error)
        }
    }
}

/// Removes a cgroup that stayed empty.
fn dismiss(cgroup: &Cgroup) -> bool {
    cgroup.remove();
    false
}
