//! From nothing to a running program: clone, set up, exec. Between the two only system calls on what was prepared before.
//!
//! The child borrows this process's memory until it execs, and the thread that makes it waits so long (as `vfork` and
//! `posix_spawn` do): to copy the page tables of a supervisor took longer than everything else.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr, OsString, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::dup3;

use super::clone;
use super::landlock;
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
    /// Standard output and error.
    pub output: BorrowedFd<'a>,
    /// The directory of its cgroup.
    pub cgroup: Option<OwnedFd>,
    /// Soft limit of open files.
    pub descriptors: u64,
    /// File mode mask.
    pub umask: u32,
    /// The rules of Landlock that it enters.
    pub rules: Option<BorrowedFd<'a>>,
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

/// Children that somebody waits for: first processes of runs, and laneway's own. Nobody else may reap them.
#[derive(Debug, Default)]
pub struct Known {
    pids: Mutex<HashSet<u32>>,
    /// The child whose birth is under way, from before its first moment on: the kernel writes it here.
    newborn: AtomicU32,
}

impl Known {
    /// All of them, and none more or less as long as this is held.
    pub fn lock(&self) -> KnownNow<'_> {
        KnownNow { pids: self.pids.lock().unwrap_or_else(PoisonError::into_inner), newborn: &self.newborn }
    }
}

/// Those that are known now.
#[derive(Debug)]
pub struct KnownNow<'a> {
    pids: MutexGuard<'a, HashSet<u32>>,
    newborn: &'a AtomicU32,
}

impl KnownNow<'_> {
    /// Whether somebody waits for this child.
    #[must_use]
    pub fn holds(&self, pid: u32) -> bool {
        self.pids.contains(&pid) || self.newborn.load(Ordering::Acquire) == pid
    }

    /// Somebody waits for it from now on.
    pub fn insert(&mut self, pid: u32) {
        self.pids.insert(pid);
    }

    /// It was reaped; its number may come again as anything.
    pub fn remove(&mut self, pid: u32) {
        self.pids.remove(&pid);
    }
}

/// The few descriptors that a child needs, at low numbers: it takes what lies below `beyond`, and what lies beyond is
/// neither copied nor closed.
#[derive(Debug)]
pub struct Cradle {
    /// `/dev/null`.
    input: OwnedFd,
    /// Where the output of the child of the moment goes.
    output: OwnedFd,
    /// Where it notes its number.
    birth_place: OwnedFd,
    /// The rules that it enters.
    rules: OwnedFd,
    beyond: libc::c_uint,
    /// Linux can leave the rest behind; some containers forbid it.
    leaves_the_rest: bool,
}

impl Cradle {
    /// Made before this process has many descriptors, its own are low.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let input = OwnedFd::from(File::open("/dev/null")?);
        let (output, birth_place, rules) = (input.try_clone()?, input.try_clone()?, input.try_clone()?);
        let last = [&input, &output, &birth_place, &rules].map(AsRawFd::as_raw_fd).into_iter().fold(2, RawFd::max);
        // On numbers that nobody has it changes nothing.
        // SAFETY: a plain system call.
        let tried = unsafe { libc::syscall(libc::SYS_close_range, libc::c_uint::MAX, libc::c_uint::MAX, 0) };
        Ok(Self { input, output, birth_place, rules, beyond: last.cast_unsigned() + 1, leaves_the_rest: tried == 0 })
    }

    /// Puts in what the next child needs.
    fn put(&mut self, program: &Program<'_>) -> io::Result<()> {
        dup3(program.output, &mut self.output, OFlag::O_CLOEXEC)?;
        if let Some(rules) = program.rules {
            dup3(rules, &mut self.rules, OFlag::O_CLOEXEC)?;
        }
        if let Some(BirthPlace { descriptor, .. }) = program.birth_place {
            // SAFETY: the records are as old as this process, and outlive every birth.
            let records = unsafe { BorrowedFd::borrow_raw(descriptor) };
            dup3(records, &mut self.birth_place, OFlag::O_CLOEXEC)?;
        }
        Ok(())
    }

    /// Takes the output out: as long as somebody holds it, it has a writer.
    fn clear(&mut self) {
        let _ = dup3(&self.input, &mut self.output, OFlag::O_CLOEXEC);
    }
}

/// Everything that the child needs, where it needs no memory of its own.
struct Prepared {
    path: CString,
    directory: CString,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    input: RawFd,
    output: RawFd,
    /// The descriptor of the records, and where in them.
    birth_place: Option<(RawFd, libc::off_t)>,
    /// The first descriptor that it leaves behind, where it began with our table of them.
    beyond: Option<libc::c_uint>,
    limit: libc::rlimit,
    umask: libc::mode_t,
    rules: Option<RawFd>,
    /// The error that kept the child from becoming its program; 0 if it did.
    failure: AtomicI32,
}

/// Makes a child that runs `program`, and returns once it does. It is among `known` from its first moment on, and as long
/// as it is a child. One at a time.
///
/// # Errors
/// The system's, from clone to exec.
pub fn give_birth(program: &Program<'_>, known: &Known, cradle: &mut Cradle) -> io::Result<Newborn> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
    let words: Vec<CString> = program.arguments.iter().map(|word| text(word.as_ref())).collect::<io::Result<_>>()?;
    let assignments: Vec<CString> = program
        .environment
        .iter()
        .map(|(name, value)| Ok(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?))
        .collect::<io::Result<_>>()?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let prepared = Prepared {
        path: text(program.path)?,
        directory: text(program.directory)?,
        arguments: pointers(&words),
        environment: pointers(&assignments),
        input: cradle.input.as_raw_fd(),
        output: cradle.output.as_raw_fd(),
        birth_place: program.birth_place.map(|place| (cradle.birth_place.as_raw_fd(), place.offset)),
        beyond: cradle.leaves_the_rest.then_some(cradle.beyond),
        limit: libc::rlimit { rlim_cur: program.descriptors.min(hard), rlim_max: hard },
        umask: program.umask,
        rules: program.rules.map(|_| cradle.rules.as_raw_fd()),
        failure: AtomicI32::new(0),
    };
    cradle.put(program)?;
    let born = born(program.cgroup.as_ref().map(AsFd::as_fd), &prepared, known);
    cradle.clear();
    if let Ok(newborn) = &born {
        known.lock().insert(newborn.pid);
    }
    known.newborn.store(0, Ordering::Release);
    let newborn = born?;
    match prepared.failure.load(Ordering::Acquire) {
        0 => Ok(newborn),
        number => {
            let _ = waitid(Id::PIDFd(newborn.pidfd.as_fd()), WaitPidFlag::WEXITED);
            known.lock().remove(newborn.pid);
            Err(io::Error::from_raw_os_error(number))
        }
    }
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// With the cgroup if that can be; some containers know no `clone3` at all.
fn born(cgroup: Option<BorrowedFd<'_>>, prepared: &Prepared, known: &Known) -> io::Result<Newborn> {
    // A handler of ours that ran in the child would run in our memory, and speak for the parent.
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let child = clone::Child {
        act: become_program,
        on: ptr::from_ref(prepared).cast(),
        number: &known.newborn,
        shares_descriptors: prepared.beyond.is_some(),
    };
    let into = |cgroup| {
        // SAFETY: `become_program` gets what it expects, makes only system calls, and execs or ends.
        let made = unsafe { clone::into_cgroup(&child, cgroup) };
        made.map(|(pid, pidfd)| Newborn { pid, pidfd, is_in_cgroup: true })
    };
    let plainly = |_| {
        // SAFETY: as above.
        let pid = unsafe { clone::plainly(&child) }?;
        Ok(Newborn { pid, pidfd: pidfd_of(pid)?, is_in_cgroup: false })
    };
    let made = cgroup.ok_or_else(|| io::ErrorKind::Unsupported.into()).and_then(into).or_else(plainly);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    made
}

/// In the child: never returns, never allocates, never locks. `prepared` is the parent's `Prepared`.
extern "C" fn become_program(prepared: *const c_void) -> ! {
    // SAFETY: the parent waits, and keeps it, until this process execs or ends.
    let prepared = unsafe { &*prepared.cast::<Prepared>() };
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
    prepared.failure.store(failed, Ordering::Release);
    // SAFETY: a plain system call.
    unsafe { libc::_exit(127) }
}

fn note_birth(prepared: &Prepared, pid: libc::pid_t) {
    if let Some((descriptor, offset)) = prepared.birth_place {
        let pid = pid.to_le_bytes();
        // SAFETY: a plain system call.
        unsafe { libc::pwrite(descriptor, pid.as_ptr().cast(), pid.len(), offset) };
    }
}

fn set_up(prepared: &Prepared) -> nix::Result<()> {
    let done = |result: libc::c_int| Errno::result(result).map(drop);
    // SAFETY: plain system calls on descriptors, numbers and texts that were made before the clone.
    unsafe {
        if let Some(beyond) = prepared.beyond {
            // From here on the table is its own.
            let flags = libc::CLOSE_RANGE_UNSHARE;
            Errno::result(libc::syscall(libc::SYS_close_range, beyond, libc::c_uint::MAX, flags))?;
        }
        done(libc::setsid())?;
        for (descriptor, number) in [(prepared.input, 0), (prepared.output, 1), (prepared.output, 2)] {
            done(libc::dup2(descriptor, number))?;
        }
        done(libc::chdir(prepared.directory.as_ptr()))?;
        done(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const prepared.limit))?;
        libc::umask(prepared.umask);
        raise_oom_score(c"/proc/self/oom_score_adj");
        // After this it may do no more than its program.
        if let Some(rules) = prepared.rules {
            landlock::enter(rules)?;
        }
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
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
