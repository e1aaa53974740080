//! A gateway's lease: a message that JetStream removes by itself (`Nats-TTL`) unless its gateway renews it.

use std::time::Duration;

use super::core::Core;
use super::jetstream::{Appended, appended};
use crate::broker::BrokerError;

/// Prolongs a lease by this renewal of it, 0 for a new one; nothing when it has run out, or was taken away.
pub(super) async fn renew(
    core: &Core,
    subject: &str,
    text: &[u8],
    (last, lasts): (u64, Duration),
) -> Result<Option<u64>, BrokerError> {
    let (last, lasts) = (last.to_string(), seconds(lasts));
    let headers = [
        ("Nats-Expected-Last-Subject-Sequence", &*last),
        ("Nats-TTL", &*lasts),
    ];
    let link = core.link()?;
    let mut answers = link.ask(subject, &headers, text)?;
    Ok(match appended(&answers.next(core.config.timing.answer).await?)? {
        Appended::At(sequence) => Some(sequence),
        Appended::Duplicate(_) | Appended::Conflict => None,
    })
}

/// A time to live: whole seconds, one at least.
pub(super) fn seconds(time: Duration) -> String {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    format!("{}s", whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_never_too_short() {
        for (millis, text) in [(0, "1s"), (1, "1s"), (1_000, "1s"), (2_001, "3s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }
}
