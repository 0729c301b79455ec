//! The only clock of the supervisor. Everything above gets the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::poll::{PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::model::Mono;

/// Reads the monotonic clock of the machine, which goes on from one supervisor to the next; a paused tokio clock stops it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// What the machine's clock read then.
    base: Duration,
}

impl Clock {
    /// The clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        let base = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self { start: Instant::now(), base }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Mono {
        Mono(self.base + self.start.elapsed())
    }

    /// The point on tokio's clock.
    #[must_use]
    pub fn instant(&self, at: Mono) -> Instant {
        self.start + at.0.saturating_sub(self.base)
    }
}

/// What has passed since 1970, by the wall clock. For printing and for comparing with files, never for deciding.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Waits for another process to get ready that has no descriptor to wait on. Only for clients: it blocks.
pub fn pause(duration: Duration) {
    let _ = poll(&mut [], PollTimeout::try_from(duration).unwrap_or(PollTimeout::ZERO));
}
