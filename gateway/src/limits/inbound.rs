//! What one connection may send.

use super::bucket::{Moment, Rate, TokenBucket};
use crate::config::Limits;

/// Seconds in a row with an excess in each, after which a connection is closed.
const PATIENCE: u8 = 10;

/// The rates that every connection is held to; one for the whole gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundRates {
    messages: Rate,
    bytes: Rate,
}

impl From<&Limits> for InboundRates {
    fn from(limits: &Limits) -> Self {
        Self {
            messages: Rate::with_double_burst(limits.messages_per_second),
            bytes: Rate::with_double_burst(limits.bytes_per_second),
        }
    }
}

/// What to do with a message that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Admit,
    /// Drop it and answer with `message_rate_exceeded`.
    TooManyMessages,
    /// Drop it and answer with `byte_rate_exceeded`.
    TooManyBytes,
    /// Close with 4101: there was an excess in each of the last ten seconds.
    Close,
}

/// State of one connection's inbound limits.
#[derive(Clone, Copy, Debug)]
pub struct InboundLimiter {
    messages: TokenBucket,
    bytes: TokenBucket,
    /// The last second (since the clock's start) in which there was an excess, and how many in a row had one.
    second: u32,
    run: u8,
}

impl InboundLimiter {
    /// Full buckets.
    pub fn new(rates: &InboundRates, now: Moment) -> Self {
        Self {
            messages: TokenBucket::full(rates.messages, now),
            bytes: TokenBucket::full(rates.bytes, now),
            second: 0,
            run: 0,
        }
    }

    /// One message (of any kind: a ping of the protocol is one too) whose frames had `bytes` bytes. A message that is
    /// refused costs nothing, so a client that slows down to the rate is served at once.
    pub fn check(&mut self, now: Moment, bytes: usize, rates: &InboundRates) -> Verdict {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let saved = self.messages;
        if self.messages.take(now, 1, rates.messages).is_err() {
            return self.excess(now, Verdict::TooManyMessages);
        }
        if self.bytes.take(now, bytes, rates.bytes).is_err() {
            self.messages = saved;
            return self.excess(now, Verdict::TooManyBytes);
        }
        Verdict::Admit
    }

    fn excess(&mut self, now: Moment, verdict: Verdict) -> Verdict {
        let second = now.as_secs() as u32;
        if self.run == 0 || second.wrapping_sub(self.second) > 1 {
            self.run = 1;
        } else if second != self.second {
            self.run = self.run.saturating_add(1);
        }
        self.second = second;
        if self.run >= PATIENCE {
            Verdict::Close
        } else {
            verdict
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Limit;

    fn rates(messages: u32, bytes: u32) -> InboundRates {
        InboundRates::from(&Limits {
            messages_per_second: Limit::new(messages),
            bytes_per_second: Limit::new(bytes),
            ..Limits::default()
        })
    }

    fn at(millis: u64) -> Moment {
        Moment::default().after(Duration::from_millis(millis))
    }

    #[test]
    fn the_state_of_a_connection_is_forty_bytes() {
        assert_eq!(size_of::<InboundLimiter>(), 40);
    }

    #[test]
    fn twice_the_rate_is_admitted_at_once_then_the_rate() {
        let rates = rates(50, 0);
        let mut limiter = InboundLimiter::new(&rates, at(0));
        for _ in 0..100 {
            assert_eq!(limiter.check(at(0), 10, &rates), Verdict::Admit);
        }
        assert_eq!(limiter.check(at(0), 10, &rates), Verdict::TooManyMessages);
        assert_eq!(limiter.check(at(20), 10, &rates), Verdict::Admit);
        assert_eq!(limiter.check(at(20), 10, &rates), Verdict::TooManyMessages);
    }

    #[test]
    fn bytes_are_counted_apart_and_a_message_refused_for_them_costs_no_message() {
        let rates = rates(1, 1_000);
        let mut limiter = InboundLimiter::new(&rates, at(0));
        assert_eq!(limiter.check(at(0), 2_000, &rates), Verdict::Admit);
        assert_eq!(limiter.check(at(0), 1, &rates), Verdict::TooManyBytes);
        assert_eq!(
            limiter.check(at(1), 1, &rates),
            Verdict::Admit,
            "the second message of the burst"
        );
        assert_eq!(limiter.check(at(2), 0, &rates), Verdict::TooManyMessages);
    }

    #[test]
    fn an_excess_in_each_of_ten_seconds_closes() {
        let rates = rates(1, 0);
        let mut limiter = InboundLimiter::new(&rates, at(0));
        let mut verdicts = Vec::new();
        for tenth in 0..100 {
            verdicts.push(limiter.check(at(tenth * 100), 1, &rates));
        }
        let first_close = verdicts.iter().position(|verdict| *verdict == Verdict::Close);
        assert_eq!(first_close, Some(91), "the first excess of the tenth second");
    }

    #[test]
    fn a_second_without_excess_starts_the_count_anew() {
        let rates = rates(1, 0);
        let mut limiter = InboundLimiter::new(&rates, at(0));
        for second in 0..100 {
            if second % 10 == 9 {
                continue;
            }
            for _ in 0..20 {
                assert_ne!(
                    limiter.check(at(second * 1_000), 1, &rates),
                    Verdict::Close,
                    "second {second}"
                );
            }
        }
    }

    #[test]
    fn without_limits_everything_is_admitted() {
        let rates = rates(0, 0);
        let mut limiter = InboundLimiter::new(&rates, at(0));
        for _ in 0..10_000 {
            assert_eq!(limiter.check(at(0), usize::MAX, &rates), Verdict::Admit);
        }
    }
}
