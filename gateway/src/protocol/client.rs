//! What clients send: JSON text becomes a [`ClientMessage`] in one pass, borrowing from it.
//!
//! Unknown fields are skipped without being built; of a field that is given twice the last counts, as with the
//! `JSON.parse` of the reference articles. Nothing here allocates unless a name contains an escape, or rooms are resumed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::ErrorCode;
use super::fields::{Fields, text_of};
use crate::config::Limit;

/// Longest user id in bytes.
pub const USER_ID_BYTES: usize = 128;
/// Longest name of an event in bytes.
pub const EVENT_NAME_BYTES: usize = 128;
/// Longest `id` or `msgId` in bytes, as written.
pub const REQUEST_ID_BYTES: usize = 128;

/// The `id` or `msgId` of a message: a string or a number, kept and echoed as the client wrote it.
#[derive(Clone, Copy, Debug)]
pub struct RequestId<'a>(&'a RawValue);

impl<'a> RequestId<'a> {
    pub(super) fn new(raw: &'a RawValue) -> Option<Self> {
        let text = raw.get();
        let kind = matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'));
        (kind && text.len() <= REQUEST_ID_BYTES).then_some(Self(raw))
    }

    /// The JSON text.
    pub fn raw(self) -> &'a RawValue {
        self.0
    }

    /// What it says: a text without its quotes and escapes, or the digits of a number.
    pub fn said(self) -> Cow<'a, str> {
        text_of(self.0).unwrap_or(Cow::Borrowed(self.0.get()))
    }
}

/// A place in a stream up to which a client has everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Place<'a> {
    /// Epoch of the offset.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// The last message that it has.
    pub offset: u64,
}

/// A room, and a place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPlace<'a> {
    /// Which.
    pub room: Cow<'a, str>,
    /// Where in it.
    pub place: Place<'a>,
}

/// A message from a client.
#[derive(Clone, Debug)]
pub enum ClientMessage<'a> {
    /// Joins a room.
    Join {
        /// Which.
        room: Cow<'a, str>,
        /// Where the client was in it, to get what it has missed.
        place: Option<Place<'a>>,
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
    /// Tells the workers behind the gateways something.
    Event {
        /// What kind of thing.
        name: Cow<'a, str>,
        /// Any JSON, passed on as written.
        payload: &'a RawValue,
        /// Wanted: an `ack` (or `error`) with this id.
        id: Option<RequestId<'a>>,
        /// Idempotency key of the sender.
        msg_id: Option<RequestId<'a>>,
    },
    /// Joins rooms, and wants what it has missed of them, and of the direct messages.
    Resume {
        /// The rooms.
        rooms: Vec<RoomPlace<'a>>,
        /// Where the client was in its user's personal stream.
        user: Option<Place<'a>>,
        /// Echoed in an error.
        id: Option<RequestId<'a>>,
    },
    /// Wants messages of a room that are kept.
    History {
        /// Which.
        room: Cow<'a, str>,
        /// So many at most.
        limit: u64,
        /// The last ones before this offset, or of all.
        before: Option<u64>,
        /// Echoed in the answer.
        id: Option<RequestId<'a>>,
    },
    /// Wants to know who is in a room.
    Presence {
        /// Which.
        room: Cow<'a, str>,
        /// So many users at most.
        limit: Option<u64>,
        /// Those behind this one, or all.
        after: Option<Cow<'a, str>>,
        /// Echoed in the answer.
        id: Option<RequestId<'a>>,
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
    /// `event`
    Event,
    /// `resume`
    Resume,
    /// `history`
    History,
    /// `presence`
    Presence,
    /// `refresh`
    Refresh,
    /// `ping`
    Ping,
    /// A type that is not known, or a message that is not valid.
    Invalid,
}

impl MessageKind {
    /// Every kind, in the order of [`MessageKind::index`].
    pub const ALL: [Self; 11] = [
        Self::Join,
        Self::Leave,
        Self::RoomMessage,
        Self::DirectMessage,
        Self::Event,
        Self::Resume,
        Self::History,
        Self::Presence,
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
            Self::Event => "event",
            Self::Resume => "resume",
            Self::History => "history",
            Self::Presence => "presence",
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

    /// What the client calls the message.
    pub const fn id(&self) -> Option<RequestId<'a>> {
        match self {
            Self::Join { id, .. }
            | Self::Leave { id, .. }
            | Self::RoomMessage { id, .. }
            | Self::DirectMessage { id, .. }
            | Self::Event { id, .. }
            | Self::Resume { id, .. }
            | Self::History { id, .. }
            | Self::Presence { id, .. }
            | Self::Refresh { id, .. } => *id,
            Self::Ping => None,
        }
    }

    /// Label of metrics.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Join { .. } => MessageKind::Join,
            Self::Leave { .. } => MessageKind::Leave,
            Self::RoomMessage { .. } => MessageKind::RoomMessage,
            Self::DirectMessage { .. } => MessageKind::DirectMessage,
            Self::Event { .. } => MessageKind::Event,
            Self::Resume { .. } => MessageKind::Resume,
            Self::History { .. } => MessageKind::History,
            Self::Presence { .. } => MessageKind::Presence,
            Self::Refresh { .. } => MessageKind::Refresh,
            Self::Ping => MessageKind::Ping,
        }
    }
}
