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
        /// What this gateway can do beyond the reference articles' protocol.
        features: &'a [&'a str],
    },
    /// The client is in the room: it gets every message after `offset`.
    Joined {
        /// Which.
        room: &'a str,
        /// Identifies this life of the room's stream.
        epoch: &'a str,
        /// Offset of the room's last message, 0 when there is none.
        offset: u64,
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
    /// Messages of a room that the client is in and will not get, because it read too slowly.
    Gap {
        /// Which.
        room: &'a str,
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
