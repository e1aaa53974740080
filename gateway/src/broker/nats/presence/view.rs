//! Who is in one room, as one gateway sees it: entries in, announcements out. No I/O; time is passed in.
//!
//! A user is in the room by its connections, each under its gateway's lease, or has left it and may be back. Every gateway
//! with members in the room hears the same changes in the same order, so each decides by itself what its members are told.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::change::{Change, Sign};
use super::leases::{Leases, Times};
use crate::broker::{Attendance, Event};

/// How a user is in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// By so many connections.
    There(u32),
    /// Not any more, unless it is back by then; and on which gateway it was.
    Leaving(Instant, Arc<str>),
}

/// What decides over announcements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) times: Times,
    /// Rooms with more users get no announcements.
    pub(super) announced: usize,
}

/// What is to be told of a change, and what decides about it.
pub(super) struct Now<'a> {
    pub(super) rules: Rules,
    pub(super) leases: &'a mut Leases,
    pub(super) time: Instant,
    /// What our own leases begin with.
    pub(super) own: &'a str,
}

/// What is there under a gateway's lease.
#[derive(Debug)]
struct Under {
    server: Arc<str>,
    /// Users by connection.
    connections: HashMap<Arc<str>, Arc<str>>,
}

type Entries = HashMap<Arc<str>, Under>;

/// Takes a connection out, and gives its user.
fn take(entries: &mut Entries, change: &Change) -> Option<Arc<str>> {
    let under = entries.get_mut(&change.lease)?;
    let user = under.connections.remove(&change.connection)?;
    if under.connections.is_empty() {
        entries.remove(&change.lease);
    }
    Some(user)
}

/// Puts one in; false when it was there.
fn put(entries: &mut Entries, change: &Change) -> bool {
    let under = entries.entry(Arc::clone(&change.lease)).or_insert_with(|| Under {
        server: Arc::clone(&change.server),
        connections: HashMap::new(),
    });
    let user = Arc::clone(&change.user);
    under
        .connections
        .insert(Arc::clone(&change.connection), user)
        .is_none()
}

/// A room. What is heard while it is being read is kept, and applied behind what was read.
#[derive(Debug)]
pub(super) struct View {
    users: BTreeMap<Arc<str>, Standing>,
    /// By lease.
    entries: Entries,
    leaving: BTreeSet<(Instant, Arc<str>)>,
    /// What was heard while it is being read; nothing when it has been.
    heard: Option<Vec<Change>>,
    /// Until then nobody is announced that was there before: set when it is read for the first time.
    quiet: Option<Instant>,
    /// Number of the last message that was heard or read.
    seen: u64,
}

impl View {
    /// Of a room that is to be read.
    pub(super) fn unread() -> Self {
        Self {
            users: BTreeMap::new(),
            entries: HashMap::new(),
            leaving: BTreeSet::new(),
            heard: Some(Vec::new()),
            quiet: None,
            seen: 0,
        }
    }

    pub(super) const fn is_read(&self) -> bool {
        self.heard.is_none()
    }

    /// Number of the last message that was heard or read.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Something may have been missed: it is to be read again. False when it is being read already.
    pub(super) fn doubt(&mut self) -> bool {
        let read = self.is_read();
        // the stream may have begun anew
        self.seen = 0;
        self.heard.get_or_insert_default();
        read
    }

    /// Takes what was heard.
    pub(super) fn hear(&mut self, change: Change, now: &mut Now<'_>) -> Option<Event> {
        self.seen = self.seen.max(change.sequence);
        match &mut self.heard {
            Some(heard) => {
                heard.push(change);
                None
            }
            None => self.apply(&change, now),
        }
    }

    /// Takes what is stored of the room, and then what was heard meanwhile. The first time nobody is announced who was
    /// there before anything was heard, except for our own members: the first of them had it read. Later those are that came
    /// unheard. Who was there and is not any more may be back.
    pub(super) fn read(&mut self, stored: &[Change], now: &mut Now<'_>) -> Vec<Event> {
        let heard = self.heard.take().unwrap_or_default();
        let news: HashSet<u64> = heard.iter().map(|change| change.sequence).collect();
        let first = self.quiet.is_none();
        let mut before = std::mem::take(&mut self.entries);
        let mut told = Vec::new();
        for change in stored {
            self.seen = self.seen.max(change.sequence);
            if news.contains(&change.sequence) {
                continue;
            }
            let known = take(&mut before, change).is_some();
            match (change.sign, known) {
                (Sign::Left, _) => self.left_before(change, known, now),
                (_, true) => {
                    put(&mut self.entries, change);
                }
                (_, false) => {
                    let news = !first || change.lease.starts_with(now.own);
                    told.extend(self.apply(change, now).filter(|_| news));
                }
            }
        }
        self.were_there(&heard, &mut before);
        for change in &heard {
            told.extend(self.apply(change, now));
        }
        let gone = now.time + now.rules.times.hold.max(now.rules.times.lasts);
        self.lose(before.into_values(), gone);
        let times = now.rules.times;
        self.quiet.get_or_insert(now.time + times.lasts * 2);
        told
    }

    /// What was heard to leave was there before: whoever has come elsewhere meanwhile is not new.
    fn were_there(&mut self, heard: &[Change], before: &mut Entries) {
        let mut came = HashSet::new();
        for change in heard {
            let connection = (&change.lease, &change.connection);
            if take(before, change).is_some() {
                put(&mut self.entries, change);
            } else if change.sign == Sign::Left && !came.contains(&connection) {
                self.arrive(change);
            }
            came.insert(connection);
        }
    }

    /// A connection more; true when its user is new.
    fn arrive(&mut self, change: &Change) -> bool {
        if !put(&mut self.entries, change) {
            return false;
        }
        match self.users.get_mut(&change.user) {
            Some(Standing::There(connections)) => *connections += 1,
            Some(standing @ Standing::Leaving(..)) => {
                if let Standing::Leaving(gone, _) = std::mem::replace(standing, Standing::There(1)) {
                    self.leaving.remove(&(gone, Arc::clone(&change.user)));
                }
            }
            None => {
                let user = Arc::clone(&change.user);
                self.users.insert(user, Standing::There(1));
                return true;
            }
        }
        false
    }

    /// A connection that has left: its user may be back, unless that is too long ago.
    fn left_before(&mut self, change: &Change, known: bool, now: &Now<'_>) {
        let hold = now.rules.times.hold;
        let age = now.leases.age(change.at, now.time);
        let gone = now.time + hold.saturating_sub(age);
        if known {
            self.less(&change.user, gone, &change.server);
        } else if age < hold && !self.users.contains_key(&change.user) {
            self.leave(&change.user, gone, &change.server);
        }
    }

    /// One change in its turn.
    fn apply(&mut self, change: &Change, now: &mut Now<'_>) -> Option<Event> {
        if change.sign == Sign::Left {
            let user = take(&mut self.entries, change)?;
            self.less(&user, now.time + now.rules.times.hold, &change.server);
            return None;
        }
        if let Some(gone) = now.leases.gone(&change.lease, now.time) {
            // told under a lease that had ended: it counts when it is told again, until then its user may be back
            if gone <= now.time || self.users.contains_key(&change.user) {
                return None;
            }
            // whoever is to be announced as gone must have come
            self.leave(&change.user, gone, &change.server);
        } else if !self.arrive(change) {
            return None;
        }
        let quiet = change.sign == Sign::Stays && self.quiet.is_none_or(|until| now.time < until);
        (!quiet && self.users.len() <= now.rules.announced).then(|| Event::UserJoined {
            user_id: Arc::clone(&change.user),
            server_id: Arc::clone(&change.server),
            connection: Arc::clone(&change.connection),
        })
    }

    /// A lease has ended: whoever was there under it has left.
    pub(super) fn end(&mut self, lease: &str, gone: Instant) {
        let under = self.entries.remove(lease);
        self.lose(under, gone);
    }

    fn lose(&mut self, all: impl IntoIterator<Item = Under>, gone: Instant) {
        for under in all {
            for user in under.connections.values() {
                self.less(user, gone, &under.server);
            }
        }
    }

    /// A connection less.
    fn less(&mut self, user: &Arc<str>, gone: Instant, server: &Arc<str>) {
        match self.users.get_mut(user) {
            Some(Standing::There(connections @ 2..)) => *connections -= 1,
            Some(Standing::There(_)) => self.leave(user, gone, server),
            Some(Standing::Leaving(..)) | None => {}
        }
    }

    fn leave(&mut self, user: &Arc<str>, gone: Instant, server: &Arc<str>) {
        let standing = Standing::Leaving(gone, Arc::clone(server));
        self.users.insert(Arc::clone(user), standing);
        self.leaving.insert((gone, Arc::clone(user)));
    }

    /// Users that have been away for too long are gone.
    pub(super) fn expire(&mut self, rules: Rules, time: Instant) -> Vec<Event> {
        let mut told = Vec::new();
        // what is not read may show that they are back
        while self.is_read()
            && self.leaving.first().is_some_and(|(gone, _)| *gone <= time)
            && let Some((_, user)) = self.leaving.pop_first()
        {
            let announced = self.users.len() <= rules.announced;
            if let Some(Standing::Leaving(_, server)) = self.users.remove(&user)
                && announced
            {
                told.push(Event::UserLeft {
                    user_id: user,
                    server_id: server,
                });
            }
        }
        told
    }

    /// Whether somebody may be back.
    pub(super) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// The users behind this one.
    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> Attendance {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut users: Vec<_> = self
            .users
            .range::<str, _>((behind, Bound::Unbounded))
            .take(limit + 1)
            .map(|(user, _)| Arc::clone(user))
            .collect();
        let more = users.len() > limit;
        users.truncate(limit);
        Attendance {
            count: self.users.len() as u64,
            users,
            more,
        }
    }
}

#[cfg(test)]
mod tests;
