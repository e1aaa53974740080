//! Accepts clients and takes each through its HTTP request: `GET /ws` becomes a session, `GET /healthz` says ok.
//!
//! hyper reads one request, within a deadline and a bounded buffer, and is gone when the upgrade is done: the session
//! keeps nothing but the socket. Connections between accept and upgrade are bounded; the rest waits in the backlog.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::handshake::{self, Accepted};
use crate::session::{self, Upgraded};

/// Connections that may wait to be accepted: a reconnect storm must not meet refused connections.
const BACKLOG: u32 = 4_096;
/// From accept to the end of the request's headers.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEADER_BYTES: usize = 16 << 10;
/// Between accept and upgrade when `handshakeConcurrency` is off: descriptors end earlier.
const CONCURRENCY_CEILING: usize = 1 << 20;
/// First and longest wait after an error of `accept`.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Binds a listening socket with a long backlog.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // a restart must not wait for sockets in TIME_WAIT
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `stop`.
pub async fn serve(listener: TcpListener, gateway: Arc<Gateway>, stop: CancellationToken) {
    let concurrency = gateway.settings.limits.handshake_concurrency.get();
    let slots = concurrency.map_or(CONCURRENCY_CEILING, |limit| limit as usize);
    let slots = Arc::new(Semaphore::new(slots));
    let mut wait = BACK_OFF.0;
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = stop.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                wait = BACK_OFF.0;
                let (gateway, stop) = (Arc::clone(&gateway), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = handshake(socket, peer, gateway) => {}
                        () = stop.cancelled() => {}
                    }
                    drop(slot);
                });
            }
            // the client gave up while it waited
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again in {wait:?}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Serves one request; when it is an upgrade, starts the session.
async fn handshake(socket: TcpStream, peer: SocketAddr, gateway: Arc<Gateway>) {
    // small messages must not wait for acknowledgements
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let started = Instant::now();
    let service = Endpoint {
        gateway,
        peer,
        accepted: Mutex::new(None),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_DEADLINE)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let Ok(parts) = connection.without_shutdown().await else {
        return;
    };
    let Endpoint {
        gateway, accepted, ..
    } = parts.service;
    let Some(Accepted {
        identity,
        id,
        format,
        permit,
    }) = accepted.into_inner()
    else {
        return;
    };
    let socket = parts.io.into_inner();
    gateway
        .env
        .metrics
        .upgrade
        .observe(started.elapsed().as_secs_f64());
    let upgraded = Upgraded {
        socket,
        read: parts.read_buf,
        identity,
        id,
        format,
        permit,
    };
    tokio::spawn(session::serve(upgraded));
}

/// One request a connection: slots of the handshake are not for keeping.
fn last(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Answers the one request of a connection, and keeps what an upgrade needs.
struct Endpoint {
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    accepted: Mutex<Option<Accepted>>,
}

impl Service<Request<Incoming>> for Endpoint {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (parts, _) = request.into_parts();
        let response = match (&parts.method, parts.uri.path()) {
            (_, "/ws") => match handshake::accept(&self.gateway, self.peer.ip(), &parts) {
                (response, None) => response,
                (response, accepted) => {
                    *self.accepted.lock() = accepted;
                    return std::future::ready(Ok(response));
                }
            },
            (&Method::GET | &Method::HEAD, "/healthz") => handshake::text(StatusCode::OK, "ok\n"),
            _ => handshake::text(
                StatusCode::NOT_FOUND,
                "not found: this port serves GET /ws and GET /healthz\n",
            ),
        };
        std::future::ready(Ok(last(response)))
    }
}
