//! Time of one gateway: monotonic since its start, coarse where connections store it, and wall time for messages.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The gateway's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

/// Tenths of a second since the gateway's start: what a connection stores, at 4 bytes a time. Lasts 13 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u32);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Since the start, coarse.
    pub fn tick(&self) -> Tick {
        Tick::from_duration(self.now())
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn unix_millis() -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }

    /// Seconds since 1970-01-01 UTC.
    pub fn unix_seconds() -> u64 {
        Self::unix_millis() / 1_000
    }
}

impl Tick {
    /// Later than any other.
    pub const NEVER: Self = Self(u32::MAX);

    /// Rounds down.
    pub fn from_duration(since_start: Duration) -> Self {
        Self(u32::try_from(since_start.as_millis() / 100).unwrap_or(u32::MAX - 1))
    }

    /// From what [`Tick::to_bits`] gave.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// For an atomic.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// This much later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u32::try_from(wait.as_millis() / 100).unwrap_or(u32::MAX)),
        )
    }

    /// Time from `earlier` to this; zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::from(self.0.saturating_sub(earlier.0)) * 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_add_and_subtract_without_overflow() {
        let tick = Tick::from_duration(Duration::from_millis(1_250));
        assert_eq!(tick.to_bits(), 12);
        assert_eq!(
            tick.after(Duration::from_secs(30)).since(tick),
            Duration::from_secs(30)
        );
        assert_eq!(tick.since(tick.after(Duration::from_secs(1))), Duration::ZERO);
        assert!(tick.after(Duration::MAX) == Tick::NEVER);
    }
}
