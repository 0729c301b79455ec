//! Time as data: a point on the supervisor's one clock, and durations in words.
//!
//! Nothing here reads a clock; the driver does, and hands the value down.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: what has passed since the machine was booted, on the monotonic clock. So it means the same to a
/// supervisor and to the one that succeeds it. Written as nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Mono(pub Duration);

impl From<u64> for Mono {
    fn from(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }
}

impl From<Mono> for u64 {
    fn from(point: Mono) -> Self {
        Self::try_from(point.0.as_nanos()).unwrap_or(Self::MAX)
    }
}

impl Mono {
    /// A point `ms` milliseconds after the boot.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// What passed from `earlier` to here; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.0.as_secs_f64())
    }
}

/// A duration for people: `0.7s`, `12s`, `3m 5s`, `2h 10m`, `4d 1h`.
#[must_use]
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit} {small}{small_unit}") }
    };
    match seconds {
        0 if duration.subsec_millis() == 0 => "0s".to_owned(),
        0 if duration.subsec_millis() < 100 => format!("{}ms", duration.subsec_millis()),
        0..10 if duration.subsec_millis() >= 100 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        0..60 => format!("{seconds}s"),
        60..3600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A point of the wall clock, `since` 1970, as RFC 3339 writes it: `2026-11-21T17:20:01.250Z`.
#[must_use]
pub fn in_utc(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the day that some of them lack is their last; 400 of them repeat.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let (hour, minute, second) = (second / 3600, second % 3600 / 60, second % 60);
    let year = year + 400 * era;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let cases = [
            (0, "0s"),
            (50, "50ms"),
            (700, "0.7s"),
            (1000, "1s"),
            (1500, "1.5s"),
            (12_345, "12s"),
            (60_000, "1m"),
            (185_000, "3m 5s"),
            (7_800_000, "2h 10m"),
            (349_200_000, "4d 1h"),
        ];
        for (ms, words) in cases {
            assert_eq!(in_words(Duration::from_millis(ms)), words);
        }
    }

    #[test]
    fn points_of_the_wall_clock_read_as_rfc_3339_has_them() {
        // As `date -u -d @N +%FT%T` says.
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_795_281_621, "2026-11-21T17:20:21.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ];
        for (seconds, words) in cases {
            assert_eq!(in_utc(Duration::from_secs(seconds)), words);
        }
        assert_eq!(in_utc(Duration::from_millis(7)), "1970-01-01T00:00:00.007Z");
    }
}
