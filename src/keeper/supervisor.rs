//! The supervisor as the keeper knows it: how it is started, with what, and how it ended.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{execv, pipe2};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use super::clock::since_boot;
use super::protocol::Order;
use super::table::Table;

/// A supervisor that was started.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub pidfd: OwnedFd,
    /// The keeper's end of the link.
    pub link: OwnedFd,
    /// Since when this keeper knows it, in time since boot.
    pub born: Duration,
    pub is_ready: bool,
    /// It said that it is about to end, with this code.
    pub bye: Option<u8>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Signaled(Signal),
    /// It was not a child of this keeper.
    Unknown,
}

impl End {
    /// Whether it ended by itself.
    pub fn is_crash(self) -> bool {
        match self {
            Self::Exited(_) => true,
            Self::Signaled(signal) => signal != Signal::SIGKILL,
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(formatter, "ended with code {code}"),
            Self::Signaled(signal) => write!(formatter, "was killed by {signal}"),
            Self::Unknown => formatter.write_str("ended"),
        }
    }
}

impl Supervisor {
    /// Starts one with what is in `table`, to which its end of the link is added. Returns what it says, too.
    pub fn start(mut table: Table) -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (link, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        table.add(&Order::Link, theirs.as_fd())?;
        let (output, writer) = pipe2(OFlag::O_CLOEXEC)?;
        // Open for reading too, it never gets an EPIPE when the keeper dies.
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let writer = open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("laneway").arg("supervisor").arg(table.number().to_string());
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // SAFETY: only async-signal-safe calls.
        unsafe {
            command.pre_exec(move || {
                SigSet::empty().thread_set_mask()?;
                table.let_through()?;
                Ok(())
            });
        }
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::ESRCH)?;
        // It is our child, so its number is its own until we reap it.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok((Self { pidfd, link, born: since_boot(), is_ready: false, bye: None }, output))
    }

    /// Hands a signal on.
    pub fn signal(&self, signal: Signal) {
        let handed = match signal {
            Signal::SIGINT => rustix::process::Signal::INT,
            Signal::SIGHUP => rustix::process::Signal::HUP,
            _ => rustix::process::Signal::TERM,
        };
        let _ = pidfd_send_signal(&self.pidfd, handed);
    }

    /// Tells it where to look; lost when it does not listen.
    pub fn tell(&self, news: u8) {
        if self.is_ready {
            let _ = send(self.link.as_raw_fd(), &[news], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        }
    }

    /// How it ended; reaps it if that is for this keeper to do.
    pub fn reap(&self) -> End {
        match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::Exited(_, code)) => End::Exited(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => End::Signaled(signal),
            _ => End::Unknown,
        }
    }
}

/// A pidfd of this process.
pub(super) fn pidfd_of_self() -> io::Result<OwnedFd> {
    Ok(pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?)
}

/// Reaps a child whose end was taken note of.
pub(super) fn reap(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) {
        let _ = waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }
}

/// Becomes the program that is open as `binary`, with what is in `table`. Returns only if that fails.
pub(super) fn become_program(binary: BorrowedFd<'_>, table: &Table) -> io::Error {
    let program = CString::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    let number = CString::new(table.number().to_string());
    let (Ok(program), Ok(number)) = (program, number) else { return Errno::EINVAL.into() };
    let error = match table.let_through() {
        // Blocked signals stay blocked, and wait for the new program.
        Ok(()) => execv(&program, &[c"laneway", c"keeper", &number]).map_or_else(|errno| errno, |never| match never {}),
        Err(errno) => errno,
    };
    let _ = table.hold_back();
    error.into()
}
