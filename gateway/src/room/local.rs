//! One room on this gateway: its local members and what is on its way to them.
//!
//! The first local member subscribes at the broker, the last one unsubscribes; `Link` makes these changes one after the
//! other, whoever comes meanwhile waits for the change to end and looks again. Deliveries append under the lock; whoever
//! finds nobody flushing takes what is pending and has it written, once per member, without the lock. A member that
//! joins gets the position behind what is pending, and nothing of it.

mod writing;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::batch::Batch;
use super::block::Block;
use super::members::Members;
use super::outcome::{Begin, Flush, Join};
use super::pending::Pending;
use super::presence;
use crate::broker::{Broker, Delivery, Position, StreamKey};
use crate::config::SlowPolicy;
use crate::protocol::ServerMessage;
use crate::session::{Conn, Env};

/// Deliveries kept while a subscription is being confirmed; a joiner's position moves past older ones.
const BACKLOG: usize = 4_096;

/// A room, or a user's personal stream (a room of that user's devices).
#[derive(Debug)]
pub struct Room {
    pub(super) key: StreamKey,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Link,
    members: Members,
    /// The last delivery that was taken in. Meaningful while subscribed.
    position: Option<Position>,
    pending: Option<Box<Pending>>,
    /// Where the room was before what is pending or being written; `None` when every member has everything.
    settled: Option<Box<Position>>,
    flushing: bool,
    lingering: bool,
    /// What gives way when a member reads too slowly; here, where it costs no memory.
    policy: SlowPolicy,
    /// Whether it is told who is here.
    presence: bool,
    /// Users of the members, if that is told.
    users: u32,
}

/// The subscription at the broker.
#[derive(Debug)]
enum Link {
    /// None.
    Idle,
    /// The first member is asking for one; deliveries that come meanwhile are kept.
    Subscribing(Arc<Notify>, Vec<Delivery>),
    /// There is one.
    Subscribed,
    /// The last member is ending it.
    Unsubscribing(Arc<Notify>),
    /// Taken out of the table; look the room up again.
    Dead,
}

impl Room {
    pub(super) fn new(key: StreamKey, policy: SlowPolicy, presence: bool) -> Self {
        let state = State {
            link: Link::Idle,
            members: Members::None,
            position: None,
            pending: None,
            settled: None,
            flushing: false,
            lingering: false,
            policy,
            presence,
            users: 0,
        };
        Self {
            key,
            state: Mutex::new(state),
        }
    }

    /// The stream.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// The name, when it is a room and not a personal stream.
    pub fn name(&self) -> Option<&Arc<str>> {
        match &self.key {
            StreamKey::Room(name) => Some(name),
            StreamKey::User(_) | StreamKey::Fleet(_) => None,
        }
    }

    /// Members on this gateway.
    pub fn len(&self) -> usize {
        self.state.lock().members.len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the connection is a member.
    pub fn contains(&self, conn: &Conn) -> bool {
        self.state.lock().members.contains(conn)
    }

    /// Whether it is told who is here.
    pub(super) fn has_presence(&self) -> bool {
        self.state.lock().presence
    }

    /// The members, as they are now.
    pub(super) fn members(&self) -> Vec<Arc<Conn>> {
        self.state.lock().members.as_slice().to_vec()
    }

    /// Members and number of users, none of whom leaves meanwhile.
    pub(super) fn with_members<R>(&self, read: impl FnOnce(&Members, usize) -> R) -> R {
        let state = self.state.lock();
        read(&state.members, state.users as usize)
    }

    pub(super) fn try_join(&self, conn: &Arc<Conn>, begin: Begin, env: &Env, broker: &dyn Broker) -> Join {
        let mut state = self.state.lock();
        match &state.link {
            Link::Dead => Join::Dead,
            Link::Idle => {
                state.link = Link::Subscribing(Arc::default(), Vec::new());
                Join::Subscribe
            }
            Link::Subscribing(changed, _) | Link::Unsubscribing(changed) => {
                Join::Wait(Arc::clone(changed).notified_owned())
            }
            Link::Subscribed => self.add(&mut state, conn, begin, env, broker),
        }
    }

    /// The subscription was confirmed: takes in what was delivered since, and the first member.
    pub(super) fn subscribed(
        &self,
        position: Position,
        conn: &Arc<Conn>,
        begin: Begin,
        env: &Env,
        broker: &dyn Broker,
    ) -> Join {
        let mut state = self.state.lock();
        let Link::Subscribing(changed, backlog) = std::mem::replace(&mut state.link, Link::Subscribed) else {
            return Join::Dead;
        };
        state.position = Some(position);
        for delivery in &backlog {
            state.take_in(delivery, env);
        }
        let joined = self.add(&mut state, conn, begin, env, broker);
        drop(state);
        changed.notify_waiters();
        joined
    }

    /// The subscription failed.
    pub(super) fn not_subscribed(&self) {
        let mut state = self.state.lock();
        if let Link::Subscribing(changed, _) = std::mem::replace(&mut state.link, Link::Idle) {
            drop(state);
            changed.notify_waiters();
        }
    }

    /// Adds a member, and tells it where it begins: behind what is pending. Under the lock, so that nothing that comes
    /// later can be written earlier.
    fn add(&self, state: &mut State, conn: &Arc<Conn>, begin: Begin, env: &Env, broker: &dyn Broker) -> Join {
        let already = state.members.contains(conn);
        if begin == Begin::Live {
            let members = state.members.len() + usize::from(!already);
            if self.name().is_none() && !env.connections_per_user.allows(members) {
                return Join::Full;
            }
            // one who is a member already may have to get what is pending yet
            let settled = state.settled.as_deref().filter(|_| already);
            let Some(position) = settled.or(state.position.as_ref()) else {
                return Join::Dead;
            };
            self.tell(conn, position, env);
        } else if already && state.flushing {
            return Join::Busy;
        } else {
            state.pending.get_or_insert_default().hold(conn.id);
        }
        if already {
            return Join::Already;
        }
        if let Some(pending) = &mut state.pending {
            pending.joins(conn.id);
        }
        state.members.insert(Arc::clone(conn));
        let announce = state.presence && {
            let (members, users) = (&state.members, &mut state.users);
            presence::enters(self.name(), conn, (members, users), env, broker)
        };
        Join::Joined { announce }
    }

    fn tell(&self, conn: &Arc<Conn>, position: &Position, env: &Env) {
        let StreamKey::Room(room) = &self.key else {
            return conn.welcome(position);
        };
        let joined = ServerMessage::Joined {
            room,
            epoch: &position.epoch,
            offset: position.offset,
            recovered: None,
            reason: None,
        };
        env.metrics.sent(1);
        conn.send(&conn.format.frame(&joined), 1, env.clock.tick());
    }

    /// Where the room stands.
    pub(super) fn position(&self) -> Option<Position> {
        self.state.lock().position.clone()
    }

    /// A member that was held has everything up to `place`: it gets what came meanwhile, then all that comes. Under the
    /// lock, so that nothing that comes later can be written earlier.
    pub(super) fn release(&self, conn: &Arc<Conn>, place: &Position, env: &Env) {
        let mut state = self.state.lock();
        let State {
            pending, position, ..
        } = &mut *state;
        let (Some(pending), Some(position)) = (pending, position) else {
            return;
        };
        let tail = pending.release(conn.id, place, position);
        if tail.lost {
            let first = tail.entries.first().and_then(|entry| entry.position.as_ref());
            let missing = (place.offset + 1, first.unwrap_or(position).offset);
            let gap = ServerMessage::Gap {
                room: self.name().map(|name| &**name),
                from: missing.0,
                to: if first.is_some() {
                    missing.1.saturating_sub(1)
                } else {
                    missing.1
                },
                epoch: &position.epoch,
            };
            env.metrics.sent(1);
            conn.send(&conn.format.frame(&gap), 1, env.clock.tick());
        }
        if !tail.entries.is_empty() {
            let batch = Batch::new(self.key.clone(), Block::of(tail.entries));
            let (frames, messages) = batch.of(conn.id, conn.format);
            env.metrics.sent(u64::from(messages));
            conn.send(&frames, messages, env.clock.tick());
        }
    }

    /// Takes a member out. True when it was the last: the caller must unsubscribe, and then call [`Room::unsubscribed`].
    pub(super) fn leave(&self, conn: &Conn, env: &Env, broker: &dyn Broker) -> bool {
        let mut state = self.state.lock();
        if !state.members.remove(conn) {
            return false;
        }
        if let Some(pending) = &mut state.pending {
            pending.leaves(conn.id);
        }
        if state.presence {
            let State { members, users, .. } = &mut *state;
            presence::exits(self.name(), conn, (members, users), env, broker);
        }
        let unsubscribe = state.members.is_empty() && matches!(state.link, Link::Subscribed);
        if unsubscribe {
            state.link = Link::Unsubscribing(Arc::default());
            state.position = None;
            state.pending = None;
            state.settled = None;
        }
        unsubscribe
    }

    pub(super) fn unsubscribed(&self) {
        let mut state = self.state.lock();
        if let Link::Unsubscribing(changed) = std::mem::replace(&mut state.link, Link::Idle) {
            drop(state);
            changed.notify_waiters();
        }
    }

    /// Marks the room dead when nobody uses it; the caller holds the table's lock and takes it out.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.state.lock();
        let idle = matches!(state.link, Link::Idle) && state.members.is_empty();
        if idle {
            state.link = Link::Dead;
        }
        idle
    }

    /// Takes a delivery in.
    pub(super) fn deliver(&self, delivery: Delivery, env: &Env) -> Flush {
        let mut state = self.state.lock();
        if let Link::Subscribing(_, backlog) = &mut state.link {
            if backlog.len() >= BACKLOG {
                backlog.clear();
            }
            backlog.push(delivery);
            return Flush::No;
        }
        if !matches!(state.link, Link::Subscribed) {
            return Flush::No;
        }
        let message = !delivery.event.is_announcement();
        if !state.take_in(&delivery, env) {
            return Flush::No;
        }
        if message || state.flushing {
            return Flush::Now;
        }
        if std::mem::replace(&mut state.lingering, true) {
            Flush::No
        } else {
            Flush::Later
        }
    }

    /// What to await before more is delivered, when members do not keep up with what is.
    pub(super) fn crowded(&self) -> Option<OwnedNotified> {
        self.state.lock().pending.as_mut()?.crowded()
    }
}

impl State {
    /// False when it was known or is not for this gateway.
    fn take_in(&mut self, delivery: &Delivery, env: &Env) -> bool {
        let Some(last) = &mut self.position else {
            return false;
        };
        if delivery.event.is_announcement() && !env.announce_members.allows(self.members.len()) {
            return false;
        }
        let known = |new: &Position| new.epoch == last.epoch && new.offset <= last.offset;
        if delivery.position.as_ref().is_some_and(known) {
            return false;
        }
        if self.settled.is_none() {
            self.settled = Some(Box::new(last.clone()));
        }
        let pending = self.pending.get_or_insert_default();
        pending.push(delivery, last, &env.instance);
        if let Some(new) = &delivery.position {
            last.clone_from(new);
        }
        true
    }
}
