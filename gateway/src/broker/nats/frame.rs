//! What one message of JetStream holds: the next events of a stream, with the place of the first.
//!
//! `<epoch> <offset of the first> <milliseconds since 1970>`, and for each event a separator and its JSON. The separator is
//! a control character that no JSON has. A frame without events is a *birth*: the stream begins with this epoch, and its
//! next offset is 1. The last frame of a subject is therefore the stream's position, and whoever appends behind exactly
//! that one (`Nats-Expected-Last-Subject-Sequence`) takes the next offset and stores the message in one step.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::broker::Position;

/// Before each event.
const SEPARATOR: u8 = 0x1e;

/// The place of a frame's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) epoch: Arc<str>,
    /// Offset of the first event; of a birth: the one that comes next.
    pub(super) first: u64,
    /// When it was made, by the clock of the gateway that made it.
    pub(super) millis: u64,
    /// Events, as they travel between gateways.
    pub(super) events: Vec<Bytes>,
}

impl Frame {
    /// A stream's beginning.
    pub(super) fn birth(epoch: Arc<str>, millis: u64) -> Self {
        Self {
            epoch,
            first: 1,
            millis,
            events: Vec::new(),
        }
    }

    /// Where the stream stands behind it.
    pub(super) fn position(&self) -> Position {
        Position {
            epoch: Arc::clone(&self.epoch),
            offset: self.first + self.events.len() as u64 - 1,
        }
    }

    /// As it is stored.
    pub(super) fn encode(&self) -> Bytes {
        let head = format!("{} {} {}", self.epoch, self.first, self.millis);
        let size = self.events.iter().map(|event| event.len() + 1).sum::<usize>();
        let mut out = BytesMut::with_capacity(head.len() + size);
        out.extend_from_slice(head.as_bytes());
        for event in &self.events {
            out.extend_from_slice(&[SEPARATOR]);
            out.extend_from_slice(event);
        }
        out.freeze()
    }

    /// What was stored; `None` when it is not one of ours.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut parts = bytes.split(|&byte| byte == SEPARATOR);
        let head = std::str::from_utf8(parts.next()?).ok()?;
        let mut words = head.split(' ');
        let epoch = words.next().filter(|epoch| !epoch.is_empty())?;
        let first = words
            .next()?
            .parse()
            .ok()
            .filter(|first| (1..1 << 53).contains(first))?;
        let millis = words.next()?.parse().ok()?;
        let events = parts.map(|part| bytes.slice_ref(part)).collect();
        words.next().is_none().then(|| Self {
            epoch: epoch.into(),
            first,
            millis,
            events,
        })
    }

    /// Each event with its offset.
    pub(super) fn placed(&self) -> impl DoubleEndedIterator<Item = (u64, &Bytes)> {
        let first = self.first;
        self.events
            .iter()
            .enumerate()
            .map(move |(index, event)| (first + index as u64, event))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_says_where_the_stream_stands_behind_it() {
        let mut frame = Frame::birth("e".into(), 5);
        assert_eq!(frame.position().offset, 0);
        frame.first = 7;
        frame.events = vec![Bytes::from_static(b"{}"), Bytes::from_static(b"{\n}")];
        assert_eq!(frame.position().offset, 8);
        assert_eq!(&frame.encode()[..], b"e 7 5\x1e{}\x1e{\n}");
        assert_eq!(Frame::decode(&frame.encode()), Some(frame));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for bytes in [
            "",
            "e",
            "e 1",
            " 1 1",
            "e 0 1",
            "e x 1",
            "e 1 x",
            "e 1 1 1",
            "{\"m\":{}}",
        ] {
            assert_eq!(Frame::decode(&Bytes::from(bytes)), None, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Frame::decode(&Bytes::from(bytes));
        }
    }
}
