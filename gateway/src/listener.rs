//! Accepts clients and takes each through TLS, if it is on, and its HTTP request: `GET /ws` becomes a session,
//! `GET /healthz` says ok.
//!
//! The request's head is read first, within a deadline and a bounded buffer ([`head`]): a client that is slow with it
//! takes no place from others. Then hyper answers the one request, and is gone when the upgrade is done: the session
//! keeps nothing but the socket. Connections of either kind are bounded; the rest waits in the backlog.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, Either};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::handshake::head::{self, HEAD_BYTES, HeadError, Left, Rewound};
use crate::handshake::{self, Accepted, Answer};
use crate::metrics::Rejection;
use crate::session::Upgraded;
use crate::stream::Stream;
use crate::tls::{self, AcceptError};

/// Connections that may wait to be accepted: a reconnect storm must not meet refused connections.
const BACKLOG: u32 = 4_096;
/// What the system may keep of a connection beyond what is on its way (`TCP_NOTSENT_LOWAT`, tcp(7)): the rest waits in the
/// connection's own queue, which has a limit. Else it would be up to 4 MiB (`net.ipv4.tcp_wmem`) for each that does not read.
const UNSENT_BYTES: u32 = 128 << 10;
/// Handshakes at a time when `handshakeConcurrency` is off: descriptors end earlier.
const CONCURRENCY_CEILING: usize = 1 << 20;
/// Connections whose request is not complete, for each handshake that may be done at a time.
const WAITING_PER_HANDSHAKE: usize = 8;
/// First and longest wait after an error of `accept`.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Binds a listening socket with a long backlog. What is set on it holds for every connection that is accepted.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // a restart must not wait for sockets in TIME_WAIT
    socket.set_reuseaddr(true)?;
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `stop`; `session` serves each connection that was upgraded.
pub async fn serve<F>(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    stop: CancellationToken,
    session: impl Fn(Upgraded) -> F + Copy + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let concurrency = gateway.settings.limits.handshake_concurrency.get();
    let handshakes = concurrency.map_or(CONCURRENCY_CEILING, |limit| limit as usize);
    let places = Arc::new(Semaphore::new(handshakes * WAITING_PER_HANDSHAKE));
    let handshakes = Arc::new(Semaphore::new(handshakes));
    let mut wait = BACK_OFF.0;
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
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
                let handshakes = Arc::clone(&handshakes);
                tokio::spawn(async move {
                    tokio::select! {
                        upgraded = request(socket, peer, gateway, &handshakes) => if let Some(upgraded) = upgraded {
                            tokio::spawn(session(upgraded));
                        },
                        () = stop.cancelled() => {}
                    }
                    drop(place);
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

/// Waits for a request and for a place among the handshakes, and serves it, or says why not; gives the connection when it
/// was upgraded.
async fn request(
    socket: TcpStream,
    peer: SocketAddr,
    gateway: Arc<Gateway>,
    handshakes: &Semaphore,
) -> Option<Upgraded> {
    // small messages must not wait for acknowledgements
    socket.set_nodelay(true).ok()?;
    let started = Instant::now();
    let deadline = tokio::time::Instant::from_std(started + gateway.settings.handshake_timeout.duration());
    let (socket, early) = secure(socket, &gateway, handshakes, deadline).await?;
    let refuse = |answer: &str, reason| {
        gateway.env.metrics.rejected(reason);
        // a client that cannot take so little at once does without
        let _ = socket.try_write(
            format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").as_bytes(),
        );
        socket.try_end();
    };
    let head = match timeout_at(deadline, head::read(&socket, early)).await {
        Ok(Ok(head)) => head,
        Ok(Err(HeadError::Ended)) => return None,
        Ok(Err(HeadError::TooLarge)) => {
            refuse("431 Request Header Fields Too Large", Rejection::BadRequest);
            return None;
        }
        Err(_) => {
            refuse("408 Request Timeout", Rejection::HandshakeTimeout);
            return None;
        }
    };
    let Ok(Ok(_place)) = timeout_at(deadline, handshakes.acquire()).await else {
        let wait = handshake::jittered(Duration::from_secs(1));
        let answer = format!("503 Service Unavailable\r\nretry-after: {wait}");
        refuse(&answer, Rejection::HandshakeRate);
        return None;
    };
    handshake(Rewound::new(head, socket), peer, gateway, started).await
}

/// The TLS handshake, where there is TLS; gives the connection, and what the client has already sent on it.
async fn secure(
    socket: TcpStream,
    gateway: &Gateway,
    handshakes: &Semaphore,
    deadline: tokio::time::Instant,
) -> Option<(Stream, Vec<u8>)> {
    let Some(tls) = &gateway.tls else {
        return Some((socket.into(), Vec::new()));
    };
    match timeout_at(deadline, tls::accept(tls.config(), socket, handshakes)).await {
        Ok(Ok((stream, early))) => return Some((stream.into(), early)),
        Ok(Err(AcceptError::Ended)) => {}
        Ok(Err(AcceptError::Failed)) => gateway.env.metrics.rejected(Rejection::Tls),
        Err(_) => gateway.env.metrics.rejected(Rejection::HandshakeTimeout),
    }
    None
}

/// Serves one request; gives the connection when it was an upgrade.
async fn handshake(
    socket: Rewound,
    peer: SocketAddr,
    gateway: Arc<Gateway>,
    started: Instant,
) -> Option<Upgraded> {
    let deadline = gateway.settings.handshake_timeout.duration();
    let service = Endpoint {
        gateway,
        peer,
        accepted: Arc::default(),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadline)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let parts = connection.without_shutdown().await.ok()?;
    let Endpoint {
        gateway, accepted, ..
    } = parts.service;
    // hyper reads as much as its buffer has room for, so the first of these is empty unless its buffer was full
    let Left { read, answer, socket } = parts.io.into_inner().into_left();
    let Some(accepted) = accepted.lock().take() else {
        socket.try_end();
        return None;
    };
    let Accepted {
        identity,
        id,
        format,
        permit,
    } = accepted;
    gateway
        .env
        .metrics
        .upgrade
        .observe(started.elapsed().as_secs_f64());
    Some(Upgraded {
        socket,
        answer,
        read: [parts.read_buf, read].concat().into(),
        identity,
        id,
        format,
        permit,
    })
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
    accepted: Arc<Mutex<Option<Accepted>>>,
}

type Answered = Result<Response<Full<Bytes>>, Infallible>;

impl Endpoint {
    fn elsewhere(parts: &http::request::Parts) -> Response<Full<Bytes>> {
        match (&parts.method, parts.uri.path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => handshake::text(StatusCode::OK, "ok\n"),
            _ => handshake::text(
                StatusCode::NOT_FOUND,
                "not found: this port serves GET /ws and GET /healthz\n",
            ),
        }
    }
}

/// Keeps a client that was let in; else this was the connection's last request.
fn keep((response, accepted): handshake::Answered, place: &Mutex<Option<Accepted>>) -> Response<Full<Bytes>> {
    if accepted.is_none() {
        return last(response);
    }
    *place.lock() = accepted;
    response
}

impl Service<Request<Incoming>> for Endpoint {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, BoxFuture<'static, Answered>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (parts, _) = request.into_parts();
        if parts.uri.path() != "/ws" {
            return Either::Left(ready(Ok(last(Self::elsewhere(&parts)))));
        }
        match handshake::accept(&self.gateway, self.peer.ip(), &parts) {
            Answer::Now(answered) => Either::Left(ready(Ok(keep(*answered, &self.accepted)))),
            Answer::Later(answered) => {
                let place = Arc::clone(&self.accepted);
                Either::Right(Box::pin(async move { Ok(keep(answered.await, &place)) }))
            }
        }
    }
}
