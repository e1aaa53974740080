//! The real API server behind a proxy that does to its clients what a busy one, one that restarts, or a bad network does.
//!
//! Clients speak plain HTTP with it; it asks the API server with all rights. Of what it passes on, nothing is changed.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::Cluster;
use crate::standstill::{Fate, Side, Standstill, Write};

/// Share of the calls that fail, in percent.
const FAILING: u32 = 10;
/// How long a watch lives, in milliseconds.
const WATCHED: std::ops::Range<u64> = 200..4_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Failure>;

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct ApiProxy {
    kubeconfig: NamedTempFile,
    state: Arc<State>,
    _end: DropGuard,
}

/// What was done to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Calls.
    pub calls: u64,
    /// Writes answered with 409, and not passed on.
    pub conflicts: u64,
    /// Calls answered with 429, and not passed on.
    pub busy: u64,
    /// Calls answered with 500, and not passed on.
    pub broken: u64,
    /// Calls whose connection ended without an answer; half of them had been passed on.
    pub lost: u64,
    /// Writes that were passed on, and are never answered.
    pub timeouts: u64,
    /// Watches that were cut off.
    pub watches: u64,
}

impl Harm {
    /// Whether so much failed that what survived it means something.
    pub const fn is_much(&self) -> bool {
        let failed = self.conflicts + self.busy + self.broken + self.lost + self.timeouts;
        failed >= 10 && self.watches >= 10
    }
}

struct State {
    client: Client,
    /// Chooses what fails; nothing does without it.
    chance: Option<Mutex<StdRng>>,
    /// Calls whose path has this are never answered.
    withheld: Mutex<Option<&'static str>>,
    standstill: Standstill,
    harm: Mutex<Harm>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("withheld", &self.withheld)
            .field("standstill", &self.standstill)
            .field("harm", &self.harm)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Conflict,
    Busy,
    Broken,
    LostBefore,
    LostAfter,
    Timeout,
}

impl ApiProxy {
    /// A proxy that passes everything on.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        Self::with(cluster, None).await
    }

    /// A proxy of which a tenth of all calls fails, and every watch breaks after a while; `seed` chooses which and when.
    pub async fn failing(cluster: &Cluster, seed: u64) -> Result<Self> {
        Self::with(cluster, Some(Mutex::new(StdRng::seed_from_u64(seed)))).await
    }

    async fn with(cluster: &Cluster, chance: Option<Mutex<StdRng>>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let kubeconfig = NamedTempFile::new()?;
        std::fs::write(kubeconfig.path(), describe(listener.local_addr()?))?;
        let state = Arc::new(State {
            client: cluster.client(),
            chance,
            withheld: Mutex::default(),
            standstill: Standstill::default(),
            harm: Mutex::default(),
        });
        let end = CancellationToken::new();
        let accept = accept(listener, Arc::clone(&state), end.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(accept));
        Ok(Self {
            kubeconfig,
            state,
            _end: end.drop_guard(),
        })
    }

    /// A kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> &Path {
        self.kubeconfig.path()
    }

    /// From now on calls whose path has this are neither passed on nor answered.
    pub fn withhold(&self, part: &'static str) {
        *self.state.withheld.lock() = Some(part);
    }

    /// At the next such write, and on that side of it, everything stands still, and what is returned is told: from then on
    /// writes are neither passed on nor answered, until [`ApiProxy::go_on`].
    pub fn stand_still_at(&self, write: Write, side: Side) -> oneshot::Receiver<()> {
        self.state.standstill.at(write, side)
    }

    /// Passes everything on again.
    pub fn go_on(&self) {
        self.state.standstill.end();
    }

    /// What it did until now.
    pub fn harm(&self) -> Harm {
        *self.state.harm.lock()
    }
}

fn describe(address: SocketAddr) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "proxy", "user": {}}],
    })
    .to_string()
}

async fn accept(listener: TcpListener, state: Arc<State>, end: CancellationToken) {
    while let Ok((socket, _)) = listener.accept().await {
        let serve = serve(socket, Arc::clone(&state));
        tokio::spawn(end.clone().run_until_cancelled_owned(serve));
    }
}

async fn serve(socket: TcpStream, state: Arc<State>) {
    let service = service_fn(|request| answer(Arc::clone(&state), request));
    // an error is a connection that was cut, by the client or on purpose
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

/// An error ends the connection without an answer.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let withheld = *state.withheld.lock();
    if withheld.is_some_and(|part| request.uri().path().contains(part)) {
        return std::future::pending().await;
    }
    let watching = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let fate = match parts.method {
        Method::GET => Fate::Passes,
        _ => state.standstill.fate(&parts.method, &parts.uri, &body),
    };
    let request = Request::from_parts(parts, body);
    match fate {
        Fate::Passes => {}
        Fate::StandsStill => return std::future::pending().await,
        Fate::IsTheLast(tell) => {
            // who waits hears of a write that was refused as well: by an error
            if pass(&state, request, watching).await?.status().is_success() {
                let _ = tell.send(());
            }
            return std::future::pending().await;
        }
    }
    match state.draw(request.method()) {
        None => pass(&state, request, watching).await,
        Some(Fault::Conflict) => refuse(StatusCode::CONFLICT, "Conflict"),
        Some(Fault::Busy) => refuse(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        Some(Fault::Broken) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Some(Fault::LostBefore) => Err("lost on its way there".into()),
        Some(Fault::LostAfter) => {
            pass(&state, request, watching).await?;
            Err("lost on its way back".into())
        }
        Some(Fault::Timeout) => {
            pass(&state, request, watching).await?;
            std::future::pending().await
        }
    }
}

impl State {
    /// What happens to a call.
    fn draw(&self, method: &Method) -> Option<Fault> {
        let mut harm = self.harm.lock();
        harm.calls += 1;
        let mut chance = self.chance.as_ref()?.lock();
        if chance.random_range(0..100) >= FAILING {
            return None;
        }
        let fault = match chance.random_range(0..6) {
            // nobody is told of a conflict by a read, and clients give up on a write that is not answered
            0 if method != Method::GET => Fault::Conflict,
            1 if method != Method::GET => Fault::Timeout,
            0 | 2 => Fault::Busy,
            1 | 3 => Fault::Broken,
            4 => Fault::LostBefore,
            _ => Fault::LostAfter,
        };
        *match fault {
            Fault::Conflict => &mut harm.conflicts,
            Fault::Busy => &mut harm.busy,
            Fault::Broken => &mut harm.broken,
            Fault::LostBefore | Fault::LostAfter => &mut harm.lost,
            Fault::Timeout => &mut harm.timeouts,
        } += 1;
        Some(fault)
    }

    /// How long a watch lives.
    fn life(&self) -> Option<Duration> {
        let life = self.chance.as_ref()?.lock().random_range(WATCHED);
        self.harm.lock().watches += 1;
        Some(Duration::from_millis(life))
    }
}

/// Asks the API server.
async fn pass(state: &State, request: Request<Bytes>, watching: bool) -> Result<Response<Body>, Failure> {
    let (mut parts, body) = request.into_parts();
    for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let response = state.client.send(Request::from_parts(parts, body.into())).await?;
    let (mut parts, body) = response.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let life = if watching { state.life() } else { None };
    let body = match life {
        None => body.map_err(Failure::from).boxed_unsync(),
        Some(life) => cut_off(body, life),
    };
    Ok(Response::from_parts(parts, body))
}

/// A body that breaks after a while.
fn cut_off(body: kube::client::Body, life: Duration) -> Body {
    let end = stream::once(async { Err(Failure::from(io::Error::from(io::ErrorKind::ConnectionReset))) });
    let frames = body
        .into_data_stream()
        .map(|data| data.map(Frame::data).map_err(Failure::from))
        .take_until(tokio::time::sleep(life))
        .chain(end);
    StreamBody::new(frames).boxed_unsync()
}

/// An answer of the API server's kind.
fn refuse(status: StatusCode, reason: &str) -> Result<Response<Body>, Failure> {
    let object = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status.as_u16(),
        "reason": reason, "message": "the proxy of the tests wants it so",
    });
    let body = Full::new(Bytes::from(object.to_string())).map_err(|never: Infallible| match never {});
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    if status == StatusCode::TOO_MANY_REQUESTS {
        response = response.header(RETRY_AFTER, "1");
    }
    Ok(response.body(body.boxed_unsync())?)
}
