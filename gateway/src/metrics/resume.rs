//! What came of clients that came back.

use prometheus::IntCounter;

use super::Builder;
use crate::protocol::Lost;

/// What can come of it.
const RESULTS: [Option<Lost>; 4] = [
    None,
    Some(Lost::EpochChanged),
    Some(Lost::TooOld),
    Some(Lost::Limit),
];

/// Streams that clients came back to.
#[derive(Debug)]
pub struct ResumeCounters(Vec<IntCounter>);

impl ResumeCounters {
    pub(super) fn new(b: &Builder) -> prometheus::Result<Self> {
        let help = "Streams that clients came back to, by what came of it.";
        let counters = b.counters("ws_resume_total", help, &["result"])?;
        let of =
            |result: &Option<Lost>| counters.with_label_values(&[result.map_or("recovered", Lost::as_str)]);
        Ok(Self(RESULTS.iter().map(of).collect()))
    }

    /// One more; why it did not get what it has missed, if it did not.
    pub fn count(&self, lost: Option<Lost>) {
        let index = RESULTS.iter().position(|result| *result == lost);
        if let Some(counter) = index.and_then(|index| self.0.get(index)) {
            counter.inc();
        }
    }
}
