//! Messages of back ends: read, checked, and given to the broker.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::refusal::{Refusal, Served};
use crate::broker::{Accepted, BrokerError, Event, MsgId, Publish, StreamKey};
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::protocol::USER_ID_BYTES;

/// Sender of messages that name none.
const SERVER: &str = "server";

/// A message to a room.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RoomMessage {
    room: Arc<str>,
    payload: Box<RawValue>,
    user_id: Option<Arc<str>>,
}

/// A message to a user's devices.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DirectMessage {
    user_id: Arc<str>,
    payload: Box<RawValue>,
    from_user_id: Option<Arc<str>>,
}

/// Where a message goes, and what it is.
#[derive(Debug)]
pub(super) struct Addressed {
    pub(super) stream: StreamKey,
    pub(super) event: Event,
}

/// Where a message stands.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Placed {
    epoch: Arc<str>,
    offset: u64,
    /// It had been accepted before, with the same key.
    duplicate: bool,
}

impl From<Accepted> for Placed {
    fn from(accepted: Accepted) -> Self {
        Self {
            epoch: accepted.position.epoch,
            offset: accepted.position.offset,
            duplicate: accepted.duplicate,
        }
    }
}

/// A room's name that is allowed.
pub(super) fn room(gateway: &Gateway, name: Arc<str>) -> Served<Arc<str>> {
    let limit = gateway.settings.limits.room_name_bytes;
    if name.is_empty() || !limit.allows(name.len()) {
        let most = limit
            .get()
            .map_or_else(String::new, |most| format!(" and at most {most}"));
        return Err(Refusal::Invalid(format!("room must have 1 byte at least{most}")));
    }
    Ok(name)
}

/// A user's id that is allowed.
pub(super) fn user(what: &str, id: Arc<str>) -> Served<Arc<str>> {
    if (1..=USER_ID_BYTES).contains(&id.len()) && !id.chars().any(char::is_control) {
        return Ok(id);
    }
    Err(Refusal::Invalid(format!(
        "{what} must have 1 to {USER_ID_BYTES} bytes, and no control characters"
    )))
}

/// A sender, [`SERVER`] when none is named.
pub(super) fn sender(what: &str, id: Option<Arc<str>>) -> Served<Arc<str>> {
    id.map_or_else(|| Ok(SERVER.into()), |id| user(what, id))
}

fn payload(gateway: &Gateway, payload: Box<RawValue>) -> Served<Box<RawValue>> {
    let most = gateway.settings.limits.max_message_bytes();
    if payload.get().len() > most {
        return Err(Refusal::TooLarge);
    }
    Ok(payload)
}

/// A message to a room, from now on.
pub(super) fn to_room(
    gateway: &Gateway,
    name: Arc<str>,
    said: Box<RawValue>,
    user_id: Arc<str>,
) -> Served<Addressed> {
    let event = Event::RoomMessage {
        user_id,
        payload: payload(gateway, said)?,
        timestamp: Clock::unix_millis(),
        server_id: Arc::clone(&gateway.env.server_id),
    };
    let stream = StreamKey::Room(room(gateway, name)?);
    Ok(Addressed { stream, event })
}

impl RoomMessage {
    pub(super) fn addressed(self, gateway: &Gateway) -> Served<Addressed> {
        to_room(gateway, self.room, self.payload, sender("userId", self.user_id)?)
    }
}

impl DirectMessage {
    pub(super) fn addressed(self, gateway: &Gateway) -> Served<Addressed> {
        let event = Event::DirectMessage {
            from_user_id: sender("fromUserId", self.from_user_id)?,
            payload: payload(gateway, self.payload)?,
            timestamp: Clock::unix_millis(),
        };
        let stream = StreamKey::User(user("userId", self.user_id)?);
        Ok(Addressed { stream, event })
    }
}

/// Publishes messages in their order, at once; gives each one's outcome, in that order. When the caller hangs up they are
/// on their way all the same.
pub(super) async fn publish(
    gateway: &Gateway,
    messages: impl IntoIterator<Item = (Addressed, Option<MsgId>)>,
) -> Vec<Result<Accepted, BrokerError>> {
    let mut outcomes = Vec::new();
    let batch = messages.into_iter().map(|(Addressed { stream, event }, msg_id)| {
        let (tell, outcome) = oneshot::channel();
        outcomes.push(outcome);
        Publish {
            stream,
            event,
            msg_id,
            // the caller may have hung up: then nobody waits for the outcome
            reply: Some(Box::new(move |outcome| drop(tell.send(outcome)))),
        }
    });
    gateway.broker.publish(batch.collect());
    let mut told = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        told.push(outcome.await.unwrap_or(Err(BrokerError::Unconfirmed)));
    }
    told
}
