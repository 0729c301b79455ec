//! Which thread runs the loop, and how another takes it over when the file system lets the first one hang.
//!
//! One thread leads. Before it touches a log's files it says so (`begin`), and afterwards that it is back (`end`), both
//! under the lock of the keeper's state, which it does not hold in between. One of the others watches, while there is
//! something to watch: a leader that is away longer than a tick or two is led no more. When nobody writes, all sleep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::read;

use super::backlog::format_into;

/// A leader that was away at two looks in a row hangs: between one tick and two.
const TICK: Duration = Duration::from_millis(25);

/// Shared by the threads.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// Counts; odd while the leader is away. Changed under the lock of the keeper's state only.
    pulse: AtomicU64,
    /// The one that watches.
    turn: Mutex<()>,
    is_asleep: AtomicBool,
    sleep: Mutex<()>,
    alarm: Condvar,
}

impl Relay {
    /// The leader goes to the files.
    pub fn begin(&self) {
        self.pulse.fetch_add(1, Ordering::SeqCst);
        if self.is_asleep.load(Ordering::SeqCst) {
            let guard = lock(&self.sleep);
            self.is_asleep.store(false, Ordering::SeqCst);
            drop(guard);
            self.alarm.notify_one();
        }
    }

    /// It is back, and still the leader.
    pub fn end(&self) {
        self.pulse.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until the leader hangs, and says at which count. Whoever takes over calls `end` in the leader's place, if
    /// `is_at` still holds.
    pub fn wait_for_hang(&self) -> u64 {
        let _turn = lock(&self.turn);
        let mut guard = lock(&self.sleep);
        loop {
            let before = self.pulse.load(Ordering::SeqCst);
            guard = self.alarm.wait_timeout(guard, TICK).unwrap_or_else(PoisonError::into_inner).0;
            if self.pulse.load(Ordering::SeqCst) != before {
                continue;
            }
            if !before.is_multiple_of(2) {
                return before;
            }
            // Nothing was written for a tick. Whoever begins from now on sees that this one sleeps, or is seen here.
            self.is_asleep.store(true, Ordering::SeqCst);
            if self.pulse.load(Ordering::SeqCst) != before {
                self.is_asleep.store(false, Ordering::SeqCst);
            }
            while self.is_asleep.load(Ordering::SeqCst) {
                guard = self.alarm.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Whether the count has not changed since.
    pub fn is_at(&self, pulse: u64) -> bool {
        self.pulse.load(Ordering::SeqCst) == pulse
    }
}

/// Whether a thread of this process waits for something in the kernel. One that only waits for a processor does not hang.
pub(super) fn waits(thread: i32) -> bool {
    let mut path = [0; 64];
    let path = format_into(&mut path, format_args!("/proc/self/task/{thread}/stat"));
    let mut text = [0; 256];
    let length = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).and_then(|stat| read(stat, &mut text));
    let text = length.ok().and_then(|length| text.get(..length)).unwrap_or_default();
    // Number, name in parentheses, state: the name may hold anything.
    let after_name = text.iter().rposition(|byte| *byte == b')').and_then(|end| text.get(end..));
    !after_name.is_some_and(|rest| rest.starts_with(b") R"))
}

/// Locks, whatever happened to others that did.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn who_waits_is_told_from_who_works() {
        assert!(!waits(nix::unistd::gettid().as_raw()));
        let (mine, theirs) = mpsc::channel();
        let (end, until) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            mine.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = until.recv();
        });
        let number = theirs.recv().unwrap();
        while !waits(number) {
            thread::yield_now();
        }
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn who_sleeps_is_woken_by_work_and_sees_who_hangs() {
        let relay = Arc::new(Relay::default());
        let (hung, seen) = mpsc::channel();
        let follower = Arc::clone(&relay);
        let thread = thread::spawn(move || hung.send(follower.wait_for_hang()));
        while !relay.is_asleep.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        for _ in 0..1000 {
            relay.begin();
            relay.end();
        }
        assert!(seen.try_recv().is_err());
        relay.begin();
        assert_eq!(seen.recv_timeout(Duration::from_secs(10)), Ok(2001));
        assert!(relay.is_at(2001));
        thread.join().unwrap().unwrap();
    }
}
