//! `POST /api/v1/publish`, `POST /api/v1/direct`: one message.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;

use super::extract::Body;
use super::key::Key;
use super::message::{self, Addressed, DirectMessage, Placed, RoomMessage};
use super::refusal::Served;
use crate::broker::{BrokerError, MsgId};
use crate::gateway::Gateway;

/// To a room.
pub(super) async fn publish(
    State(gateway): State<Arc<Gateway>>,
    key: Key,
    Body(body): Body<RoomMessage>,
) -> Served<Json<Placed>> {
    place(&gateway, body.addressed(&gateway)?, key.of("publish")).await
}

/// To a user.
pub(super) async fn direct(
    State(gateway): State<Arc<Gateway>>,
    key: Key,
    Body(body): Body<DirectMessage>,
) -> Served<Json<Placed>> {
    place(&gateway, body.addressed(&gateway)?, key.of("direct")).await
}

async fn place(gateway: &Gateway, message: Addressed, id: Option<MsgId>) -> Served<Json<Placed>> {
    let outcome = message::publish(gateway, [(message, id)]).await.pop();
    let accepted = outcome.unwrap_or(Err(BrokerError::Unconfirmed))?;
    Ok(Json(accepted.into()))
}
