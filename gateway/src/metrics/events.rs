//! What became of clients' events.

use prometheus::IntCounter;

use super::Builder;
use crate::broker::{Accepted, BrokerError};

/// What became of an event.
#[derive(Clone, Copy)]
enum Outcome {
    /// It is in the stream.
    Appended,
    /// One with its `msgId` was there.
    Duplicate,
    /// The broker could not be reached.
    Unavailable,
    /// It may be in the stream.
    Unconfirmed,
    /// Too many waited.
    Overloaded,
    /// The broker said no.
    Refused,
    /// There is no stream.
    Off,
}

impl Outcome {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Appended, "appended"),
        (Self::Duplicate, "duplicate"),
        (Self::Unavailable, "unavailable"),
        (Self::Unconfirmed, "unconfirmed"),
        (Self::Overloaded, "overloaded"),
        (Self::Refused, "refused"),
        (Self::Off, "off"),
    ];

    const fn of(result: &Result<Accepted, BrokerError>) -> Self {
        match result {
            Ok(Accepted { duplicate: false, .. }) => Self::Appended,
            Ok(Accepted { duplicate: true, .. }) => Self::Duplicate,
            Err(BrokerError::Unavailable) => Self::Unavailable,
            Err(BrokerError::Unconfirmed) => Self::Unconfirmed,
            Err(BrokerError::Overloaded) => Self::Overloaded,
            Err(BrokerError::Refused(_)) => Self::Refused,
            Err(BrokerError::EventsOff) => Self::Off,
        }
    }
}

/// Clients' events by what became of them.
#[derive(Debug)]
pub struct EventCounters([IntCounter; Outcome::ALL.len()]);

impl EventCounters {
    pub(super) fn new(b: &Builder) -> prometheus::Result<Self> {
        let help = "Events of clients, by what became of them.";
        let counters = b.counters("ws_events_total", help, &["result"])?;
        Ok(Self(
            Outcome::ALL.map(|(_, result)| counters.with_label_values(&[result])),
        ))
    }

    /// One more.
    pub fn count(&self, result: &Result<Accepted, BrokerError>) {
        self.0[Outcome::of(result) as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_where_its_label_is() {
        assert!(
            Outcome::ALL
                .iter()
                .enumerate()
                .all(|(index, (outcome, _))| *outcome as usize == index)
        );
    }
}
