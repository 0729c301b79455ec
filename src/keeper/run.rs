//! The keeper's loop, run by one thread at a time.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::gettid;

use super::clock::{since_boot, wall_clock};
use super::deaths::Deaths;
use super::journal::{self, Journal, OWN};
use super::log::LogFile;
use super::logs::Logs;
use super::protocol::{Kept, SPOOLS, news};
use super::relay::{Relay, lock, waits};
use super::spool::{self, Spool};
use super::streams::{FIRST, Streams};
use super::supervisor::Supervisor;
use super::writer::{Desk, Flow, Guard, Shared};

/// Size of laneway's own log files, in bytes, and how many are kept.
const OWN_LOG: (u64, u32) = (1024 * 1024, 3);
/// A supervisor that could not even be started is tried again after this.
const PAUSE: Duration = Duration::from_secs(1);
/// Most that is taken from one pipe when another has to wait for it, in chunks.
const TURNS: u32 = 64;
/// What is left in backlogs at the very end is written within this time, or lost.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Stack of a thread, in bytes.
const STACK: usize = 256 * 1024;

const LINK: u64 = 0;
const SIGNALS: u64 = 1;
const SUPERVISOR: u64 = 2;
const KICK: u64 = 3;

/// The state that the threads share, under one lock.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// The thread that runs the loop.
    pub leader: usize,
    pub kept: [Option<OwnedFd>; Kept::COUNT],
    pub logs: Logs,
    pub streams: Streams,
    pub supervisor: Option<Supervisor>,
    pub deaths: Deaths,
    /// When the next supervisor is due, in time since boot.
    pub start_at: Option<Duration>,
    /// Some supervisor answered; before that, nobody wants another one.
    pub was_ready: bool,
    /// Somebody asked for the end while there was no supervisor to hand it on to.
    pub shall_end: bool,
    /// The supervisor ordered this process to become another program.
    pub shall_become: bool,
    /// The end has come, with this exit code: what is left is to be written.
    pub ending: Option<i32>,
}

/// Runs as the keeper with what is in the table at this descriptor, until the supervisor has ended as planned. Returns
/// the exit code.
#[must_use]
pub fn run(table: RawFd) -> i32 {
    let mut ready = None;
    let shared = match set_up(table, &mut ready) {
        Ok(shared) => &*Box::leak(Box::new(shared)),
        Err(error) => {
            if let Some(mut ready) = ready.map(File::from) {
                let _ = writeln!(ready, "the keeper cannot start: {error}");
            }
            return 1;
        }
    };
    drop(ready);
    for number in 1..usize::from(SPOOLS) {
        let desk = Desk::new(number);
        let work = move || {
            let code = shared.work(desk);
            std::process::exit(code);
        };
        // With one thread less, one hanging file system less is survived.
        let _ = thread::Builder::new().stack_size(STACK).spawn(work);
    }
    shared.work(Desk::new(0))
}

/// `ready` is where somebody waits to hear of it, if it fails.
fn set_up(table: RawFd, ready: &mut Option<OwnedFd>) -> io::Result<Shared> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut keeper = Keeper::inherit(table, &epoll)?;
    *ready = keeper.kept(Kept::Ready).map(|ready| ready.try_clone_to_owned()).transpose()?;
    // Whoever starts laneway may ignore the end of children; the keeper must not.
    // SAFETY: sets a default disposition.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // Started through /proc/self/exe, it would be called `exe`.
    let _ = nix::sys::prctl::set_name(c"laneway-keeper");
    nix::sys::prctl::set_child_subreaper(true)?;
    raise_descriptor_limit();
    let mut heard = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        heard.add(signal);
    }
    let mut blocked = heard;
    // A limit on file sizes is an error like others.
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_set_mask()?;
    let signals = SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
    let kick = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    epoll.add(&kick, EpollEvent::new(EpollFlags::EPOLLIN, KICK))?;
    if let Some(supervisor) = &keeper.supervisor {
        watch(&epoll, supervisor)?;
    } else {
        keeper.start_at = Some(Duration::ZERO);
    }
    let run_dir = keeper.kept(Kept::RunDir).ok_or_else(|| io::Error::other("the table has no directory .run"))?;
    let own_log = LogFile::new(run_dir.try_clone_to_owned()?, "laneway", OWN_LOG.0, OWN_LOG.1);
    if let Some(log) = own_log {
        keeper.logs.declare(OWN, log);
    }
    let journal = keeper.own(Kept::Journal, journal::create, Journal::open)?;
    let spools = (0..SPOOLS).map(|number| keeper.own(Kept::Spool(number), spool::create, Spool::open));
    let spools = spools.collect::<io::Result<Vec<_>>>()?;
    keeper.logs.recover(&journal, &spools);
    Ok(Shared {
        keeper: Mutex::new(keeper),
        epoll,
        signals,
        relay: Relay::default(),
        journal,
        spools,
        threads: Default::default(),
        kick,
    })
}

/// Waits for what a supervisor orders, and for its end.
pub(super) fn watch(epoll: &Epoll, supervisor: &Supervisor) -> io::Result<()> {
    epoll.add(&supervisor.link, EpollEvent::new(EpollFlags::EPOLLIN, LINK))?;
    epoll.add(&supervisor.pidfd, EpollEvent::new(EpollFlags::EPOLLIN, SUPERVISOR))?;
    Ok(())
}

impl Shared {
    /// Leads, or waits until the leader hangs; returns the exit code of the keeper.
    fn work(&self, mut desk: Desk) -> i32 {
        if let Some(number) = self.threads.get(desk.thread) {
            number.store(gettid().as_raw(), Ordering::Relaxed);
        }
        loop {
            let leads = lock(&self.keeper).leader == desk.thread;
            if leads && let Some(code) = self.lead(&mut desk) {
                return code;
            }
            let pulse = self.relay.wait_for_hang();
            let mut keeper = lock(&self.keeper);
            let old = keeper.leader;
            let number = self.threads.get(old).map_or(0, |number| number.load(Ordering::Relaxed));
            if self.relay.is_at(pulse) && waits(number) {
                keeper.leader = desk.thread;
                self.relay.end();
                keeper.logs.hang(&self.journal, old, wall_clock());
            }
        }
    }

    /// Runs the loop; `None` when another thread has taken it over.
    fn lead(&self, desk: &mut Desk) -> Option<i32> {
        let mut events = [EpollEvent::empty(); 64];
        let mut wake_at = Some(Duration::ZERO);
        loop {
            let timeout = wake_at.map_or(EpollTimeout::NONE, |at| {
                // Rounded up, or it would come too early again and again.
                let left = at.saturating_sub(since_boot()).saturating_add(Duration::from_micros(999));
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO)
            });
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => {
                    self.say(&mut lock(&self.keeper), format_args!("the keeper cannot wait: {error}"));
                    return Some(1);
                }
            };
            let mut keeper = lock(&self.keeper);
            for event in events.iter().take(count) {
                keeper = self.take_event(desk, keeper, event.data());
                if keeper.leader != desk.thread {
                    return None;
                }
            }
            if let Some(code) = keeper.ending {
                drop(self.finish(desk, keeper));
                return Some(code);
            }
            let due;
            (keeper, due) = self.tend(desk, keeper);
            if keeper.leader != desk.thread {
                return None;
            }
            self.look_after_supervisor(&mut keeper);
            wake_at = [due, keeper.start_at].into_iter().flatten().min();
            // What was just said is to be written.
            if keeper.logs.is_uneasy && wake_at.is_none() && keeper.logs.next_due(0, since_boot()).0.is_some() {
                wake_at = Some(Duration::ZERO);
            }
        }
    }

    fn take_event<'a>(&'a self, desk: &mut Desk, mut keeper: Guard<'a>, event: u64) -> Guard<'a> {
        match event {
            LINK => self.take_orders(&mut keeper),
            SIGNALS => self.take_signals(&mut keeper),
            SUPERVISOR => keeper = self.supervisor_ended(desk, keeper),
            KICK => {
                let _ = self.kick.read();
                keeper.logs.is_uneasy = true;
            }
            stream => {
                let index = usize::try_from(stream.saturating_sub(FIRST)).unwrap_or(usize::MAX);
                keeper = self.read(desk, keeper, index);
            }
        }
        keeper
    }

    /// Takes what is in a stream, so that every one has its turn; what older streams of the same log have comes first.
    fn read<'a>(&'a self, desk: &mut Desk, mut keeper: Guard<'a>, index: usize) -> Guard<'a> {
        if let Some(older) = keeper.streams.older(index) {
            keeper = self.empty(desk, keeper, older);
            if keeper.leader != desk.thread {
                return keeper;
            }
        }
        let flow;
        (keeper, flow) = self.pump(desk, keeper, index);
        if flow == Flow::End {
            self.close(&mut keeper, index);
        }
        keeper
    }

    /// Takes all that is in a stream, if it is not endless.
    fn empty<'a>(&'a self, desk: &mut Desk, mut keeper: Guard<'a>, index: usize) -> Guard<'a> {
        for _ in 0..TURNS {
            let flow;
            (keeper, flow) = self.pump(desk, keeper, index);
            match flow {
                Flow::More if keeper.leader == desk.thread => {}
                Flow::End => {
                    self.close(&mut keeper, index);
                    break;
                }
                Flow::More | Flow::Empty => break,
            }
        }
        keeper
    }

    fn close(&self, keeper: &mut Keeper, index: usize) {
        if let Some(log) = keeper.streams.close(&self.epoll, index) {
            keeper.logs.end_line(&self.journal, log);
        }
    }

    /// The supervisor is dead.
    fn supervisor_ended<'a>(&'a self, desk: &mut Desk, mut keeper: Guard<'a>) -> Guard<'a> {
        // What it had ordered and said still counts.
        self.take_orders(&mut keeper);
        if let Some(output) = keeper.streams.output() {
            keeper = self.empty(desk, keeper, output);
        }
        let Some(supervisor) = keeper.supervisor.take() else { return keeper };
        let _ = self.epoll.delete(&supervisor.link);
        let _ = self.epoll.delete(&supervisor.pidfd);
        let end = supervisor.reap();
        if let Some(code) = supervisor.bye {
            keeper.ending = Some(i32::from(code));
            return keeper;
        }
        if !keeper.was_ready {
            self.say(&mut keeper, format_args!("the first supervisor ended before it was ready"));
            keeper.ending = Some(1);
            return keeper;
        }
        let now = since_boot();
        let pause = keeper.deaths.add(now.saturating_sub(supervisor.born), end.is_crash());
        keeper.start_at = Some(now.saturating_add(pause));
        self.say(&mut keeper, format_args!("the supervisor {end}; a new one starts"));
        keeper
    }

    /// Writes what is left.
    fn finish<'a>(&'a self, desk: &mut Desk, mut keeper: Guard<'a>) -> Guard<'a> {
        let last = since_boot().saturating_add(LAST_WORDS);
        for index in 0..keeper.streams.end() {
            while let Some(older) = keeper.streams.older(index) {
                keeper = self.empty(desk, keeper, older);
                self.close(&mut keeper, older);
            }
            keeper = self.empty(desk, keeper, index);
        }
        while keeper.leader == desk.thread && since_boot() < last && keeper.logs.next_due(0, since_boot()).0.is_some() {
            keeper = self.tend(desk, keeper).0;
        }
        keeper
    }

    /// Starts a supervisor when one is due, and tells the one there is where to look.
    fn look_after_supervisor(&self, keeper: &mut Keeper) {
        if std::mem::take(&mut keeper.logs.has_news)
            && let Some(supervisor) = &keeper.supervisor
        {
            supervisor.tell(news::LOGS);
        }
        if std::mem::take(&mut keeper.shall_become) {
            let error = keeper.become_program();
            self.say(keeper, format_args!("cannot become the new program, the old one goes on: {error}"));
        }
        if keeper.start_at.is_some_and(|at| at <= since_boot())
            && let Err(error) = keeper.start_supervisor(&self.epoll)
        {
            self.say(keeper, format_args!("a new supervisor cannot start: {error}"));
            keeper.start_at = Some(since_boot().saturating_add(PAUSE));
        }
    }
}

/// The servers get the original limit back; the keeper needs a few descriptors for each of them.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
