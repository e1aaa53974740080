//! The JSON decoder, beside a parser that is not in a hurry.

use serde_json::Value;
use serde_json::value::RawValue;
use wsfleet_gateway::protocol::{ClientMessage, Codec, ParseError};

use crate::memory;
use crate::model::{self, MAX, NAMES, Parts};

const KINDS: [&str; 10] = [
    "join",
    "leave",
    "room_message",
    "direct_message",
    "event",
    "resume",
    "history",
    "presence",
    "refresh",
    "ping",
];

/// The input is the payload of a text frame.
pub fn json(input: &[u8]) {
    let text = match Codec::Json.to_json(input, MAX) {
        Ok(text) => text,
        Err(ParseError::TooBig(MAX)) => return assert!(input.len() > MAX),
        Err(error) => {
            assert_eq!(error, ParseError::InvalidJson);
            return assert!(std::str::from_utf8(input).is_err());
        }
    };
    // nothing is copied but names with escapes, into buffers that double: the old one and the new one are held at a time
    let parsed = memory::within(8 * text.len() + 4_096, || ClientMessage::parse(&text, NAMES));
    let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
    let value = serde_json::from_str::<Value>(&text).ok();
    match parsed {
        Ok(message) => {
            assert!(is_json);
            if let Some(value) = value {
                says(&value, &Parts::of(&message));
            }
            model::check(&message);
        }
        Err(rejected) => {
            assert_eq!(rejected.error == ParseError::InvalidJson, !is_json);
            if let Some(value) = value {
                let known = value["type"].as_str().is_some_and(|kind| KINDS.contains(&kind));
                assert_eq!(rejected.error == ParseError::UnknownType, !known, "{value}");
            }
        }
    }
}

/// What was read is what the text says; of a field that is given twice the last one counts.
fn says(value: &Value, parts: &Parts<'_>) {
    assert_eq!(value["type"], parts.kind);
    let field = match parts.kind {
        "ping" => return,
        "resume" => return resumes(value, parts),
        "direct_message" => "targetUserId",
        "event" => "name",
        "refresh" => "token",
        _ => "room",
    };
    assert_eq!(value[field], parts.name);
    if let Some(payload) = parts.payload {
        assert_eq!(value["payload"], serde_json::from_str::<Value>(payload).unwrap());
    }
    for (key, id) in [("id", &parts.id), ("msgId", &parts.msg_id)] {
        if let Some(id) = id {
            assert_eq!(value[key], *id);
        }
    }
}

/// The places that a client says it was at, in their order.
fn resumes(value: &Value, parts: &Parts<'_>) {
    let rooms = value["rooms"].as_array().into_iter().flatten();
    let rooms: Vec<_> = rooms
        .map(|room| {
            (
                room["room"].as_str(),
                room["epoch"].as_str(),
                room["offset"].as_u64(),
            )
        })
        .collect();
    let places = parts.places.iter();
    let places: Vec<_> = places
        .map(|(room, epoch, offset)| (Some(*room), Some(*epoch), Some(*offset)))
        .collect();
    assert_eq!(rooms, places);
    let user = parts.user.map(|(epoch, offset)| (Some(epoch), Some(offset)));
    let said = (!value["user"].is_null())
        .then(|| (value["user"]["epoch"].as_str(), value["user"]["offset"].as_u64()));
    assert_eq!(said, user);
}
