//! One connection after its handshake.
//!
//! One small task per connection reads; it has no timer and, while nothing comes, no buffer. Reads go into a buffer of
//! the worker thread; only a frame that is not complete is kept. Writes are made by whoever has something to say
//! ([`Conn::send`]). Messages of one client are served in their order: what must be awaited (the first join of a room)
//! is awaited before the next message is looked at.

mod conn;
mod env;
mod inbound;
mod outbox;
mod registry;
mod sweep;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use smallvec::SmallVec;
use tokio::net::TcpStream;

use crate::admission::{Permit, moment};
use crate::auth::{AuthError, Identity};
use crate::broker::StreamKey;
use crate::clock::{Clock, Tick};
use crate::gateway::Gateway;
use crate::limits::InboundLimiter;
use crate::metrics::Rejection;
use crate::protocol::{CloseReason, Initiator};
use crate::room::{JoinError, JoinStep, Room};
use crate::websocket::Decoder;

pub use conn::{CLOSE_TIMEOUT, Conn};
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
    pub socket: TcpStream,
    /// What the client sent behind its request.
    pub read: Bytes,
    /// Who it is, or why it is closed at once.
    pub identity: Result<Identity, AuthError>,
    /// Its id.
    pub id: ConnId,
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
    /// In the table of connections.
    slot: u32,
    /// The client broke the protocol: what it sends is read and thrown away until it hangs up.
    deaf: bool,
}

/// What is to be done next.
enum Step {
    /// Wait for more, then read.
    Read,
    /// Await a join; messages behind it are in `partial`.
    Join(Box<Joining>),
    /// The stream has ended.
    End,
}

/// A join that must be awaited.
struct Joining {
    done: BoxFuture<'static, Result<Arc<Room>, JoinError>>,
    id: Option<Box<RawValue>>,
}

/// Serves a connection until it ends. The future is what an idle connection costs, so it is kept small: see its test.
pub fn serve(upgraded: Upgraded) -> impl Future<Output = ()> + Send {
    let refused = upgraded.identity.is_err();
    let mut session = Session::new(upgraded);
    // a captured variable lies in the future once; an argument of an `async fn` would lie there twice
    async move {
        if !refused {
            Box::pin(session.begin()).await;
        }
        let mut step = session.resume();
        loop {
            step = match step {
                Step::Read => {
                    let conn = &session.conn;
                    if std::future::poll_fn(|cx| conn.socket.poll_read_ready(cx))
                        .await
                        .is_err()
                    {
                        break;
                    }
                    session.read()
                }
                Step::Join(mut joining) => {
                    let joined = (&mut joining.done).await;
                    session.joined(joined, joining.id.as_deref());
                    session.resume()
                }
                Step::End => break,
            }
        }
        session.end();
    }
}

impl Session {
    fn new(upgraded: Upgraded) -> Self {
        let Upgraded {
            socket,
            read,
            identity,
            id,
            permit,
        } = upgraded;
        let gateway = permit.gateway();
        let env = &gateway.env;
        let now = env.clock.tick();
        let refused = identity.is_err();
        let (user, expires_at) = identity.map_or((Arc::from(""), None), |who| (who.user_id, who.expires_at));
        let expires = expires_at.map_or(Tick::NEVER, |at| {
            now.after(Duration::from_secs(at.saturating_sub(Clock::unix_seconds())))
        });
        let first_ping = now.after(PING_INTERVAL.mul_f64(rand::random()));
        let conn = Arc::new(Conn::new(id, user, socket, Arc::clone(env), expires, first_ping));
        let place = gateway.connections.insert(Arc::clone(&conn));
        env.metrics.connections.inc();
        env.metrics.active.inc();
        if refused {
            env.metrics.rejected(Rejection::Unauthorized);
            conn.close(CloseReason::Unauthorized);
        }
        Self {
            limiter: InboundLimiter::new(&gateway.inbound_rates, moment(&env.clock)),
            conn,
            permit,
            decoder: Decoder::default(),
            partial: read.into(),
            rooms: SmallVec::new(),
            slot: place.slot(),
            deaf: false,
        }
    }

    /// Subscribes the user's personal stream; with that comes the welcome.
    async fn begin(&mut self) {
        let gateway = Arc::clone(self.permit.gateway());
        let key = StreamKey::User(Arc::clone(&self.conn.user));
        let personal = match gateway.rooms.join(&self.conn, key, &gateway.broker) {
            JoinStep::Done(personal) => personal,
            JoinStep::Wait(done) => done.await,
        };
        let (rejection, reason) = match personal {
            Ok(room) => {
                self.rooms.push(room);
                return;
            }
            Err(JoinError::Full) => (Rejection::UserConnections, CloseReason::ConnectionLimit),
            Err(JoinError::Broker(_)) => (Rejection::Broker, CloseReason::BrokerUnavailable),
        };
        gateway.env.metrics.rejected(rejection);
        self.conn.close(reason);
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

    fn end(self) {
        let Self {
            conn,
            permit,
            rooms,
            slot,
            ..
        } = self;
        let gateway = permit.gateway();
        let closed = conn.ended();
        for room in &rooms {
            gateway.rooms.leave(&conn, room, &*gateway.broker);
        }
        gateway.connections.remove(Place::new(conn.id, slot));
        let metrics = &gateway.env.metrics;
        metrics.active.dec();
        let open = gateway.env.clock.tick().since(conn.connected);
        metrics.closed(closed.code, closed.reason, closed.initiator, open.as_secs_f64());
        if closed.initiator == Initiator::Client && gateway.drain.departed() {
            metrics.drain_natural.inc();
        }
    }
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
