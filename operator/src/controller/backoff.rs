//! How long to wait before a resource whose passes fail is looked at again: kube's controller counts nothing by itself.

use std::time::Duration;

use rand::Rng;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// At most.
const LAST: Duration = Duration::from_mins(1);

/// The wait after `failures` failures in a row (1 and up), without jitter.
fn base(failures: u32) -> Duration {
    FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LAST)
}

/// The wait after `failures` failures in a row, up to a fifth longer or shorter, so that many resources that failed
/// for one reason do not come back at one time.
pub(super) fn wait(failures: u32) -> Duration {
    base(failures).mul_f64(rand::rng().random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute() {
        let waits: Vec<u64> = (1..=8).map(|failures| base(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(base(0), FIRST);
        assert_eq!(base(u32::MAX), LAST);
        assert!(wait(1) >= FIRST.mul_f64(0.8) && wait(u32::MAX) <= LAST.mul_f64(1.2));
    }
}
