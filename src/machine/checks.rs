//! Health checks of one run: when the next is due, and what the last ones add up to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Verdict;
use crate::model::{Health, InstanceId, Mono};
use crate::plan::spec::HealthCheck;

/// Checks of servers that have answered fall on multiples of this, so that one wake-up serves several.
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

    /// Takes in a verdict of `id`; what it adds up to is in `health` afterwards.
    pub(super) fn take(&mut self, id: InstanceId, check: &HealthCheck, verdict: Verdict, now: Mono) {
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
        self.due =
            Some(if self.good_at.is_none() { now + check.start_interval } else { turn(id, check.interval, now) });
    }
}

/// When it is `id`'s turn again, at most `interval` after `now`. Instances that were started at one moment take turns, tick
/// by tick: all at once they would cost the memory of as many connections, and every processor for a moment. Intervals
/// shorter than two ticks are kept as they are.
fn turn(id: InstanceId, interval: Duration, now: Mono) -> Mono {
    if interval < TICK * 2 {
        return now + interval;
    }
    let turns = interval.as_millis() / TICK.as_millis();
    let own = u128::from(id.0) % turns;
    let next = now.0.as_millis() / TICK.as_millis() + 1;
    let ticks = next + (own + turns - next % turns) % turns;
    Mono(TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Duration = Duration::from_secs(5);

    fn turn_of(id: u32, interval: Duration, now: u64) -> u64 {
        u64::try_from(turn(InstanceId(id), interval, Mono::from_millis(now)).0.as_millis()).unwrap()
    }

    #[test]
    fn each_has_its_turn_and_keeps_it() {
        let first: Vec<_> = (0..11).map(|id| turn_of(id, FIVE, 20_130)).collect();
        assert_eq!(first, [25_000, 20_500, 21_000, 21_500, 22_000, 22_500, 23_000, 23_500, 24_000, 24_500, 25_000]);
        // An answer that took a moment, and one that took long.
        assert_eq!(turn_of(3, FIVE, 21_506), 26_500);
        assert_eq!(turn_of(3, FIVE, 25_900), 26_500);
        // On the very moment: the next one.
        assert_eq!(turn_of(3, FIVE, 21_500), 26_500);
    }

    #[test]
    fn nobody_waits_longer_than_the_interval() {
        for now in (20_000..26_000).step_by(70) {
            for id in 0..20 {
                let wait = turn_of(id, FIVE, now) - now;
                assert!((1..=5000).contains(&wait), "{id} at {now}: {wait}");
            }
        }
    }

    #[test]
    fn short_intervals_are_kept() {
        assert_eq!(turn_of(7, Duration::from_millis(300), 5260), 5560);
        assert_eq!(turn_of(1, Duration::from_secs(1), 5260), 5500);
        assert_eq!(turn_of(0, Duration::from_secs(1), 5260), 6000);
    }
}
