//! `POST /api/v1/broadcast`: one message to many rooms. `POST /api/v1/batch`: many messages. Each is accepted or not by
//! itself; the answer is a success when all are.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::MOST;
use super::extract::Body;
use super::key::Key;
use super::message::{self, Addressed, DirectMessage, Placed, RoomMessage, sender, to_room};
use super::refusal::{Refusal, Served, status_of};
use crate::broker::{Accepted, BrokerError, MsgId, StreamKey};
use crate::gateway::Gateway;

/// One message to many rooms.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Broadcast {
    rooms: Vec<Arc<str>>,
    payload: Box<RawValue>,
    user_id: Option<Arc<str>>,
}

/// Many messages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    messages: Vec<Item>,
}

/// One of them. (Not an untagged enum: that would read numbers of payloads anew.)
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    publish: Option<RoomMessage>,
    direct: Option<DirectMessage>,
}

/// What became of each, in the order of the request.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    results: Vec<Value>,
}

/// One message to many rooms.
pub(super) async fn broadcast(
    State(gateway): State<Arc<Gateway>>,
    key: Key,
    Body(body): Body<Broadcast>,
) -> Served<Json<Results>> {
    let Broadcast {
        rooms,
        payload,
        user_id,
    } = body;
    check_count("rooms", rooms.len())?;
    let mut seen = HashSet::new();
    if let Some(twice) = rooms.iter().find(|room| !seen.insert(Arc::clone(room))) {
        return Err(Refusal::Invalid(format!(
            "rooms must differ; this one is there twice: {twice}"
        )));
    }
    let from = sender("userId", user_id)?;
    let messages = rooms
        .into_iter()
        .map(|room| {
            let message = to_room(&gateway, room, payload.clone(), Arc::clone(&from))?;
            Ok((message, key.of("broadcast")))
        })
        .collect::<Served<Vec<_>>>()?;
    all(&gateway, messages).await
}

/// Many messages.
pub(super) async fn batch(
    State(gateway): State<Arc<Gateway>>,
    key: Key,
    Body(body): Body<Batch>,
) -> Served<Json<Results>> {
    check_count("messages", body.messages.len())?;
    let messages = body.messages.into_iter().enumerate();
    let messages = messages
        .map(|(index, item)| {
            let message = match (item.publish, item.direct) {
                (Some(message), None) => message.addressed(&gateway),
                (None, Some(message)) => message.addressed(&gateway),
                _ => Err(Refusal::Invalid("give either publish or direct".into())),
            }
            .map_err(|refusal| at(index, refusal))?;
            Ok((message, key.of_item("batch", index)))
        })
        .collect::<Served<Vec<_>>>()?;
    all(&gateway, messages).await
}

/// Says which of many is not allowed.
fn at(index: usize, refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Invalid(detail) => Refusal::Invalid(format!("messages[{index}]: {detail}")),
        other => other,
    }
}

fn check_count(what: &str, count: usize) -> Served<()> {
    if (1..=MOST).contains(&count) {
        return Ok(());
    }
    Err(Refusal::Invalid(format!("{what} must be 1 to {MOST}")))
}

async fn all(gateway: &Gateway, messages: Vec<(Addressed, Option<MsgId>)>) -> Served<Json<Results>> {
    let streams: Vec<_> = messages
        .iter()
        .map(|(message, _)| message.stream.clone())
        .collect();
    let outcomes = message::publish(gateway, messages).await;
    let mut worst: Option<BrokerError> = None;
    let mut results = Vec::with_capacity(outcomes.len());
    for (stream, outcome) in streams.iter().zip(outcomes) {
        results.push(result(stream, outcome.clone()));
        // one that may have been accepted says more than one that was not
        if let Err(error) = outcome
            && !matches!(worst, Some(BrokerError::Unconfirmed))
        {
            worst = Some(error);
        }
    }
    match worst {
        None => Ok(Json(Results { results })),
        Some(error) => Err(Refusal::Partly(error, results)),
    }
}

fn result(stream: &StreamKey, outcome: Result<Accepted, BrokerError>) -> Value {
    let (kind, name) = match stream {
        StreamKey::Room(name) => ("room", name),
        StreamKey::User(name) | StreamKey::Fleet(name) => ("userId", name),
    };
    match outcome.map(Placed::from) {
        Ok(placed) => json!({kind: name, "placed": placed}),
        Err(error) => json!({
            kind: name, "error": {"status": status_of(&error).as_u16(), "detail": error.to_string()},
        }),
    }
}
