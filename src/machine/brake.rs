//! The restart brake: at most so many restarts after failures in so much time, over the whole fleet.
//!
//! The generic cell rate algorithm (ITU-T I.371): one point in time instead of a counter and a timer.

use std::time::Duration;

use crate::model::Mono;
use crate::plan::spec;

/// Lets restarts through, or says when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Brake {
    limit: Option<spec::Brake>,
    /// When the bucket would be full again if nothing more came.
    full_at: Mono,
}

impl Brake {
    /// One that would be full again at `full_at` if nothing more came.
    pub(super) fn new(limit: Option<spec::Brake>, full_at: Mono) -> Self {
        Self { limit, full_at }
    }

    pub(super) fn full_at(&self) -> Mono {
        self.full_at
    }

    /// Takes one restart now, or says when there will be one to take that none of the `others` who wait for one takes: were
    /// all of them to come at the first, all but one would have come in vain.
    pub(super) fn take(&mut self, now: Mono, others: u32) -> Result<(), Mono> {
        let Some(limit) = self.limit else { return Ok(()) };
        let each = limit.per / limit.starts.max(1);
        let slack = limit.per.saturating_sub(each);
        let full_at = self.full_at.max(now);
        if full_at.since(now) > slack {
            return Err(Mono(full_at.0.saturating_sub(slack)) + each.saturating_mul(others));
        }
        self.full_at = full_at + each.max(Duration::from_nanos(1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_at_a_time() {
        let mut brake = Brake::new(Some(spec::Brake { starts: 10, per: Duration::from_secs(1) }), Mono::default());
        let start = Mono::from_millis(5000);
        for _ in 0..10 {
            assert_eq!(brake.take(start, 0), Ok(()));
        }
        let next = brake.take(start, 0).unwrap_err();
        assert_eq!(next, start + Duration::from_millis(100));
        let third = brake.take(start, 2).unwrap_err();
        assert_eq!(third.since(next), Duration::from_millis(200), "two wait already");
        assert_eq!(brake.take(next, 0), Ok(()));
        assert_eq!(brake.take(next, 0), Err(start + Duration::from_millis(200)));
        let later = start + Duration::from_secs(10);
        assert!((0..10).all(|_| brake.take(later, 0).is_ok()), "it refills");
        assert!(brake.take(later, 0).is_err());
    }

    #[test]
    fn off_lets_everything_through() {
        let mut brake = Brake::new(None, Mono::default());
        assert!((0..1000).all(|_| brake.take(Mono::default(), 0).is_ok()));
    }
}
