//! A message that was understood, whatever it was written in: written in every codec it must be understood as the same,
//! and its payload must reach members with any codec as it was sent.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wsfleet_gateway::config::Limit;
use wsfleet_gateway::protocol::{ClientMessage, Codec, ParseError, RequestId, ServerMessage};

use crate::schema::{
    Delivered, FromClient, FromGateway, History, Join, Kind, Named, Nothing, Place, Presence, Resume,
    RoomPlace, Sent,
};

/// The default of `messageBytes`.
pub(crate) const MAX: usize = 65_536;
/// The default of `roomNameBytes`.
pub(crate) const NAMES: Limit = Limit::new(255);
/// Room for what is written again with more escapes.
const ROOM: usize = 16 * MAX;
/// Deepest nesting that MessagePack is read with; what the message itself adds to its payload's is part of it.
const DEPTH: usize = 128;

/// A message's parts: kind, room, user, event or token, payload, ids.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Parts<'m> {
    pub(crate) kind: &'static str,
    pub(crate) name: &'m str,
    pub(crate) payload: Option<&'m str>,
    pub(crate) id: Option<Value>,
    pub(crate) msg_id: Option<Value>,
    /// Where the client was: room (but for a join, which names it elsewhere), epoch, offset.
    pub(crate) places: Vec<(&'m str, &'m str, u64)>,
    /// Where it was in its personal stream.
    pub(crate) user: Option<(&'m str, u64)>,
    pub(crate) limit: u64,
    pub(crate) before: Option<u64>,
    /// How many users of a room.
    pub(crate) most: Option<u64>,
    /// Those behind this one.
    pub(crate) after: Option<&'m str>,
}

/// What an id says, as far as it is a text or a whole number; others are not compared (two parsers may round a fraction
/// differently).
fn said(id: Option<RequestId<'_>>) -> Option<Value> {
    let value: Value = serde_json::from_str(id?.raw().get()).ok()?;
    (value.is_string() || value.is_i64() || value.is_u64()).then_some(value)
}

impl<'m> Parts<'m> {
    pub(crate) fn of(message: &'m ClientMessage<'_>) -> Self {
        let kind = message.kind().as_str();
        let parts = Self {
            kind,
            ..Self::default()
        };
        match message {
            ClientMessage::Join {
                room: name,
                place,
                id,
            } => Self {
                name,
                id: said(*id),
                places: place
                    .iter()
                    .map(|place| ("", &*place.epoch, place.offset))
                    .collect(),
                ..parts
            },
            ClientMessage::Resume { rooms, user, id } => Self {
                id: said(*id),
                places: rooms
                    .iter()
                    .map(|room| (&*room.room, &*room.place.epoch, room.place.offset))
                    .collect(),
                user: user.as_ref().map(|place| (&*place.epoch, place.offset)),
                ..parts
            },
            ClientMessage::History {
                room: name,
                limit,
                before,
                id,
            } => Self {
                name,
                id: said(*id),
                limit: *limit,
                before: *before,
                ..parts
            },
            ClientMessage::Presence {
                room: name,
                limit,
                after,
                id,
            } => Self {
                name,
                id: said(*id),
                most: *limit,
                after: after.as_deref(),
                ..parts
            },
            ClientMessage::Leave { room: name, id } | ClientMessage::Refresh { token: name, id } => Self {
                name,
                id: said(*id),
                ..parts
            },
            ClientMessage::RoomMessage {
                room: name,
                payload,
                id,
                msg_id,
            }
            | ClientMessage::DirectMessage {
                target_user_id: name,
                payload,
                id,
                msg_id,
            }
            | ClientMessage::Event {
                name,
                payload,
                id,
                msg_id,
            } => Self {
                name,
                payload: Some(payload.get()),
                id: said(*id),
                msg_id: said(*msg_id),
                ..parts
            },
            ClientMessage::Ping => parts,
        }
    }

    /// What its name is called.
    fn field(&self) -> &'static str {
        match self.kind {
            "direct_message" => "targetUserId",
            "event" => "name",
            "refresh" => "token",
            _ => "room",
        }
    }

    fn to_json(&self) -> Value {
        let mut fields = json!({"type": self.kind, "unknown": [null, {"type": "join"}]});
        if !matches!(self.kind, "ping" | "resume") {
            fields[self.field()] = self.name.into();
        }
        self.places_to_json(&mut fields);
        for (key, id) in [("id", &self.id), ("msgId", &self.msg_id)] {
            if let Some(id) = id {
                fields[key] = id.clone();
            }
        }
        fields
    }

    fn places_to_json(&self, fields: &mut Value) {
        match self.kind {
            "join" => {
                for (_, epoch, offset) in &self.places {
                    fields["epoch"] = (*epoch).into();
                    fields["offset"] = (*offset).into();
                }
            }
            "resume" => {
                let place = |(room, epoch, offset)| json!({"room": room, "epoch": epoch, "offset": offset});
                fields["rooms"] = self.places.iter().copied().map(place).collect();
                if let Some((epoch, offset)) = self.user {
                    fields["user"] = json!({"epoch": epoch, "offset": offset});
                }
            }
            "history" => {
                fields["limit"] = self.limit.into();
                fields["before"] = self.before.into();
            }
            "presence" => {
                fields["limit"] = self.most.into();
                fields["after"] = self.after.into();
            }
            _ => {}
        }
    }

    fn resume(&self, id: Option<String>) -> Resume {
        let room = |(room, epoch, offset): &(&str, &str, u64)| RoomPlace {
            room: (*room).to_owned(),
            epoch: (*epoch).to_owned(),
            offset: *offset,
        };
        let user = |(epoch, offset): (&str, u64)| Place {
            epoch: epoch.to_owned(),
            offset,
        };
        Resume {
            rooms: self.places.iter().map(room).collect(),
            user: self.user.map(user),
            id,
        }
    }

    fn to_proto(&self) -> Vec<u8> {
        let text = |id: &Option<Value>| id.as_ref().and_then(Value::as_str).map(str::to_owned);
        let named = || Named {
            name: self.name.to_owned(),
            id: text(&self.id),
        };
        let sent = || Sent {
            to: self.name.to_owned(),
            payload: self.payload.unwrap_or_default().to_owned(),
            id: text(&self.id),
            msg_id: text(&self.msg_id),
        };
        let kind = match self.kind {
            "join" => Kind::Join(Join {
                room: self.name.to_owned(),
                id: text(&self.id),
                epoch: self.places.first().map(|place| place.1.to_owned()),
                offset: self.places.first().map(|place| place.2),
            }),
            "resume" => Kind::Resume(self.resume(text(&self.id))),
            "history" => Kind::History(History {
                room: self.name.to_owned(),
                limit: self.limit,
                before: self.before,
                id: text(&self.id),
            }),
            "presence" => Kind::Presence(Presence {
                room: self.name.to_owned(),
                limit: self.most,
                after: self.after.map(str::to_owned),
                id: text(&self.id),
            }),
            "leave" => Kind::Leave(named()),
            "refresh" => Kind::Refresh(named()),
            "room_message" => Kind::RoomMessage(sent()),
            "direct_message" => Kind::DirectMessage(sent()),
            "event" => Kind::Event(sent()),
            _ => Kind::Ping(Nothing {}),
        };
        FromClient { kind: Some(kind) }.encode_to_vec()
    }
}

/// The message, written in each codec, is the same message; its payload reaches everybody.
pub(crate) fn check(message: &ClientMessage<'_>) {
    let parts = Parts::of(message);
    same_in_json(&parts);
    same_in_msgpack(&parts);
    // an id that is a number is no text, and an empty token is none
    let texts = [&parts.id, &parts.msg_id]
        .into_iter()
        .flatten()
        .all(Value::is_string);
    let resumes = parts.user.is_some() || !parts.places.is_empty();
    let sendable = parts.kind == "ping" || !parts.name.is_empty() || (parts.kind == "resume" && resumes);
    if texts && sendable {
        same(Codec::Proto, &parts.to_proto(), &parts);
    }
    if let Some(payload) = parts.payload {
        passed_on(payload);
    }
}

fn same(codec: Codec, bytes: &[u8], parts: &Parts<'_>) {
    let text = codec.to_json(bytes, ROOM);
    let text = text.unwrap_or_else(|error| panic!("{error}: {parts:?} in {codec:?}"));
    match ClientMessage::parse(&text, NAMES) {
        Ok(message) => assert_eq!(Parts::of(&message), *parts, "in {codec:?}"),
        Err(rejected) => panic!("{}: {parts:?} in {codec:?}", rejected.error),
    }
}

fn same_in_json(parts: &Parts<'_>) {
    let mut text = parts.to_json().to_string();
    if let Some(payload) = parts.payload {
        // as it was written: a value would lose what numbers look like
        text.truncate(text.len() - 1);
        text = format!("{text},\"payload\":{payload}}}");
    }
    same(Codec::Json, text.as_bytes(), parts);
}

fn same_in_msgpack(parts: &Parts<'_>) {
    let mut fields = parts.to_json();
    let payload = parts.payload.map(|_| "null");
    if payload.is_some() {
        fields["payload"] = Value::Null;
    }
    let bytes = rmp_serde::to_vec(&fields).unwrap();
    let expected = Parts {
        name: parts.name,
        id: parts.id.clone(),
        msg_id: parts.msg_id.clone(),
        kind: parts.kind,
        payload,
        places: parts.places.clone(),
        user: parts.user,
        limit: parts.limit,
        before: parts.before,
        most: parts.most,
        after: parts.after,
    };
    same(Codec::MsgPack, &bytes, &expected);
}

/// What members with each codec are given.
pub(crate) fn passed_on(payload: &str) {
    let payload: &RawValue = serde_json::from_str(payload).expect("a payload is JSON");
    let fields = encoded(Codec::Json, payload);
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(&fields).unwrap();
    assert_eq!(fields["payload"].get(), payload.get());
    let proto = FromGateway::decode(&*encoded(Codec::Proto, payload)).unwrap();
    let delivered = proto.room_message.map(|Delivered { payload }| payload);
    assert_eq!(delivered.as_deref(), Some(payload.get()));
    let packed = encoded(Codec::MsgPack, payload);
    match Codec::MsgPack.to_json(&packed, ROOM) {
        Ok(text) => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(&text).unwrap();
            let again = encoded(Codec::MsgPack, fields["payload"]);
            assert!(packed == again, "{payload} is not {}", fields["payload"]);
        }
        Err(ParseError::InvalidMsgPack) => assert!(depth(payload.get()) + 2 > DEPTH, "{payload}"),
        // a number beyond a double is infinite
        Err(ParseError::NotJson) => assert!(payload.get().bytes().any(|byte| byte.is_ascii_digit())),
        Err(error) => panic!("{error}: {payload}"),
    }
}

fn encoded(codec: Codec, payload: &RawValue) -> Vec<u8> {
    let message = ServerMessage::RoomMessage {
        room_id: "r",
        user_id: "u",
        payload,
        timestamp: 1_800_000_000_000,
        server_id: "s",
        offset: 7,
    };
    let mut out = Vec::new();
    codec.encode(&message, &mut out);
    out
}

/// Arrays and maps in each other.
fn depth(json: &str) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => now += 1,
            b']' | b'}' if !quoted => now -= 1,
            _ => {}
        }
        most = most.max(now);
    }
    most
}
