//! The signals that a command which stays minds: Ctrl-C, SIGTERM, and, as the first process of a container, the end of
//! strangers. They are blocked and waited for by one thread, so that none is lost and none comes at a bad moment.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Whether this process is the first of its container. The kernel gives it every orphan that has no other parent, and
/// no signal that it does not ask for.
#[must_use]
pub fn is_init() -> bool {
    std::process::id() == 1
}

/// Hands on each SIGINT and SIGTERM from now on; reaps orphans where that falls to this process. Called while there is
/// one thread, because the others inherit what is blocked.
///
/// # Errors
/// The system's.
pub fn listen(hand_on: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    let of_init = is_init().then_some(Signal::SIGCHLD);
    let minded: Vec<_> = [Signal::SIGINT, Signal::SIGTERM].into_iter().chain(of_init).collect();
    listen_to(&minded, hand_on)
}

/// Hands on each of these signals from now on, as `listen` does; SIGCHLD is minded here.
///
/// # Errors
/// The system's.
pub fn listen_to(minded: &[Signal], hand_on: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    let signals: SigSet = minded.iter().copied().collect();
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            match signals.wait() {
                Ok(Signal::SIGCHLD) => reap(),
                Ok(signal) => hand_on(signal),
                // Woken by what is no signal of these, such as a debugger.
                Err(_) => {}
            }
        }
    })?;
    Ok(())
}

/// Takes every child that has ended. An attached `up` waits for none itself: it sees the keeper's end by pidfd.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
