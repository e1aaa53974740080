//! Protocol Buffers by `docs/wsfleet.v1.proto`. A payload is JSON text in it: that is what every member can be given as it
//! was sent, whatever the sender's codec, and `google.protobuf.Value` knows no integer beyond 2^53.

mod schema;

use prost::Message;
use serde_json::value::RawValue;

use crate::protocol::client::ParseError;
use crate::protocol::error::ErrorCode;
use crate::protocol::server::{Entry, Lost, ServerMessage, Standing, WelcomeLimits};
use schema::server_message as server;

/// A client's message as JSON text.
pub(super) fn to_json(frame: &[u8]) -> Result<String, ParseError> {
    let message = schema::ClientMessage::decode(frame).map_err(|_| ParseError::InvalidProto)?;
    // none that is known here: a newer client's, or nothing at all
    let message = message.message.ok_or(ParseError::UnknownType)?;
    // texts cannot fail to become JSON; what is said to be JSON already can
    serde_json::to_string(&message).map_err(|_| ParseError::InvalidField("payload", "JSON text"))
}

/// Appends a message.
pub(super) fn encode(message: &ServerMessage<'_>, out: &mut Vec<u8>) {
    let message = schema::ServerMessage {
        message: Some(kind_of(message)),
    };
    // fails only where there is no room, and a Vec grows
    let _ = message.encode(out);
}

macro_rules! kinds {
    ($($kind:ident { $($field:ident $(= $how:path)?),* })*) => {
        fn kind_of(message: &ServerMessage<'_>) -> server::Message {
            match *message {
                $(ServerMessage::$kind { $($field),* } => server::Message::$kind(server::$kind {
                    $($field: kinds!(@ $field $($how)?)),*
                }),)*
            }
        }
    };
    (@ $field:ident) => { $field.own() };
    (@ $field:ident $how:path) => { $how($field) };
}

kinds! {
    Welcome { connection_id, user_id, server_id, ping_interval, limits, features, resume_window, position }
    RoutingToken { token }
    Joined { room, epoch, offset, recovered, reason }
    Resumed { epoch, offset, recovered, reason }
    History { room, epoch, offset, messages, next, id = optional_text }
    Presence { room, users, count, next, id = optional_text }
    Left { room }
    RoomMessage { room_id, user_id, payload = json, timestamp, server_id, offset }
    DirectMessage { from_user_id, payload = json, timestamp, offset }
    UserJoined { room_id, user_id, server_id }
    UserLeft { room_id, user_id, server_id }
    Ack { id = text, epoch, offset, duplicate }
    Pong {}
    Gap { room, from, to, epoch }
    ServerShutdown { reason, reconnect_delay, deadline, resume }
    Error { error, code, temporary, id = optional_text }
    Refreshed { expires_at, id = optional_text }
}

fn json(value: &RawValue) -> String {
    value.get().to_owned()
}

/// What a JSON string says; another value's JSON.
fn text(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| json(value))
}

fn optional_text(value: Option<&RawValue>) -> Option<String> {
    value.map(text)
}

/// The schema's form of a field.
trait Own {
    type Owned;
    fn own(self) -> Self::Owned;
}

macro_rules! own {
    ($($from:ty => $to:ty, $value:ident: $how:expr;)*) => {
        $(impl Own for $from {
            type Owned = $to;

            fn own(self) -> $to {
                let $value = self;
                $how
            }
        })*
    };
}

own! {
    &str => String, text: text.to_owned();
    u64 => u64, number: number;
    bool => bool, is: is;
    Option<u64> => Option<u64>, number: number;
    Option<bool> => Option<bool>, is: is;
    Option<&str> => Option<String>, text: text.map(str::to_owned);
    Option<Lost> => Option<String>, lost: lost.map(|lost| lost.as_str().to_owned());
    Standing<'_> => Option<server::Position>, standing: Some(server::Position {
        epoch: standing.epoch.to_owned(),
        offset: standing.offset,
    });
    &[Entry<'_>] => Vec<server::Entry>, entries: entries.iter().map(|entry| server::Entry {
        user_id: entry.user_id.to_owned(),
        payload: json(entry.payload),
        timestamp: entry.timestamp,
        server_id: entry.server_id.to_owned(),
        offset: entry.offset,
    }).collect();
    ErrorCode => String, code: code.as_str().to_owned();
    &[&str] => Vec<String>, texts: texts.iter().map(|&text| text.to_owned()).collect();
    WelcomeLimits => Option<server::Limits>, limits: Some(server::Limits {
        message_bytes: limits.message_bytes,
        room_name_bytes: limits.room_name_bytes,
        rooms_per_connection: limits.rooms_per_connection,
        messages_per_second: limits.messages_per_second,
        bytes_per_second: limits.bytes_per_second,
    });
}
