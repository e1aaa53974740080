//! axum with its defaults, put together as its `chat` example is: one task that writes and one that reads per socket, a
//! `broadcast` channel per room, axum's own graceful shutdown.
//!
//! `wsfleet-bench-axum PORT SECRET_FILE`; clients connect to `/ws?room=NAME&token=JWT`.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use futures::{SinkExt as _, StreamExt as _};
use jsonwebtoken::{DecodingKey, Validation};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;

/// Messages that a room holds for its slowest member. The example's 100 would lose messages in a burst of 100.
const ROOM_CAPACITY: usize = 256;

struct App {
    key: DecodingKey,
    rooms: Mutex<HashMap<String, broadcast::Sender<Utf8Bytes>>>,
}

#[derive(Deserialize)]
struct Join {
    room: String,
    token: String,
}

#[derive(Deserialize)]
struct Claims {
    #[expect(dead_code, reason = "read by a real application")]
    sub: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (port, secret) = args
        .next()
        .zip(args.next())
        .context("usage: wsfleet-bench-axum PORT SECRET_FILE")?;
    let secret = std::fs::read_to_string(secret)?;
    let app = Arc::new(App {
        key: DecodingKey::from_secret(secret.trim().as_bytes()),
        rooms: Mutex::default(),
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let router = Router::new().route("/ws", any(upgrade)).with_state(app);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}

async fn upgrade(State(app): State<Arc<App>>, Query(join): Query<Join>, ws: WebSocketUpgrade) -> Response {
    if jsonwebtoken::decode::<Claims>(&join.token, &app.key, &Validation::default()).is_err() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let room = app
        .rooms
        .lock()
        .entry(join.room)
        .or_insert_with(|| broadcast::Sender::new(ROOM_CAPACITY))
        .clone();
    ws.on_upgrade(|socket| serve(socket, room))
}

async fn serve(socket: WebSocket, room: broadcast::Sender<Utf8Bytes>) {
    let (mut sender, mut receiver) = socket.split();
    let mut messages = room.subscribe();
    if sender.send(Message::text("joined")).await.is_err() {
        return;
    }
    let mut send_task = tokio::spawn(async move {
        while let Ok(text) = messages.recv().await {
            if sender.send(Message::Text(text)).await.is_err() {
                break;
            }
        }
    });
    let mut recv_task = tokio::spawn(async move {
        while let Some(Ok(Message::Text(text))) = receiver.next().await {
            // fails when there is no member
            let _ = room.send(text);
        }
    });
    tokio::select! {
        _ = &mut send_task => recv_task.abort(),
        _ = &mut recv_task => send_task.abort(),
    }
}
