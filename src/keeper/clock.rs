//! The keeper's two clocks.

use std::fmt;
use std::time::Duration;

use nix::libc;
use nix::time::{ClockId, clock_gettime};

/// Goes on whatever people do to the time of day.
pub(super) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Microseconds since 1970.
pub(super) fn wall_clock() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_REALTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A point of the wall clock, in microseconds since 1970, as it stands before the supervisor's lines in the same log.
pub(super) struct Stamp(pub u64);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.checked_div(1_000_000), self.0.checked_rem(1_000_000));
        let seconds = seconds.and_then(|seconds| libc::time_t::try_from(seconds).ok()).unwrap_or_default();
        // SAFETY: plain data, for which zeros are good.
        let mut date: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both are ours for the time of the call.
        unsafe { libc::gmtime_r(&raw const seconds, &raw mut date) };
        let (year, month) = (date.tm_year.saturating_add(1900), date.tm_mon.saturating_add(1));
        let (day, hour, minute, second) = (date.tm_mday, date.tm_hour, date.tm_min, date.tm_sec);
        let micros = micros.unwrap_or_default();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_a_date_and_a_time() {
        assert_eq!(Stamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Stamp(1_709_251_199_000_007).to_string(), "2024-02-29T23:59:59.000007Z");
    }
}
