//! `GET /api/v1/rooms/{room}/history?limit&before`: what is kept of a room.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::extract::{Asked, Named};
use super::message;
use super::refusal::{Refusal, Served};
use crate::broker::{Reading, Span, StreamKey};
use crate::gateway::Gateway;
use crate::protocol::Entry;
use crate::room::{PAGE_BYTES, PAGE_MESSAGES};
use crate::session::entry;

const DEFAULT_LIMIT: usize = 50;

/// Which messages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    limit: Option<usize>,
    before: Option<u64>,
}

/// A page; as the `history` of clients.
#[derive(Debug, Serialize)]
struct History<'p> {
    room: &'p str,
    epoch: &'p str,
    offset: u64,
    messages: Vec<Entry<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// The last messages, or the last before an offset.
pub(super) async fn history(
    State(gateway): State<Arc<Gateway>>,
    Named(room): Named<Arc<str>>,
    Asked(wanted): Asked<Wanted>,
) -> Served<Response> {
    let room = message::room(&gateway, room)?;
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=PAGE_MESSAGES).contains(&limit) {
        return Err(Refusal::Invalid(format!("limit must be 1 to {PAGE_MESSAGES}")));
    }
    // beyond, numbers of JSON are not whole any more
    let beyond = |before: &u64| *before == 0 || *before > 1 << 53;
    if wanted.before.as_ref().is_some_and(beyond) {
        return Err(Refusal::Invalid("before must be 1 to 2^53".into()));
    }
    let reading = Reading {
        stream: StreamKey::Room(Arc::clone(&room)),
        span: Span::Before(wanted.before),
        messages: limit,
        bytes: PAGE_BYTES,
    };
    let page = gateway.broker.history(reading).await?;
    let oldest = page.messages.first().map(|kept| kept.offset);
    let answer = History {
        room: &room,
        epoch: &page.position.epoch,
        offset: page.position.offset,
        messages: page.messages.iter().filter_map(entry).collect(),
        next: oldest.filter(|_| page.more),
    };
    let body = serde_json::to_vec(&answer).map_err(|error| Refusal::Malformed(error.to_string()))?;
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}
