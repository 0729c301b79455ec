//! Health checks of one run: when the next is due, and what the last ones add up to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Verdict;
use crate::model::{Health, Mono};
use crate::plan::spec::HealthCheck;

/// Checks of healthy servers fall on multiples of this, so that one wake-up serves many.
const TICK: Duration = Duration::from_millis(500);

/// The checks of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// When the next one begins; `None` while one is under way, or where there is no check.
    pub due: Option<Mono>,
    /// Bad ones in a row since the last good one.
    pub bad: u32,
    /// What they add up to.
    pub health: Health,
    /// The last one.
    pub last: Option<Checked>,
    /// The last good one.
    pub good_at: Option<Mono>,
    /// When it last became healthy.
    pub healthy_since: Option<Mono>,
    /// The first of the bad ones in a row.
    pub bad_since: Option<Mono>,
}

/// The end of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When.
    pub at: Mono,
    /// What it found.
    pub verdict: Verdict,
}

impl Checks {
    /// Of a run whose server came to life at `now`.
    pub(super) fn new(check: Option<&HealthCheck>, now: Mono) -> Self {
        Self {
            due: check.map(|check| now + check.start_interval),
            bad: 0,
            health: if check.is_some() { Health::Starting } else { Health::Unknown },
            last: None,
            good_at: None,
            healthy_since: None,
            bad_since: None,
        }
    }

    /// The next one begins now, unless one is under way.
    pub(super) fn hurry(&mut self, now: Mono) {
        self.due = self.due.map(|_| now);
    }

    /// How long it was in good health, up to the first bad answer of the current row.
    pub(super) fn healthy_for(&self, now: Mono) -> Duration {
        self.healthy_since.map_or(Duration::ZERO, |since| self.bad_since.unwrap_or(now).since(since))
    }

    /// Takes in a verdict; what it adds up to is in `health` afterwards.
    pub(super) fn take(&mut self, check: &HealthCheck, verdict: Verdict, now: Mono) {
        match &verdict {
            Verdict::Good { .. } => {
                if self.health != Health::Healthy {
                    self.healthy_since = Some(now);
                }
                self.bad = 0;
                self.bad_since = None;
                self.health = Health::Healthy;
                self.good_at = Some(now);
            }
            Verdict::Bad(_) if self.good_at.is_none() => self.health = Health::Starting,
            Verdict::Bad(_) => {
                self.bad = self.bad.saturating_add(1);
                self.bad_since = self.bad_since.or(Some(now));
                if self.bad >= check.retries {
                    self.health = Health::Unhealthy;
                }
            }
            // No fault of the server, and no restart would mend it.
            Verdict::Conflict { .. } => self.health = Health::PortConflict,
        }
        self.last = Some(Checked { at: now, verdict });
        self.due = Some(if self.good_at.is_none() {
            now + check.start_interval
        } else {
            on_a_tick(now + check.interval, check.interval)
        });
    }
}

/// The tick nearest to `at`; intervals shorter than two ticks are kept as they are.
fn on_a_tick(at: Mono, interval: Duration) -> Mono {
    if interval < TICK * 2 {
        return at;
    }
    let ticks = (at.0 + TICK / 2).as_millis() / TICK.as_millis();
    Mono(TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_intervals_fall_on_shared_ticks() {
        let five = Duration::from_secs(5);
        assert_eq!(on_a_tick(Mono::from_millis(5240), five), Mono::from_millis(5000));
        assert_eq!(on_a_tick(Mono::from_millis(5260), five), Mono::from_millis(5500));
        let short = Duration::from_millis(300);
        assert_eq!(on_a_tick(Mono::from_millis(5260), short), Mono::from_millis(5260));
    }
}
