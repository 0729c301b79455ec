//! The only clock of the supervisor. Everything above gets the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::model::Mono;

/// Counts from its own beginning; a paused tokio clock moves it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that reads zero now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// What has passed since the start.
    #[must_use]
    pub fn now(&self) -> Mono {
        Mono(self.start.elapsed())
    }

    /// The point on tokio's clock.
    #[must_use]
    pub fn instant(&self, at: Mono) -> Instant {
        self.start + at.0
    }
}

/// What has passed since 1970, by the wall clock. For printing and for comparing with files, never for deciding.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
