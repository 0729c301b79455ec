//! The keeper's loop: starts the supervisor and starts it again, reads pipes, writes logs, reaps.

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, dup2_raw, pipe2, read};

use super::log::{LogFile, format_into};
use super::protocol::{MAX_ORDER, Order};

/// The lock of the fleet, held as long as keeper or supervisor live.
pub const LOCK_FD: RawFd = 3;
/// What the supervisor shall run: JSON, read from the beginning by each supervisor.
pub const LAUNCH_FD: RawFd = 4;
/// Where the first supervisor says that it is ready, or why not.
pub const READY_FD: RawFd = 5;
/// The directory `.run`.
pub const RUN_DIR_FD: RawFd = 6;
/// The supervisor's end of its link to the keeper.
pub const LINK_FD: RawFd = 7;

/// Size of laneway's own log files, in bytes, and how many are kept.
const OWN_LOG: (u64, u32) = (1024 * 1024, 3);
/// Most that is read from one pipe before the next has its turn, in bytes.
const READ_SIZE: usize = 64 * 1024;
/// A supervisor that died this soon after its start is not started again at once.
const TOO_SOON: Duration = Duration::from_secs(10);
/// How long it waits then.
const PAUSE: Duration = Duration::from_secs(1);

const LINK: u64 = 0;
const SIGNALS: u64 = 1;
const SUPERVISOR_OUTPUT: u64 = 2;
const FIRST_STREAM: u64 = 16;

/// Whether this process has the descriptors that keeper and supervisor are started with; by hand it has none of them.
#[must_use]
pub fn is_started_by_laneway() -> bool {
    [LOCK_FD, LAUNCH_FD, RUN_DIR_FD].into_iter().all(|number| {
        // SAFETY: used for one system call, which may fail if nothing is open there.
        fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD).is_ok()
    })
}

/// Runs as the keeper, with the descriptors above open, until the supervisor has ended as planned.
/// Returns the exit code.
#[must_use]
pub fn run(_table: RawFd) -> i32 {
    match Keeper::new() {
        Ok(mut keeper) => keeper.serve(),
        Err(error) => {
            // SAFETY: whoever starts a keeper passes this descriptor; nothing else here owns it.
            let mut ready = File::from(unsafe { OwnedFd::from_raw_fd(READY_FD) });
            let _ = writeln!(ready, "the keeper cannot start: {error}");
            1
        }
    }
}

struct Keeper {
    epoll: Epoll,
    signals: SignalFd,
    own_log: LogFile,
    logs: Vec<Option<LogFile>>,
    streams: Vec<Option<Stream>>,
    buffer: Box<[u8]>,
    supervisor: Option<Supervisor>,
    /// When the next supervisor is due, in time since boot.
    start_at: Option<Duration>,
    /// Some supervisor answered; before that, nobody wants another one.
    was_ready: bool,
    /// Somebody asked for the end while there was no supervisor to hand it on to.
    shall_end: bool,
}

struct Supervisor {
    pid: Pid,
    born: Duration,
    link: OwnedFd,
    output: OwnedFd,
}

/// Output on its way into a log.
struct Stream {
    source: OwnedFd,
    slot: u32,
    is_fifo: bool,
}

impl Keeper {
    fn new() -> io::Result<Self> {
        // Whoever starts laneway may ignore the end of children; the keeper must not.
        // SAFETY: sets a default disposition.
        let _ = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, nix::sys::signal::SigHandler::SigDfl) };
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        // Started through /proc/self/exe, it would be called `exe`.
        let _ = nix::sys::prctl::set_name(c"laneway-keeper");
        nix::sys::prctl::set_child_subreaper(true)?;
        raise_descriptor_limit();
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_set_mask()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        // SAFETY: whoever starts a keeper passes this descriptor, and it stays open.
        let run_dir = unsafe { BorrowedFd::borrow_raw(RUN_DIR_FD) }.try_clone_to_owned()?;
        let own_log = LogFile::open(run_dir, "laneway", OWN_LOG.0, OWN_LOG.1)?;
        let mut keeper = Self {
            epoll,
            signals,
            own_log,
            logs: Vec::new(),
            streams: Vec::new(),
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
            supervisor: None,
            start_at: None,
            was_ready: false,
            shall_end: false,
        };
        keeper.start_supervisor()?;
        // From now on the end of the first supervisor is the end of this pipe.
        // SAFETY: whoever starts a keeper passes this descriptor; nothing else here owns it.
        drop(unsafe { OwnedFd::from_raw_fd(READY_FD) });
        Ok(keeper)
    }

    fn start_supervisor(&mut self) -> io::Result<()> {
        let (link, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        let (output, their_output) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("laneway").arg("supervisor").stdin(Stdio::null());
        command.stdout(their_output.try_clone()?).stderr(their_output);
        // SAFETY: only async-signal-safe calls; the duplicate is meant to stay open in the new program.
        unsafe {
            command.pre_exec(move || {
                let mut none = SigSet::empty();
                none.clear();
                none.thread_set_mask()?;
                let duplicate = dup2_raw(&theirs, LINK_FD)?;
                std::mem::forget(duplicate);
                Ok(())
            });
        }
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
        self.epoll.add(&link, EpollEvent::new(EpollFlags::EPOLLIN, LINK))?;
        self.epoll.add(&output, EpollEvent::new(EpollFlags::EPOLLIN, SUPERVISOR_OUTPUT))?;
        self.supervisor = Some(Supervisor { pid, born: since_boot(), link, output });
        self.start_at = None;
        Ok(())
    }

    fn serve(&mut self) -> i32 {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => {
                    self.say(format_args!("the keeper cannot wait: {error}"));
                    return 1;
                }
            };
            for event in events.iter().take(count) {
                match event.data() {
                    LINK => self.take_orders(),
                    SIGNALS => {
                        if let Some(code) = self.take_signals() {
                            return code;
                        }
                    }
                    SUPERVISOR_OUTPUT => self.read_supervisor(),
                    stream => {
                        self.read_stream(stream.saturating_sub(FIRST_STREAM));
                    }
                }
            }
            if self.start_at.is_some_and(|at| at <= since_boot())
                && let Err(error) = self.start_supervisor()
            {
                self.say(format_args!("a new supervisor cannot start: {error}"));
                self.start_at = Some(since_boot().saturating_add(PAUSE));
            }
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let Some(at) = self.start_at else { return EpollTimeout::NONE };
        EpollTimeout::try_from(at.saturating_sub(since_boot())).unwrap_or(EpollTimeout::ZERO)
    }

    fn take_orders(&mut self) {
        for _ in 0..64 {
            let Some(supervisor) = &self.supervisor else { return };
            let mut datagram = [0; MAX_ORDER];
            let mut space = nix::cmsg_space!([RawFd; 1]);
            let mut parts = [IoSliceMut::new(&mut datagram)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let link = supervisor.link.as_raw_fd();
            let (length, descriptor) = match recvmsg::<()>(link, &mut parts, Some(&mut space), flags) {
                Ok(message) => (message.bytes, passed_descriptor(&message)),
                Err(_) => return,
            };
            if length == 0 {
                // The supervisor is dying; its end comes as a signal.
                let _ = self.epoll.delete(supervisor.link.as_fd());
                return;
            }
            match (datagram.get(..length).and_then(Order::decode), descriptor) {
                (Some(Order::Ready), _) => self.supervisor_is_ready(),
                (Some(order), Some(descriptor)) => self.obey(order, descriptor),
                (Some(order), None) => {
                    self.say(format_args!("no descriptor left for {order:?}: its output is not read"));
                }
                (None, _) => {}
            }
        }
    }

    /// From now on it is a supervisor that another one succeeds; and one that hears signals.
    fn supervisor_is_ready(&mut self) {
        self.was_ready = true;
        if let (true, Some(supervisor)) = (self.shall_end, &self.supervisor) {
            let _ = kill(supervisor.pid, Signal::SIGTERM);
        }
    }

    fn obey(&mut self, order: Order<'_>, descriptor: OwnedFd) {
        match order {
            Order::Ready
            | Order::Keep(_)
            | Order::Link
            | Order::Peer
            | Order::Output
            | Order::Reap { .. }
            | Order::Bye { .. }
            | Order::Become
            | Order::Distrust => {}
            Order::Log { slot, max_size, max_files, name } => {
                let index = slot as usize;
                if self.logs.len() <= index {
                    self.logs.resize_with(index.saturating_add(1), || None);
                }
                let Some(place) = self.logs.get_mut(index) else { return };
                match place {
                    Some(log) if log.is_at(descriptor.as_fd()) => log.limit(max_size, max_files),
                    // New, or somebody removed what it wrote into.
                    _ => match LogFile::open(descriptor, name, max_size, max_files) {
                        Ok(log) => *place = Some(log),
                        Err(error) => self.say(format_args!("the log {name}.log cannot be opened: {error}")),
                    },
                }
            }
            Order::Run { slot, .. } => self.add_stream(Stream { source: descriptor, slot, is_fifo: false }),
            Order::Fifo { slot } => {
                let old = self
                    .streams
                    .iter()
                    .position(|stream| stream.as_ref().is_some_and(|stream| stream.is_fifo && stream.slot == slot));
                if let Some(old) = old {
                    self.close_stream(old);
                }
                self.add_stream(Stream { source: descriptor, slot, is_fifo: true });
            }
        }
    }

    fn add_stream(&mut self, stream: Stream) {
        let _ = fcntl(&stream.source, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        let free = self.streams.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.streams.push(None);
            self.streams.len().saturating_sub(1)
        });
        let event = EpollEvent::new(EpollFlags::EPOLLIN, FIRST_STREAM.saturating_add(index as u64));
        if self.epoll.add(&stream.source, event).is_ok()
            && let Some(place) = self.streams.get_mut(index)
        {
            *place = Some(stream);
        }
    }

    fn close_stream(&mut self, index: usize) {
        if let Some(stream) = self.streams.get_mut(index).and_then(Option::take) {
            // Before the close: a duplicate in another process would keep a closed descriptor firing.
            let _ = self.epoll.delete(&stream.source);
        }
    }

    /// One read, so that every pipe has its turn. Returns whether there may be more.
    fn read_stream(&mut self, index: u64) -> bool {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(Some(stream)) = self.streams.get(index) else { return false };
        let slot = stream.slot as usize;
        match read(&stream.source, &mut self.buffer) {
            Ok(0) => {
                self.close_stream(index);
                false
            }
            Ok(length) => {
                if let (Some(Some(log)), Some(bytes)) = (self.logs.get_mut(slot), self.buffer.get(..length)) {
                    log.append(bytes, wall_clock());
                }
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            Err(_) => {
                self.close_stream(index);
                false
            }
        }
    }

    fn read_supervisor(&mut self) {
        let Some(supervisor) = &self.supervisor else { return };
        match read(&supervisor.output, &mut self.buffer) {
            Ok(0) => {
                let _ = self.epoll.delete(&supervisor.output);
            }
            Ok(length) => {
                if let Some(bytes) = self.buffer.get(..length) {
                    self.own_log.append(bytes, wall_clock());
                }
            }
            Err(_) => {}
        }
    }

    /// Returns the exit code once there is nothing left to keep.
    fn take_signals(&mut self) -> Option<i32> {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            match (Signal::try_from(number), &self.supervisor) {
                (Ok(signal @ (Signal::SIGTERM | Signal::SIGINT)), Some(supervisor)) => {
                    let _ = kill(supervisor.pid, signal);
                }
                (Ok(Signal::SIGTERM | Signal::SIGINT), None) => {
                    self.shall_end = true;
                    self.start_at = Some(since_boot());
                }
                _ => {}
            }
        }
        // What a dead supervisor left behind ends here too.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return None,
                Ok(status) => {
                    if self.supervisor.as_ref().is_some_and(|supervisor| status.pid() == Some(supervisor.pid))
                        && let Some(code) = self.supervisor_ended(status)
                    {
                        return Some(code);
                    }
                }
            }
        }
    }

    fn supervisor_ended(&mut self, status: WaitStatus) -> Option<i32> {
        self.take_orders();
        self.read_supervisor();
        let supervisor = self.supervisor.take()?;
        let _ = self.epoll.delete(&supervisor.link);
        let _ = self.epoll.delete(&supervisor.output);
        match status {
            // It ended as it was told to, or cannot do its work: then a new one could not either.
            WaitStatus::Exited(_, code @ (0 | 2)) => {
                for index in 0..self.streams.len() {
                    while self.read_stream(index as u64) {}
                }
                return Some(code);
            }
            _ if !self.was_ready => {
                self.say(format_args!("the first supervisor ended before it was ready"));
                return Some(1);
            }
            WaitStatus::Exited(_, code) => {
                self.say(format_args!("the supervisor ended with code {code}; a new one starts"));
            }
            WaitStatus::Signaled(_, signal, _) => {
                self.say(format_args!("the supervisor was killed by {signal}; a new one starts"));
            }
            _ => {}
        }
        let lived = since_boot().saturating_sub(supervisor.born);
        let pause = if lived < TOO_SOON { PAUSE } else { Duration::ZERO };
        self.start_at = Some(since_boot().saturating_add(pause));
        None
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let mut line = [0; 256];
        let text = format_into(&mut line, format_args!("laneway keeper: {what}\n"));
        self.own_log.append(text, wall_clock());
    }
}

fn passed_descriptor(message: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Option<OwnedFd> {
    let mut passed = None;
    for control in message.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            for descriptor in descriptors {
                // SAFETY: the kernel has just made it for us; whatever is not kept is closed by the next assignment.
                passed = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
    passed
}

/// The servers get the original limit back; the keeper needs a few descriptors for each of them.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Microseconds since 1970.
fn wall_clock() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_REALTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
