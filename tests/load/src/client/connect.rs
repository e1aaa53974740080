//! From nothing to an upgraded socket: TCP connect from a source address, request, answer.

use std::time::Duration;

use rand::Rng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use crate::policy::Event;
use crate::target::Target;
use crate::wire::handshake::{self, Answer};

/// Connect and upgrade together; as long as servers give a handshake, and a bit.
const DEADLINE: Duration = Duration::from_secs(15);

/// An upgraded connection.
pub(super) struct Upgraded {
    pub(super) stream: TcpStream,
    /// Frames that came with the answer.
    pub(super) early: Vec<u8>,
    /// When the TCP connect began, since the run began.
    pub(super) began: Duration,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No token could be made, no address found, no connection, or none that lasted until the answer.
    Failed(&'static str),
    /// Another status than 101.
    Status {
        status: u16,
        retry_after: Option<Duration>,
    },
}

impl Refusal {
    /// Bounded.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Failed(what) => (*what).into(),
            Self::Status { status, .. } => status.to_string(),
        }
    }

    pub(super) const fn event(&self) -> Event {
        match *self {
            Self::Failed(_) => Event::ConnectFailed,
            Self::Status { status, retry_after } => Event::Refused { status, retry_after },
        }
    }
}

/// Opens one socket for client `index`. Cancel-safe: what was begun is closed.
pub(super) async fn connect(shared: &Shared, index: u32, target: &Target) -> Result<Upgraded, Refusal> {
    let began = shared.now();
    let upgraded = timeout(DEADLINE, upgrade(shared, index, target, began))
        .await
        .unwrap_or(Err(Refusal::Failed("timeout")))?;
    shared.stats.accepted.add(1);
    shared.stats.handshake.record(shared.now().saturating_sub(began));
    Ok(upgraded)
}

async fn upgrade(shared: &Shared, index: u32, target: &Target, began: Duration) -> Result<Upgraded, Refusal> {
    let config = &shared.config;
    let token = shared
        .tokens
        .token(&config.user(index))
        .map_err(|_| Refusal::Failed("token"))?;
    let address = target.resolve().await.map_err(|_| Refusal::Failed("resolve"))?;
    let mut stream = shared
        .sources
        .connect(index, address)
        .await
        .map_err(|error| Refusal::Failed(label(&error)))?;

    let key = handshake::key(rand::rng().random());
    let request = handshake::request(&target.path_with(token.as_deref()), &target.host(), &key);
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        read_answer(&mut stream, &key).await
    };
    let (answer, read) = exchange.await.map_err(|error| Refusal::Failed(label(&error)))?;
    match answer {
        Answer::Upgraded { head } => Ok(Upgraded {
            stream,
            early: read[head..].to_vec(),
            began,
        }),
        Answer::Refused { status, retry_after } => Err(Refusal::Status { status, retry_after }),
    }
}

/// Reads until the answer's head is complete; what follows it in the same read is kept.
async fn read_answer(stream: &mut TcpStream, key: &str) -> std::io::Result<(Answer, Vec<u8>)> {
    let mut read = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let answer = handshake::answer(&read, key);
        if let Some(answer) = answer.map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))? {
            return Ok((answer, read));
        }
    }
}

fn label(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "cut in handshake",
        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => "out of ports",
        ErrorKind::TimedOut => "timeout",
        ErrorKind::InvalidData => "not a websocket answer",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
        _ => "connect failed",
    }
}
