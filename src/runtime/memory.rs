//! Whom the kernel killed for want of memory, by its own log: the one account that names the process.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc::{O_CLOEXEC, O_NONBLOCK};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

/// Longer no record of the kernel's log is.
const RECORD: usize = 8192;

/// Whether the kernel says that it killed the process `pid`, which started `start_time` ticks after boot, for want of
/// memory. `false` also where its log may not be read.
#[must_use]
pub fn was_wanting(pid: u32, start_time: u64) -> bool {
    let log = File::options().read(true).custom_flags(O_NONBLOCK | O_CLOEXEC).open("/dev/kmsg");
    let (Ok(mut log), Some(born)) = (log, born(start_time)) else { return false };
    let mut record = [0; RECORD];
    loop {
        match log.read(&mut record) {
            Ok(length @ 1..) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                if at_of_kill(&text, pid).is_some_and(|at| at >= born) {
                    return true;
                }
            }
            // It was overwritten before it was read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Ok(_) | Err(_) => return false,
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

/// When it was, if a record (`priority,number,microseconds,...;text`) says that `pid` was killed.
fn at_of_kill(record: &str, pid: u32) -> Option<Duration> {
    let (head, text) = record.split_once(';')?;
    let is_it = text.contains("ut of memory") && text.contains(&format!("Killed process {pid} ("));
    is_it.then(|| head.split(',').nth(2)?.parse().ok().map(Duration::from_micros))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_whom_and_when() {
        let one = "6,1021,5140900,-;Memory cgroup out of memory: Killed process 77 (python3) total-vm:1kB, UID:0";
        let all = "3,9,42,-;Out of memory: Killed process 77 (a (b) c) total-vm:1kB";
        assert_eq!(at_of_kill(one, 77), Some(Duration::from_micros(5_140_900)));
        assert_eq!(at_of_kill(all, 77), Some(Duration::from_micros(42)));
        for (record, pid) in [(one, 7), (one, 777), ("6,1,2,-;Killed process 77 (x)", 77), ("Out of memory", 77)] {
            assert_eq!(at_of_kill(record, pid), None, "{record}");
        }
    }
}
