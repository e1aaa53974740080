//! One connection as the rest of the gateway sees it: written to and closed from any thread.
//!
//! Whoever has something for a client writes it, on its own thread, without waking anybody. Only when the socket takes
//! no more is a queue allocated and a task started that writes the rest as the socket becomes writable; both go
//! when the queue is empty. So an idle or a healthy connection has neither.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;

use super::env::{ConnId, Env};
use super::lossy::{Bounds, Lossy};
use super::outbox::{Outbox, SLICES};
use super::sweep::PING_INTERVAL;
use crate::broker::Position;
use crate::clock::Tick;
use crate::protocol::{CloseReason, Format, ServerMessage, Standing};
use crate::routing::Routing;
use crate::stream::Stream;

/// Bytes that [`Conn::read`] makes room for.
const READ: usize = 64 << 10;

/// What a gateway can do beyond the reference articles' protocol; the last, where there is a stream for events.
const FEATURES: &[&str] = &[
    "ack",
    "gap",
    "history",
    "msg_id",
    "offsets",
    "presence",
    "refresh",
    "resume",
    "user_left",
    "event",
];

/// What it can do besides when it has a routing key.
const ROUTING: &[&str] = &["routing_token"];

/// What a gateway can do that takes events, or does not.
pub const fn features(events: bool) -> &'static [&'static str] {
    match FEATURES {
        [all @ .., _] if !events => all,
        all => all,
    }
}

/// The messages of frames, one by one.
type Each<'e> = &'e dyn Fn() -> Vec<Lossy>;

/// A connection after its handshake.
#[derive(Debug)]
pub struct Conn {
    /// Which.
    pub id: ConnId,
    /// Whose.
    pub user: Arc<str>,
    /// When the upgrade was done.
    pub connected: Tick,
    /// When it is closed unless its token is renewed.
    pub(super) expires: AtomicU32,
    /// The form of what is sent to it.
    pub format: Format,
    pub(super) socket: Stream,
    pub(super) env: Arc<Env>,
    pub(super) out: Mutex<Out>,
    pub(super) close: AtomicU32,
    pub(super) close_deadline: AtomicU32,
    /// Any inbound frame.
    pub(super) last_inbound: AtomicU32,
    /// A message, in or out.
    last_message: AtomicU32,
    pub(super) ping_due: AtomicU32,
    /// When the ping was sent that was not answered yet; 0 when there is none.
    pub(super) ping_sent: AtomicU32,
}

#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) queue: Option<Box<Outbox>>,
    /// Nobody writes the queue yet, see [`Conn::hold`].
    held: bool,
    /// Our close frame is the last that is sent.
    pub(super) sealed: bool,
    /// Shut down when the queue is empty.
    pub(super) finish: Option<Shutdown>,
}

impl Conn {
    /// A connection whose handshake is over; it is first pinged at `ping_due`.
    pub fn new(
        id: ConnId,
        user: Arc<str>,
        format: Format,
        socket: Stream,
        env: Arc<Env>,
        expires: Tick,
        ping_due: Tick,
    ) -> Self {
        let now = env.clock.tick();
        Self {
            id,
            user,
            connected: now,
            expires: AtomicU32::new(expires.to_bits()),
            format,
            socket,
            env,
            out: Mutex::default(),
            close: AtomicU32::new(0),
            close_deadline: AtomicU32::new(Tick::NEVER.to_bits()),
            last_inbound: AtomicU32::new(now.to_bits()),
            last_message: AtomicU32::new(now.to_bits()),
            ping_due: AtomicU32::new(ping_due.to_bits()),
            ping_sent: AtomicU32::new(0),
        }
    }

    /// Awaits bytes of the peer and appends them; 0 at the end of the stream. For who has a buffer for the connection;
    /// the session reads without. Cancel safe: what was read is in `into`.
    pub async fn read(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            into.reserve(READ);
            match self.socket.try_read_buf(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Sends ready frames that carry so many messages; one system call when nothing waits. False when the connection
    /// is closing, gone, or is closed now because too much waits for it.
    pub fn send(self: &Arc<Self>, frames: &Bytes, messages: u32, now: Tick) -> bool {
        self.sends(now);
        self.write(frames, messages, None)
    }

    /// Notes that a message is sent to it.
    pub(crate) fn sends(&self, now: Tick) {
        self.last_message.store(now.to_bits(), Relaxed);
    }

    /// [`Conn::sends`], for a message that is written a little later: fetches the memory which that takes.
    pub(crate) fn about_to_send(&self, now: Tick) {
        self.sends(now);
        self.socket.fetch();
    }

    /// Keeps what is sent until [`Conn::release`]: the answer to the upgrade then goes out in one write with the first messages.
    pub fn hold(&self, answer: Bytes) {
        let mut queue = Box::<Outbox>::default();
        queue.push_begun(answer);
        let mut out = self.out.lock();
        out.queue = Some(queue);
        out.held = true;
    }

    /// Sends what was held, if something is.
    pub fn release(self: &Arc<Self>) {
        let mut out = self.out.lock();
        if !std::mem::take(&mut out.held) {
            return;
        }
        let Some(queue) = &mut out.queue else { return };
        match self.flush(queue) {
            Ok(true) if self.flushed(&mut out) => {}
            Ok(_) => drop(tokio::spawn(flush_when_writable(Arc::clone(self)))),
            Err(_) => {
                out.sealed = true;
                out.queue = None;
            }
        }
    }

    /// Sends the first message, which tells where the user's personal stream stands, and with it the routing token.
    pub(crate) fn welcome(self: &Arc<Self>, position: &Position) {
        let env = &self.env;
        let token = env.routing.as_ref().map(Routing::token);
        let welcome = ServerMessage::Welcome {
            connection_id: &self.id.text(&env.instance),
            user_id: &self.user,
            server_id: &env.server_id,
            ping_interval: PING_INTERVAL.as_millis() as u64,
            limits: env.welcome_limits,
            resume_window: env.resume_window.as_millis() as u64,
            position: Standing {
                epoch: &position.epoch,
                offset: position.offset,
            },
            features: &[env.features, token.map_or(&[], |_| ROUTING)].concat(),
        };
        let mut frames = Vec::new();
        self.format.encode_frame(&welcome, &mut frames);
        if let Some(token) = token {
            let token = ServerMessage::RoutingToken { token };
            self.format.encode_frame(&token, &mut frames);
        }
        let messages = 1 + u32::from(token.is_some());
        env.metrics.sent(messages.into());
        self.send(&frames.into(), messages, env.clock.tick());
    }

    /// Sends a control frame: not a message, so it does not count as activity.
    pub(crate) fn send_control(self: &Arc<Self>, frame: &Bytes) -> bool {
        self.write(frame, 0, None)
    }

    /// [`Conn::send`] without the note. With `each`, which gives the messages one by one and is asked only when they have to
    /// wait, messages are rather dropped than the member.
    pub(crate) fn write(self: &Arc<Self>, frames: &Bytes, messages: u32, each: Option<Each<'_>>) -> bool {
        let mut out = self.out.lock();
        if out.sealed {
            return false;
        }
        let accepted = self.write_locked(&mut out, frames, messages, each);
        if !accepted && !out.sealed {
            self.overflow(&mut out);
        }
        accepted
    }

    /// False when more waits now than may wait.
    pub(super) fn write_locked(
        self: &Arc<Self>,
        out: &mut Out,
        frames: &Bytes,
        messages: u32,
        each: Option<Each<'_>>,
    ) -> bool {
        let wait = |queue: &mut Outbox, written| match each {
            Some(each) => queue.push_lossy(each(), written),
            None => queue.push_rest(frames, written, messages),
        };
        if let Some(queue) = &mut out.queue {
            wait(queue, 0);
            return self.make_room(queue);
        }
        let written = match self.socket.try_write(frames) {
            Ok(written) if written == frames.len() && self.socket.is_flushed() => return true,
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                out.sealed = true;
                return false;
            }
        };
        let mut queue = Box::<Outbox>::default();
        if written < frames.len() {
            wait(&mut queue, written);
        }
        let fits = self.make_room(&mut queue);
        out.queue = Some(queue);
        tokio::spawn(flush_when_writable(Arc::clone(self)));
        fits
    }

    /// Queues frames that others are likely to follow at once; a task writes them together.
    pub(crate) fn send_soon(self: &Arc<Self>, frames: &Bytes, messages: u32, now: Tick) {
        self.last_message.store(now.to_bits(), Relaxed);
        let mut out = self.out.lock();
        if out.sealed {
            return;
        }
        if out.queue.is_none() {
            out.queue = Some(Box::default());
            tokio::spawn(flush_when_writable(Arc::clone(self)));
        }
        if !self.write_locked(&mut out, frames, messages, None) {
            self.overflow(&mut out);
        }
    }

    /// False when more waits than may, and too little of it may be dropped.
    fn make_room(&self, queue: &mut Outbox) -> bool {
        let bounds = Bounds {
            bytes: self.env.queue_bytes,
            messages: self.env.queue_messages,
        };
        if bounds.allow(queue.size()) {
            return true;
        }
        // the task that writes the queue may not have had its turn yet
        if self.flush(queue).is_err() {
            return false;
        }
        if !bounds.allow(queue.size()) {
            self.env.metrics.slow.dropped(&queue.relieve(bounds, self.format));
        }
        bounds.allow(queue.size())
    }

    /// Writes until nothing waits (true) or the socket takes no more (false).
    fn flush(&self, queue: &mut Outbox) -> io::Result<bool> {
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = queue.slices(&mut slices);
            match self.socket.try_write_vectored(&slices[..count]) {
                Ok(written) => queue.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.socket.try_flush()
    }

    /// Nothing waits: true when nothing is left to do, either.
    fn flushed(&self, out: &mut Out) -> bool {
        if let Some(how) = out.finish {
            if !self.socket.try_end() {
                return false;
            }
            self.socket.shut_down(how);
        }
        out.queue = None;
        true
    }

    /// Too much waits: what was not begun is dropped, the client is told why.
    fn overflow(self: &Arc<Self>, out: &mut Out) {
        self.env.metrics.slow.disconnected();
        if let Some(queue) = &mut out.queue {
            queue.drop_unbegun();
        }
        let reason = CloseReason::SlowConsumer;
        self.begin_close(out, reason.code(), reason, reason.text());
    }

    /// The last message in either direction.
    pub fn last_message(&self) -> Tick {
        Tick::from_bits(self.last_message.load(Relaxed))
    }

    /// Another token: it is closed at this time now.
    pub(super) fn renew(&self, expires: Tick) {
        self.expires.store(expires.to_bits(), Relaxed);
    }

    pub(super) fn touch(&self, now: Tick, message: bool) {
        self.last_inbound.store(now.to_bits(), Relaxed);
        if message {
            self.last_message.store(now.to_bits(), Relaxed);
        }
    }

    /// Waits until nothing waits for the client, or it is gone. Cancel-safe.
    pub(crate) async fn drained(&self) {
        loop {
            let ended = match &mut self.out.lock().queue {
                Some(queue) => queue.ended(),
                None => return,
            };
            ended.await;
        }
    }

    /// Bytes and messages that wait.
    pub fn queued(&self) -> (usize, usize) {
        self.out
            .lock()
            .queue
            .as_ref()
            .map_or((0, 0), |queue| queue.size())
    }

    /// Whether it is open and has not taken all that was sent to it.
    pub(crate) fn lags(&self) -> bool {
        self.closed().is_none() && self.out.lock().queue.is_some()
    }
}

/// Writes what waits as the socket becomes writable, until nothing waits.
pub(super) async fn flush_when_writable(conn: Arc<Conn>) {
    loop {
        if std::future::poll_fn(|cx| conn.socket.poll_write_ready(cx))
            .await
            .is_err()
        {
            return;
        }
        let mut out = conn.out.lock();
        let Some(queue) = &mut out.queue else { return };
        match conn.flush(queue) {
            Ok(true) if conn.flushed(&mut out) => return,
            Ok(_) => {}
            Err(_) => {
                out.sealed = true;
                out.queue = None;
                return;
            }
        }
    }
}
