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

    /// `limit` tokens per second, 50 ms worth at once: what is admitted in any second is within 5 % of the setting (or
    /// one token, if that is more), a storm or not.
    pub const fn smooth(limit: Limit) -> Self {
        Self::new(limit, limit.as_setting() / 20)
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
