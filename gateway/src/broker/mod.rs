//! What carries messages between gateways, and assigns each its place in its stream.
//!
//! Every room, and every user's personal stream of direct messages, is a *stream*: an `epoch` (random text, new
//! whenever the stream's metadata is created anew) and an `offset` (1 for the first message, +1 for each, below 2^53).
//! A broker assigns the offset where a message is published, in one atomic step, so that every gateway sees the same
//! order; it hands each message of a subscribed stream to the [`Sink`], in offset order per stream, the publisher's
//! own gateway included.
//!
//! Of each stream the last messages are kept, as [`Histories`](crate::config::Histories) says, and can be read again
//! ([`Broker::history`]). Ephemeral rooms have neither offsets nor history. Announcements (`user_joined`, `user_left`)
//! travel on the same channel without an offset.

mod epoch;
mod event;
pub mod memory;
mod message;
mod msg_id;
pub mod nats;
mod presence;
pub mod redis;
mod stats;
mod table;
mod timing;
mod worker;

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::future::BoxFuture;

pub use event::{Event, encode};
pub use msg_id::MsgId;
pub use presence::{Attendance, Attendee, PresenceSettings, Roll};
pub use worker::WorkerEvent;

/// A room, or a user's personal stream. Ordered and hashable: the key of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKey {
    /// A room, by name (any text of 1 to `roomNameBytes` bytes; `events` or `a:b` are names like any other).
    Room(Arc<str>),
    /// A user's personal stream, by user id.
    User(Arc<str>),
    /// What all gateways are told, by name ([`crate::fleet`]).
    Fleet(Arc<str>),
}

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Random text that identifies this life of the stream.
    pub epoch: Arc<str>,
    /// Offset of the last message; 0 when there was none yet.
    pub offset: u64,
}

impl Position {
    /// The place of what has none: announcements, and everything in ephemeral rooms.
    pub fn none() -> Self {
        Self {
            epoch: Arc::clone(nobody()),
            offset: 0,
        }
    }

    /// Whether everything up to here is part of another life of the stream, too.
    pub fn is_part_of(&self, epoch: &str) -> bool {
        epoch::shared(epoch, &self.epoch).is_some_and(|shared| self.offset <= shared)
    }

    /// The last place in another life of the stream up to which it has the messages from here back.
    pub(crate) fn carried_to(&self, epoch: &Arc<str>) -> Self {
        Self {
            epoch: Arc::clone(epoch),
            offset: epoch::shared(epoch, &self.epoch).unwrap_or(0).min(self.offset),
        }
    }
}

/// The empty text, once for all.
fn nobody() -> &'static Arc<str> {
    static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
    &EMPTY
}

/// One message on its way in.
pub struct Publish {
    /// Where to.
    pub stream: StreamKey,
    /// What.
    pub event: Event,
    /// The sender's own name for the message: of those with one name only the first is accepted, for [`MSG_ID_TTL`].
    /// Not heeded in ephemeral rooms.
    pub msg_id: Option<MsgId>,
    /// Called exactly once, from any thread, when the outcome is known; must not block.
    pub reply: Option<Reply>,
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("stream", &self.stream)
            .field("event", &self.event)
            .field("msg_id", &self.msg_id)
            .field("reply", &self.reply.is_some())
            .finish()
    }
}

/// Told of the outcome of a publish.
pub type Reply = Box<dyn FnOnce(Result<Accepted, BrokerError>) + Send>;

/// For how long a sender's `msgId` is remembered after its first use.
pub const MSG_ID_TTL: Duration = Duration::from_mins(5);

/// A message that the broker has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its place; [`Position::none`] for announcements, and in ephemeral rooms.
    pub position: Position,
    /// It had been accepted before (same `msgId`), and was not published again.
    pub duplicate: bool,
}

impl From<Position> for Accepted {
    fn from(position: Position) -> Self {
        Self {
            position,
            duplicate: false,
        }
    }
}

/// Which of a stream's messages are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Those after this offset, the oldest first.
    After(u64),
    /// The last ones before this offset, or of all.
    Before(Option<u64>),
}

/// A question for messages that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Of which stream.
    pub stream: StreamKey,
    /// Which.
    pub span: Span,
    /// So many at most.
    pub messages: usize,
    /// So many bytes at most, about; one message is given in any case.
    pub bytes: usize,
}

/// Messages that were kept.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where the stream stood when they were read.
    pub position: Position,
    /// In order of their offsets.
    pub messages: Vec<Kept>,
    /// There were more than were asked for.
    pub more: bool,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its place in the page's epoch.
    pub offset: u64,
    /// The message.
    pub event: Arc<Event>,
}

/// One message on its way out, for a stream that this gateway is subscribed to.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it was published.
    pub stream: StreamKey,
    /// Its place; `None` for announcements and in ephemeral rooms.
    pub position: Option<Position>,
    /// What.
    pub event: Arc<Event>,
}

/// Takes what a broker delivers. A batch is everything that one read of the link (or one publish call) brought, so that
/// a room's share of it is written to each member at once. Must not block.
pub trait Sink: Send + Sync + 'static {
    /// Takes a batch; per stream it is in offset order. Members are written to meanwhile: when they do not keep up, it gives
    /// what the broker must await before it delivers more.
    fn deliver(&self, batch: Vec<Delivery>) -> Option<Crowded>;

    /// Which gateway it is, for others who look for a user: what makes its connections unique, a space, its name.
    fn gateway(&self) -> String {
        String::new()
    }

    /// Calls `visit` with user and number of each connection of one part of those that count against their users' limit:
    /// they are subscribed to the user's personal stream. False when there is no such part; the first is 0. None of
    /// them leaves during its call, which must be quick and not come back here.
    fn each_device(&self, part: usize, visit: &mut dyn FnMut(&str, u64)) -> bool {
        let _ = (part, visit);
        false
    }

    /// Calls `visit` with each room of one part of those whose presence is known, and with how many members it has here.
    /// False when there is no such part; the first is 0. It must be quick and not come back here.
    fn each_room(&self, part: usize, visit: &mut dyn FnMut(&Arc<str>, usize)) -> bool {
        let _ = (part, visit);
        false
    }

    /// Calls `visit` with each member that a room has here. None of them leaves meanwhile; so it must be quick and not come
    /// back here.
    fn each_member(&self, room: &Arc<str>, visit: &mut dyn FnMut(&Attendee<'_>)) {
        let _ = (room, visit);
    }
}

/// Ready when there is room again, or nobody left to deliver to.
pub type Crowded = BoxFuture<'static, ()>;

/// What can go wrong. Each variant but the last is temporary: trying again later may work.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BrokerError {
    /// The broker cannot be reached; the message was not sent. Try again later.
    #[error("the message broker cannot be reached; try again later")]
    Unavailable,
    /// The link was lost, or the time was up, after the message was sent: it may or may not have been accepted.
    #[error("the message broker did not confirm the message in time; it may have been accepted")]
    Unconfirmed,
    /// More is waiting for the broker than the gateway keeps; nothing was sent. Slow down.
    #[error("too many messages wait for the message broker; slow down and try again")]
    Overloaded,
    /// The broker answered with an error of its own.
    #[error("the message broker refused the message: {0}")]
    Refused(Arc<str>),
    /// There is no stream for workers. Events need Redis or NATS, and `--events on`; nothing else is answered with this.
    #[error("events are off on this gateway: they need --broker redis://… or nats://…, and --events on")]
    EventsOff,
}

/// What came of asking for one more connection of a user in the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// It is counted, under the gateway's lease of this number.
    Taken(u64),
    /// The user has as many connections as are allowed; it is not counted.
    Full,
    /// The fleet's count is not known now.
    Unknown,
}

/// One connection of a user in the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its gateway's name.
    pub server_id: Arc<str>,
    /// What makes connections of that gateway unique in the fleet.
    pub instance: Arc<str>,
    /// Its number there.
    pub connection: u64,
}

/// How well the broker can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The command link answers.
    pub up: bool,
    /// Deliveries may be missing or late: a link is down, or a subscription link was not proven lately.
    pub degraded: bool,
}

/// A message broker. Three implementations: `memory` (one process), `redis`, and `nats`.
pub trait Broker: fmt::Debug + Send + Sync + 'static {
    /// Publishes in order. Returns at once; outcomes go to the replies. With `memory` the deliveries happen inside.
    fn publish(&self, batch: Vec<Publish>);

    /// Appends events to the stream that workers read, in order. Returns at once; each reply is called once, as those of
    /// [`Broker::publish`]. The place of an event is [`Position::none`].
    fn append(&self, events: Vec<(WorkerEvent, Reply)>) {
        for (_, reply) in events {
            reply(Err(BrokerError::EventsOff));
        }
    }

    /// Subscribes this gateway to a stream and tells its position then: every later message is delivered.
    /// Messages may be delivered before the future is ready: keep those after the position, drop the others. After an
    /// error there is no subscription. Calling it again for a subscribed stream is an error of the caller. Not
    /// cancel-safe: poll to completion, and call [`Broker::unsubscribe`] if the result is no longer wanted.
    fn subscribe(&self, stream: StreamKey) -> BoxFuture<'static, Result<Position, BrokerError>>;

    /// Reads messages that are kept. What lies further back than the stream's history, or was never there, is simply not
    /// among them: the offsets tell.
    fn history(&self, reading: Reading) -> BoxFuture<'static, Result<Page, BrokerError>>;

    /// Ends a subscription. Messages already on their way may still be delivered.
    fn unsubscribe(&self, stream: &StreamKey);

    /// Counts one more connection of a user in the whole fleet, unless there are `most`. Unless it is [`Seat::Full`]
    /// the caller goes on with [`Broker::keep_seat`], and in any case ends with [`Broker::give_seat`].
    /// `None`: this broker knows one gateway only, whose own count is the fleet's.
    fn take_seat(&self, user: &Arc<str>, connection: u64, most: u32) -> Option<BoxFuture<'static, Seat>> {
        let _ = (user, connection, most);
        None
    }

    /// The connection is subscribed to its user's personal stream now, so [`Sink::each_device`] tells of it: from here
    /// on it stays counted, whatever happened since its seat was taken.
    fn keep_seat(&self, user: &str, connection: u64, seat: Seat) {
        let _ = (user, connection, seat);
    }

    /// The connection counts no more. Doing it twice, or for one that was never counted, is harmless.
    fn give_seat(&self, user: &str, connection: u64) {
        let _ = (user, connection);
    }

    /// A connection has become a member of a room whose presence is known; `opens`: the only one here. Called in the order
    /// of joins and leaves, under the room's lock: must not block, nor come back to the sink. The broker announces it if
    /// the user is new. False: this broker knows one gateway only, whose rooms know who is in them.
    fn enter(&self, attendee: &Attendee<'_>, opens: bool) -> bool {
        let _ = (attendee, opens);
        false
    }

    /// The connection is a member no more; `closes`: it was the only one here. As [`Broker::enter`].
    fn exit(&self, attendee: &Attendee<'_>, closes: bool) -> bool {
        let _ = (attendee, closes);
        false
    }

    /// Who is in a room. Whoever is in it from the first page to the last is on one of them, once.
    /// `None`: this broker knows one gateway only, whose rooms know it.
    fn attendance(&self, roll: Roll) -> Option<BoxFuture<'static, Result<Attendance, BrokerError>>> {
        let _ = roll;
        None
    }

    /// Where in the whole fleet a user's connections are that are counted, or were until a moment ago.
    /// `None`: this broker knows one gateway only.
    fn whereabouts(&self, user: &str) -> Option<BoxFuture<'static, Result<Vec<Whereabouts>, BrokerError>>> {
        let _ = user;
        None
    }

    /// How well the broker can be relied on.
    fn health(&self) -> Health;

    /// Ends background work; open replies get [`BrokerError::Unconfirmed`].
    fn close(&self) -> BoxFuture<'static, ()>;
}
