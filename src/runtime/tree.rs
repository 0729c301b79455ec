//! The processes of one run: its first one, everything that descends from it, and how all of them are ended.
//!
//! With a cgroup, membership is exact. Without, five signs are followed: process group, session, descent, the marker in
//! the environment, and the pipe of the run's output; what a dead parent leaves comes to this process, a subreaper.
//!
//! The first process is a child of this supervisor, or of one that died before it: then it is the keeper's child, or
//! after the death of both nobody's that we know. What differs is how its end is learned and who reaps it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal as Number, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use rustix::process::pidfd_send_signal;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::birth::Newborn;
use super::cgroup::Cgroup;
use super::memory;
use super::processes::{self, Identity, Process};
use super::spawn::{MARKER, Spawner};
use super::threads::in_thread;
use crate::machine::Survivor;
use crate::model::{Exit, Signal};

/// How long killed processes may take to go before they are called survivors.
const SWEEP_DEADLINE: Duration = Duration::from_secs(3);

/// How many rounds whoever forks away is chased before other work gets its turn.
const CHASES: u32 = 20;

/// The processes of one run.
#[derive(Debug)]
pub struct Tree {
    identity: Identity,
    pidfd: OwnedFd,
    marker: String,
    cgroup: Option<Cgroup>,
    /// The inode of the pipe that it writes to: no other run was given that pipe.
    output: u64,
    /// The first process was taken note of.
    reaped: AtomicBool,
    /// Its process group is empty: from now on the number may belong to somebody else.
    group_is_gone: AtomicBool,
}

impl Tree {
    /// Of a child that was just made, and that nobody has reaped.
    pub(super) fn new(newborn: Newborn, marker: String, cgroup: Option<Cgroup>, output: u64) -> Self {
        let Newborn { pid, pidfd, .. } = newborn;
        // A child that nobody has reaped is there, if only as a zombie.
        let start_time = Process::read(pid).map_or(0, |process| process.start_time);
        Self::of(Identity { pid, start_time }, pidfd, marker, cgroup, output)
    }

    /// Of a process that an earlier supervisor made, alive or not yet reaped. `None` if it is gone, or if its number
    /// means another process by now.
    pub(super) fn adopt(identity: Identity, marker: String, cgroup: Option<Cgroup>, output: u64) -> Option<Self> {
        Some(Self::of(identity, identity.process()?.pin()?, marker, cgroup, output))
    }

    fn of(identity: Identity, pidfd: OwnedFd, marker: String, cgroup: Option<Cgroup>, output: u64) -> Self {
        let (reaped, group_is_gone) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { identity, pidfd, marker, cgroup, output, reaped, group_is_gone }
    }

    /// The first process.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The number of the first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid()).unwrap_or(0))
    }

    /// Waits for the first process to end, and leaves it to be reaped.
    pub async fn exit(&self) -> Exit {
        let Ok(pidfd) = self.pidfd.try_clone() else { return Exit::Unknown };
        if processes::ended(pidfd).await.is_err() {
            return Exit::Unknown;
        }
        let exit = match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(_, code)) => Exit::Code(code),
            Ok(WaitStatus::Signaled(_, signal, core)) => {
                Exit::Signal { signal: Signal::from_number(signal as i32), core }
            }
            Err(Errno::ECHILD) => processes::exit_of_stranger(self.identity, self.pidfd.as_fd()),
            _ => Exit::Unknown,
        };
        match exit {
            Exit::Signal { signal, .. } if signal == Signal::KILL && self.wanted_memory() => Exit::OutOfMemory,
            Exit::Signal { .. } | Exit::Code(_) | Exit::OutOfMemory | Exit::Unknown => exit,
        }
    }

    fn wanted_memory(&self) -> bool {
        let of_run = self.cgroup.as_ref().is_some_and(Cgroup::wanted_memory);
        of_run || memory::was_wanting(self.identity.pid, self.identity.start_time)
    }

    /// Sends a signal to the first process's group, then wakes whoever is stopped: a stopped process hears no other.
    pub fn signal(&self, signal: Signal) {
        if self.is_reaped() {
            return;
        }
        // SAFETY: a plain system call; nix's enumeration does not know the real-time signals.
        unsafe { nix::libc::killpg(self.group().as_raw(), signal.number()) };
        let _ = killpg(self.group(), Number::SIGCONT);
    }

    /// Sends a signal to the first process and to nobody else.
    ///
    /// # Errors
    /// When it is gone, or is not ours to signal: a server may run as another user.
    pub fn deliver(&self, signal: Signal) -> io::Result<()> {
        let number = rustix::process::Signal::from_named_raw(signal.number()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pidfd_send_signal(&self.pidfd, number)?)
    }

    /// Kills the first process and everything that can be found of the run now.
    pub fn kill(&self) {
        if !self.is_reaped() {
            let _ = killpg(self.group(), Number::SIGKILL);
        }
        match &self.cgroup {
            Some(cgroup) => cgroup.kill(),
            None => self.search().iter().for_each(kill_pinned),
        }
    }

    /// The first process has ended: ends what else there is, reaps, and looks until nothing is left or the time is up.
    pub async fn sweep(self: &Arc<Self>, spawner: &Spawner) -> Vec<Survivor> {
        let mut pause = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        loop {
            let Some(left) = self.clear(spawner).await else {
                if let Some(cgroup) = &self.cgroup {
                    cgroup.remove();
                }
                return Vec::new();
            };
            if waited >= SWEEP_DEADLINE && !left.is_empty() {
                return left.iter().map(survivor).collect();
            }
            sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// One round. Without a cgroup beside the loop: to look through all processes takes long where there are many, and
    /// checks of others are not to wait for that. Where the system has no thread to give, they wait.
    async fn clear(self: &Arc<Self>, spawner: &Spawner) -> Option<Vec<Process>> {
        if self.cgroup.is_none() {
            let (tree, with) = (Arc::clone(self), spawner.clone());
            let (reply, cleared) = oneshot::channel();
            let clearing = in_thread("sweep", move || {
                let _ = reply.send(tree.clear_once(&with));
            });
            if clearing.is_ok()
                && let Ok(left) = cleared.await
            {
                return left;
            }
        }
        self.clear_once(spawner)
    }

    /// One round: kill, reap, and look again. `None` once nothing is left, else whom it saw. The group is signalled while
    /// its unreaped leader keeps the number ours.
    fn clear_once(&self, spawner: &Spawner) -> Option<Vec<Process>> {
        if !self.is_reaped() {
            self.reap(spawner);
        }
        if let Some(cgroup) = &self.cgroup {
            if !cgroup.is_populated() {
                return None;
            }
            cgroup.kill();
            return Some(cgroup.processes().into_iter().filter_map(Process::read).filter(Process::is_alive).collect());
        }
        if !processes::can_look() {
            return Some(Vec::new());
        }
        // The number stays reserved as long as the group has a member; once it is empty, it may mean anybody.
        if !self.group_is_gone.load(Ordering::Acquire) && killpg(self.group(), Number::SIGKILL) == Err(Errno::ESRCH) {
            self.group_is_gone.store(true, Ordering::Release);
        }
        if self.group_is_gone.load(Ordering::Acquire) && spawner.strangers().is_empty() {
            return None;
        }
        if let Some(left) = self.chase(spawner) {
            return Some(left);
        }
        let left = self.search();
        left.iter().for_each(kill_pinned);
        (!left.is_empty()).then_some(left)
    }

    /// Kills the orphans of the run as it finds them. Whoever forks and ends again and again is gone before all processes
    /// are looked through; but each time its parent ends it becomes our child, and those are few. `None` once each orphan
    /// was seen alive and without a sign (one that vanished before may have left another), else whom it saw.
    fn chase(&self, spawner: &Spawner) -> Option<Vec<Process>> {
        let mut seen = Vec::new();
        for _ in 0..CHASES {
            spawner.reap_strangers();
            spawner.reap_strangers_at_keeper();
            let (mut is_settled, mut left) = (true, Vec::new());
            for orphan in spawner.strangers() {
                let Some(process) = Process::read(orphan).filter(Process::is_alive) else {
                    is_settled = false;
                    continue;
                };
                if self.shows_a_sign(&process) {
                    kill_family(&process, spawner.keeper_pid());
                    left.push(process);
                } else {
                    is_settled &= Process::read(orphan).is_some_and(|now| now.is_alive());
                }
            }
            if is_settled && left.is_empty() {
                return None;
            }
            seen = left;
        }
        Some(seen)
    }

    /// Kills the group, and takes note of the first process if it has ended.
    fn reap(&self, spawner: &Spawner) {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        // Alive, or a zombie: the number is its own. Gone without us (nobody that we know was its parent): it may not be.
        let is_kept = self.identity.process().is_some();
        if is_kept {
            let _ = killpg(self.group(), Number::SIGKILL);
        } else {
            self.group_is_gone.store(true, Ordering::Release);
        }
        match waitid(Id::PIDFd(self.pidfd.as_fd()), ended) {
            Ok(WaitStatus::StillAlive) => return,
            // The keeper has it, and reaps it when we say so.
            Err(Errno::ECHILD) if Process::read(self.pid()).is_some_and(|process| process.is_alive()) && is_kept => {
                return;
            }
            Err(Errno::ECHILD) if is_kept => spawner.reap_at_keeper(self.pid()),
            _ => {}
        }
        self.reaped.store(true, Ordering::Release);
        spawner.forget(self.pid());
    }

    fn is_reaped(&self) -> bool {
        self.reaped.load(Ordering::Acquire)
    }

    /// The living processes that show one of the five signs.
    fn search(&self) -> Vec<Process> {
        let all: Vec<_> = processes::all().into_iter().filter(Process::is_alive).collect();
        let mut mine: HashSet<u32> = all.iter().filter(|p| self.shows_a_sign(p)).map(|p| p.pid).collect();
        let parents: HashMap<u32, u32> = all.iter().map(|p| (p.pid, p.parent)).collect();
        for process in &all {
            let mut line = vec![process.pid];
            while let Some(parent) = line.last().and_then(|pid| parents.get(pid)).filter(|p| !line.contains(p)) {
                line.push(*parent);
            }
            if let Some(at) = line.iter().position(|pid| mine.contains(pid)) {
                mine.extend(line.into_iter().take(at));
            }
        }
        all.into_iter().filter(|p| mine.contains(&p.pid)).collect()
    }

    fn shows_a_sign(&self, process: &Process) -> bool {
        let me = std::process::id();
        if process.pid == me || process.parent == 2 {
            return false;
        }
        let number = (!self.group_is_gone.load(Ordering::Acquire)).then_some(self.pid());
        let marker = format!("{MARKER}={}", self.marker);
        [process.pid, process.group, process.session].map(Some).contains(&number)
            || processes::was_started_with(process.pid, |entry| entry == marker.as_bytes())
            // Only orphans: anybody may open a pipe through /proc and write to it, and is no part of the run.
            || is_orphan(process) && processes::writes_to_pipe(process.pid, self.output)
    }

    /// The living processes of the run.
    #[must_use]
    pub fn members(&self) -> Vec<u32> {
        match &self.cgroup {
            Some(cgroup) => cgroup.processes(),
            None => self.search().iter().map(|process| process.pid).collect(),
        }
    }
}

/// Kills what it found, not what may have its number by now.
fn kill_pinned(process: &Process) {
    if let Some(pidfd) = process.pin() {
        let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    }
}

/// Whether it came to this process or to the keeper, which is our parent, or our child if we had to start it.
fn is_orphan(process: &Process) -> bool {
    let (me, parent) = (std::process::id(), parent_id());
    process.parent == me
        || process.parent == parent && parent != 1
        || Process::read(process.parent).is_some_and(|above| above.parent == me)
}

/// Kills an orphan with its group, which nobody escapes by forking and which holds only what descends from runs; and its
/// children, who would show no sign any more if they had none of their own.
fn kill_family(orphan: &Process, keeper: u32) {
    let children = processes::children_of(orphan.pid);
    if let Some(group) = i32::try_from(orphan.group).ok().filter(|group| *group > 1) {
        let _ = killpg(Pid::from_raw(group), Number::SIGKILL);
    }
    kill_pinned(orphan);
    for child in children.into_iter().filter_map(Process::read) {
        // By now a child of ours or of the keeper's; whoever has that number and is not was never its child.
        if [orphan.pid, keeper, std::process::id()].contains(&child.parent) {
            kill_family(&child, keeper);
        }
    }
}

/// Kills every living process that earlier supervisors of `fleet` left of the runs that `is_left` names, waits until they
/// are gone, and says whom: a killed server holds its port until it has ended.
#[must_use]
pub fn kill_leftovers(fleet: &str, is_left: impl Fn(&str) -> bool) -> Vec<Survivor> {
    end(|process| label_of(fleet, process).is_some_and(|label| is_left(&label)))
}

/// The living processes of `fleet`, each after the label of its run, as far as they show it.
#[must_use]
pub fn labelled(fleet: &str) -> Vec<(String, u32)> {
    let all = processes::all().into_iter().filter(Process::is_alive);
    all.filter_map(|process| Some((label_of(fleet, &process)?, process.pid))).collect()
}

fn label_of(fleet: &str, process: &Process) -> Option<String> {
    processes::started_with(process.pid, &format!("{MARKER}={fleet}:"))
}

/// Kills whoever is left of the children of this process and of the keeper, where nothing is meant to run any more.
/// Orphans come to a subreaper, so this finds what hides from every sign: a daemon in its own session with an empty
/// environment.
#[must_use]
pub fn kill_children(keeper: u32) -> Vec<Survivor> {
    let pair = [std::process::id(), keeper];
    let mut ended = Vec::new();
    // The children of each that goes come to us; none of them lives to have more than a few generations.
    for _ in 0..100 {
        let round = end(|process| pair.contains(&process.parent) && !pair.contains(&process.pid));
        if round.is_empty() {
            break;
        }
        ended.extend(round);
    }
    ended
}

/// Kills whoever `is_meant`, and waits until they are gone.
fn end(is_meant: impl Fn(&Process) -> bool) -> Vec<Survivor> {
    let is_left = |p: &Process| p.is_alive() && p.pid != std::process::id() && is_meant(p);
    let left: Vec<_> = processes::all().into_iter().filter(is_left).collect();
    let named = left.iter().map(survivor).collect();
    let pinned: Vec<_> = left.iter().filter_map(Process::pin).collect();
    for pidfd in &pinned {
        let _ = pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    }
    for pidfd in &pinned {
        let patience = PollTimeout::try_from(SWEEP_DEADLINE).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], patience);
    }
    named
}

fn survivor(process: &Process) -> Survivor {
    let state = match process.state {
        'D' => "in uninterruptible sleep (waits for a device or a file system)".to_owned(),
        'T' => "stopped".to_owned(),
        other => format!("state {other}"),
    };
    Survivor { pid: process.pid, command: processes::command_line(process.pid), state }
}
