//! The control port: what a scenario asks of a run in another process. JSON over HTTP.
//!
//! `GET /snapshot` → the report so far · `POST /connections {"target": N}` · `POST /publish {"rate": N}` ·
//! `POST /stop` → 202, and the program ends as with SIGTERM.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::engine::Load;
use crate::stats::Report;

/// The control port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Choose another address.
    #[error("--control: cannot listen on {address}: {source}")]
    Bind {
        /// What was given.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

#[derive(Clone)]
struct Control {
    load: Load,
    stop: CancellationToken,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connections {
    target: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishRate {
    rate: f64,
}

/// Serves the control port until `stop` is cancelled, which `POST /stop` does too. Returns the address it listens on.
pub async fn serve_control(
    address: SocketAddr,
    load: Load,
    stop: CancellationToken,
) -> Result<SocketAddr, ControlError> {
    let fail = |source| ControlError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let router = Router::new()
        .route("/snapshot", get(snapshot))
        .route("/connections", post(connections))
        .route("/publish", post(publish))
        .route("/stop", post(stop_run))
        .with_state(Control {
            load,
            stop: stop.clone(),
        });
    // it ends with the program; an error of a single connection is that caller's
    tokio::spawn(
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .into_future(),
    );
    Ok(bound)
}

async fn snapshot(State(control): State<Control>) -> Json<Report> {
    Json(control.load.snapshot())
}

async fn connections(
    State(control): State<Control>,
    Json(body): Json<Connections>,
) -> Result<StatusCode, (StatusCode, String)> {
    let set = control.load.set_target(body.target);
    set.map(|()| StatusCode::ACCEPTED)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

async fn publish(State(control): State<Control>, Json(body): Json<PublishRate>) -> StatusCode {
    control.load.set_publish_rate(body.rate);
    StatusCode::ACCEPTED
}

async fn stop_run(State(control): State<Control>) -> StatusCode {
    control.stop.cancel();
    StatusCode::ACCEPTED
}
