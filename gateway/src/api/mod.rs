//! The server API: what back ends ask of a gateway, on a port of its own (bearer token, or loopback callers only).
//!
//! `docs/openapi.yaml` is its contract, and is what `GET /api/v1/openapi.json` serves. Any gateway of a fleet may be asked.
//! A message that is accepted is answered with its place once the broker has it; `Idempotency-Key` makes asking again
//! harmless ([`key`]). What is refused is a problem (RFC 9457, [`refusal`]).

mod connections;
mod disconnect;
mod extract;
mod history;
mod key;
mod message;
mod openapi;
mod presence;
mod publish;
mod refusal;
mod rooms;
mod several;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post};

use crate::access::{Access, problem, require};
use crate::gateway::Gateway;

/// Bytes of a request beside its payload.
const ENVELOPE: usize = 8 << 10;
/// Most messages of a batch, and most rooms of a broadcast.
const MOST: usize = 1_000;
/// Most bytes of a batch or a broadcast.
const LARGE_BODY: usize = 4 << 20;

/// Every path, and who serves it; `body_limit` is that of one message.
fn routes(body_limit: usize) -> [(&'static str, MethodRouter<Arc<Gateway>>); 11] {
    let one = || DefaultBodyLimit::max(body_limit);
    let many = || DefaultBodyLimit::max(body_limit.max(LARGE_BODY));
    [
        ("/api/v1/publish", post(publish::publish).layer(one())),
        ("/api/v1/direct", post(publish::direct).layer(one())),
        ("/api/v1/broadcast", post(several::broadcast).layer(many())),
        ("/api/v1/batch", post(several::batch).layer(many())),
        ("/api/v1/disconnect", post(disconnect::disconnect).layer(one())),
        ("/api/v1/revoke", post(disconnect::revoke).layer(one())),
        ("/api/v1/rooms", get(rooms::list)),
        ("/api/v1/rooms/{room}/history", get(history::history)),
        ("/api/v1/rooms/{room}/presence", get(presence::presence)),
        ("/api/v1/users/{user}/connections", get(connections::connections)),
        ("/api/v1/openapi.json", get(openapi::document)),
    ]
}

/// The port's routes.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let access = Access {
        token: gateway.settings.api_key.clone(),
        flag: "--api-key-file",
    };
    let body_limit = gateway.settings.limits.max_message_bytes() + ENVELOPE;
    let routes = routes(body_limit);
    routes
        .into_iter()
        .fold(Router::new(), |router, (path, served)| router.route(path, served))
        .fallback(|| async {
            problem(
                StatusCode::NOT_FOUND,
                "no such path; GET /api/v1/openapi.json lists them",
            )
        })
        .method_not_allowed_fallback(|| async {
            problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "not with this method; the header Allow lists those that are",
            )
        })
        .layer(axum::middleware::from_fn_with_state(access, require))
        .with_state(gateway)
}
