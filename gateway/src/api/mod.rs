//! The server API: what back ends ask of a gateway, on a port of its own (bearer token, or loopback callers only).
//!
//! `POST /api/v1/publish {room, payload, userId?}` and `POST /api/v1/direct {userId, payload}` answer with the place
//! that the message got, `{epoch, offset}`, once the broker has accepted it.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::access::{Access, problem, require};
use crate::broker::{BrokerError, Event, Publish, StreamKey};
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::protocol::USER_ID_BYTES;

/// Sender of messages that name none.
const SERVER: &str = "server";
/// Bytes of a request beside its payload.
const ENVELOPE: usize = 8 << 10;

/// The port's routes.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let access = Access {
        token: gateway.settings.api_key.clone(),
        flag: "--api-key-file",
    };
    let body_limit = gateway.settings.limits.max_message_bytes() + ENVELOPE;
    Router::new()
        .route("/api/v1/publish", post(publish))
        .route("/api/v1/direct", post(direct))
        .layer(DefaultBodyLimit::max(body_limit))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .layer(axum::middleware::from_fn_with_state(access, require))
        .with_state(gateway)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PublishBody {
    room: Arc<str>,
    payload: Box<RawValue>,
    user_id: Option<Arc<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DirectBody {
    user_id: Arc<str>,
    payload: Box<RawValue>,
    from_user_id: Option<Arc<str>>,
}

#[derive(Debug, Serialize)]
struct Placed {
    epoch: Arc<str>,
    offset: u64,
}

fn read<'b, T: Deserialize<'b>>(body: &'b Bytes) -> Result<T, Box<Response>> {
    serde_json::from_slice(body)
        .map_err(|error| Box::new(problem(StatusCode::BAD_REQUEST, format!("wrong body: {error}"))))
}

fn invalid(detail: String) -> Response {
    problem(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

async fn publish(State(gateway): State<Arc<Gateway>>, body: Bytes) -> Response {
    let PublishBody {
        room,
        payload,
        user_id,
    } = match read(&body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let limit = gateway.settings.limits.room_name_bytes;
    if room.is_empty() || !limit.allows(room.len()) {
        return invalid(format!("room must have 1 to {limit:?} bytes"));
    }
    let event = Event::RoomMessage {
        user_id: user_id.unwrap_or_else(|| SERVER.into()),
        payload,
        timestamp: Clock::unix_millis(),
        server_id: Arc::clone(&gateway.env.server_id),
    };
    place(&gateway, StreamKey::Room(room), event).await
}

async fn direct(State(gateway): State<Arc<Gateway>>, body: Bytes) -> Response {
    let DirectBody {
        user_id,
        payload,
        from_user_id,
    } = match read(&body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    if !(1..=USER_ID_BYTES).contains(&user_id.len()) {
        return invalid(format!("userId must have 1 to {USER_ID_BYTES} bytes"));
    }
    let event = Event::DirectMessage {
        from_user_id: from_user_id.unwrap_or_else(|| SERVER.into()),
        payload,
        timestamp: Clock::unix_millis(),
    };
    place(&gateway, StreamKey::User(user_id), event).await
}

async fn place(gateway: &Gateway, stream: StreamKey, event: Event) -> Response {
    let (told, outcome) = oneshot::channel();
    // the caller may have hung up: then nobody waits for the outcome
    let reply = Box::new(move |outcome| drop(told.send(outcome)));
    gateway.broker.publish(vec![Publish {
        stream,
        event,
        msg_id: None,
        reply: Some(reply),
    }]);
    match outcome.await.unwrap_or(Err(BrokerError::Unconfirmed)) {
        Ok(accepted) => Json(Placed {
            epoch: accepted.position.epoch,
            offset: accepted.position.offset,
        })
        .into_response(),
        Err(error) => {
            let status = match error {
                BrokerError::Unavailable | BrokerError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
                BrokerError::Unconfirmed => StatusCode::GATEWAY_TIMEOUT,
                BrokerError::Refused(_) => StatusCode::BAD_GATEWAY,
            };
            problem(status, error.to_string())
        }
    }
}
