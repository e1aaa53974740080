//! One connection after its handshake.
//!
//! One small task per connection reads; it has no timer and, while nothing comes, no buffer. Reads go into a buffer of
//! the worker thread; only a frame that is not complete is kept. Writes are made by whoever has something to say
//! ([`Conn::send`]). Messages of one client are served in their order: what must be awaited (the first join of a room)
//! is awaited before the next message is looked at.

mod closing;
mod conn;
mod env;
mod event;
mod inbound;
mod lossy;
mod membership;
mod outbox;
mod presence;
mod registry;
mod resume;
pub(crate) mod seat;
mod sweep;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::admission::{Permit, moment};
use crate::auth::{AuthError, Grants, Identity};
use crate::broker::StreamKey;
use crate::clock::{Clock, Tick};
use crate::gateway::Gateway;
use crate::limits::InboundLimiter;
use crate::metrics::Rejection;
use crate::protocol::{CloseReason, Format, Initiator};
use crate::room::{JoinError, JoinStep, Room};
use crate::stream::Stream;
use crate::websocket::Decoder;
use resume::Wanted;

pub use closing::CLOSE_TIMEOUT;
pub use conn::{Conn, features};
pub(crate) use lossy::{Lossy, Origin};
pub(crate) use resume::entry;

pub use env::{Closed, ConnId, Env};
pub use registry::{Connections, Place};
pub use sweep::{Census, IDLE_AFTER, PING_INTERVAL, PONG_TIMEOUT, sweep_forever};

/// Bytes of a worker's read buffer.
const SCRATCH: usize = 64 << 10;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// An upgraded connection, not yet served.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket; hyper is done with it.
    pub socket: Stream,
    /// The answer to the upgrade, which is still to be sent.
    pub answer: Bytes,
    /// What the client sent behind its request.
    pub read: Bytes,
    /// Who it is, or why it is closed at once.
    pub identity: Result<Identity, AuthError>,
    /// Its id.
    pub id: ConnId,
    /// The form of its messages.
    pub format: Format,
    /// Its place.
    pub permit: Permit,
}

/// What the task of a connection holds.
struct Session {
    conn: Arc<Conn>,
    /// Its place, and the gateway that gave it.
    permit: Permit,
    decoder: Decoder,
    /// Bytes of a frame that is not complete.
    partial: Vec<u8>,
    limiter: InboundLimiter,
    /// The user's personal stream, then rooms.
    rooms: SmallVec<[Arc<Room>; 2]>,
    /// What its token says about rooms.
    grants: Option<Arc<Grants>>,
    /// In the table of connections.
    slot: u32,
    /// The client broke the protocol: what it sends is read and thrown away until it hangs up.
    deaf: bool,
}

/// What is to be done next.
enum Step {
    /// Wait for more, then read.
    Read,
    /// Await something; messages behind it are in `partial`.
    Await(Box<Awaited>),
    /// The stream has ended.
    End,
}

/// What must be awaited before the client's next message is looked at.
enum Awaited {
    /// A join.
    Join(Joining),
    /// An answer that somebody else gives.
    Answer(BoxFuture<'static, ()>),
}

/// A join that must be awaited.
struct Joining {
    done: BoxFuture<'static, Result<Arc<Room>, JoinError>>,
    aim: Aim,
    id: Option<Box<RawValue>>,
}

/// Why a stream is joined.
enum Aim {
    /// It is the user's personal stream, with which the session begins.
    Begin,
    /// The client wants to be in the room.
    Room,
    /// The client has come back to this stream, and wants to come back to others.
    Resume(StreamKey, Vec<Wanted>),
}

/// Serves a connection until it ends. This future is what an idle connection costs, so it is written by hand and kept
/// small (see its test): an `async` block would be a fifth larger, and tokio's tasks come in steps of 128 bytes.
pub fn serve(upgraded: Upgraded) -> impl Future<Output = ()> + Send {
    let (mut session, refused) = Session::new(upgraded);
    let awaited = match if refused {
        session.resume()
    } else {
        session.begin()
    } {
        Step::Await(awaited) => Some(awaited),
        Step::Read | Step::End => {
            session.conn.release();
            None
        }
    };
    Serve { session, awaited }
}

/// The task of a connection.
struct Serve {
    session: Session,
    awaited: Option<Box<Awaited>>,
}

impl Future for Serve {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { session, awaited } = self.get_mut();
        loop {
            let step = if let Some(waiting) = awaited {
                let Poll::Ready(joined) = waiting.poll(cx) else {
                    session.conn.release();
                    return Poll::Pending;
                };
                let next = match (awaited.take().map(|done| *done), joined) {
                    (Some(Awaited::Join(joining)), Some(joined)) => session.joined(joined, joining),
                    _ => None,
                };
                let step = match next {
                    Some(next) => Step::Await(next),
                    None => session.resume(),
                };
                session.conn.release();
                step
            } else {
                match ready!(session.conn.socket.poll_read_ready(cx)) {
                    Ok(()) => session.read(),
                    Err(_) => Step::End,
                }
            };
            match step {
                Step::Read => {}
                Step::Await(next) => *awaited = Some(next),
                Step::End => {
                    session.end();
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl Awaited {
    /// What came of the join, if it is one.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<Room>, JoinError>>> {
        match self {
            Self::Join(joining) => joining.done.as_mut().poll(cx).map(Some),
            Self::Answer(answer) => answer.as_mut().poll(cx).map(|()| None),
        }
    }
}

impl Session {
    /// A session, and whether the client is refused.
    fn new(upgraded: Upgraded) -> (Self, bool) {
        let Upgraded {
            socket,
            answer,
            read,
            identity,
            id,
            format,
            permit,
        } = upgraded;
        let gateway = permit.gateway();
        let env = &gateway.env;
        let now = env.clock.tick();
        let user = identity
            .as_ref()
            .map_or_else(|_| Arc::from(""), |who| Arc::clone(&who.user_id));
        let expires_at = identity.as_ref().ok().and_then(|who| who.expires_at);
        let expires = end_of(expires_at, gateway);
        let first_ping = now.after(PING_INTERVAL.mul_f64(rand::random()));
        let conn = Conn::new(id, user, format, socket, Arc::clone(env), expires, first_ping);
        conn.hold(answer);
        let conn = Arc::new(conn);
        let place = gateway.connections.insert(Arc::clone(&conn));
        env.metrics.connections.inc();
        env.metrics.active.inc();
        let identity = identity.and_then(|who| gateway.let_in(who, place));
        if let Err(error) = &identity {
            env.metrics.rejected(match error {
                AuthError::KeysUnavailable => Rejection::KeysUnavailable,
                AuthError::RevocationsUnknown => Rejection::Broker,
                _ => Rejection::Unauthorized,
            });
            conn.close(error.close_reason());
        }
        let refused = identity.is_err();
        let session = Self {
            limiter: InboundLimiter::new(&gateway.inbound_rates, moment(&env.clock)),
            conn,
            permit,
            decoder: Decoder::default(),
            partial: read.into(),
            rooms: SmallVec::new(),
            grants: identity.ok().and_then(|who| who.grants),
            slot: place.slot(),
            deaf: false,
        };
        (session, refused)
    }

    /// Subscribes the user's personal stream, if the user may have one more connection; with that comes the welcome.
    fn begin(&mut self) -> Step {
        match seat::join_personal(self.gateway(), &self.conn) {
            JoinStep::Done(joined) => {
                self.begun(joined);
                self.resume()
            }
            JoinStep::Wait(done) => Step::Await(Box::new(Awaited::Join(Joining {
                done,
                aim: Aim::Begin,
                id: None,
            }))),
        }
    }

    fn begun(&mut self, joined: Result<Arc<Room>, JoinError>) {
        let (rejection, reason) = match joined {
            Ok(personal) => return self.rooms.push(personal),
            Err(JoinError::Full) => (Rejection::UserConnections, CloseReason::ConnectionLimit),
            Err(JoinError::Broker(_)) => (Rejection::Broker, CloseReason::BrokerUnavailable),
        };
        self.gateway().env.metrics.rejected(rejection);
        self.conn.close(reason);
    }

    /// A join has ended; gives what is to be awaited next.
    fn joined(&mut self, joined: Result<Arc<Room>, JoinError>, joining: Joining) -> Option<Box<Awaited>> {
        match joining.aim {
            Aim::Begin => self.begun(joined),
            Aim::Room => self.joined_room(joined, joining.id.as_deref()),
            Aim::Resume(stream, left) => {
                self.resumed(joined, &stream, joining.id.as_deref());
                return self.resume_next(left, joining.id);
            }
        }
        None
    }

    /// Reads what has come and serves it.
    fn read(&mut self) -> Step {
        if !self.partial.is_empty() {
            return self.read_on();
        }
        SCRATCH_BUFFER.with_borrow_mut(|scratch| match self.conn.socket.try_read(scratch) {
            Ok(0) => Step::End,
            Ok(read) => {
                let read = &mut scratch[..read];
                let (used, step) = self.serve_messages(read);
                if used < read.len() {
                    self.partial = read[used..].to_vec();
                }
                step
            }
            Err(error) => after_error(&error),
        })
    }

    /// Reads behind the incomplete frame that is kept.
    fn read_on(&mut self) -> Step {
        // as much again as there is: a large frame is copied twice at most, whatever the size of the reads
        self.partial.reserve(self.partial.len().clamp(1 << 10, SCRATCH));
        match self.conn.socket.try_read_buf(&mut self.partial) {
            Ok(0) => Step::End,
            Ok(_) => self.resume(),
            Err(error) => after_error(&error),
        }
    }

    /// Serves what is kept.
    fn resume(&mut self) -> Step {
        let mut partial = std::mem::take(&mut self.partial);
        if partial.is_empty() {
            return Step::Read;
        }
        let (used, step) = self.serve_messages(&mut partial);
        if used < partial.len() {
            partial.drain(..used);
            self.partial = partial;
        }
        step
    }

    fn gateway(&self) -> &Arc<Gateway> {
        self.permit.gateway()
    }

    fn end(&mut self) {
        let Self {
            conn,
            permit,
            rooms,
            slot,
            ..
        } = self;
        let gateway = permit.gateway();
        let closed = conn.ended();
        for room in &*rooms {
            gateway.rooms.leave(conn, room, &*gateway.broker);
        }
        seat::give(gateway, conn);
        let metrics = &gateway.env.metrics;
        metrics.active.dec();
        let open = gateway.env.clock.tick().since(conn.connected);
        metrics.closed(closed.code, closed.reason, closed.initiator, open.as_secs_f64());
        if closed.initiator == Initiator::Client && gateway.drain.departed() {
            metrics.drain_natural.inc();
        }
        // last: who sees no connection left finds all of them counted
        gateway.connections.remove(Place::new(conn.id, *slot));
    }
}

/// When a connection is closed whose token ends at `expires_at` (seconds since 1970-01-01 UTC).
fn end_of(expires_at: Option<u64>, gateway: &Gateway) -> Tick {
    expires_at.map_or(Tick::NEVER, |at| {
        let left = Duration::from_secs(at.saturating_sub(Clock::unix_seconds()));
        let grace = gateway.settings.token_grace.duration();
        gateway.env.clock.tick().after(left.saturating_add(grace))
    })
}

fn after_error(error: &io::Error) -> Step {
    if error.kind() == io::ErrorKind::WouldBlock {
        Step::Read
    } else {
        Step::End
    }
}

#[cfg(test)]
mod tests;
