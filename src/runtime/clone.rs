//! A child that borrows the memory of its parent: made by the kernel, on a stack of its own, while the thread that makes
//! it waits for its exec or its end. It borrows the table of descriptors too, and its act begins with a table of its own:
//! to copy and close all that a supervisor of 1000 instances holds took longer than everything else. Knows the kernel's
//! way of doing that, and not what the child is for.
//!
//! `clone3` can put it into a cgroup at birth. Moving a living process there instead (writing to `cgroup.procs`) waits for
//! every processor: 19 ms measured, a whole start of a small server takes 1.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use nix::libc;

/// What the child does.
#[derive(Debug)]
pub struct Child<'a> {
    /// Its only act.
    pub act: extern "C" fn(*const c_void) -> !,
    /// On what.
    pub on: *const c_void,
    /// Its number is here before its first moment.
    pub number: &'a AtomicU32,
    /// Whether it begins with our table of descriptors, not with a copy.
    pub shares_descriptors: bool,
}

impl Child<'_> {
    /// What it shares with us, in the bits of the kernel.
    fn flags(&self) -> c_int {
        let shared = if self.shares_descriptors { libc::CLONE_FILES } else { 0 };
        libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | shared
    }
}

/// Bytes of its stack. It makes system calls and nothing else.
const STACK: usize = 16 * 1024;

#[repr(C, align(16))]
struct Stack([std::mem::MaybeUninit<u8>; STACK]);

impl Stack {
    const fn new() -> Self {
        Self([std::mem::MaybeUninit::uninit(); STACK])
    }
}

/// A child in the cgroup whose directory is `cgroup`, with a handle to it.
///
/// # Errors
/// The system's, and where the processor is one that this was not written for.
///
/// # Safety
/// All signals are blocked. The child's act makes only system calls, and execs or ends.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub unsafe fn into_cgroup(child: &Child<'_>, cgroup: BorrowedFd<'_>) -> io::Result<(u32, OwnedFd)> {
    use std::os::fd::{AsRawFd, FromRawFd, RawFd};
    use std::ptr;

    /// The kernel's `struct clone_args` (`man 2 clone3`), as far as Linux 5.7 knows it.
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
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

    let mut pidfd: RawFd = -1;
    let mut stack = Stack::new();
    let mut arguments = Arguments {
        flags: u64::from(child.flags().cast_unsigned()) | CLONE_PIDFD | CLONE_INTO_CGROUP,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        parent_tid: child.number.as_ptr() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: ptr::from_mut(&mut stack) as u64,
        stack_size: STACK as u64,
        cgroup: u64::from(cgroup.as_raw_fd().cast_unsigned()),
        ..Arguments::default()
    };
    // SAFETY: the child runs on its own stack, and leaves this function by its act alone; see above for the rest.
    let result = unsafe { clone3(ptr::from_mut(&mut arguments).cast(), size_of::<Arguments>(), child) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EINVAL)));
    }
    // SAFETY: the kernel has just made it, for us.
    Ok((u32::try_from(result).unwrap_or(0), unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// As above.
///
/// # Errors
/// Always.
///
/// # Safety
/// As above.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub unsafe fn into_cgroup(_: &Child<'_>, _: BorrowedFd<'_>) -> io::Result<(u32, OwnedFd)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The C library has no function for it. Returns the child's number, or an error's below 0.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: *mut c_void, size: usize, child: &Child<'_>) -> i64 {
    let result: i64;
    // SAFETY: by the caller's word. Without a frame of its own the child could not return: it is called, and never does.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") arguments,
            in("rsi") size,
            in("r12") child.on,
            in("r13") child.act,
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// The C library has no function for it. Returns the child's number, or an error's below 0.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(arguments: *mut c_void, size: usize, child: &Child<'_>) -> i64 {
    let result: i64;
    // SAFETY: by the caller's word. Without a frame of its own the child could not return: it is called, and never does.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") arguments => result,
            in("x1") size,
            in("x20") child.on,
            in("x21") child.act,
        );
    }
    result
}

/// A child where this process is, for systems without `clone3` and processes without a cgroup.
///
/// # Errors
/// The system's.
///
/// # Safety
/// As above.
pub unsafe fn plainly(child: &Child<'_>) -> io::Result<u32> {
    extern "C" fn enter(child: *mut c_void) -> c_int {
        // SAFETY: the parent waits, and keeps it, until this process execs or ends.
        let child = unsafe { &*child.cast::<Child<'_>>() };
        (child.act)(child.on)
    }
    let mut stack = Stack::new();
    let flags = child.flags() | libc::SIGCHLD;
    let argument = std::ptr::from_ref(child).cast_mut().cast();
    // SAFETY: the stack grows down from its end, which is as aligned as its beginning; see above for the rest.
    let pid = unsafe {
        let top = stack.0.as_mut_ptr().add(STACK).cast();
        libc::clone(enter, top, flags, argument, child.number.as_ptr())
    };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid.cast_unsigned()) }
}
