//! The one way in which a process of an instance is made: server, `pre_start` command, command probe alike.
//!
//! A helper thread makes them one after the other, so that an exec on a hung disk blocks nobody else. The child starts
//! clean whatever laneway was started with: own session, empty signal mask, default dispositions, descriptors 0 to 2,
//! original limit and umask, a raised OOM score (so that the kernel takes it before the supervisor).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use nix::sys::stat::fstat;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::sync::oneshot;
use tracing::warn;

use super::birth::{Cradle, Known, Program, give_birth};
use super::cgroup::{Cgroup, Cgroups};
use super::link::KeeperLink;
use super::look;
use super::processes::{self, Identity, Process};
use super::records::BirthPlace;
use super::tree::{self, Tree};
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
    /// The rules that it enters before it becomes its program.
    pub rules: Option<OwnedFd>,
    /// Where it notes its number; checks need none, a successor ends them anyway.
    pub birth_place: Option<BirthPlace>,
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
    /// First processes of runs, and what else is waited for.
    known: Arc<Known>,
    /// How many runs may have been born before this supervisor was.
    in_doubt: Arc<AtomicUsize>,
    /// Has the children of dead supervisors.
    keeper: Arc<KeeperLink>,
    fleet: Arc<str>,
    cgroups: Option<Cgroups>,
}

impl Spawner {
    /// Starts the helper thread. `fleet` goes into the marker of every process.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        fleet: &str,
        cgroups: Option<Cgroups>,
        original: Original,
        keeper: Arc<KeeperLink>,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<(Prepare, Reply)>();
        let known = Arc::<Known>::default();
        let fleet: Arc<str> = fleet.into();
        let spawner = Self {
            jobs,
            known: Arc::clone(&known),
            in_doubt: Arc::default(),
            keeper,
            fleet: Arc::clone(&fleet),
            cgroups: cgroups.clone(),
        };
        let mut cradle = Cradle::new()?;
        std::thread::Builder::new().name("spawner".to_owned()).stack_size(256 * 1024).spawn(move || {
            for (prepare, reply) in queue {
                let made = prepare().and_then(|job| {
                    make(&job, &mut cradle, &fleet, cgroups.as_ref(), original, &known)
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
        let made = made.await.map_err(|_| gone())?;
        if made.is_err() {
            // A child that became no program may have lain before strangers.
            self.reap_strangers();
        }
        made
    }

    /// Takes over a process that an earlier supervisor made for the run `label`; `None` if it is gone.
    #[must_use]
    pub fn adopt(&self, label: &str, identity: Identity, output: u64) -> Option<Tree> {
        let lives = Process::read(identity.pid).is_some_and(|process| process.is_alive());
        let cgroup = self.cgroups.as_ref().and_then(|cgroups| cgroups.existing(label));
        // Not in it: the kernel let no process be born there.
        let cgroup = cgroup.filter(|cgroup| !lives || cgroup.processes().contains(&identity.pid));
        let tree = Tree::adopt(identity, format!("{}:{label}", self.fleet), cgroup, output)?;
        self.known.lock().insert(identity.pid);
        Some(tree)
    }

    /// Takes over the process `pid`, which noted its number before its supervisor could; `None` if it is gone.
    #[must_use]
    pub fn adopt_newborn(&self, label: &str, pid: u32, output: u64) -> Option<Tree> {
        let process = Process::read(pid)?;
        let marker = format!("{MARKER}={}:{label}", self.fleet);
        let is_ours = [std::process::id(), self.keeper.pid()].contains(&process.parent)
            || processes::was_started_with(pid, |entry| entry == marker.as_bytes())
            // It has not become its program yet, and its parents are dead.
            || processes::holds_pipe(pid, output);
        is_ours.then(|| self.adopt(label, process.identity(), output))?
    }

    /// Ends what earlier supervisors left of the runs that `is_left` names: nothing runs twice. Returns what would not go
    /// in time, each after the label of its run.
    #[must_use]
    pub fn clear_leftovers(&self, is_left: impl Fn(&str) -> bool) -> Vec<(String, Identity)> {
        let left = self.cgroups.as_ref().map_or(0, |cgroups| cgroups.clear(&is_left));
        if left > 0 {
            warn!("ended what earlier supervisors left in {left} cgroups of runs");
        }
        let ended = tree::kill_leftovers(&self.fleet, &is_left);
        for survivor in &ended {
            warn!("ended pid {} ({}), which an earlier supervisor left", survivor.pid, survivor.command);
        }
        // To look through all processes takes a while where there are many; where nobody was found, nobody is left.
        let marked = if ended.is_empty() { Vec::new() } else { tree::labelled(&self.fleet) };
        let mut still_there: BTreeMap<_, _> = marked.into_iter().collect();
        still_there.extend(self.cgroups.iter().flat_map(Cgroups::labelled));
        still_there.retain(|label, _| is_left(label));
        let identify = |(label, pid)| {
            let process = Process::read(pid).filter(Process::is_alive)?;
            warn!("pid {pid} of run {label}, which an earlier supervisor left, does not go");
            Some((label, process.identity()))
        };
        still_there.into_iter().filter_map(identify).collect()
    }

    /// Reaps children that nobody waits for: orphans of servers, which come to us as subreaper. One behind a known child
    /// that has ended is reaped after that.
    pub fn reap_strangers(&self) {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        while self.in_doubt.load(Ordering::Acquire) == 0
            && let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) =
                waitid(Id::All, ended | WaitPidFlag::WNOWAIT)
        {
            let known = self.known.lock();
            if known.holds(pid.as_raw().cast_unsigned()) {
                return;
            }
            let _ = waitid(Id::Pid(pid), ended);
        }
    }

    /// As `reap_strangers`, those that came to the keeper, because their server is the child of a dead supervisor.
    pub fn reap_strangers_at_keeper(&self) {
        if self.in_doubt.load(Ordering::Acquire) > 0 {
            return;
        }
        let known = self.known.lock();
        for pid in self.keepers_children() {
            if !known.holds(pid) && Process::read(pid).is_some_and(|process| process.is_zombie()) {
                self.keeper.reap(pid);
            }
        }
    }

    /// A run may have been born before this supervisor was. Until `is_settled`, its first process is no stranger.
    pub fn is_in_doubt(&self) {
        self.in_doubt.fetch_add(1, Ordering::AcqRel);
    }

    /// It is known whether the run was born.
    pub fn is_settled(&self) {
        self.in_doubt.fetch_sub(1, Ordering::AcqRel);
        self.reap_strangers();
        self.reap_strangers_at_keeper();
    }

    /// Living children of ours and of the keeper that are no run's first process.
    #[must_use]
    pub fn strangers(&self) -> Vec<u32> {
        let known = self.known.lock();
        let mut all = processes::children_of(std::process::id());
        all.extend(self.keepers_children());
        all.retain(|pid| !known.holds(*pid) && Process::read(*pid).is_some_and(|process| process.is_alive()));
        all
    }

    /// All but this process, if the keeper made it, and not the other way round.
    fn keepers_children(&self) -> Vec<u32> {
        let mut children = processes::children_of(self.keeper.pid());
        children.retain(|pid| *pid != std::process::id());
        children
    }

    /// The keeper.
    #[must_use]
    pub fn keeper_pid(&self) -> u32 {
        self.keeper.pid()
    }

    /// The keeper reaps this child of a dead supervisor.
    pub fn reap_at_keeper(&self, pid: u32) {
        self.keeper.reap(pid);
    }

    /// Makes a process of laneway's own. It is no stranger: whoever made it waits for it, and calls `forget`.
    ///
    /// # Errors
    /// The system's.
    pub fn spawn_own(&self, command: &mut Command) -> io::Result<Child> {
        // Under the lock: a program that cannot be run is waited for in `spawn`, and nobody else may reap it.
        let mut known = self.known.lock();
        let child = command.spawn()?;
        known.insert(child.id());
        Ok(child)
    }

    /// A known child was reaped. Strangers may have ended while it lay before them.
    pub fn forget(&self, pid: u32) {
        self.known.lock().remove(pid);
        self.reap_strangers();
    }
}

fn make(
    job: &Job,
    cradle: &mut Cradle,
    fleet: &str,
    cgroups: Option<&Cgroups>,
    original: Original,
    known: &Known,
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
        output: job.output.as_fd(),
        cgroup: cgroup.as_ref().map(Cgroup::directory).transpose()?,
        descriptors: original.descriptors,
        umask: original.umask,
        rules: job.rules.as_ref().map(AsFd::as_fd),
        birth_place: job.birth_place,
    };
    match give_birth(&program, known, cradle) {
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
