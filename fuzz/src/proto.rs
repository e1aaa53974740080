//! The Protocol Buffers decoder, beside another reading of the schema.

use prost::Message;
use serde_json::value::RawValue;
use wsfleet_gateway::protocol::{ClientMessage, Codec, ParseError};

use crate::memory;
use crate::model::{self, MAX, NAMES, Parts};
use crate::schema::{FromClient, Kind};

/// The input is the payload of a binary frame.
pub fn proto(input: &[u8]) {
    // the fields, and their text with its escapes in a buffer that grows
    let memory = 24 * input.len() + 4_096;
    let text = memory::within(memory, || Codec::Proto.to_json(input, MAX));
    let read = FromClient::decode(input);
    let text = match text {
        Ok(text) => text,
        Err(ParseError::InvalidProto) => return assert!(read.is_err()),
        Err(ParseError::UnknownType) => return assert_eq!(read, Ok(FromClient { kind: None })),
        Err(ParseError::InvalidField("payload", _) | ParseError::TooBig(MAX)) => return,
        Err(error) => panic!("{error}"),
    };
    let read = read.expect("what is accepted is what the schema says");
    assert_eq!(
        Codec::Proto.to_json(&read.encode_to_vec(), MAX).as_ref(),
        Ok(&text),
        "written and read again"
    );
    let json: &RawValue = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(json.get().starts_with('{'), "{text}");
    if let Ok(message) = ClientMessage::parse(&text, NAMES) {
        says(&read, &Parts::of(&message));
        model::check(&message);
    }
}

/// A payload that is no JSON by itself must not become other fields of the message.
fn says(read: &FromClient, parts: &Parts<'_>) {
    let (kind, name, id, payload) = match read.kind.as_ref().expect("a kind that is known") {
        Kind::Join(join) => {
            let place = join.epoch.as_deref().zip(join.offset);
            assert_eq!(
                parts.places,
                place
                    .map(|(epoch, offset)| ("", epoch, offset))
                    .into_iter()
                    .collect::<Vec<_>>()
            );
            ("join", &join.room, &join.id, None)
        }
        Kind::Resume(resume) => {
            let rooms = resume.rooms.iter();
            let rooms: Vec<_> = rooms
                .map(|room| (&*room.room, &*room.epoch, room.offset))
                .collect();
            let user = resume.user.as_ref().map(|user| (&*user.epoch, user.offset));
            assert_eq!((parts.kind, &parts.places, parts.user), ("resume", &rooms, user));
            return;
        }
        Kind::History(history) => {
            assert_eq!((parts.limit, parts.before), (history.limit, history.before));
            ("history", &history.room, &history.id, None)
        }
        Kind::Presence(presence) => {
            assert_eq!(
                (parts.most, parts.after),
                (presence.limit, presence.after.as_deref())
            );
            ("presence", &presence.room, &presence.id, None)
        }
        Kind::Leave(leave) => ("leave", &leave.name, &leave.id, None),
        Kind::Refresh(refresh) => ("refresh", &refresh.name, &refresh.id, None),
        Kind::RoomMessage(sent) => ("room_message", &sent.to, &sent.id, Some(&sent.payload)),
        Kind::DirectMessage(sent) => ("direct_message", &sent.to, &sent.id, Some(&sent.payload)),
        Kind::Event(sent) => ("event", &sent.to, &sent.id, Some(&sent.payload)),
        Kind::Ping(_) => return assert_eq!(parts.kind, "ping"),
    };
    assert_eq!((parts.kind, parts.name), (kind, &**name));
    assert_eq!(
        parts.payload,
        payload.map(|json| json.trim_matches([' ', '\t', '\r', '\n']))
    );
    // of an `id` that is only echoed, one that is too long does not count
    if let Some(said) = &parts.id {
        assert_eq!(said.as_str(), id.as_deref());
    }
}
