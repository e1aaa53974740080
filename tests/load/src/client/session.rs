//! One socket from its upgrade to its end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rand::Rng as _;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;
use tokio_util::sync::CancellationToken;

use super::connect::Upgraded;
use super::inbox::{SCRATCH, Scratch};
use super::{Client, Socket};
use crate::ledger::{Identity, MemberKey, Room};
use crate::policy::{Decision, Event, Policy};
use crate::retry::Retry;
use crate::wire::frame::opcode;
use crate::wire::message::{self, Place};

/// A join without an answer is sent again after this, and up to twice as much.
const JOIN_AGAIN: Duration = Duration::from_secs(5);
/// Rooms in one `resume`, which must not be longer than a message may be.
const MOST_RESUMED: usize = 100;
/// The old socket stays this long after the new one has joined: what the old server had on its way still arrives.
const OVERLAP: Duration = Duration::from_millis(500);
/// How long a server may take to answer a close frame, or to end the connection after its own.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How a session ended, for its client.
pub(super) enum End {
    /// Its successor goes on.
    HandedOver,
    /// Closed, 1006 when cut; nobody goes on.
    Closed(u16),
}

pub(super) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) socket: Arc<Socket>,
    pub(super) rooms: Vec<Membership>,
    /// The beginning of a frame that has not come whole.
    pub(super) partial: Vec<u8>,
    /// The beginning of a message that has not come whole.
    pub(super) fragments: Vec<u8>,
    pub(super) server: Option<Arc<str>>,
    /// A `server_shutdown` that the policy has not seen yet.
    pub(super) told: Option<Event>,
    pub(super) close_sent: Option<u16>,
    /// The code it ended with.
    pub(super) ended: Option<u16>,
    began: Duration,
    is_joined: bool,
    /// Joined since the policy was last told.
    fresh: bool,
    handed_over: bool,
    timers: Timers,
}

/// One of the client's rooms on this socket.
pub(super) struct Membership {
    pub(super) room: Arc<Room>,
    pub(super) key: Option<MemberKey>,
    /// What came before `joined`.
    pub(super) early: Vec<(u64, Identity)>,
    /// Where the server was told that the client was.
    pub(super) asked: Option<(Arc<str>, u64)>,
}

impl Membership {
    fn place(&self) -> Place<'_> {
        let asked = self.asked.as_ref();
        let (epoch, offset) = asked.map(|(epoch, offset)| (&**epoch, *offset)).unzip();
        Place {
            room: &self.room.name,
            epoch,
            offset,
        }
    }
}

/// When to do what, as times since the run began. Mostly nothing.
#[derive(Default)]
struct Timers {
    join_again: Option<Duration>,
    open_beside: Option<Duration>,
    retire: Option<Duration>,
    give_up: Option<Duration>,
}

impl Timers {
    fn next(&self) -> Option<Duration> {
        [self.join_again, self.open_beside, self.retire, self.give_up]
            .into_iter()
            .flatten()
            .min()
    }
}

fn due(timer: &mut Option<Duration>, now: Duration) -> bool {
    timer.take_if(|at| *at <= now).is_some()
}

/// Runs one socket to its end. `old` is retired when this one has joined. Not cancel-safe.
pub(super) async fn run(
    client: &Arc<Client>,
    upgraded: Upgraded,
    old: &mut Option<Arc<Socket>>,
    policy: &mut Policy,
    cancel: &CancellationToken,
) -> End {
    let (mut reader, writer) = upgraded.stream.into_split();
    let mut session = Session::new(client, Arc::new(Socket::new(writer)), upgraded.began);
    client.shared.stats.open.add(1);
    if !upgraded.early.is_empty() {
        SCRATCH.with_borrow_mut(|scratch| session.consume(&upgraded.early, &mut scratch.seen));
    }
    let code = session.drive(&mut reader, old, policy, cancel).await;
    session.finish(cancel);
    client
        .shared
        .tasks
        .spawn(linger(reader, Arc::clone(&session.socket)));
    if session.handed_over {
        End::HandedOver
    } else {
        End::Closed(code)
    }
}

/// The server ends the TCP connection (RFC 6455 §7.1.1); closing it here with bytes unread would reset it.
async fn linger(mut reader: OwnedReadHalf, socket: Arc<Socket>) {
    let mut rest = [0; 512];
    let until_end = async { while !matches!(reader.read(&mut rest).await, Ok(0) | Err(_)) {} };
    // a server that does not end it in time is left to the kernel
    let _ = tokio::time::timeout(CLOSE_WAIT, until_end).await;
    drop(socket);
}

impl Session {
    fn new(client: &Arc<Client>, socket: Arc<Socket>, began: Duration) -> Self {
        let shared = &client.shared;
        let (layout, rooms) = (shared.config.rooms, shared.config.rooms_per_connection);
        let membership = |nth| {
            let room = shared.ledger.room(layout.room(client.index, nth, rooms));
            Membership {
                room,
                key: None,
                early: Vec::new(),
                asked: None,
            }
        };
        Self {
            client: Arc::clone(client),
            socket,
            rooms: (0..rooms).map(membership).collect(),
            partial: Vec::new(),
            fragments: Vec::new(),
            server: None,
            told: None,
            close_sent: None,
            ended: None,
            began,
            is_joined: false,
            fresh: false,
            handed_over: false,
            timers: Timers::default(),
        }
    }

    async fn drive(
        &mut self,
        reader: &mut OwnedReadHalf,
        old: &mut Option<Arc<Socket>>,
        policy: &mut Policy,
        cancel: &CancellationToken,
    ) -> u16 {
        let socket = Arc::clone(&self.socket);
        let mut cancelled = false;
        loop {
            self.attend(old, policy);
            if let Some(code) = self.ended {
                return code;
            }
            let next = self.timers.next();
            let now = self.shared().now();
            let pending = socket.has_pending();
            let sleep = async {
                if let Some(at) = next {
                    tokio::time::sleep(at.saturating_sub(now)).await;
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    self.close(1000);
                }
                () = socket.woken() => {
                    if socket.is_retired() && self.close_sent.is_none() && self.timers.retire.is_none() {
                        self.timers.retire = Some(self.shared().now() + OVERLAP);
                    }
                }
                () = sleep, if next.is_some() => self.fire(cancel),
                written = async { socket.writable().await.and_then(|()| socket.flush()) }, if pending => {
                    if written.is_err() {
                        self.cut();
                    }
                }
                read = poll_fn(|cx| self.poll_read(reader, cx)) => {
                    if !matches!(read, Ok(true)) && self.ended.is_none() {
                        self.cut();
                    }
                }
            }
        }
    }

    /// Reads once and takes what came; false at the end of the stream.
    fn poll_read(&mut self, reader: &mut OwnedReadHalf, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        SCRATCH.with_borrow_mut(|Scratch { buffer, seen }| {
            let held = self.partial.len();
            buffer[..held].copy_from_slice(&self.partial);
            let mut space = ReadBuf::new(&mut buffer[held..]);
            ready!(Pin::new(reader).poll_read(cx, &mut space))?;
            let read = space.filled().len();
            self.consume(&buffer[..held + read], seen);
            Poll::Ready(Ok(read > 0))
        })
    }

    /// Does what reading found to do.
    fn attend(&mut self, old: &mut Option<Arc<Socket>>, policy: &mut Policy) {
        if std::mem::take(&mut self.fresh) {
            policy.joined();
            if let Some(old) = old.take() {
                old.retire();
            }
        }
        if let Some(event) = self.told.take()
            && !self.handed_over
            && let Decision::OpenBeside { at } = policy.decide(&event, self.shared().now(), &mut rand::rng())
        {
            self.timers.open_beside = Some(at);
        }
    }

    fn fire(&mut self, cancel: &CancellationToken) {
        let now = self.shared().now();
        if due(&mut self.timers.join_again, now) {
            self.send_joins(now);
        }
        if due(&mut self.timers.open_beside, now) && !cancel.is_cancelled() {
            self.handed_over = true;
            let next = self.client.start_beside(Arc::clone(&self.socket), cancel.clone());
            self.shared().tasks.spawn(next);
        }
        if due(&mut self.timers.retire, now) {
            self.close(1000);
        }
        if due(&mut self.timers.give_up, now) {
            self.cut();
        }
    }

    fn close(&mut self, code: u16) {
        if self.socket.close(code) {
            self.close_sent = Some(code);
            self.timers = Timers {
                give_up: Some(self.shared().now() + CLOSE_WAIT),
                ..Timers::default()
            };
        }
    }

    /// Joins every room that has not answered yet: one with a position, or none, by `join`, several with positions by
    /// `resume`.
    pub(super) fn send_joins(&mut self, now: Duration) {
        if self.rooms.is_empty() {
            return self.all_joined(now);
        }
        for (nth, room) in self.rooms.iter_mut().enumerate() {
            if room.key.is_none() {
                room.asked = self.client.position(nth, &room.room);
            }
        }
        let missing = self.rooms.iter().filter(|room| room.key.is_none());
        let (back, mut new): (Vec<_>, Vec<_>) = missing
            .map(Membership::place)
            .partition(|place| place.epoch.is_some());
        let back = if back.len() == 1 {
            new.extend(back);
            Vec::new()
        } else {
            back
        };
        let joins = new.iter().map(message::join);
        let resumes = back.chunks(MOST_RESUMED).map(message::resume);
        for message in joins.chain(resumes).flatten() {
            // a full socket is tried again with the next round
            let _ = self.socket.send(opcode::TEXT, &message);
        }
        let jitter = JOIN_AGAIN.mul_f64(rand::rng().random());
        self.timers.join_again = Some(now + JOIN_AGAIN + jitter);
    }

    pub(super) fn all_joined(&mut self, now: Duration) {
        if self.is_joined {
            return;
        }
        self.is_joined = true;
        self.fresh = true;
        self.timers.join_again = None;
        self.shared().stats.join.record(now.saturating_sub(self.began));
        self.client.socket_joined(&self.socket);
    }

    /// Leaves all books. What was not acknowledged is left to the client's next socket, if there will be one.
    fn finish(&mut self, cancel: &CancellationToken) {
        let shared = Arc::clone(self.shared());
        let now = shared.now();
        for (index, membership) in self.rooms.iter_mut().enumerate() {
            let Some(key) = membership.key.take() else {
                continue;
            };
            let coverage = membership.room.ledger.lock().leave(key, now);
            if let Some(coverage) = coverage {
                self.client
                    .handover(index, &membership.room, |handover| handover.ended(key, coverage));
            }
        }
        if self.is_joined {
            self.client.socket_ended(&self.socket);
        }
        if let Some(server) = self.server.take() {
            shared.stats.servers.closed(&server);
        }
        shared.stats.open.sub(1);
        let unanswered = self.socket.shut();
        if !shared.retries.is_on() || cancel.is_cancelled() {
            return shared.stats.unconfirmed.add(unanswered.len() as u64);
        }
        for publish in unanswered {
            let retry = Retry {
                client: self.client.index,
                publish,
                at: now,
                refused: None,
            };
            shared.retries.keep(retry, now, &shared.stats);
        }
    }
}
