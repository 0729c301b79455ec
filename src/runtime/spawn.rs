//! The one way in which a process of an instance is made: server, `pre_start` command, command probe alike.
//!
//! A helper thread makes them one after the other, so that an exec on a hung disk blocks nobody else. The child starts
//! clean whatever laneway was started with: own session, empty signal mask, default dispositions, descriptors 0 to 2,
//! original limit and umask, a raised OOM score (so that the kernel takes it before the supervisor).

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use tokio::sync::oneshot;

use super::cgroup::Cgroups;
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

/// Hands jobs to the helper thread.
#[derive(Clone, Debug)]
pub struct Spawner {
    jobs: mpsc::Sender<(Prepare, Reply)>,
    /// First processes of runs: to be reaped by their run, and by nobody else. Held while a process is being made.
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
                    let program = job.program.clone();
                    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    let tree = make(job, &fleet, cgroups.as_ref(), original)
                        .map_err(|error| look::spawn_error(&error, &program))?;
                    known.insert(tree.pid());
                    Ok(tree)
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
        // A process that is being made is not known yet; the next call sees to the strangers.
        let Ok(known) = self.known.try_lock() else { return };
        for pid in processes::own_children() {
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
        processes::own_children().into_iter().filter(|pid| !known.contains(pid)).collect()
    }

    /// A run's first process was reaped; its number may come again as anything.
    pub fn forget(&self, pid: u32) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }
}

fn make(job: Job, fleet: &str, cgroups: Option<&Cgroups>, original: Original) -> io::Result<Tree> {
    let cgroup = cgroups.and_then(|cgroups| cgroups.make(&job.label).ok());
    let entrance = cgroup.as_ref().and_then(|cgroup| cgroup.entrance().ok());
    let marker = format!("{fleet}:{}", job.label);
    let null = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut command = Command::new(&job.program);
    if let Some((name, rest)) = job.arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.current_dir(&job.directory).env_clear().envs(&job.environment).env(MARKER, &marker);
    command.stdin(null).stdout(job.output.try_clone()?).stderr(job.output);
    // SAFETY: between fork and exec only system calls, nothing that allocates or locks.
    unsafe {
        command.pre_exec(move || clean_start(entrance.as_ref(), original));
    }
    let made = command.stdin(Stdio::null()).spawn();
    match made {
        Ok(child) => Tree::new(child.id(), marker, cgroup),
        Err(error) => {
            if let Some(cgroup) = cgroup {
                cgroup.remove();
            }
            Err(error)
        }
    }
}

/// The environment variable that marks every process of every run.
pub const MARKER: &str = "LANEWAY_RUN";

fn clean_start(cgroup: Option<&OwnedFd>, original: Original) -> io::Result<()> {
    if let Some(cgroup) = cgroup {
        // SAFETY: a plain system call on a descriptor that is open.
        unsafe { libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1) };
    }
    nix::unistd::setsid()?;
    // The C library keeps signals 32 and 33 for itself and refuses to speak of them.
    for signal in (1..32).chain(34..=64) {
        // SAFETY: sets a default disposition; refusals (KILL, STOP) are of no interest.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // SAFETY: marks descriptors only; the one through which std reports a failed exec has the mark already.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, original.descriptors.min(hard), hard)?;
    umask(Mode::from_bits_truncate(original.umask));
    if let Ok(score) = open("/proc/self/oom_score_adj", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        // SAFETY: a plain system call on a descriptor that is open. Raising the score needs no privilege.
        unsafe { libc::write(score.as_raw_fd(), c"200".as_ptr().cast(), 3) };
    }
    Ok(())
}
