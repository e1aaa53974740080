//! The form in which an event travels on a channel.
//!
//! Sequenced: `<epoch> <offset> <event JSON>`, written by the publish scripts. Announcements and messages of ephemeral
//! rooms: `<event JSON>` alone. JSON begins with `{`, which no epoch contains, so the two cannot be taken for each other.

use super::Event;

/// One message as read from the link.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::broker) struct Raw {
    pub(in crate::broker) channel: Vec<u8>,
    pub(in crate::broker) payload: Vec<u8>,
}

/// One payload taken apart; the epoch is still in the payload.
#[derive(Debug)]
pub(in crate::broker) struct Message<'a> {
    /// Epoch and offset; `None` for an announcement, and in an ephemeral room.
    pub(in crate::broker) position: Option<(&'a str, u64)>,
    pub(in crate::broker) event: Event,
}

/// Takes a payload apart; `None` when it is not one of ours.
pub(in crate::broker) fn decode(payload: &[u8]) -> Option<Message<'_>> {
    let (position, json) = if payload.first() == Some(&b'{') {
        (None, payload)
    } else {
        let (epoch, rest) = split_at_space(payload)?;
        let (offset, json) = split_at_space(rest)?;
        let epoch = std::str::from_utf8(epoch).ok()?;
        let offset = std::str::from_utf8(offset).ok()?.parse().ok()?;
        (Some((epoch, offset)), json)
    };
    let event: Event = serde_json::from_slice(json).ok()?;
    (event.is_message() || position.is_none()).then_some(Message { position, event })
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&b| b == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: &str = r#"{"m":{"u":"ann","p":{"a": 1},"t":5,"s":"g1"}}"#;

    #[test]
    fn a_sequenced_message_carries_its_place_and_its_payload_verbatim() {
        let bytes = format!("0a1b 9007199254740991 {MESSAGE}");
        let message = decode(bytes.as_bytes()).unwrap();
        assert_eq!(message.position, Some(("0a1b", 9_007_199_254_740_991)));
        let Event::RoomMessage { payload, .. } = message.event else {
            panic!("kind")
        };
        assert_eq!(payload.get(), r#"{"a": 1}"#);
    }

    #[test]
    fn an_announcement_has_no_place() {
        let message = decode(br#"{"l":{"u":"ann","s":"g1"}}"#).unwrap();
        assert_eq!(message.position, None);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let sequenced_announcement = r#"e 1 {"l":{"u":"ann","s":"g1"}}"#;
        for bytes in [
            "",
            " ",
            "x",
            "e 1",
            "e 1 ",
            "e x {}",
            "{}",
            sequenced_announcement,
        ] {
            assert!(decode(bytes.as_bytes()).is_none(), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
