//! What operators, probes and Prometheus ask of a gateway, on a port of its own.
//!
//! `PUT /admin/v1/drain` and `GET /admin/v1/state` want the admin token (or a loopback caller when there is none);
//! `/livez`, `/readyz` and `/metrics` are open, because kubelets and scrapers have no token.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, put};
use wsfleet_crds::admin::{DrainRequest, GatewayState};

use crate::access::{Access, problem, require};
use crate::drain::Refusal;
use crate::gateway::Gateway;

/// The port's routes.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let access = Access {
        token: gateway.settings.admin_token.clone(),
        flag: "--admin-token-file",
    };
    let guarded = Router::new()
        .route("/admin/v1/drain", put(drain))
        .route("/admin/v1/state", get(state))
        .layer(axum::middleware::from_fn_with_state(access, require));
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .with_state(gateway)
}

/// The gateway's state; constant work, whatever the number of sockets.
pub fn state_of(gateway: &Gateway) -> GatewayState {
    let (epoch, drain_id) = gateway.drain.fence();
    // read before the counts of a drain, which are raised before a connection is gone
    let connections = gateway.connections.len() as u64;
    let (forced_closed, natural_closed) = gateway.drain.closed();
    GatewayState {
        server_id: gateway.settings.server_id.as_str().to_owned(),
        phase: gateway.drain.phase(),
        accepting: gateway.drain.accepting() && gateway.admission.has_room(),
        connections,
        idle: gateway.census.idle(),
        handshakes_per_second: gateway.admission.handshakes_per_second(gateway.env.clock.now()),
        forced_closed,
        natural_closed,
        capacity: gateway.admission.capacity().into(),
        revision: gateway.settings.revision.as_str().to_owned(),
        epoch,
        drain_id,
        broker_degraded: gateway.broker.health().degraded,
        health: gateway.env.metrics.health(),
    }
}

async fn state(State(gateway): State<Arc<Gateway>>) -> Json<GatewayState> {
    Json(state_of(&gateway))
}

async fn drain(State(gateway): State<Arc<Gateway>>, body: Bytes) -> Response {
    let request: DrainRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("not a drain request: {error}")),
    };
    match gateway.drain.apply(&request, gateway.env.clock.now()) {
        Ok(()) => {
            tracing::info!(
                mode = ?request.mode, drain_id = request.drain_id, epoch = request.epoch,
                rate = request.rate_per_second, "drain request taken"
            );
            Json(state_of(&gateway)).into_response()
        }
        Err(refusal @ Refusal::Invalid(_)) => problem(StatusCode::UNPROCESSABLE_ENTITY, refusal.to_string()),
        Err(refusal) => problem(StatusCode::CONFLICT, refusal.to_string()),
    }
}

/// 200 while draining, too: whether new sockets come is a matter of labels, not of readiness.
async fn ready(State(gateway): State<Arc<Gateway>>) -> (StatusCode, &'static str) {
    if !gateway.contact.made(&*gateway.broker) {
        (StatusCode::SERVICE_UNAVAILABLE, "broker unreachable\n")
    } else if !gateway.revocations.is_loaded() {
        (StatusCode::SERVICE_UNAVAILABLE, "revocations not read yet\n")
    } else if gateway.broker.health().degraded {
        (StatusCode::OK, "broker_degraded\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let metrics = &gateway.env.metrics;
    metrics.broker_up.set(gateway.broker.health().up.into());
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    metrics.tasks.set(tasks as i64);
    match metrics.render() {
        Ok(text) => (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
