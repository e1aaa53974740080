//! Clients' events on their way into the stream that workers read. What a message of it holds is in `docs/workers.md`.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::core::Core;
use super::naming;
use super::outbox::{Letter, OnStored, Outbox};
use crate::broker::{Accepted, BrokerError, Position, Reply, WorkerEvent};

/// What workers read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    name: &'a str,
    payload: &'a RawValue,
    user_id: &'a str,
    connection_id: &'a str,
    server_id: &'a str,
    timestamp: u64,
}

/// Appends events, in order.
pub(super) fn append(core: &Arc<Core>, events: Vec<(WorkerEvent, Reply)>) {
    let mut letters = Vec::with_capacity(events.len());
    for (event, reply) in events {
        match letter(core, &event) {
            Ok(letter) => letters.push((letter, on_stored(reply))),
            Err(error) => reply(Err(error)),
        }
    }
    Outbox::submit(core, |core| &core.events, letters);
}

fn letter(core: &Core, event: &WorkerEvent) -> Result<Letter, BrokerError> {
    if core.cancelled.is_cancelled() {
        return Err(BrokerError::Unavailable);
    }
    let body = serde_json::to_vec(&Body {
        name: &event.name,
        payload: &event.payload,
        user_id: &event.user_id,
        connection_id: &event.connection_id,
        server_id: &event.server_id,
        timestamp: event.timestamp,
    });
    let id = event.msg_id.as_ref();
    let id = id.map(|id| ("Nats-Msg-Id", naming::event_id(&event.user_id, id)));
    Ok(Letter {
        subject: core.config.names.event(&event.name),
        headers: id.into_iter().collect(),
        body: body.map_err(|error| BrokerError::Refused(error.to_string().into()))?,
    })
}

/// An event has no place.
fn on_stored(reply: Reply) -> OnStored {
    Box::new(move |outcome| {
        reply(outcome.map(|receipt| Accepted {
            position: Position::none(),
            duplicate: receipt.duplicate,
        }));
    })
}
