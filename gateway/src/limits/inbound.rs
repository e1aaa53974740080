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
