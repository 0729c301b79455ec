//! The keeper's two clocks.

use std::time::Duration;

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
