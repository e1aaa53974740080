//! A WebSocket client that notes everything it hears, and waits for what it expects with a deadline.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, http};
use tokio_util::either::Either;

use wsfleet_gateway::protocol::Codec;

use crate::codec;
pub use crate::connect::{Connect, Upgrade};
use crate::wait::{SOON, soon};

/// Code of a connection that ended without a close frame (RFC 6455 §7.1.5).
pub const CUT: u16 = 1006;
/// Code of a close frame without a code (RFC 6455 §7.1.5).
pub const NO_CODE: u16 = 1005;

/// What a client is connected by.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection. Messages that were read while another one was expected are kept for later.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<Stream>,
    headers: http::HeaderMap,
    codec: Codec,
    kept: VecDeque<Value>,
    closed: Option<(u16, String)>,
    pings: usize,
}

impl Client {
    pub(crate) fn new(socket: WebSocketStream<Stream>, headers: http::HeaderMap, codec: Codec) -> Self {
        Self {
            socket,
            headers,
            codec,
            kept: VecDeque::new(),
            closed: None,
            pings: 0,
        }
    }

    /// A header of the 101.
    pub fn upgrade_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Pings of the gateway that were seen (and answered) so far.
    pub const fn pings(&self) -> usize {
        self.pings
    }

    /// What is below the frames, for bytes that no client should send.
    pub fn raw(&mut self) -> &mut Stream {
        self.socket.get_mut()
    }

    /// Sends a message in the connection's codec.
    pub async fn send(&mut self, message: Value) -> Result<()> {
        self.send_frame(codec::encode(self.codec, &message)?).await
    }

    /// Sends any text.
    pub async fn send_text(&mut self, text: &str) -> Result<()> {
        self.send_frame(Message::text(text)).await
    }

    /// Sends any message.
    pub async fn send_frame(&mut self, message: Message) -> Result<()> {
        soon("room to send", self.socket.send(message))
            .await?
            .context("send")
    }

    /// Joins a room; gives the `joined` message.
    pub async fn join(&mut self, room: &str) -> Result<Value> {
        self.send(json!({"type": "join", "room": room})).await?;
        let joined = self.expect("joined").await?;
        ensure!(joined["room"] == room, "{joined}");
        Ok(joined)
    }

    /// Leaves a room.
    pub async fn leave(&mut self, room: &str) -> Result<()> {
        self.send(json!({"type": "leave", "room": room})).await?;
        let left = self.expect("left").await?;
        ensure!(left["room"] == room, "{left}");
        Ok(())
    }

    /// Sends to a room without asking for an ack.
    pub async fn say(&mut self, room: &str, payload: Value) -> Result<()> {
        self.send(json!({"type": "room_message", "room": room, "payload": payload}))
            .await
    }

    /// Sends to a room; gives the `ack`.
    pub async fn say_acked(&mut self, room: &str, payload: Value, id: Value) -> Result<Value> {
        self.send(json!({"type": "room_message", "room": room, "payload": payload, "id": id}))
            .await?;
        self.expect("ack").await
    }

    /// The next message of a type; others are kept. An error when it does not come soon, or the connection closes.
    pub async fn expect(&mut self, kind: &str) -> Result<Value> {
        self.expect_within(SOON, kind).await
    }

    /// As [`Client::expect`], with a deadline of its own.
    pub async fn expect_within(&mut self, limit: Duration, kind: &str) -> Result<Value> {
        self.next_of(limit, &[kind]).await
    }

    /// The next message of any of these types; others are kept.
    pub async fn expect_any(&mut self, kinds: &[&str]) -> Result<Value> {
        self.next_of(SOON, kinds).await
    }

    async fn next_of(&mut self, limit: Duration, kinds: &[&str]) -> Result<Value> {
        let wanted = |message: &Value| kinds.iter().any(|kind| message["type"] == *kind);
        if let Some(at) = self.kept.iter().position(wanted) {
            return self.kept.remove(at).context("it was there");
        }
        let deadline = Instant::now() + limit;
        loop {
            match self
                .read(deadline)
                .await
                .with_context(|| self.state(&kinds.join("|")))?
            {
                Some(message) if wanted(&message) => return Ok(message),
                Some(message) => self.kept.push_back(message),
                None => bail!("closed; {}", self.state(&kinds.join("|"))),
            }
        }
    }

    /// Messages of a type that were read while others were expected.
    pub fn kept(&self, kind: &str) -> Vec<&Value> {
        self.kept
            .iter()
            .filter(|message| message["type"] == kind)
            .collect()
    }

    /// Takes the messages of a type that were read while others were expected.
    pub fn take_kept(&mut self, kind: &str) -> Vec<Value> {
        let (wanted, others) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(|message: &Value| message["type"] == kind);
        self.kept = others;
        Vec::from_iter::<VecDeque<Value>>(wanted)
    }

    /// What became of it, for messages of errors.
    pub fn state(&self, kind: &str) -> String {
        let kept: Vec<String> = self.kept.iter().take(8).map(Value::to_string).collect();
        format!(
            "while `{kind}` was expected; closed {:?}; kept {}: {kept:?}",
            self.closed,
            self.kept.len()
        )
    }

    /// `count` messages of a type.
    pub async fn expect_many(&mut self, kind: &str, count: usize) -> Result<Vec<Value>> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            let message = self
                .expect(kind)
                .await
                .with_context(|| format!("{} of {count}", messages.len()))?;
            messages.push(message);
        }
        Ok(messages)
    }

    /// Everything of a type that the gateway had sent when it answered a `ping`.
    pub async fn all_so_far(&mut self, kind: &str) -> Result<Vec<Value>> {
        self.send(json!({"type": "ping"})).await?;
        self.expect("pong").await?;
        let (wanted, others) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(|m: &Value| m["type"] == kind);
        self.kept = others;
        Ok(Vec::from_iter::<VecDeque<Value>>(wanted))
    }

    /// Awaits something that takes long, and reads meanwhile: the gateway closes whoever answers no ping. What is read is kept.
    pub async fn during<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            // longer than any wait of a test
            let deadline = Instant::now() + SOON * 10;
            tokio::select! {
                done = &mut work => return done,
                message = self.read(deadline) => match message? {
                    Some(message) => self.kept.push_back(message),
                    None => bail!("closed; {}", self.state("something else")),
                },
            }
        }
    }

    /// Reads until the connection is closed; the code ([`CUT`] when there was none).
    pub async fn closed(&mut self) -> Result<u16> {
        self.closed_within(SOON).await
    }

    /// As [`Client::closed`], with a deadline of its own.
    pub async fn closed_within(&mut self, limit: Duration) -> Result<u16> {
        let deadline = Instant::now() + limit;
        while let Some(message) = self.read(deadline).await.with_context(|| self.state("a close"))? {
            self.kept.push_back(message);
        }
        Ok(self.closed.as_ref().map_or(CUT, |(code, _)| *code))
    }

    /// Closes from here with 1000, and waits for the gateway's answer.
    pub async fn close(mut self) -> Result<u16> {
        let frame = CloseFrame {
            code: 1000.into(),
            reason: "".into(),
        };
        soon("room to close", self.socket.close(Some(frame))).await??;
        self.closed().await
    }

    /// The next message, or `None` once closed.
    async fn read(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            if self.closed.as_ref().is_some_and(|(code, _)| *code == CUT) {
                return Ok(None);
            }
            match timeout_at(deadline, self.socket.next())
                .await
                .context("waited in vain")?
            {
                Some(Ok(frame @ (Message::Text(_) | Message::Binary(_)))) => {
                    return Ok(Some(codec::decode(self.codec, &frame)?));
                }
                Some(Ok(Message::Ping(_))) => self.pings += 1,
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.as_ref().map_or(NO_CODE, |f| f.code.into());
                    self.closed = Some((code, frame.map_or_else(String::new, |f| f.reason.to_string())));
                }
                Some(Ok(Message::Pong(_))) => {}
                Some(Ok(other)) => bail!("unexpected frame {other:?}"),
                // the end: with a close frame before it, or a cut
                Some(Err(_)) | None => {
                    self.closed.get_or_insert((CUT, String::new()));
                    return Ok(None);
                }
            }
        }
    }
}

/// Signs claims with HS256.
pub fn jwt(secret: &[u8], claims: &Value) -> Result<String> {
    Ok(jsonwebtoken::encode(
        &Header::default(),
        claims,
        &EncodingKey::from_secret(secret),
    )?)
}

/// Seconds since 1970-01-01 UTC, as in `exp`.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
