//! What a back end publishes reaches members on three servers that share a Redis: a large room, and many small ones.
//!
//! The back end speaks HTTP on connections that stay open, one request at a time on each. It is the same thread as the
//! clients, on both sides alike.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Run, SMALL, Values, redis};
use crate::process::Running;
use crate::server::{Flags, Server};

/// Servers.
const FLEET: usize = 3;
/// Connections of the back end to each.
const CONNECTIONS: usize = 32;
/// Messages before the clock starts.
const WARM_UP: usize = 5;
/// The most that an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that an answer's head may have.
const HEAD: usize = 4 << 10;

/// Servers that share a Redis.
struct Fleet {
    // dropped first
    servers: Vec<(Running, SocketAddr)>,
    _redis: Running,
}

impl Fleet {
    /// Starts them; `history` is for gateways.
    fn start(run: &Run<'_>, history: bool) -> Result<Self> {
        let redis = redis::start(&run.site.work)?;
        let url = format!("redis://{}", redis.address);
        let server = |number: usize| {
            if run.server == Server::SocketIo {
                return run.site.socket_io(&url);
            }
            let gateway = run.site.gateway(&Flags {
                server_id: &format!("gateway-{number}"),
                broker: &url,
                history,
                ..Flags::default()
            })?;
            Ok((gateway.running, gateway.api))
        };
        Ok(Self {
            servers: (0..FLEET).map(server).collect::<Result<_>>()?,
            _redis: redis,
        })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|(running, _)| running.address).collect()
    }

    /// The back end's connections, those to one server not behind one another.
    fn connect(&self) -> Result<Vec<Connection>> {
        let apis = self.servers.iter().map(|(_, api)| *api).cycle();
        apis.take(FLEET * CONNECTIONS).map(Connection::open).collect()
    }
}

/// Messages to one room of all clients; the next is published when every member has got the last.
pub(super) fn room(run: &Run<'_>) -> Result<Values> {
    each_way(run, |history| {
        let fleet = Fleet::start(run, history)?;
        let members = run.scale.crowd;
        let (mut crowd, _) = run.open_at(&fleet.addresses(), members, "room-", members, None)?;
        let mut connections = fleet.connect()?;
        let mut publish = |turn: usize| {
            let connection = turn % connections.len();
            let connection = &mut connections[connection];
            let (room, payload) = crowd.expect(0, SMALL);
            connection.publish(room, &payload)?;
            crowd.deliver()?;
            connection.answered()
        };
        (0..WARM_UP).try_for_each(&mut publish)?;
        let (began, mut turn) = (Instant::now(), 0);
        while began.elapsed().as_secs_f64() < run.scale.seconds {
            publish(turn)?;
            turn += 1;
        }
        let delivered = (turn * members) as f64;
        Ok(("deliveries_per_second", delivered / began.elapsed().as_secs_f64()))
    })
}

/// Messages to as many rooms as there are clients, one after the other.
pub(super) fn rooms(run: &Run<'_>) -> Result<Values> {
    each_way(run, |history| {
        let fleet = Fleet::start(run, history)?;
        let members = run.scale.crowd;
        let (mut crowd, _) = run.open_at(&fleet.addresses(), members, "small-", 1, None)?;
        let mut connections = fleet.connect()?;
        let mut next = (0..crowd.rooms()).cycle();
        let mut wave = || {
            for (connection, room) in connections.iter_mut().zip(&mut next) {
                let (room, payload) = crowd.expect(room, SMALL);
                connection.publish(room, &payload)?;
            }
            connections.iter_mut().try_for_each(Connection::answered)?;
            crowd.deliver()
        };
        (0..WARM_UP).try_for_each(|_| wave())?;
        let (began, mut waves) = (Instant::now(), 0);
        while began.elapsed().as_secs_f64() < run.scale.seconds {
            wave()?;
            waves += 1;
        }
        let published = f64::from(waves) * (FLEET * CONNECTIONS) as f64;
        Ok(("publishes_per_second", published / began.elapsed().as_secs_f64()))
    })
}

/// Measures with history, and, of gateways, without; and what share of the latter the former is.
fn each_way(run: &Run<'_>, measure: impl Fn(bool) -> Result<(&'static str, f64)>) -> Result<Values> {
    let (name, kept) = measure(true)?;
    let mut values = Values::from([(name.into(), kept)]);
    if run.server == Server::Gateway {
        let (name, off) = measure(false)?;
        values.insert(format!("off_{name}"), off);
        values.insert("share".into(), kept / off);
    }
    Ok(values)
}

/// A connection of the back end (RFC 9112).
struct Connection {
    stream: TcpStream,
    host: SocketAddr,
}

impl Connection {
    fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: to })
    }

    /// Asks for a message to be published; the payload needs no escapes.
    fn publish(&mut self, room: &str, payload: &str) -> Result<()> {
        let body = format!(r#"{{"room":"{room}","payload":"{payload}"}}"#);
        let request = format!(
            "POST /api/v1/publish HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Waits for the answer; an error unless it says that all went well.
    fn answered(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let read = self.stream.read(&mut buffer)?;
            ensure!(read > 0, "the server has ended the connection");
            bytes.extend_from_slice(&buffer[..read]);
            let Some(end) = end_of(&bytes)? else {
                ensure!(bytes.len() < HEAD, "an answer that does not end");
                continue;
            };
            if bytes.len() >= end {
                return Ok(());
            }
        }
    }
}

/// Where an answer ends, when its head is there; an error when it is no success.
fn end_of(bytes: &[u8]) -> Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(bytes)? else {
        return Ok(None);
    };
    ensure!(
        answer.code.is_some_and(|code| (200..300).contains(&code)),
        "the server answered: {}",
        String::from_utf8_lossy(bytes)
    );
    let length = answer.headers.iter().find_map(|header| {
        let is = header.name.eq_ignore_ascii_case("content-length");
        is.then(|| {
            std::str::from_utf8(header.value)
                .ok()?
                .trim()
                .parse::<usize>()
                .ok()
        })?
    });
    Ok(Some(head + length.context("an answer without its length")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(end_of(&answer[..20]).unwrap(), None);
        assert_eq!(end_of(&answer[..38]).unwrap(), Some(answer.len()));
        assert_eq!(end_of(answer).unwrap(), Some(answer.len()));
    }

    #[test]
    fn an_answer_that_is_no_success_or_has_no_length_is_an_error() {
        for answer in [
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "no HTTP at all\r\n\r\n",
        ] {
            assert!(end_of(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
