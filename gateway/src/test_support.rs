//! Connections over real loopback sockets, for tests of this crate.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::clock::{Clock, Tick};
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::protocol::{Format, WelcomeLimits};
use crate::session::{Conn, ConnId, Env};

/// Nothing in these tests takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn env() -> Env {
    let limits = Limits::default();
    Env {
        clock: Clock::start(),
        metrics: Metrics::new("test").unwrap(),
        server_id: "test".into(),
        instance: "i".into(),
        queue_bytes: limits.max_queue_bytes(),
        queue_messages: limits.max_queue_messages(),
        slow_consumers: crate::config::SlowPolicies::default(),
        announce_members: limits.announce_members,
        presences: crate::config::Presences::default(),
        absent: crate::room::Absent::default(),
        connections_per_user: limits.connections_per_user,
        connection_age: limits.connection_age_seconds,
        resume_window: Duration::from_mins(5),
        routing: None,
        welcome_limits: WelcomeLimits::from(&limits),
        features: crate::session::features(false),
    }
}

/// The client's end of a connection.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

pub(crate) async fn connect(env: &Arc<Env>, id: u64, user: &str) -> (Arc<Conn>, Peer) {
    connect_as(env, id, user, Format::default()).await
}

pub(crate) async fn connect_as(env: &Arc<Env>, id: u64, user: &str, format: Format) -> (Arc<Conn>, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let conn = Conn::new(
        ConnId(id),
        user.into(),
        format,
        server.into(),
        Arc::clone(env),
        Tick::NEVER,
        Tick::NEVER,
    );
    (
        Arc::new(conn),
        Peer {
            socket: client,
            buffer: Vec::new(),
        },
    )
}

/// A frame from the gateway.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Text(serde_json::Value),
    Close(u16),
    End,
}

impl Peer {
    /// The next text or close frame.
    pub(crate) async fn next(&mut self) -> Frame {
        tokio::time::timeout(DEADLINE, self.read())
            .await
            .expect("a frame in time")
    }

    /// The next text frame of this type; others are passed over.
    pub(crate) async fn next_of(&mut self, kind: &str) -> serde_json::Value {
        loop {
            match self.next().await {
                Frame::Text(value) if value["type"] == kind => return value,
                Frame::Text(_) => {}
                other => panic!("{other:?} instead of {kind}"),
            }
        }
    }

    async fn read(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.parse() {
                return frame;
            }
            if self.socket.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return Frame::End;
            }
        }
    }

    fn parse(&mut self) -> Option<Frame> {
        let (first, second) = (*self.buffer.first()?, *self.buffer.get(1)?);
        let (start, length) = match second {
            126 => (
                4,
                usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().unwrap())),
            ),
            127 => panic!("no such large frame is sent in these tests"),
            short => (2, usize::from(short)),
        };
        let payload = self.buffer.get(start..start + length)?.to_vec();
        self.buffer.drain(..start + length);
        match first & 0x0F {
            1 => Some(Frame::Text(serde_json::from_slice(&payload).unwrap())),
            8 => Some(Frame::Close(u16::from_be_bytes([payload[0], payload[1]]))),
            _ => self.parse(),
        }
    }
}
