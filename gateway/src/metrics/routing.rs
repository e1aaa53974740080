//! What clients said about where they were before.

use prometheus::IntCounter;

use super::Builder;
use crate::routing::Hint;

/// Routing tokens that came with upgrades.
#[derive(Debug)]
pub struct HintCounters([IntCounter; Hint::ALL.len()]);

impl HintCounters {
    pub(super) fn new(b: &Builder) -> prometheus::Result<Self> {
        let help = "Routing tokens that clients came with, by whose they were.";
        let counters = b.counters("ws_routing_hints_total", help, &["result"])?;
        Ok(Self(
            Hint::ALL.map(|hint| counters.with_label_values(&[hint.as_str()])),
        ))
    }

    /// One more.
    pub fn count(&self, hint: Hint) {
        self.0[hint as usize].inc();
    }
}
