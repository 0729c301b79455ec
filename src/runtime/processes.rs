//! What `/proc` says of processes. Every answer may be outdated when it arrives; callers pin a process before they act.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::libc;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::kernel::old_kernel;
use crate::model::{Exit, Signal};

/// One process of this boot, whatever its number means later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

impl Identity {
    /// The process, alive or not yet reaped; `None` if it is gone, or if its number means another one by now.
    #[must_use]
    pub fn process(self) -> Option<Process> {
        Process::read(self.pid).filter(|process| process.identity() == self)
    }

    /// Whether it is there and runs.
    #[must_use]
    pub fn lives(self) -> bool {
        self.process().is_some_and(|process| process.is_alive())
    }
}

/// A handle to a process that goes on meaning it.
///
/// # Errors
/// When there is none.
pub fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no pid"))?;
    Ok(pidfd_open(number, PidfdFlags::empty())?)
}

/// One process, as `/proc/PID/stat` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// The kernel's letter: `R`, `S`, `D`, `Z` ...
    pub state: char,
    /// When it started, in clock ticks since boot. With the pid it names one process of this boot.
    pub start_time: u64,
}

impl Process {
    /// The process `pid`, if there is one.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &String::from_utf8_lossy(&look(pid, "stat").ok()?))
    }

    /// The name in parentheses may hold anything, parentheses and spaces too: what counts stands after the last one.
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let mut number = || fields.next()?.parse().ok();
        let (parent, group, session) = (number()?, number()?, number()?);
        let start_time = fields.nth(15)?.parse().ok()?;
        Some(Self { pid, parent, group, session, state, start_time })
    }

    /// What it is told by from others of its number.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_time: self.start_time }
    }

    /// Whether it has ended and waits for its parent to take note.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }

    /// Whether it still runs: a zombie is only waiting to be taken note of.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// A handle that goes on meaning this process; `None` if it is gone or its number belongs to another by now.
    #[must_use]
    pub fn pin(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_of(self.pid).ok()?;
        self.identity().process().map(|_| pidfd)
    }
}

/// A file of a process. The kernel gives no sizes for them, and whoever goes by that reads them in small pieces.
fn look(pid: u32, file: &str) -> io::Result<Vec<u8>> {
    let mut file = File::open(format!("/proc/{pid}/{file}"))?;
    let (mut bytes, mut length) = (vec![0; 4096], 0);
    loop {
        match file.read(bytes.get_mut(length..).unwrap_or_default())? {
            0 => break,
            more => length += more,
        }
        if length == bytes.len() {
            bytes.resize(length * 4, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Resolves when the process that `pidfd` means has ended.
///
/// # Errors
/// When it cannot be waited for.
pub async fn ended(pidfd: OwnedFd) -> io::Result<()> {
    // SAFETY: an owned descriptor stays open, and the same, as long as the registration owns it.
    let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    registered.readable().await.map(drop)
}

/// How a process ended that is not our child: by what the kernel still shows of it. Its `pidfd` was opened while it
/// lived, or while its number was known to be its own.
#[must_use]
pub fn exit_of_stranger(identity: Identity, pidfd: BorrowedFd<'_>) -> Exit {
    let pid = identity.pid;
    // The zombie's status is the field 52 of its `stat`; the kernel shows it to the same user and to root, a zero to others.
    let shown = look(pid, "stat").unwrap_or_default();
    let shown = String::from_utf8_lossy(&shown);
    let me = nix::unistd::geteuid().as_raw();
    let may_see = me == 0 || fs::metadata(format!("/proc/{pid}")).is_ok_and(|metadata| metadata.uid() == me);
    let is_it = Process::parse(pid, &shown).is_some_and(|p| p.identity() == identity && p.is_zombie());
    let status = shown.split_ascii_whitespace().next_back().and_then(|status| status.parse().ok());
    if let (true, true, Some(status)) = (may_see, is_it, status) {
        return from_wait_status(status);
    }
    exit_by_pidfd(pidfd).map_or(Exit::Unknown, from_wait_status)
}

/// `PIDFD_INFO_EXIT`, as wide as the mask.
const INFO_EXIT: u64 = libc::PIDFD_INFO_EXIT as u64;

/// Since Linux 6.15 the kernel says it even when the process is reaped.
fn exit_by_pidfd(pidfd: BorrowedFd<'_>) -> Option<i32> {
    if old_kernel() {
        return None;
    }
    // SAFETY: plain data, for which zeros are good.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = INFO_EXIT;
    // SAFETY: the kernel writes at most the size that is part of the request's number.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

fn from_wait_status(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal { signal: Signal::from_number(libc::WTERMSIG(status)), core: libc::WCOREDUMP(status) }
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

/// All processes that there are.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// The children of a process, zombies too.
#[must_use]
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut children = Vec::new();
    for thread in threads.flatten() {
        if let Ok(list) = fs::read_to_string(thread.path().join("children")) {
            children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    children
}

/// Its command line for people: printable, and not longer than a line.
#[must_use]
pub fn command_line(pid: u32) -> String {
    let raw = look(pid, "cmdline").unwrap_or_default();
    let text = String::from_utf8_lossy(&raw);
    let words: Vec<_> = text.split('\0').filter(|word| !word.is_empty()).collect();
    let line = if words.is_empty() {
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
    } else {
        words.join(" ")
    };
    let printable: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if printable.chars().count() > 100 {
        format!("{}...", printable.chars().take(97).collect::<String>())
    } else {
        printable
    }
}

/// Whether the environment that it was started with has an entry (`NAME=value`) such as `is_meant`.
#[must_use]
pub fn was_started_with(pid: u32, is_meant: impl Fn(&[u8]) -> bool) -> bool {
    look(pid, "environ").is_ok_and(|environ| environ.split(|byte| *byte == 0).any(is_meant))
}

/// What follows `start` in the environment that it was started with.
#[must_use]
pub fn started_with(pid: u32, start: &str) -> Option<String> {
    let environ = look(pid, "environ").ok()?;
    let rest = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(start.as_bytes()))?;
    String::from_utf8(rest.to_vec()).ok()
}

/// The environment that it was started with, as far as it is text; `None` if it cannot be read.
#[must_use]
pub fn environment(pid: u32) -> Option<BTreeMap<String, String>> {
    let environ = look(pid, "environ").ok()?;
    let entries = environ.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='));
    Some(entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// What a process has open, as far as it may be looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Regular files that have a name, and whether it may write there.
    pub files: Vec<(PathBuf, bool)>,
    /// The numbers of its sockets.
    pub sockets: Vec<u64>,
}

/// What `pid` has open now.
#[must_use]
pub fn descriptors(pid: u32) -> Descriptors {
    let mut found = Descriptors::default();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return found };
    for entry in entries.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let Some(text) = target.to_str() else { continue };
        if let Some(number) = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            found.sockets.extend(number.parse::<u64>());
        } else if text.starts_with('/')
            && !text.ends_with(" (deleted)")
            && !text.starts_with("/dev/")
            && fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file())
        {
            let writes = may_write(pid, &entry.file_name().to_string_lossy());
            found.files.push((target, writes));
        }
    }
    found
}

/// Whether a descriptor was opened for writing: the `flags` of `fdinfo`, in octal.
fn may_write(pid: u32, descriptor: &str) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

/// Whether it writes its standard output or error to the pipe `inode`.
#[must_use]
pub fn writes_to_pipe(pid: u32, inode: u64) -> bool {
    let pipe = format!("pipe:[{inode}]");
    let is_it = |number| fs::read_link(format!("/proc/{pid}/fd/{number}")).is_ok_and(|to| to.as_os_str() == &*pipe);
    is_it(1) || is_it(2)
}

/// Whether it holds the pipe `inode`, under whatever descriptor.
#[must_use]
pub fn holds_pipe(pid: u32, inode: u64) -> bool {
    descriptor_of(pid, &format!("pipe:[{inode}]")).is_some()
}

/// The descriptor under which a process holds the socket `inode`.
#[must_use]
pub fn socket_descriptor(pid: u32, inode: u32) -> Option<u32> {
    descriptor_of(pid, &format!("socket:[{inode}]"))
}

fn descriptor_of(pid: u32, wanted: &str) -> Option<u32> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted) {
            return entry.file_name().to_str()?.parse().ok();
        }
    }
    None
}

/// Whether that is still so.
#[must_use]
pub fn holds_socket(pid: u32, descriptor: u32, inode: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/fd/{descriptor}"))
        .is_ok_and(|target| target.as_os_str() == format!("socket:[{inode}]").as_str())
}

/// Whether `/proc` can be looked at now. Without a descriptor to spare everything looks as if it were not there.
#[must_use]
pub fn can_look() -> bool {
    Process::read(std::process::id()).is_some()
}

/// Some process that holds the socket `inode`, among all that may be looked into.
#[must_use]
pub fn socket_holder(inode: u32) -> Option<u32> {
    all().into_iter().map(|process| process.pid).find(|pid| socket_descriptor(*pid, inode).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let stat = "7 (a) R 1 (b c) S 3 7 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99";
        let process = Process::parse(7, stat).unwrap();
        assert_eq!((process.state, process.parent, process.group, process.session), ('S', 3, 7, 5));
        assert_eq!(process.start_time, 4242);
    }

    #[test]
    fn this_process_is_seen() {
        let me = Process::read(std::process::id()).unwrap();
        assert!(me.is_alive() && me.pin().is_some());
        assert!(command_line(me.pid).contains("laneway"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = super::super::sockets::listeners(port).unwrap();
        assert_eq!(found.len(), 1);
        let descriptor = socket_descriptor(me.pid, found[0].inode).unwrap();
        assert!(holds_socket(me.pid, descriptor, found[0].inode));
        assert_eq!(socket_holder(found[0].inode), Some(me.pid));
        drop(listener);
        assert_eq!(super::super::sockets::listeners(port).unwrap(), []);
    }
}
