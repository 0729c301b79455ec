//! From nothing to a running program: clone, set up, exec. Between the two only system calls on what was prepared before.
//!
//! `clone3` puts the child into its cgroup at birth. Moving a living process there instead (writing to `cgroup.procs`)
//! waits for every processor: 19 ms measured, a whole start of a small server takes 1.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, pipe2};

use super::processes::pidfd_of;
use super::records::BirthPlace;

/// What to become.
#[derive(Debug)]
pub struct Program<'a> {
    /// Absolute.
    pub path: &'a OsStr,
    /// With the program's name first.
    pub arguments: &'a [String],
    /// All of it.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub directory: &'a OsStr,
    /// Standard input.
    pub input: OwnedFd,
    /// Standard output and error.
    pub output: OwnedFd,
    /// The directory of its cgroup.
    pub cgroup: Option<OwnedFd>,
    /// Soft limit of open files.
    pub descriptors: u64,
    /// File mode mask.
    pub umask: u32,
    /// Where it notes its number, for a supervisor that succeeds this one.
    pub birth_place: Option<BirthPlace>,
}

/// A child that runs its program.
#[derive(Debug)]
pub struct Newborn {
    /// Its number.
    pub pid: u32,
    /// A handle that goes on meaning it.
    pub pidfd: OwnedFd,
    /// It was born into the cgroup that was asked for.
    pub is_in_cgroup: bool,
}

/// Everything that the child needs, where it needs no memory of its own.
struct Prepared {
    path: CString,
    directory: CString,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    input: RawFd,
    output: RawFd,
    failure: RawFd,
    birth_place: Option<BirthPlace>,
    limit: libc::rlimit,
    umask: libc::mode_t,
}

/// Makes a child that runs `program`, and returns once it does. Its number is in `known` from its first moment on, and
/// as long as it is a child; an exec that hangs on a disk holds nobody up who asks there.
///
/// # Errors
/// The system's, from clone to exec.
pub fn give_birth(program: &Program<'_>, known: &Mutex<HashSet<u32>>) -> io::Result<Newborn> {
    let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
    let words: Vec<CString> = program.arguments.iter().map(|word| text(word.as_ref())).collect::<io::Result<_>>()?;
    let assignments: Vec<CString> = program
        .environment
        .iter()
        .map(|(name, value)| Ok(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?))
        .collect::<io::Result<_>>()?;
    let (failure, their_failure) = pipe2(OFlag::O_CLOEXEC)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let prepared = Prepared {
        path: text(program.path)?,
        directory: text(program.directory)?,
        arguments: pointers(&words),
        environment: pointers(&assignments),
        input: program.input.as_raw_fd(),
        output: program.output.as_raw_fd(),
        failure: their_failure.as_raw_fd(),
        birth_place: program.birth_place,
        limit: libc::rlimit { rlim_cur: program.descriptors.min(hard), rlim_max: hard },
        umask: program.umask,
    };
    let newborn = {
        let mut known = known();
        // A handler of ours that ran in the child would speak for the parent.
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        let newborn = clone(program.cgroup.as_ref(), &prepared);
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        let newborn = newborn?;
        known.insert(newborn.pid);
        newborn
    };
    drop(their_failure);
    let mut number = [0; 4];
    match File::from(failure).read_exact(&mut number) {
        Ok(()) => {
            let _ = waitid(Id::PIDFd(newborn.pidfd.as_fd()), WaitPidFlag::WEXITED);
            known().remove(&newborn.pid);
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
        }
        // The end without a word: exec closed it.
        Err(_) => Ok(newborn),
    }
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// The kernel's `struct clone_args` (`man 2 clone3`), as far as Linux 5.7 knows it.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// With the cgroup if that can be; some containers know no `clone3` at all.
fn clone(cgroup: Option<&OwnedFd>, prepared: &Prepared) -> io::Result<Newborn> {
    if let Some(cgroup) = cgroup
        && let Ok(newborn) = clone_into(Some(cgroup), prepared)
    {
        return Ok(newborn);
    }
    match clone_into(None, prepared) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => fork(prepared),
        made => made,
    }
}

fn clone_into(cgroup: Option<&OwnedFd>, prepared: &Prepared) -> io::Result<Newborn> {
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: CLONE_PIDFD,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    let size = size_of::<CloneArguments>();
    // SAFETY: as fork: the child has a copy of everything, and makes only system calls before it execs or ends.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut arguments), size) };
    match pid {
        0 => become_program(prepared),
        1.. => Ok(Newborn {
            pid: u32::try_from(pid).unwrap_or(0),
            // SAFETY: the kernel has just made it, for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            is_in_cgroup: cgroup.is_some(),
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn fork(prepared: &Prepared) -> io::Result<Newborn> {
    // SAFETY: the child makes only system calls before it execs or ends.
    let pid = match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => become_program(prepared),
        ForkResult::Parent { child } => child.as_raw().unsigned_abs(),
    };
    Ok(Newborn { pid, pidfd: pidfd_of(pid)?, is_in_cgroup: false })
}

/// In the child: never returns, never allocates, never locks.
fn become_program(prepared: &Prepared) -> ! {
    // First of all: if the supervisor dies now, its successor knows whom it made.
    // SAFETY: a plain system call.
    note_birth(prepared, unsafe { libc::getpid() });
    let failed = match set_up(prepared) {
        Ok(()) => {
            let (path, arguments, environment) =
                (prepared.path.as_ptr(), prepared.arguments.as_ptr(), prepared.environment.as_ptr());
            // SAFETY: both lists end with a null pointer and were made before the clone.
            unsafe { libc::execve(path, arguments, environment) };
            Errno::last_raw()
        }
        Err(error) => error as i32,
    };
    // It has become nothing: a successor is not to count that as the end of something.
    note_birth(prepared, 0);
    // SAFETY: plain system calls.
    unsafe {
        libc::write(prepared.failure, failed.to_ne_bytes().as_ptr().cast(), 4);
        libc::_exit(127)
    }
}

fn note_birth(prepared: &Prepared, pid: libc::pid_t) {
    if let Some(BirthPlace { descriptor, offset }) = prepared.birth_place {
        let pid = pid.to_le_bytes();
        // SAFETY: a plain system call.
        unsafe { libc::pwrite(descriptor, pid.as_ptr().cast(), pid.len(), offset) };
    }
}

fn set_up(prepared: &Prepared) -> nix::Result<()> {
    let done = |result: libc::c_int| Errno::result(result).map(drop);
    // SAFETY: plain system calls on descriptors, numbers and texts that were made before the clone.
    unsafe {
        done(libc::setsid())?;
        for (descriptor, number) in [(prepared.input, 0), (prepared.output, 1), (prepared.output, 2)] {
            done(libc::dup2(descriptor, number))?;
        }
        // All but the pipe for failures, which closes itself on exec. To only mark them takes Linux 5.11.
        let failure = prepared.failure.cast_unsigned();
        libc::syscall(libc::SYS_close_range, 3, failure.saturating_sub(1), 0);
        libc::syscall(libc::SYS_close_range, failure.saturating_add(1), libc::c_uint::MAX, 0);
        done(libc::chdir(prepared.directory.as_ptr()))?;
        done(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const prepared.limit))?;
        libc::umask(prepared.umask);
        raise_oom_score(c"/proc/self/oom_score_adj");
        // The C library keeps signals 32 and 33 for itself and refuses to speak of them.
        for signal in (1..32).chain(34..=64) {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        done(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))
    }
}

/// So that the kernel takes a server before the supervisor. Raising needs no privilege; a refusal changes nothing.
fn raise_oom_score(file: &CStr) {
    // SAFETY: plain system calls.
    unsafe {
        let score = libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, c"200".as_ptr().cast(), 3);
            libc::close(score);
        }
    }
}
