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
}
