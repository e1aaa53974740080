//! A token bucket in integers: exact, 16 bytes.

use std::time::{Duration, Instant};

use crate::config::Limit;

/// Nanoseconds of a monotonic clock since any fixed start, the same for all values that meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// `nanos` after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// `now`, counted from `start`. Good for 584 years.
    pub fn between(start: Instant, now: Instant) -> Self {
        Self::default().after(now.saturating_duration_since(start))
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the start.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// This moment and `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// Time from `earlier` to this moment; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// How fast a bucket fills and how much it holds; shared by all buckets of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second; 0 is no limit.
    per_second: u32,
    /// Tokens that a full bucket holds; at least 1.
    burst: u32,
}

impl Rate {
    /// A rate that admits everything.
    pub const OFF: Self = Self {
        per_second: 0,
        burst: 1,
    };

    /// `limit` tokens per second, `burst` (at least 1) at once.
    pub const fn new(limit: Limit, burst: u32) -> Self {
        Self {
            per_second: limit.as_setting(),
            burst: if burst == 0 { 1 } else { burst },
        }
    }

    /// `limit` tokens per second, two seconds' worth at once: for what comes from one client.
    pub const fn with_double_burst(limit: Limit) -> Self {
        Self::new(limit, limit.as_setting().saturating_mul(2))
    }

    /// `limit` tokens per second, 50 ms worth and one (at least 20) at once. In a storm, which leaves no pause longer
    /// than 50 ms, each second admits the setting within 5 %: what a pause saves is admitted after it, and the one more
    /// has room for the token that was on its way. From a setting of 400 on, no second admits more than 5 % and one
    /// above it, a storm or not. Below that a smaller bucket would lose tokens to arrivals that are merely uneven,
    /// and admit less than was set.
    pub const fn smooth(limit: Limit) -> Self {
        let share = limit.as_setting() / 20 + 1;
        Self::new(limit, if share < 20 { 20 } else { share })
    }

    /// Whether everything is admitted.
    pub const fn is_off(self) -> bool {
        self.per_second == 0
    }

    const fn full(self) -> u64 {
        self.burst as u64 * TOKEN
    }
}

/// Not now: the tokens will be there after this time. [`Duration::MAX`] when the bucket never holds so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

/// Parts of a token: at one part per nanosecond and token per second, refilling is exact in integers.
const TOKEN: u64 = 1_000_000_000;

/// A token bucket. Never admits more than `burst` at once, nor more than `burst + rate × time` in any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Parts of tokens in the bucket at `at`.
    level: u64,
    at: Moment,
}

impl TokenBucket {
    /// A full bucket.
    pub const fn full(rate: Rate, now: Moment) -> Self {
        Self {
            level: rate.full(),
            at: now,
        }
    }

    /// Takes `tokens`, or none and says when to come back. A `now` before an earlier one counts as that one.
    pub fn take(&mut self, now: Moment, tokens: u32, rate: Rate) -> Result<(), RetryAfter> {
        if rate.is_off() {
            return Ok(());
        }
        let level = self.level_at(now, rate);
        let wanted = u64::from(tokens) * TOKEN;
        self.at = self.at.max(now);
        self.level = level;
        match level.checked_sub(wanted) {
            Some(rest) => {
                self.level = rest;
                Ok(())
            }
            None if wanted > rate.full() => Err(RetryAfter(Duration::MAX)),
            None => {
                let nanos = (wanted - level).div_ceil(u64::from(rate.per_second));
                Err(RetryAfter(Duration::from_nanos(nanos)))
            }
        }
    }

    /// Whether the bucket is as good as a new one.
    pub fn is_full(&self, now: Moment, rate: Rate) -> bool {
        rate.is_off() || self.level_at(now, rate) == rate.full()
    }

    fn level_at(&self, now: Moment, rate: Rate) -> u64 {
        let nanos = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        let gained = nanos.saturating_mul(u64::from(rate.per_second));
        self.level.saturating_add(gained).min(rate.full())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (1..=5_000_u32, any::<bool>()).prop_map(|(per_second, smooth)| {
            let limit = Limit::new(per_second);
            if smooth {
                Rate::smooth(limit)
            } else {
                Rate::with_double_burst(limit)
            }
        })
    }

    /// Settings of all sizes: few of those up to 5,000 are small.
    fn settings() -> impl Strategy<Value = u32> {
        prop_oneof![1..20_u32, 20..400_u32, 400..=5_000_u32]
    }

    /// Pauses, as parts of the longest one, and what comes after each, as a multiple of what flowed in during it.
    fn storms() -> impl Strategy<Value = Vec<(f64, f64)>> {
        let pause = prop_oneof![2 => 0.0..=1.0_f64, 1 => Just(1.0)];
        let excess = prop_oneof![1 => Just(1.0), 2 => 1.0..8.0_f64];
        proptest::collection::vec((pause, excess), 1..64)
    }

    #[test]
    fn a_bucket_is_sixteen_bytes() {
        assert_eq!(size_of::<TokenBucket>(), 16);
    }

    #[test]
    fn a_refused_caller_is_admitted_exactly_when_it_was_told_to_come_back() {
        let rate = Rate::new(Limit::new(3), 1);
        let mut bucket = TokenBucket::full(rate, at(0));
        bucket.take(at(0), 1, rate).unwrap();
        let RetryAfter(wait) = bucket.take(at(0), 1, rate).unwrap_err();
        assert_eq!(wait, Duration::from_nanos(333_333_334));
        let RetryAfter(rest) = bucket.take(at(333_333_333), 1, rate).unwrap_err();
        assert_eq!(rest, Duration::from_nanos(1));
        bucket.take(at(0).after(wait), 1, rate).unwrap();
    }

    #[test]
    fn more_than_the_burst_is_never_admitted_and_costs_nothing() {
        let rate = Rate::new(Limit::new(10), 5);
        let mut bucket = TokenBucket::full(rate, at(0));
        assert_eq!(bucket.take(at(0), 6, rate), Err(RetryAfter(Duration::MAX)));
        assert_eq!(bucket.take(at(0), 5, rate), Ok(()));
    }

    #[test]
    fn a_rate_of_zero_admits_everything() {
        let mut bucket = TokenBucket::full(Rate::OFF, at(0));
        for _ in 0..1_000 {
            assert_eq!(bucket.take(at(0), u32::MAX, Rate::OFF), Ok(()));
        }
    }

    #[test]
    fn an_idle_century_and_a_clock_that_goes_back_do_no_harm() {
        let rate = Rate::new(Limit::new(u32::MAX - 1), u32::MAX);
        let mut bucket = TokenBucket::full(rate, at(0));
        bucket.take(at(u64::MAX), u32::MAX, rate).unwrap();
        assert!(bucket.take(at(0), 1, rate).is_err(), "going back must not refill");
        assert!(
            bucket.take(at(u64::MAX), 1, rate).is_err(),
            "nor must coming forth again"
        );
    }

    proptest! {
        /// The accepted rate is the setting's within 5 %, however the demand arrives, as long as there is one.
        #[test]
        fn the_accepted_rate_is_the_setting(
            rate in rates(),
            pattern in proptest::collection::vec((0.0..1.0_f64, 1.0..5.0_f64), 1..64),
        ) {
            let mut bucket = TokenBucket::full(rate, at(0));
            while bucket.take(at(0), 1, rate).is_ok() {}
            // no pause is longer than the bucket has room for; after each comes what it made room for, or more
            let longest = u64::from(rate.burst - 1) * SECOND / u64::from(rate.per_second);
            let end = 40 * SECOND * u64::from(rate.burst) / u64::from(rate.per_second);
            let (mut now, mut accepted) = (0_u64, 0_u64);
            for (pause, excess) in pattern.iter().cycle() {
                let pause = ((longest as f64 * pause) as u64).max(SECOND / 20_000);
                now += pause;
                let due = (pause as f64 / SECOND as f64 * f64::from(rate.per_second)).ceil() + 1.0;
                for _ in 0..(due * excess) as u64 {
                    accepted += u64::from(bucket.take(at(now), 1, rate).is_ok());
                }
                if now >= end {
                    break;
                }
            }
            let set = now as f64 / SECOND as f64 * f64::from(rate.per_second);
            let ratio = accepted as f64 / set;
            prop_assert!((0.95..=1.05).contains(&ratio), "accepted {accepted}, set {set}");
        }

        /// Once the burst is spent, every single second of a storm admits the setting within 5 %, from whenever it is
        /// counted; below 20, where 5 % is less than one handshake, within one. A storm asks for no less than the
        /// setting, in bursts between which no more flows in than those 5 %: what flows in later than a second ends
        /// is the next one's.
        #[test]
        fn every_second_of_a_storm_admits_the_setting(per_second in settings(), storm in storms()) {
            let rate = Rate::smooth(Limit::new(per_second));
            let mut bucket = TokenBucket::full(rate, at(0));
            while bucket.take(at(0), 1, rate).is_ok() {}
            let tolerance = u64::from(per_second / 20).max(1);
            let longest = tolerance * SECOND / u64::from(per_second);
            let (mut now, mut moments, mut admitted) = (0, Vec::new(), Vec::new());
            for (pause, excess) in storm.iter().cycle() {
                let pause = ((longest as f64 * pause) as u64).max(SECOND / 50_000);
                now += pause;
                moments.push(now);
                let due = pause as f64 * f64::from(per_second) / SECOND as f64;
                for _ in 0..(due * excess).ceil() as u64 {
                    admitted.extend(bucket.take(at(now), 1, rate).is_ok().then_some(now));
                }
                if now >= 4 * SECOND {
                    break;
                }
            }
            let before = |time| admitted.partition_point(|admitted| *admitted < time) as u64;
            // a second that begins with a burst, and one that begins behind it
            for begin in moments.into_iter().flat_map(|moment| [moment, moment + 1]) {
                if begin + SECOND <= now {
                    let count = before(begin + SECOND) - before(begin);
                    prop_assert!(count.abs_diff(u64::from(per_second)) <= tolerance, "{count} of {per_second}");
                }
            }
        }

        /// In no window is more admitted than a full bucket and what flowed in, whatever is asked for and when.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            rate in rates(),
            asked in proptest::collection::vec((0..3 * SECOND, 1..200_u32, any::<bool>()), 1..60),
        ) {
            let mut bucket = TokenBucket::full(rate, at(0));
            let mut now = 0;
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (pause, tokens, back) in asked {
                now += pause;
                // another thread may have read its clock a little earlier
                let seen = if back { now.saturating_sub(1_000_000) } else { now };
                if bucket.take(at(seen), tokens, rate).is_ok() {
                    admitted.push((now, u64::from(tokens)));
                }
            }
            for (first, &(begin, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for &(end, tokens) in &admitted[first..] {
                    sum += tokens;
                    let most = rate.full() + (end - begin + 1_000_000) * u64::from(rate.per_second);
                    prop_assert!(sum * TOKEN <= most);
                }
            }
        }
    }
}
