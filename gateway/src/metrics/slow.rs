//! What was done when more waited for a socket than may.

use prometheus::IntCounter;

use super::Builder;
use crate::config::SlowPolicy;

/// One counter for each policy.
type Counters = [IntCounter; SlowPolicy::ALL.len()];

/// What gave way to members that read too slowly, by policy.
#[derive(Debug)]
pub struct SlowCounters {
    times: Counters,
    messages: Counters,
    bytes: Counters,
}

impl SlowCounters {
    pub(super) fn new(b: &Builder) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str| {
            let counters = b.counters(name, help, &["policy"])?;
            Ok::<_, prometheus::Error>(
                SlowPolicy::ALL.map(|policy| counters.with_label_values(&[policy.as_str()])),
            )
        };
        Ok(Self {
            times: counters(
                "ws_slow_consumer_total",
                "Times that too much waited for a socket, by what gave way.",
            )?,
            messages: counters(
                "ws_slow_consumer_dropped_messages_total",
                "Messages that were dropped because too much waited for a socket.",
            )?,
            bytes: counters(
                "ws_slow_consumer_dropped_bytes_total",
                "Bytes that were dropped because too much waited for a socket.",
            )?,
        })
    }

    /// A socket was closed.
    pub fn disconnected(&self) {
        self.times[SlowPolicy::Disconnect.index()].inc();
    }

    /// So many messages and bytes, by policy, were dropped to make room for later ones.
    pub fn dropped(&self, dropped: &[(u64, u64); SlowPolicy::ALL.len()]) {
        for (policy, (messages, bytes)) in SlowPolicy::ALL.into_iter().zip(dropped) {
            if *messages > 0 {
                self.times[policy.index()].inc();
                self.messages[policy.index()].inc_by(*messages);
                self.bytes[policy.index()].inc_by(*bytes);
            }
        }
    }

    /// Times that too much waited for a socket and this gave way.
    pub fn times(&self, policy: SlowPolicy) -> u64 {
        self.times[policy.index()].get()
    }
}
