//! One room on this gateway: its local members and what is on its way to them.
//!
//! The first local member subscribes at the broker, the last one unsubscribes; `Link` makes these changes one after the
//! other, whoever comes meanwhile waits for the change to end and looks again. Deliveries append under the lock; whoever
//! finds nobody flushing takes what is pending and has it written, once per member, without the lock. A member that
//! joins gets the position behind what is pending, and nothing of it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::batch::Batch;
use super::fanout::Fanout;
use super::members::Members;
use super::pending::Pending;
use crate::broker::{Delivery, Position, StreamKey};
use crate::config::SlowPolicy;
use crate::protocol::ServerMessage;
use crate::session::{Conn, ConnId, Env};

/// Deliveries kept while a subscription is being confirmed; a joiner's position moves past older ones.
const BACKLOG: usize = 4_096;
/// How long announcements wait for company: a crowd that joins is announced in few writes.
pub(super) const LINGER: Duration = Duration::from_millis(20);

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

/// What came of an attempt to join.
#[derive(Debug)]
pub(super) enum Join {
    /// A member now; `announce`: the user's first connection here, in a room where that is told.
    Joined { announce: bool },
    /// A member already; was told the position again.
    Already,
    /// The user has as many connections as are allowed.
    Full,
    /// The caller must subscribe, and then call [`Room::subscribed`].
    Subscribe,
    /// Wait, then try again.
    Wait(OwnedNotified),
    /// The room was dropped; look it up again.
    Dead,
}

/// What came of leaving.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// It was the last member: the caller must unsubscribe, and then call [`Room::unsubscribed`].
    pub(super) unsubscribe: bool,
    /// It was the user's last connection here, in a room where that is told.
    pub(super) announce: bool,
}

/// Who writes what was just delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Nobody needs to.
    No,
    /// The caller, at once, unless somebody does.
    Now,
    /// The caller, after [`LINGER`].
    Later,
}

impl Room {
    pub(super) fn new(key: StreamKey, policy: SlowPolicy) -> Self {
        let state = State {
            link: Link::Idle,
            members: Members::None,
            position: None,
            pending: None,
            settled: None,
            flushing: false,
            lingering: false,
            policy,
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
            StreamKey::User(_) => None,
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
    pub fn contains(&self, id: ConnId) -> bool {
        self.state.lock().members.contains(id)
    }

    /// Calls `visit` for each member; none leaves meanwhile.
    pub(super) fn each_member(&self, mut visit: impl FnMut(ConnId)) {
        for member in self.state.lock().members.as_slice() {
            visit(member.id);
        }
    }

    pub(super) fn try_join(&self, conn: &Arc<Conn>, env: &Env) -> Join {
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
            Link::Subscribed => self.add(&mut state, conn, env),
        }
    }

    /// The subscription was confirmed: takes in what was delivered since, and the first member.
    pub(super) fn subscribed(&self, position: Position, conn: &Arc<Conn>, env: &Env) -> Join {
        let mut state = self.state.lock();
        let Link::Subscribing(changed, backlog) = std::mem::replace(&mut state.link, Link::Subscribed) else {
            return Join::Dead;
        };
        state.position = Some(position);
        for delivery in &backlog {
            state.take_in(delivery, env);
        }
        let joined = self.add(&mut state, conn, env);
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
    fn add(&self, state: &mut State, conn: &Arc<Conn>, env: &Env) -> Join {
        let already = state.members.contains(conn.id);
        // one who is a member already may have to get what is pending yet
        let settled = state.settled.as_deref().filter(|_| already);
        let Some(position) = settled.or(state.position.as_ref()) else {
            return Join::Dead;
        };
        let members = state.members.len() + usize::from(!already);
        match &self.key {
            StreamKey::Room(room) => {
                let joined = ServerMessage::Joined {
                    room,
                    epoch: &position.epoch,
                    offset: position.offset,
                };
                env.metrics.sent(1);
                conn.send(&conn.format.frame(&joined), 1, env.clock.tick());
            }
            StreamKey::User(_) if env.connections_per_user.allows(members) => conn.welcome(),
            StreamKey::User(_) => return Join::Full,
        }
        if already {
            return Join::Already;
        }
        if let Some(pending) = &mut state.pending {
            pending.joins(conn.id);
        }
        let told = self.name().is_some() && env.announce_members.allows(state.members.len() + 1);
        let announce = told && !state.members.has_other_of(&conn.user, conn.id);
        state.members.push(Arc::clone(conn));
        Join::Joined { announce }
    }

    pub(super) fn leave(&self, conn: &Conn, env: &Env) -> Left {
        let mut state = self.state.lock();
        if !state.members.remove(conn.id) {
            return Left {
                unsubscribe: false,
                announce: false,
            };
        }
        let told = self.name().is_some() && env.announce_members.allows(state.members.len() + 1);
        let announce = told && !state.members.has_other_of(&conn.user, conn.id);
        let unsubscribe = state.members.is_empty() && matches!(state.link, Link::Subscribed);
        if unsubscribe {
            state.link = Link::Unsubscribing(Arc::default());
            state.position = None;
            state.pending = None;
            state.settled = None;
        }
        Left {
            unsubscribe,
            announce,
        }
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
        let sequenced = delivery.position.is_some();
        if !state.take_in(&delivery, env) {
            return Flush::No;
        }
        if sequenced || state.flushing {
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

    /// Writes what is pending, unless somebody does; goes on until nothing is. A large room is written to by tasks, and
    /// this comes back at once.
    pub(super) fn flush(self: &Arc<Self>, env: &Arc<Env>) {
        let mut state = self.state.lock();
        state.lingering = false;
        if !state.flushing {
            self.go_on(state, env);
        }
    }

    /// The tasks have written to everybody.
    pub(super) fn written(self: &Arc<Self>, env: &Arc<Env>) {
        let mut state = self.state.lock();
        state.flushing = false;
        self.go_on(state, env);
    }

    fn go_on(self: &Arc<Self>, mut state: MutexGuard<'_, State>, env: &Arc<Env>) {
        while let Some(block) = state.pending.as_mut().and_then(|pending| pending.take()) {
            let batch = Batch::new(self.key.clone(), block);
            let fanout = Fanout::new(env, batch, state.members.clone(), state.policy);
            state.flushing = true;
            if let Some(runtime) = fanout.spreads() {
                return MutexGuard::unlocked(&mut state, || fanout.spread(self, &runtime));
            }
            MutexGuard::unlocked(&mut state, || fanout.run());
            state.flushing = false;
        }
        state.pending = None;
        state.settled = None;
    }
}

impl State {
    /// False when it was known or is not for this gateway.
    fn take_in(&mut self, delivery: &Delivery, env: &Env) -> bool {
        let Some(last) = &mut self.position else {
            return false;
        };
        if delivery.position.is_none() && !env.announce_members.allows(self.members.len()) {
            return false;
        }
        let known = |new: &Position| new.epoch == last.epoch && new.offset <= last.offset;
        if delivery.position.as_ref().is_some_and(known) {
            return false;
        }
        if self.settled.is_none() {
            self.settled = Some(Box::new(last.clone()));
        }
        self.pending.get_or_insert_default().push(delivery, &env.instance);
        if let Some(new) = &delivery.position {
            last.clone_from(new);
        }
        true
    }
}
