//! How long to wait before the next try: exponential, capped, spread.

use std::time::Duration;

use crate::model::InstanceId;
use crate::plan::spec::Restart;

/// The wait after `failures` failures in a row: `delay` doubled each time up to `max_delay`, of which the upper half is
/// spread evenly by `seed`, so that instances that died together do not come back together.
pub(super) fn wait(restart: &Restart, failures: u32, seed: u64, instance: InstanceId) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let whole = restart.delay.saturating_mul(1 << doublings).min(restart.max_delay);
    let random = spread(seed ^ (u64::from(instance.0) << 32) ^ u64::from(failures));
    whole / 2 + (whole / 2).mul_f64(random)
}

/// Splitmix64 (Steele, Lea, Flood 2014), scaled to [0, 1).
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept, as many as an f64 holds")]
fn spread(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::spec::RestartPolicy;

    const RESTART: Restart = Restart {
        policy: RestartPolicy::OnFailure,
        delay: Duration::from_secs(1),
        max_delay: Duration::from_mins(1),
        max_attempts: None,
        window: Duration::from_secs(10),
    };

    #[test]
    fn it_doubles_to_the_cap_and_stays_in_the_upper_half() {
        for (failures, whole) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (40, 60), (u32::MAX, 60)] {
            for seed in 0..200 {
                let wait = wait(&RESTART, failures, seed, InstanceId(3));
                let whole = Duration::from_secs(whole);
                assert!(wait >= whole / 2 && wait <= whole, "{failures} failures, seed {seed}: {wait:?}");
            }
        }
    }

    #[test]
    fn instances_are_spread_apart() {
        let waits: std::collections::BTreeSet<_> = (0..100).map(|i| wait(&RESTART, 7, 1, InstanceId(i))).collect();
        assert_eq!(waits.len(), 100);
        let first = waits.first().unwrap();
        let last = waits.last().unwrap();
        assert!(*last > *first + Duration::from_secs(25), "{first:?} to {last:?}");
    }
}
