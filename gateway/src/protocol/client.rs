//! What clients send: JSON text becomes a [`ClientMessage`] in one pass, borrowing from it.
//!
//! Unknown fields are skipped without being built; of a field that is given twice the last counts, as with the
//! `JSON.parse` of the reference articles. Nothing here allocates unless a name contains an escape.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::ErrorCode;
use crate::config::Limit;

/// Longest user id in bytes.
pub const USER_ID_BYTES: usize = 128;
/// Longest `id` or `msgId` in bytes, as written.
pub const REQUEST_ID_BYTES: usize = 128;

/// The `id` or `msgId` of a message: a string or a number, kept and echoed as the client wrote it.
#[derive(Clone, Copy, Debug)]
pub struct RequestId<'a>(&'a RawValue);

impl<'a> RequestId<'a> {
    fn new(raw: &'a RawValue) -> Option<Self> {
        let text = raw.get();
        let kind = matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'));
        (kind && text.len() <= REQUEST_ID_BYTES).then_some(Self(raw))
    }

    /// The JSON text.
    pub fn raw(self) -> &'a RawValue {
        self.0
    }
}

/// A message from a client.
#[derive(Clone, Debug)]
pub enum ClientMessage<'a> {
    /// Joins a room.
    Join {
        /// Which.
        room: Cow<'a, str>,
        /// Echoed in an error.
        id: Option<RequestId<'a>>,
    },
    /// Leaves a room.
    Leave {
        /// Which.
        room: Cow<'a, str>,
        /// Echoed in an error.
        id: Option<RequestId<'a>>,
    },
    /// Sends to all members of a room.
    RoomMessage {
        /// Which.
        room: Cow<'a, str>,
        /// Any JSON, passed on as written.
        payload: &'a RawValue,
        /// Wanted: an `ack` (or `error`) with this id.
        id: Option<RequestId<'a>>,
        /// Idempotency key of the sender.
        msg_id: Option<RequestId<'a>>,
    },
    /// Sends to all devices of a user.
    DirectMessage {
        /// Whom to.
        target_user_id: Cow<'a, str>,
        /// Any JSON, passed on as written.
        payload: &'a RawValue,
        /// Wanted: an `ack` (or `error`) with this id.
        id: Option<RequestId<'a>>,
        /// Idempotency key of the sender.
        msg_id: Option<RequestId<'a>>,
    },
    /// Goes on with another token of the same user.
    Refresh {
        /// The token.
        token: Cow<'a, str>,
        /// Echoed in the answer.
        id: Option<RequestId<'a>>,
    },
    /// Wants a `pong`.
    Ping,
}

/// The kind of a client message, valid or not; label `type` of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// `join`
    Join,
    /// `leave`
    Leave,
    /// `room_message`
    RoomMessage,
    /// `direct_message`
    DirectMessage,
    /// `refresh`
    Refresh,
    /// `ping`
    Ping,
    /// A type that is not known, or a message that is not valid.
    Invalid,
}

impl MessageKind {
    /// Every kind, in the order of [`MessageKind::index`].
    pub const ALL: [Self; 7] = [
        Self::Join,
        Self::Leave,
        Self::RoomMessage,
        Self::DirectMessage,
        Self::Refresh,
        Self::Ping,
        Self::Invalid,
    ];

    /// Label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
            Self::RoomMessage => "room_message",
            Self::DirectMessage => "direct_message",
            Self::Refresh => "refresh",
            Self::Ping => "ping",
            Self::Invalid => "invalid",
        }
    }

    /// Place in [`MessageKind::ALL`], for arrays of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a message was not understood. The session answers with an `error` message and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON.
    #[error("Invalid JSON")]
    InvalidJson,
    /// Not one whole MessagePack value, or one that is nested too deeply.
    #[error("Invalid MessagePack")]
    InvalidMsgPack,
    /// Not a `ClientMessage` of `docs/wsfleet.v1.proto`.
    #[error("Invalid Protocol Buffers message")]
    InvalidProto,
    /// MessagePack that has no JSON form.
    #[error(
        "Not a JSON value: binary data, extensions, infinity, NaN and keys that are no text are not passed on"
    )]
    NotJson,
    /// The message has more bytes than this when it is written as JSON.
    #[error("Message is too big: at most {0} bytes as JSON")]
    TooBig(usize),
    /// Not an object, no `type` in it, or none that is known.
    #[error("Unknown message type")]
    UnknownType,
    /// The type needs a field that is not there.
    #[error("Missing field: {0}")]
    MissingField(&'static str),
    /// A field has a wrong type or value: field, what is allowed.
    #[error("Invalid field: {0} must be {1}")]
    InvalidField(&'static str, &'static str),
    /// The room's name has more bytes than `roomNameBytes`.
    #[error("Room name is too long: at most {0} bytes")]
    RoomNameTooLong(u32),
}

impl ParseError {
    /// The code of the `error` message; its text is this error's `Display`.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::InvalidJson => ErrorCode::InvalidJson,
            Self::InvalidMsgPack => ErrorCode::InvalidMsgPack,
            Self::InvalidProto => ErrorCode::InvalidProto,
            Self::NotJson => ErrorCode::NotJson,
            Self::TooBig(_) => ErrorCode::MessageTooBig,
            Self::UnknownType => ErrorCode::UnknownType,
            Self::MissingField(_) => ErrorCode::MissingField,
            Self::InvalidField(..) => ErrorCode::InvalidField,
            Self::RoomNameTooLong(_) => ErrorCode::RoomNameTooLong,
        }
    }
}

/// A message that was not understood, and the `id` to answer it with, when it had a valid one.
#[derive(Clone, Copy, Debug)]
pub struct Rejected<'a> {
    /// Why.
    pub error: ParseError,
    /// The `id` of the message.
    pub id: Option<RequestId<'a>>,
}

impl<'a> ClientMessage<'a> {
    /// Reads the text of one message. `room_name_bytes` bounds the names of rooms.
    pub fn parse(text: &'a str, room_name_bytes: Limit) -> Result<Self, Rejected<'a>> {
        let fields = Fields::scan(text).map_err(|error| Rejected { error, id: None })?;
        let id = fields.id.and_then(RequestId::new);
        fields
            .message(id, room_name_bytes)
            .map_err(|error| Rejected { error, id })
    }

    /// Label of metrics.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Join { .. } => MessageKind::Join,
            Self::Leave { .. } => MessageKind::Leave,
            Self::RoomMessage { .. } => MessageKind::RoomMessage,
            Self::DirectMessage { .. } => MessageKind::DirectMessage,
            Self::Refresh { .. } => MessageKind::Refresh,
            Self::Ping => MessageKind::Ping,
        }
    }
}

/// The fields that any type knows, as written. Their types are checked only where the message's type uses them.
#[derive(Clone, Copy, Debug, Default)]
struct Fields<'a> {
    kind: Option<&'a RawValue>,
    room: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    target_user_id: Option<&'a RawValue>,
    token: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    msg_id: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn scan(text: &'a str) -> Result<Self, ParseError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let fields = (&mut json).deserialize_map(FieldsVisitor);
        match fields.and_then(|fields| json.end().map(|()| fields)) {
            Ok(fields) => Ok(fields),
            // JSON, but not an object: it has no type
            Err(_) if !begins_object(text) && serde_json::from_str::<IgnoredAny>(text).is_ok() => {
                Err(ParseError::UnknownType)
            }
            Err(_) => Err(ParseError::InvalidJson),
        }
    }

    fn message(
        &self,
        id: Option<RequestId<'a>>,
        room_name_bytes: Limit,
    ) -> Result<ClientMessage<'a>, ParseError> {
        let kind = self.kind.and_then(text_of).ok_or(ParseError::UnknownType)?;
        Ok(match &*kind {
            "join" => ClientMessage::Join {
                room: self.room(room_name_bytes)?,
                id,
            },
            "leave" => ClientMessage::Leave {
                room: self.room(room_name_bytes)?,
                id,
            },
            "room_message" => ClientMessage::RoomMessage {
                room: self.room(room_name_bytes)?,
                payload: self.payload.ok_or(ParseError::MissingField("payload"))?,
                id: request_id("id", self.id)?,
                msg_id: request_id("msgId", self.msg_id)?,
            },
            "direct_message" => ClientMessage::DirectMessage {
                target_user_id: self.target_user_id()?,
                payload: self.payload.ok_or(ParseError::MissingField("payload"))?,
                id: request_id("id", self.id)?,
                msg_id: request_id("msgId", self.msg_id)?,
            },
            "refresh" => ClientMessage::Refresh {
                token: self.token()?,
                id,
            },
            "ping" => ClientMessage::Ping,
            _ => return Err(ParseError::UnknownType),
        })
    }

    fn room(&self, limit: Limit) -> Result<Cow<'a, str>, ParseError> {
        let raw = self.room.ok_or(ParseError::MissingField("room"))?;
        let name = text_of(raw).filter(|name| !name.is_empty());
        let name = name.ok_or(ParseError::InvalidField("room", "a text that is not empty"))?;
        if limit.allows(name.len()) {
            Ok(name)
        } else {
            Err(ParseError::RoomNameTooLong(limit.as_setting()))
        }
    }

    fn token(&self) -> Result<Cow<'a, str>, ParseError> {
        let raw = self.token.ok_or(ParseError::MissingField("token"))?;
        text_of(raw).ok_or(ParseError::InvalidField("token", "a text"))
    }

    fn target_user_id(&self) -> Result<Cow<'a, str>, ParseError> {
        let raw = self
            .target_user_id
            .ok_or(ParseError::MissingField("targetUserId"))?;
        text_of(raw)
            .filter(|id| (1..=USER_ID_BYTES).contains(&id.len()))
            .ok_or(ParseError::InvalidField(
                "targetUserId",
                "a text of 1 to 128 bytes",
            ))
    }
}

fn request_id<'a>(
    field: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<Option<RequestId<'a>>, ParseError> {
    let Some(raw) = raw else { return Ok(None) };
    let allowed = "a text or a number of at most 128 bytes";
    RequestId::new(raw)
        .map(Some)
        .ok_or(ParseError::InvalidField(field, allowed))
}

/// The text that a JSON string says; `None` when the value is not a string or says no valid text (a lone surrogate).
fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn begins_object(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{')
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<&RawValue>()? {
            // one that says no valid text is no field that is known, but JSON
            let slot = match text_of(key).as_deref() {
                Some("type") => &mut fields.kind,
                Some("room") => &mut fields.room,
                Some("payload") => &mut fields.payload,
                Some("targetUserId") => &mut fields.target_user_id,
                Some("token") => &mut fields.token,
                Some("id") => &mut fields.id,
                Some("msgId") => &mut fields.msg_id,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *slot = Some(map.next_value()?);
        }
        Ok(fields)
    }
}
