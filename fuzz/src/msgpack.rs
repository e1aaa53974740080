//! The MessagePack decoder.

use serde_json::value::RawValue;
use wsfleet_gateway::protocol::{ClientMessage, Codec, ParseError};

use crate::memory;
use crate::model::{self, MAX, NAMES};

/// The input is the payload of a binary frame.
pub fn msgpack(input: &[u8]) {
    // a buffer that grows is there twice; one text may be six times as long with its escapes; 64 KiB are made room for
    // when a text claims to be longer than that
    let memory = 3 * (MAX + 6 * input.len()) + 3 * input.len() + (128 << 10);
    let text = match memory::within(memory, || Codec::MsgPack.to_json(input, MAX)) {
        Ok(text) => text,
        Err(error) => {
            let known = [
                ParseError::InvalidMsgPack,
                ParseError::NotJson,
                ParseError::TooBig(MAX),
            ];
            return assert!(known.contains(&error), "{error}");
        }
    };
    assert!(text.len() <= MAX);
    assert!(serde_json::from_str::<&RawValue>(&text).is_ok(), "{text}");
    model::passed_on(&text);
    if let Ok(message) = ClientMessage::parse(&text, NAMES) {
        model::check(&message);
    }
}
