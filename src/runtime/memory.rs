//! Whom the kernel killed for want of memory, by its own log: the one account that names the process.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::libc::{O_CLOEXEC, O_NONBLOCK};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

/// Longer no record of the kernel's log is.
const RECORD: usize = 8192;

/// How many kills are remembered.
const KILLS: usize = 256;

/// The kernel's log, as far as it was read, and whom it says were killed. It is long: nobody reads it twice.
static LOG: Mutex<Option<Log>> = Mutex::new(None);

#[derive(Debug)]
struct Log {
    file: File,
    kills: VecDeque<Kill>,
}

/// A process that was killed, and when, in time since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kill {
    pid: u32,
    at: Duration,
}

/// Whether the kernel says that it killed the process `pid`, which started `start_time` ticks after boot, for want of
/// memory. `false` also where its log may not be read.
#[must_use]
pub fn was_wanting(pid: u32, start_time: u64) -> bool {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    if log.is_none() {
        let file = File::options().read(true).custom_flags(O_NONBLOCK | O_CLOEXEC).open("/dev/kmsg");
        *log = file.ok().map(|file| Log { file, kills: VecDeque::new() });
    }
    let (Some(log), Some(born)) = (&mut *log, born(start_time)) else { return false };
    log.read_on();
    log.kills.iter().any(|kill| kill.pid == pid && kill.at >= born)
}

impl Log {
    fn read_on(&mut self) {
        let mut record = [0; RECORD];
        loop {
            match self.file.read(&mut record) {
                Ok(length @ 1..) => {
                    let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                    self.kills.extend(kill_in(&text));
                    let forgotten = self.kills.len().saturating_sub(KILLS);
                    self.kills.drain(..forgotten);
                }
                // It was overwritten before it was read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// When the process started, by the clock of the kernel's log, which stands still while the machine sleeps. An earlier
/// process of the same number may have been killed before.
fn born(start_time: u64) -> Option<Duration> {
    let ticks_per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let started = Duration::from_micros(start_time.checked_mul(1_000_000)?.checked_div(ticks_per_second)?);
    let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let awake = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    Some(started.saturating_sub(since_boot.saturating_sub(awake)))
}

/// The kill that a record (`priority,number,microseconds,...;text`) speaks of.
fn kill_in(record: &str) -> Option<Kill> {
    let (head, text) = record.split_once(';')?;
    let (before, after) = text.split_once("Killed process ")?;
    let pid = after.split_once(" (")?.0.parse().ok().filter(|_| before.contains("ut of memory"))?;
    let at = Duration::from_micros(head.split(',').nth(2)?.parse().ok()?);
    Some(Kill { pid, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_whom_and_when() {
        let one = "6,1021,5140900,-;Memory cgroup out of memory: Killed process 77 (python3) total-vm:1kB, UID:0";
        let all = "3,9,42,-;Out of memory: Killed process 77 (a (b) c) total-vm:1kB";
        assert_eq!(kill_in(one), Some(Kill { pid: 77, at: Duration::from_micros(5_140_900) }));
        assert_eq!(kill_in(all), Some(Kill { pid: 77, at: Duration::from_micros(42) }));
        for record in ["6,1,2,-;Killed process 77 (x)", "Out of memory", "6,1,2,-;Out of memory: Killed process x (y)"]
        {
            assert_eq!(kill_in(record), None, "{record}");
        }
    }
}
