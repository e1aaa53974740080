//! `GET /api/v1/rooms/{room}/presence?after&limit`: who is in a room, in the whole fleet.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};

use super::extract::{Asked, Named};
use super::message;
use super::refusal::{Refusal, Served};
use crate::broker::Roll;
use crate::gateway::Gateway;
use crate::room::{PAGE_USERS, PresenceError};

const DEFAULT_LIMIT: usize = 100;

/// Which users.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    after: Option<Arc<str>>,
    limit: Option<usize>,
}

/// A page; as the `presence` of clients.
#[derive(Debug, Serialize)]
pub(super) struct Present {
    room: Arc<str>,
    count: u64,
    users: Vec<Arc<str>>,
    /// There are more, after this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Arc<str>>,
}

/// The users of a room, in the order of their bytes.
pub(super) async fn presence(
    State(gateway): State<Arc<Gateway>>,
    Named(room): Named<Arc<str>>,
    Asked(wanted): Asked<Wanted>,
) -> Served<Json<Present>> {
    let room = message::room(&gateway, room)?;
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=PAGE_USERS).contains(&limit) {
        return Err(Refusal::Invalid(format!("limit must be 1 to {PAGE_USERS}")));
    }
    let roll = Roll {
        room: Arc::clone(&room),
        after: wanted.after,
        limit,
    };
    let found = match gateway.rooms.presence(roll, &*gateway.broker).await {
        Ok(found) => found,
        Err(PresenceError::Off) => return Err(Refusal::Off(PresenceError::Off.to_string())),
        Err(PresenceError::Broker(error)) => return Err(error.into()),
    };
    Ok(Json(Present {
        room,
        count: found.count,
        next: found.users.last().filter(|_| found.more).cloned(),
        users: found.users,
    }))
}
