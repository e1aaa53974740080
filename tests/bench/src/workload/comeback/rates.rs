//! How many upgrades a gateway let in each second, from looks at its counters. Pure.

use std::time::Duration;

/// One look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// In the middle of the request.
    pub(super) at: Duration,
    /// Half of the time that the request took: so far from `at` the counters may have been read.
    pub(super) unsure: Duration,
    pub(super) accepted: f64,
    pub(super) refused: f64,
}

/// The seconds of one gateway, or of several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Fewest upgrades in a full second, as a share of the setting.
    pub(super) least: f64,
    /// Most upgrades in any second, as a share of the setting.
    pub(super) most: f64,
    /// How far from the setting a second was at least, given when the counters were read.
    pub(super) off: f64,
    /// Seconds in which as many again were refused: they were full whatever the clients did.
    pub(super) full: usize,
    /// Upgrades that were refused.
    pub(super) refused: f64,
}

impl Rates {
    const NONE: Self = Self {
        least: f64::INFINITY,
        most: 0.0,
        off: 0.0,
        full: 0,
        refused: 0.0,
    };

    /// The seconds since time 0; the first sample must not be later than that.
    pub(super) fn of(samples: &[Sample], setting: u32) -> Self {
        let setting = f64::from(setting);
        let end = samples.last().map_or(Duration::ZERO, |last| last.at).as_secs();
        let mut rates = Self::NONE;
        for second in 0..end {
            let (from, to) = (at(samples, second), at(samples, second + 1));
            let share = (to.accepted - from.accepted) / setting;
            let unsure = (from.unsure + to.unsure).as_secs_f64();
            let is_full = to.refused - from.refused >= setting;
            rates.most = rates.most.max(share);
            let mut off = share - 1.0;
            if is_full {
                rates.least = rates.least.min(share);
                rates.full += 1;
                off = off.abs();
            }
            rates.off = rates.off.max(off - unsure);
            rates.refused += to.refused - from.refused;
        }
        rates
    }

    /// The worst of all.
    pub(super) fn of_all(each: impl IntoIterator<Item = Self>) -> Self {
        each.into_iter().fold(Self::NONE, |all, one| Self {
            least: all.least.min(one.least),
            most: all.most.max(one.most),
            off: all.off.max(one.off),
            full: all.full + one.full,
            refused: all.refused + one.refused,
        })
    }
}

/// The counters at the beginning of a second: between the looks before and after it.
fn at(samples: &[Sample], second: u64) -> Sample {
    let time = Duration::from_secs(second);
    let after = samples.partition_point(|sample| sample.at <= time);
    let (Some(before), Some(next)) = (samples.get(after.saturating_sub(1)), samples.get(after)) else {
        return samples.last().copied().unwrap_or_default();
    };
    let part = (time.saturating_sub(before.at)).as_secs_f64() / next.at.abs_diff(before.at).as_secs_f64();
    let between = |a: f64, b: f64| a + (b - a) * part.min(1.0);
    Sample {
        at: time,
        unsure: before.unsure.max(next.unsure),
        accepted: between(before.accepted, next.accepted),
        refused: between(before.refused, next.refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 70 ms at a gateway that lets in and refuses so many in each second.
    fn looks(accepted: &[f64], refused: &[f64], unsure: u64) -> Vec<Sample> {
        let sum = |each: &[f64], time: f64| {
            let whole: f64 = each.iter().take(time as usize).sum();
            whole + each.get(time as usize).unwrap_or(&0.0) * time.fract()
        };
        let looks = (0..).map(|look| 0.07 * f64::from(look));
        let looks = looks.take_while(|time| *time < accepted.len() as f64 + 0.07);
        let look = |time: f64| Sample {
            at: Duration::from_secs_f64(time),
            unsure: Duration::from_millis(unsure),
            accepted: sum(accepted, time),
            refused: sum(refused, time),
        };
        looks.map(look).collect()
    }

    #[test]
    fn seconds_that_are_full_are_held_to_the_setting_from_both_sides_and_others_from_above() {
        let rates = Rates::of(
            &looks(&[410.0, 390.0, 400.0, 100.0], &[900.0, 800.0, 500.0, 30.0], 0),
            400,
        );
        assert_eq!(rates.full, 3);
        assert!(
            (rates.least - 0.975).abs() < 0.005 && (rates.most - 1.025).abs() < 0.005,
            "{rates:?}"
        );
        assert!((rates.off - 0.025).abs() < 0.005, "{rates:?}");
        let burst = Rates::of(&looks(&[500.0, 400.0], &[0.0, 900.0], 0), 400);
        assert!(burst.off > 0.2, "{burst:?}");
        let few = Rates::of(&looks(&[300.0, 400.0], &[900.0, 900.0], 0), 400);
        assert!(few.off > 0.2, "{few:?}");
    }

    #[test]
    fn what_is_not_known_of_the_time_of_a_look_is_no_fault_of_the_gateway() {
        let slow = Rates::of(&looks(&[440.0, 400.0], &[900.0, 900.0], 40), 400);
        assert!(slow.most > 1.09 && slow.off < 0.05, "{slow:?}");
    }
}
