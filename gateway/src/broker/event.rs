//! What is published, and its form between gateways.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::nobody;

/// What is published. The JSON form is what travels between gateways (externally tagged: `RawValue` needs that).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A client's or back end's message to a room. Gets an offset.
    #[serde(rename = "m")]
    RoomMessage {
        /// Sender.
        #[serde(rename = "u")]
        user_id: Arc<str>,
        /// The payload's JSON text, as the sender wrote it.
        #[serde(rename = "p")]
        payload: Box<RawValue>,
        /// Milliseconds since 1970-01-01 UTC at the gateway that accepted it.
        #[serde(rename = "t")]
        timestamp: u64,
        /// The gateway that accepted it.
        #[serde(rename = "s")]
        server_id: Arc<str>,
    },
    /// A direct message on the receiver's personal stream. Gets an offset.
    #[serde(rename = "d")]
    DirectMessage {
        /// Sender.
        #[serde(rename = "u")]
        from_user_id: Arc<str>,
        /// The payload's JSON text, as the sender wrote it.
        #[serde(rename = "p")]
        payload: Box<RawValue>,
        /// Milliseconds since 1970-01-01 UTC at the gateway that accepted it.
        #[serde(rename = "t")]
        timestamp: u64,
    },
    /// A user came to a room: none of its connections in the fleet was in it, nor had been lately. No offset.
    #[serde(rename = "j")]
    UserJoined {
        /// Who.
        #[serde(rename = "u")]
        user_id: Arc<str>,
        /// Where.
        #[serde(rename = "s")]
        server_id: Arc<str>,
        /// The connection that joined and needs no announcement of itself.
        #[serde(rename = "c")]
        connection: Arc<str>,
    },
    /// A user is gone from a room: its last connection in the fleet has left it some time ago. No offset.
    #[serde(rename = "l")]
    UserLeft {
        /// Who.
        #[serde(rename = "u")]
        user_id: Arc<str>,
        /// Where.
        #[serde(rename = "s")]
        server_id: Arc<str>,
    },
    /// Offsets from this one to that of the delivery are lost; when there are none between, the stream has begun anew.
    /// Made where messages are delivered, and never published.
    #[serde(skip)]
    Missing {
        /// The first.
        from: u64,
    },
}

impl Event {
    /// A message and no announcement: the broker assigns an offset unless the room is ephemeral.
    pub const fn is_message(&self) -> bool {
        self.payload().is_some()
    }

    /// A message's payload.
    pub const fn payload(&self) -> Option<&RawValue> {
        match self {
            Self::RoomMessage { payload, .. } | Self::DirectMessage { payload, .. } => Some(payload),
            Self::UserJoined { .. } | Self::UserLeft { .. } | Self::Missing { .. } => None,
        }
    }

    /// A hint that may be dropped: `user_joined`, `user_left`.
    pub const fn is_announcement(&self) -> bool {
        matches!(self, Self::UserJoined { .. } | Self::UserLeft { .. })
    }

    /// Whose it is; nobody's, when messages are missing.
    pub fn user(&self) -> &Arc<str> {
        match self {
            Self::Missing { .. } => nobody(),
            Self::RoomMessage { user_id, .. }
            | Self::DirectMessage {
                from_user_id: user_id,
                ..
            }
            | Self::UserJoined { user_id, .. }
            | Self::UserLeft { user_id, .. } => user_id,
        }
    }
}

/// Bytes of an event as it travels between gateways.
pub fn encode(event: &Event) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(event).map(Bytes::from)
}
