//! How a connection begins: the server says what it is, and we say who we are.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::super::config::{Access, NatsConfig};
use super::super::intake::Intake;
use super::super::wire::{self, Malformed, Said};
use super::Link;

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum ConnectError {
    /// Refused, or unreachable.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Something else listens there.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Wrong credentials, or too many connections.
    #[error("NATS said: {0}")]
    Refused(String),
    /// It is not as we need it.
    #[error("{0}")]
    Unfit(&'static str),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// What a server says first, as far as it matters.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    headers: bool,
    #[serde(default)]
    max_payload: usize,
    #[serde(default)]
    tls_required: bool,
}

/// Connects to a server, within the time that there is for it.
pub(in super::super) async fn connect(
    config: &NatsConfig,
    server: &str,
    tasks: &TaskTracker,
) -> Result<Link, ConnectError> {
    let time = config.timing.connect;
    let greeted = tokio::time::timeout(time, greet(config, server));
    let (stream, rest, inbox, largest) = greeted.await.map_err(|_| ConnectError::Timeout(time))??;
    let intake = Arc::new(Intake::default());
    Ok(Link::start(
        stream.into_split(),
        rest,
        (inbox, largest),
        intake,
        tasks,
    ))
}

async fn greet(
    config: &NatsConfig,
    server: &str,
) -> Result<(TcpStream, BytesMut, String, usize), ConnectError> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    let info: Info = match said(&mut stream, &mut buffer).await? {
        Said::Info(json) => serde_json::from_slice(&json).map_err(|_| Malformed)?,
        _ => return Err(Malformed.into()),
    };
    if info.tls_required {
        return Err(ConnectError::Unfit(
            "this NATS wants TLS, which the gateway does not speak with it",
        ));
    }
    if !info.headers {
        return Err(ConnectError::Unfit(
            "this NATS has no headers; run nats-server 2.11 or later",
        ));
    }
    let inbox = format!("_INBOX.{}", uuid::Uuid::new_v4().simple());
    let greeting = format!(
        "CONNECT {}\r\nSUB {inbox}.* {}\r\nPING\r\n",
        introduction(&config.access),
        String::from_utf8_lossy(super::ANSWERS)
    );
    stream.write_all(greeting.as_bytes()).await?;
    loop {
        match said(&mut stream, &mut buffer).await? {
            Said::Pong => return Ok((stream, buffer, inbox, info.max_payload)),
            Said::Error(text) => return Err(ConnectError::Refused(text)),
            Said::Ping => stream.write_all(b"PONG\r\n").await?,
            Said::Info(_) | Said::Nothing | Said::Message(_) => {}
        }
    }
}

fn introduction(access: &Access) -> serde_json::Value {
    let mut us = serde_json::json!({
        "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "echo": true, "protocol": 1,
        "lang": "rust", "name": "wsfleet-gateway", "version": env!("CARGO_PKG_VERSION"),
    });
    match access {
        Access::Nobody => {}
        Access::Token(token) => us["auth_token"] = token.as_str().into(),
        Access::User { name, password } => {
            us["user"] = name.as_str().into();
            us["pass"] = password.as_str().into();
        }
    }
    us
}

/// The next thing that the server says.
async fn said(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Said, ConnectError> {
    loop {
        if let Some(said) = wire::next(buffer)? {
            return Ok(said);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(ConnectError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
