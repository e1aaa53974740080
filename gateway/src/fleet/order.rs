//! The orders, and how they travel: as the payload of a message, so that they are kept and repaired as messages are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::broker::Event;
use crate::clock::Clock;

/// Whose connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Whom {
    /// All of a user.
    User(Arc<str>),
    /// The one of this id.
    Connection(Arc<str>),
    /// Those that came with the token of this id (`jti`).
    Token(Arc<str>),
}

/// Connections are to be closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// Whose.
    pub whom: Whom,
    /// With this code.
    pub code: u16,
    /// And this text.
    pub reason: Arc<str>,
    /// When it was asked for, in milliseconds since 1970-01-01 UTC: connections that are younger stay.
    pub at: u64,
}

/// Tokens are not accepted any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The token of this id, or all of this user that were issued until then.
    pub whom: Whom,
    /// When it was asked for, in seconds since 1970-01-01 UTC.
    pub at: u64,
    /// When it ends, since the tokens have: in seconds since 1970-01-01 UTC.
    pub until: u64,
}

/// Either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Close.
    Disconnect(Disconnect),
    /// Close, and let in no more.
    Revoke(Revocation),
}

impl Order {
    /// The message that carries it.
    pub fn event(&self, server_id: &Arc<str>) -> Result<Event, serde_json::Error> {
        Ok(Event::RoomMessage {
            user_id: Arc::from(""),
            payload: RawValue::from_string(serde_json::to_string(self)?)?,
            timestamp: Clock::unix_millis(),
            server_id: Arc::clone(server_id),
        })
    }

    /// The order that a message carries; `None` when it is of a later version, and means nothing here.
    pub fn of(event: &Event) -> Option<Self> {
        serde_json::from_str(event.payload()?.get()).ok()
    }
}
