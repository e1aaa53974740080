//! `GET /api/v1/rooms?prefix&after&limit`: the rooms with members on the gateway that is asked. A fleet's rooms are those of
//! all its gateways: Redis has no list of them that could be read without walking through everything.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};

use super::MOST;
use super::extract::Asked;
use super::refusal::{Refusal, Served};
use crate::gateway::Gateway;

const DEFAULT_LIMIT: usize = 100;

/// Which rooms.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

/// In the order of their names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    server_id: Arc<str>,
    rooms: Vec<Listing>,
    /// There are more, after this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Arc<str>>,
}

#[derive(Debug, Serialize)]
struct Listing {
    room: Arc<str>,
    members: usize,
}

/// A page of this gateway's rooms.
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Asked(wanted): Asked<Wanted>,
) -> Served<Json<Listed>> {
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST).contains(&limit) {
        return Err(Refusal::Invalid(format!("limit must be 1 to {MOST}")));
    }
    let mut rooms = gateway.rooms.named(&wanted.prefix, &wanted.after, limit + 1);
    let more = rooms.len() > limit;
    rooms.truncate(limit);
    let rooms: Vec<_> = rooms
        .into_iter()
        .map(|(room, members)| Listing { room, members })
        .collect();
    Ok(Json(Listed {
        server_id: Arc::clone(&gateway.env.server_id),
        next: rooms.last().filter(|_| more).map(|last| Arc::clone(&last.room)),
        rooms,
    }))
}
