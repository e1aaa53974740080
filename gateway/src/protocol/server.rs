//! What the gateway sends: [`ServerMessage`] and its JSON form; [`Format`](super::Format) makes frames of it.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::error::ErrorCode;
use crate::config::Limits;

/// A message to a client. Times are milliseconds since 1970-01-01 UTC, durations are milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ServerMessage<'a> {
    /// First message on every connection.
    Welcome {
        /// Identifies the connection in the fleet.
        connection_id: &'a str,
        /// Who the client is.
        user_id: &'a str,
        /// Which gateway this is.
        server_id: &'a str,
        /// Time between the gateway's pings.
        ping_interval: u64,
        /// What the client must keep to; 0 is no limit.
        limits: WelcomeLimits,
        /// Positions are worth keeping for so long at most: older messages are kept of no room; 0: of none at all.
        resume_window: u64,
        /// Where the user's personal stream stands: the client gets every direct message after it.
        position: Standing<'a>,
        /// What this gateway can do beyond the reference articles' protocol.
        features: &'a [&'a str],
    },
    /// Right behind the first message, of a gateway that has one: what the client sends as `?routing=` when it comes back.
    RoutingToken {
        /// For gateways, and for a proxy in front of them.
        token: &'a str,
    },
    /// The client is in the room: it gets every message after `offset`.
    Joined {
        /// Which.
        room: &'a str,
        /// Identifies this life of the room's stream.
        epoch: &'a str,
        /// Offset of the room's last message, 0 when there is none.
        offset: u64,
        /// Of a client that said where it was: everything up to `offset` follows.
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Lost>,
    },
    /// Of a client that said where it was in its user's personal stream.
    Resumed {
        /// Identifies this life of the stream.
        epoch: &'a str,
        /// Offset of its last message, 0 when there is none.
        offset: u64,
        /// Everything up to `offset` follows.
        recovered: bool,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Lost>,
    },
    /// Messages of a room that are kept.
    History {
        /// Which.
        room: &'a str,
        /// Identifies this life of the room's stream.
        epoch: &'a str,
        /// Offset of the room's last message, 0 when there is none.
        offset: u64,
        /// In order.
        messages: &'a [Entry<'a>],
        /// There are older ones: those before this offset.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<u64>,
        /// The `id` of the request, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    /// Who is in a room.
    Presence {
        /// Which.
        room: &'a str,
        /// In the order of their bytes.
        users: &'a [&'a str],
        /// How many there are in all.
        count: u64,
        /// There are more: those behind this one.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<&'a str>,
        /// The `id` of the request, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    /// The client is no longer in the room.
    Left {
        /// Which.
        room: &'a str,
    },
    /// A message to a room that the client is in.
    RoomMessage {
        /// Which.
        room_id: &'a str,
        /// Sender.
        user_id: &'a str,
        /// As the sender wrote it.
        payload: &'a RawValue,
        /// When it was accepted.
        timestamp: u64,
        /// Which gateway accepted it.
        server_id: &'a str,
        /// Its place in the room's stream.
        offset: u64,
    },
    /// A message to the client's user.
    DirectMessage {
        /// Sender.
        from_user_id: &'a str,
        /// As the sender wrote it.
        payload: &'a RawValue,
        /// When it was accepted.
        timestamp: u64,
        /// Its place in the user's stream.
        offset: u64,
    },
    /// Messages that the client will not get: it read too slowly, or they are lost.
    Gap {
        /// Of which room; not there: direct messages.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The first offset that is missing.
        from: u64,
        /// The last one.
        to: u64,
        /// Epoch of the offsets.
        epoch: &'a str,
    },
    /// Another user came to a room that the client is in.
    UserJoined {
        /// Which.
        room_id: &'a str,
        /// Who.
        user_id: &'a str,
        /// On which gateway.
        server_id: &'a str,
    },
    /// Another user left a room that the client is in.
    UserLeft {
        /// Which.
        room_id: &'a str,
        /// Who.
        user_id: &'a str,
        /// On which gateway.
        server_id: &'a str,
    },
    /// The message with that `id` was accepted by the broker.
    Ack {
        /// As the client wrote it.
        id: &'a RawValue,
        /// Epoch of the stream.
        epoch: &'a str,
        /// Its place in the stream.
        offset: u64,
        /// Whether it had been accepted before (same `msgId`).
        duplicate: bool,
    },
    /// Answer to `ping`.
    Pong {},
    /// Answer to `refresh`: the connection goes on with the new token.
    Refreshed {
        /// When that ends; `null` when it does not.
        expires_at: Option<u64>,
        /// The `id` of the message, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    /// The gateway will close this connection; reconnect after `reconnect_delay`.
    ServerShutdown {
        /// Why.
        reason: &'a str,
        /// Milliseconds from now; each client gets its own.
        reconnect_delay: u64,
        /// When the last connection will be closed; `null` when nobody set a time.
        deadline: Option<u64>,
        /// Whether positions can be resumed on the next connection.
        resume: bool,
    },
    /// A message of the client was not served; the connection stays.
    Error {
        /// For people.
        error: &'a str,
        /// For programs.
        #[serde(serialize_with = "code_name")]
        code: ErrorCode,
        /// Whether the same message may be accepted later.
        temporary: bool,
        /// The `id` of the message, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Standing<'a> {
    /// Identifies this life of the stream.
    pub epoch: &'a str,
    /// Offset of its last message, 0 when there is none.
    pub offset: u64,
}

/// Why a client does not get what it has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// The stream has begun anew: offsets of its former life mean nothing.
    EpochChanged,
    /// Some of it is not kept any more, or never was.
    TooOld,
    /// It is more than is given at once; `history` gives it by pages.
    Limit,
}

impl Lost {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EpochChanged => "epoch_changed",
            Self::TooOld => "too_old",
            Self::Limit => "limit",
        }
    }
}

/// One message of a room that was kept.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    /// Sender.
    pub user_id: &'a str,
    /// As the sender wrote it.
    pub payload: &'a RawValue,
    /// When it was accepted.
    pub timestamp: u64,
    /// Which gateway accepted it.
    pub server_id: &'a str,
    /// Its place in the room's stream.
    pub offset: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn code_name<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

/// The limits that a client must keep to; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WelcomeLimits {
    /// Bytes of one message.
    pub message_bytes: u64,
    /// Bytes of a room's name.
    pub room_name_bytes: u32,
    /// Rooms at a time.
    pub rooms_per_connection: u32,
    /// Messages per second, burst twice that.
    pub messages_per_second: u32,
    /// Bytes per second, burst twice that.
    pub bytes_per_second: u32,
}

impl From<&Limits> for WelcomeLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            message_bytes: limits.max_message_bytes() as u64,
            room_name_bytes: limits.room_name_bytes.as_setting(),
            rooms_per_connection: limits.rooms_per_connection.as_setting(),
            messages_per_second: limits.messages_per_second.as_setting(),
            bytes_per_second: limits.bytes_per_second.as_setting(),
        }
    }
}

impl<'a> ServerMessage<'a> {
    /// An error with the code's own text.
    pub const fn error(code: ErrorCode, id: Option<&'a RawValue>) -> Self {
        Self::error_because(code, code.text(), id)
    }

    /// An error with a more exact text.
    pub const fn error_because(code: ErrorCode, error: &'a str, id: Option<&'a RawValue>) -> Self {
        Self::Error {
            error,
            code,
            temporary: code.temporary(),
            id,
        }
    }

    /// Appends the JSON text.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        // writing to a Vec cannot fail and every key is a string; were it to fail, half a message must not stay
        if serde_json::to_writer(&mut *out, self).is_err() {
            out.truncate(start);
        }
    }
}
