//! How a connection begins: the server says what it is, and we say who we are.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::super::config::{Access, NatsConfig};
use super::super::intake::Intake;
use super::super::tls::TlsError;
use super::super::wire::{self, Malformed, Said};
use super::{Halves, Link};

/// The server speaks TLS, and we were not told to.
const WANTS_TLS: &str = "this NATS wants TLS; write --broker tls://… instead of nats://…";
/// We were told to, and the server does not.
const NO_TLS: &str =
    "this NATS does not speak TLS; give its servers a certificate (`tls {…}`), or write --broker nats://…";
/// Nothing came.
const SILENT: &str = "the server said nothing; where its `tls {…}` has `handshake_first`, write --broker tls://…?handshake_first=true";

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
    /// No TLS with it.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    #[serde(default)]
    tls_available: bool,
}

/// A connection that was greeted.
struct Greeted {
    halves: Halves,
    /// What was read already.
    rest: BytesMut,
    /// Subject of answers, without the question's number.
    inbox: String,
    largest: usize,
}

/// Connects to a server, within the time that there is for it.
pub(in super::super) async fn connect(
    config: &NatsConfig,
    server: &str,
    tasks: &TaskTracker,
) -> Result<Link, ConnectError> {
    let time = config.timing.connect;
    let greeted = tokio::time::timeout(time, greet(config, server)).await;
    let greeted = greeted.map_err(|_| match &config.tls {
        Some(tls) if !tls.first => ConnectError::Unfit(SILENT),
        _ => ConnectError::Timeout(time),
    })??;
    Ok(Link::start(
        greeted.halves,
        greeted.rest,
        (greeted.inbox, greeted.largest),
        Arc::new(Intake::default()),
        tasks,
    ))
}

async fn greet(config: &NatsConfig, server: &str) -> Result<Greeted, ConnectError> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut rest = BytesMut::new();
    let Some(tls) = &config.tls else {
        let info = info(&mut stream, &mut rest).await?;
        if info.tls_required {
            return Err(ConnectError::Unfit(WANTS_TLS));
        }
        let inbox = introduce(&mut stream, &mut rest, &info, &config.access).await?;
        let (reader, writer) = stream.into_split();
        return Ok(Greeted {
            halves: (Box::new(reader), Box::new(writer)),
            rest,
            inbox,
            largest: info.max_payload,
        });
    };
    let before = if tls.first {
        None
    } else {
        let said = info(&mut stream, &mut rest).await;
        let info = said.map_err(|error| match error {
            ConnectError::Io(_) => ConnectError::Unfit(SILENT),
            other => other,
        })?;
        if !info.tls_required && !info.tls_available {
            return Err(ConnectError::Unfit(NO_TLS));
        }
        // what somebody has put behind it must not be taken for something that came by TLS
        if !rest.is_empty() {
            return Err(Malformed.into());
        }
        Some(info)
    };
    let mut stream = tls.connect(server, stream).await?;
    let info = match before {
        Some(info) => info,
        None => info(&mut stream, &mut rest).await?,
    };
    let inbox = introduce(&mut stream, &mut rest, &info, &config.access).await?;
    let (reader, writer) = tokio::io::split(stream);
    Ok(Greeted {
        halves: (Box::new(reader), Box::new(writer)),
        rest,
        inbox,
        largest: info.max_payload,
    })
}

/// What the server says first.
async fn info(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<Info, ConnectError> {
    match said(stream, buffer).await? {
        Said::Info(json) => Ok(serde_json::from_slice(&json).map_err(|_| Malformed)?),
        _ => Err(Malformed.into()),
    }
}

/// Says who we are, and awaits that the server has taken it; gives the subject of answers.
async fn introduce(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut BytesMut,
    info: &Info,
    access: &Access,
) -> Result<String, ConnectError> {
    if !info.headers {
        return Err(ConnectError::Unfit(
            "this NATS has no headers; run nats-server 2.11 or later",
        ));
    }
    let inbox = format!("_INBOX.{}", uuid::Uuid::new_v4().simple());
    let greeting = format!(
        "CONNECT {}\r\nSUB {inbox}.* {}\r\nPING\r\n",
        introduction(access),
        String::from_utf8_lossy(super::ANSWERS)
    );
    stream.write_all(greeting.as_bytes()).await?;
    stream.flush().await?;
    loop {
        match said(stream, buffer).await? {
            Said::Pong => return Ok(inbox),
            Said::Error(text) => return Err(ConnectError::Refused(text)),
            Said::Ping => {
                stream.write_all(b"PONG\r\n").await?;
                stream.flush().await?;
            }
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
async fn said(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<Said, ConnectError> {
    loop {
        if let Some(said) = wire::next(buffer)? {
            return Ok(said);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(ConnectError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
