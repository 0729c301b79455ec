//! How soon a new supervisor starts after the last one died, and whether it may believe what that one knew. Pure.

use std::time::Duration;

/// A supervisor that lived so long makes all deaths before it forgotten.
const LONG_LIFE: Duration = Duration::from_secs(10);
/// So many deaths in a row are nothing yet.
const FREE: u32 = 3;
/// The first pause.
const SHORTEST: Duration = Duration::from_millis(50);
/// The longest after a kill, which says nothing against the next one: people are to have control back within a second.
const LONGEST_AFTER_KILL: Duration = Duration::from_millis(250);
/// The longest after a crash.
const LONGEST_AFTER_CRASH: Duration = Duration::from_secs(1);

/// The deaths of supervisors that did not live long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deaths {
    count: u32,
    crashes: u32,
}

impl Deaths {
    /// One more, after a life of `lived`. A crash is an end that nobody from outside gave it. Returns the pause.
    pub fn add(&mut self, lived: Duration, is_crash: bool) -> Duration {
        if lived >= LONG_LIFE {
            *self = Self::default();
        }
        self.count = self.count.saturating_add(1);
        self.crashes = if is_crash { self.crashes.saturating_add(1) } else { 0 };
        let Some(beyond) = self.count.checked_sub(FREE.saturating_add(1)) else { return Duration::ZERO };
        let longest = if is_crash { LONGEST_AFTER_CRASH } else { LONGEST_AFTER_KILL };
        SHORTEST.saturating_mul(2_u32.saturating_pow(beyond.min(16))).min(longest)
    }

    /// What the last supervisors knew made them crash.
    pub fn are_distrusted(self) -> bool {
        self.crashes >= FREE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_long_life_makes_all_forgotten() {
        let short = Duration::from_millis(5);
        for (is_crash, expected) in [
            (true, [0, 0, 0, 50, 100, 200, 400, 800, 1000, 1000]),
            (false, [0, 0, 0, 50, 100, 200, 250, 250, 250, 250]),
        ] {
            let mut deaths = Deaths::default();
            let pauses: Vec<_> = (0..10).map(|_| deaths.add(short, is_crash).as_millis()).collect();
            assert_eq!(pauses, expected);
            for _ in 0..1000 {
                assert!(deaths.add(short, is_crash) <= LONGEST_AFTER_CRASH);
            }
            assert_eq!(deaths.add(LONG_LIFE, is_crash), Duration::ZERO);
        }
    }

    #[test]
    fn three_crashes_in_a_row_are_distrusted_and_kills_are_not() {
        let mut deaths = Deaths::default();
        let mut say = |is_crash| {
            deaths.add(Duration::ZERO, is_crash);
            deaths.are_distrusted()
        };
        let said = [true, true, false, true, true, true, true, false].map(&mut say);
        assert_eq!(said, [false, false, false, false, false, true, true, false]);
    }
}
