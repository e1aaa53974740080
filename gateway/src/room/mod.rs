//! The rooms that have members on this gateway, and the way of a delivery to them.
//!
//! [`Rooms`] is the broker's [`Sink`]: it sorts a batch by room, appends to each room what is its, and then flushes each
//! room once ([`fanout`]). A room exists while it has members here; joins and leaves of one room may race, the broker sees
//! subscribe and unsubscribe strictly in turns.

mod absent;
mod batch;
mod block;
mod fanout;
mod held;
mod listing;
mod local;
mod members;
mod outcome;
mod pending;
mod presence;
mod recovery;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::broker::{Attendee, Broker, BrokerError, Crowded, Delivery, Sink, StreamKey};
use crate::config::{Limit, SlowPolicy};
use crate::fleet::Inbox;
use crate::session::{Conn, Env};
pub use absent::Absent;
pub use local::Room;
use outcome::{Begin, Flush, Join, LINGER};
pub use presence::{PAGE_USERS, PresenceError};
pub(crate) use recovery::{PAGE_BYTES, PAGE_MESSAGES};

/// Shards of the table.
const SHARDS: usize = 32;

/// The table of rooms and personal streams.
#[derive(Debug)]
pub struct Rooms {
    /// What the fleet was told.
    pub orders: Inbox,
    env: Arc<Env>,
    hasher: ahash::RandomState,
    shards: Box<[Mutex<HashSet<Entry, ahash::RandomState>>]>,
}

/// A room, found by its key: the key is stored once, in the room.
#[derive(Debug)]
struct Entry(Arc<Room>);

impl Borrow<StreamKey> for Entry {
    fn borrow(&self) -> &StreamKey {
        &self.0.key
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl Rooms {
    /// No rooms.
    pub fn new(env: Arc<Env>) -> Self {
        let hasher = ahash::RandomState::new();
        let shard = || Mutex::new(HashSet::with_hasher(ahash::RandomState::new()));
        Self {
            orders: Inbox::default(),
            env,
            hasher,
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }

    fn shard(&self, key: &StreamKey) -> &Mutex<HashSet<Entry, ahash::RandomState>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn find(&self, key: &StreamKey) -> Option<Arc<Room>> {
        self.shard(key).lock().get(key).map(|entry| Arc::clone(&entry.0))
    }

    fn find_or_create(&self, key: &StreamKey) -> Arc<Room> {
        let mut shard = self.shard(key).lock();
        if let Some(entry) = shard.get(key) {
            return Arc::clone(&entry.0);
        }
        let policy = match key {
            StreamKey::Room(name) => self.env.slow_consumers.of(name),
            StreamKey::User(_) | StreamKey::Fleet(_) => SlowPolicy::Disconnect,
        };
        let room = Arc::new(Room::new(key.clone(), policy, self.env.presences.of(key)));
        shard.insert(Entry(Arc::clone(&room)));
        match key {
            StreamKey::Room(_) => self.env.metrics.rooms.inc(),
            StreamKey::User(_) => self.env.metrics.users.inc(),
            StreamKey::Fleet(_) => {}
        }
        room
    }

    fn drop_if_idle(&self, room: &Arc<Room>) {
        let mut shard = self.shard(&room.key).lock();
        if room.retire() && shard.remove(&room.key) {
            match room.key {
                StreamKey::Room(_) => self.env.metrics.rooms.dec(),
                StreamKey::User(_) => self.env.metrics.users.dec(),
                StreamKey::Fleet(_) => {}
            }
        }
    }

    /// Joins without waiting when the room is subscribed; else gives what to wait for. The client is told its
    /// position (`joined`) before anything that comes after it.
    pub fn join(self: &Arc<Self>, conn: &Arc<Conn>, key: StreamKey, broker: &Arc<dyn Broker>) -> JoinStep {
        loop {
            let room = self.find_or_create(&key);
            match room.try_join(conn, Begin::Live, &self.env, &**broker) {
                Join::Dead => {}
                Join::Joined { announce } => {
                    if announce {
                        self.announce_join(&room, conn, &**broker);
                    }
                    return JoinStep::Done(Ok(room));
                }
                Join::Already => return JoinStep::Done(Ok(room)),
                Join::Full => return JoinStep::Done(Err(JoinError::Full)),
                waiting @ (Join::Subscribe | Join::Wait(_) | Join::Busy) => {
                    let (rooms, conn, broker) = (Arc::clone(self), Arc::clone(conn), Arc::clone(broker));
                    return JoinStep::Wait(Box::pin(async move {
                        rooms
                            .join_slowly(room, waiting, &conn, Begin::Live, key, &broker)
                            .await
                    }));
                }
            }
        }
    }

    /// Not cancel-safe: poll to completion.
    async fn join_slowly(
        self: &Arc<Self>,
        mut room: Arc<Room>,
        mut step: Join,
        conn: &Arc<Conn>,
        begin: Begin,
        key: StreamKey,
        broker: &Arc<dyn Broker>,
    ) -> Result<Arc<Room>, JoinError> {
        loop {
            step = match step {
                Join::Subscribe => match broker.subscribe(key.clone()).await {
                    Ok(position) => {
                        let joined = room.subscribed(position, conn, begin, &self.env, &**broker);
                        room.flush(&self.env);
                        joined
                    }
                    Err(error) => {
                        room.not_subscribed();
                        self.drop_if_idle(&room);
                        return Err(error.into());
                    }
                },
                Join::Wait(changed) => {
                    changed.await;
                    room.try_join(conn, begin, &self.env, &**broker)
                }
                Join::Busy => {
                    tokio::task::yield_now().await;
                    room.try_join(conn, begin, &self.env, &**broker)
                }
                Join::Dead => {
                    room = self.find_or_create(&key);
                    room.try_join(conn, begin, &self.env, &**broker)
                }
                Join::Joined { announce } => {
                    if announce {
                        self.announce_join(&room, conn, &**broker);
                    }
                    return Ok(room);
                }
                Join::Already => return Ok(room),
                Join::Full => return Err(JoinError::Full),
            };
        }
    }

    /// Takes a member out; unsubscribes when it was the last.
    pub fn leave(&self, conn: &Conn, room: &Arc<Room>, broker: &dyn Broker) {
        if room.leave(conn, &self.env, broker) {
            broker.unsubscribe(&room.key);
            room.unsubscribed();
            self.drop_if_idle(room);
        }
    }
}

/// Why a connection did not become a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The broker did not confirm the subscription; try again later.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The user has `connectionsPerUser` connections, here or in the fleet.
    #[error("too many connections of this user")]
    Full,
}

/// A join that is done, or what to await.
pub enum JoinStep {
    /// Done: a member, or not.
    Done(Result<Arc<Room>, JoinError>),
    /// Poll this to completion.
    Wait(BoxFuture<'static, Result<Arc<Room>, JoinError>>),
}

impl std::fmt::Debug for JoinStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(joined) => f.debug_tuple("Done").field(joined).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

impl Sink for Rooms {
    fn deliver(&self, batch: Vec<Delivery>) -> Option<Crowded> {
        let mut flush: SmallVec<[Arc<Room>; 4]> = SmallVec::new();
        let mut last: Option<Arc<Room>> = None;
        for delivery in batch {
            let known = last.take().filter(|room| room.key == delivery.stream);
            let Some(room) = known.or_else(|| self.find(&delivery.stream)) else {
                if matches!(delivery.stream, StreamKey::Fleet(_)) {
                    self.orders.put(&delivery);
                }
                continue;
            };
            match room.deliver(delivery, &self.env) {
                Flush::No => {}
                Flush::Now => {
                    if !flush.iter().any(|known| Arc::ptr_eq(known, &room)) {
                        flush.push(Arc::clone(&room));
                    }
                }
                Flush::Later => self.flush_later(Arc::clone(&room)),
            }
            last = Some(room);
        }
        let mut crowded = Vec::new();
        for room in flush {
            room.flush(&self.env);
            crowded.extend(room.crowded());
        }
        (!crowded.is_empty()).then(|| join_all(crowded).map(drop).boxed())
    }

    fn gateway(&self) -> String {
        format!("{} {}", self.env.instance, self.env.server_id)
    }

    fn each_device(&self, part: usize, visit: &mut dyn FnMut(&str, u64)) -> bool {
        let counted = self.env.connections_per_user != Limit::OFF;
        let Some(shard) = self.shards.get(part).filter(|_| counted) else {
            return false;
        };
        for Entry(room) in &*shard.lock() {
            if let StreamKey::User(user) = &room.key {
                room.with_members(|members, _| {
                    members.as_slice().iter().for_each(|conn| visit(user, conn.id.0));
                });
            }
        }
        true
    }

    fn each_room(&self, part: usize, visit: &mut dyn FnMut(&Arc<str>, usize)) -> bool {
        let Some(shard) = self.shards.get(part) else {
            return false;
        };
        for Entry(room) in &*shard.lock() {
            if let Some(name) = room.name().filter(|_| room.has_presence()) {
                visit(name, room.len());
            }
        }
        true
    }

    fn each_member(&self, room: &Arc<str>, visit: &mut dyn FnMut(&Attendee<'_>)) {
        let Some(here) = self.find(&StreamKey::Room(Arc::clone(room))) else {
            return;
        };
        here.with_members(|members, _| {
            for conn in members.as_slice() {
                visit(&Attendee {
                    room,
                    user: &conn.user,
                    connection: &conn.id.text(&self.env.instance),
                });
            }
        });
    }
}

impl Rooms {
    fn flush_later(&self, room: Arc<Room>) {
        let env = Arc::clone(&self.env);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                room.flush(&env);
            });
        } else {
            room.flush(&env);
        }
    }
}

#[cfg(test)]
mod tests;
