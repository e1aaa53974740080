//! The views of all rooms in which this gateway has members, the leases of all gateways, and what is to be announced here.
//!
//! Announcements are decided under one lock and told by one task, so that they are told in the order in which they were
//! decided.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, timeout};

use super::super::wire::Message;
use super::change::{Change, Renewed};
use super::leases::{Leases, Times};
use super::view::{Now, Rules, View};
use crate::broker::{Attendance, BrokerError, Delivery, Event, PresenceSettings, Roll, StreamKey};

/// What the subscription to leases is called; those of channels have a dot.
pub(in super::super) const LEASES: &[u8] = b"leases";
/// Announcements that may wait to be told; more are dropped, they are hints.
const TOLD: usize = 65_536;

struct Room {
    name: Arc<str>,
    view: View,
    /// What is read must have this message: our own last one.
    need: u64,
    /// Which reading counts.
    reading: u64,
}

#[derive(Default)]
struct Inner {
    /// By channel.
    rooms: HashMap<Arc<[u8]>, Room, ahash::RandomState>,
    leases: Leases,
    /// Rooms that are to be read.
    unread: VecDeque<Arc<[u8]>>,
    /// Rooms in which somebody may be back.
    leaving: HashSet<Arc<[u8]>>,
    told: VecDeque<Delivery>,
    readings: u64,
}

impl Inner {
    fn tell(&mut self, channel: &Arc<[u8]>, events: Vec<Event>) {
        let Some(room) = self.rooms.get(channel) else {
            return;
        };
        if room.view.has_leaving() {
            self.leaving.insert(Arc::clone(channel));
        }
        for event in events {
            if self.told.len() < TOLD {
                self.told.push_back(Delivery {
                    stream: StreamKey::Room(Arc::clone(&room.name)),
                    position: None,
                    event: Arc::new(event),
                });
            }
        }
    }

    /// Has a room read, whatever is being read of it.
    fn read_again(&mut self, channel: &Arc<[u8]>) {
        self.readings += 1;
        if let Some(room) = self.rooms.get_mut(channel) {
            room.reading = self.readings;
            room.view.doubt();
            self.unread.push_back(Arc::clone(channel));
        }
    }
}

/// A room that is to be read.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) channel: Arc<[u8]>,
    /// What is read must have this message.
    pub(super) need: u64,
    reading: u64,
}

/// All views of a gateway. Every method is short and may be called from any thread.
pub(in super::super) struct Views {
    rules: Rules,
    /// What our own leases begin with.
    own: String,
    inner: Mutex<Inner>,
    /// There are rooms to be read.
    pub(super) unread: Notify,
    read: Notify,
    told: Notify,
}

impl Views {
    /// Of the gateway whose leases begin with `instance`.
    pub(in super::super) fn new(settings: &PresenceSettings, instance: &str, lasts: Duration) -> Self {
        Self {
            own: format!("{instance}-"),
            rules: Rules {
                times: Times {
                    hold: settings.hold,
                    lasts,
                },
                announced: usize::try_from(settings.announced).unwrap_or(usize::MAX),
            },
            inner: Mutex::default(),
            unread: Notify::new(),
            read: Notify::new(),
            told: Notify::new(),
        }
    }

    /// How long users may be away, and gateways silent.
    pub(super) const fn times(&self) -> Times {
        self.rules.times
    }

    /// A room has a member here.
    pub(super) fn open(&self, channel: &Arc<[u8]>, name: &Arc<str>) {
        let mut inner = self.inner.lock();
        let room = Room {
            name: Arc::clone(name),
            view: View::unread(),
            need: 0,
            reading: 0,
        };
        inner.rooms.insert(Arc::clone(channel), room);
        inner.read_again(channel);
        drop(inner);
        self.unread.notify_one();
    }

    /// It has none any more.
    pub(super) fn close(&self, channel: &Arc<[u8]>) {
        let mut inner = self.inner.lock();
        inner.rooms.remove(channel);
        inner.leaving.remove(channel);
    }

    /// Anything may have been missed: all is to be read again, and no gateway is taken for ended that was not heard.
    pub(in super::super) fn doubt(&self) {
        let mut inner = self.inner.lock();
        inner.leases.spare(Instant::now());
        inner.unread.clear();
        let all: Vec<_> = inner.rooms.keys().cloned().collect();
        for channel in &all {
            inner.read_again(channel);
        }
        for room in inner.rooms.values_mut() {
            room.need = 0;
        }
        drop(inner);
        self.unread.notify_one();
    }

    /// One room was not heard in full.
    pub(super) fn doubt_one(&self, channel: &Arc<[u8]>) {
        self.inner.lock().read_again(channel);
        self.unread.notify_one();
    }

    /// Takes what was heard, in order.
    pub(in super::super) fn hear(&self, messages: &[Message]) {
        if messages.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        let time = Instant::now();
        for message in messages {
            if message.subscription == *LEASES {
                self.hear_lease(&mut inner, message, time);
            } else if let Some(change) = Change::parse(message) {
                let Inner { rooms, leases, .. } = &mut *inner;
                let channel: Arc<[u8]> = Arc::from(&message.subscription[..]);
                let mut now = self.now(leases, time);
                let room = rooms.get_mut(&channel);
                let event = room.and_then(|room| room.view.hear(change, &mut now));
                inner.tell(&channel, event.into_iter().collect());
            }
        }
        drop(inner);
        self.told.notify_one();
    }

    fn hear_lease(&self, inner: &mut Inner, message: &Message, time: Instant) {
        let Some(renewed) = Renewed::parse(message) else {
            return;
        };
        if let Some(at) = renewed.at {
            inner.leases.set_clock(at, time);
        }
        if renewed.lives {
            inner.leases.heard(&renewed.lease, time);
        } else {
            Self::end_in(inner, &renewed.lease, time + self.rules.times.hold, time);
        }
    }

    fn end_in(inner: &mut Inner, lease: &Arc<str>, gone: Instant, time: Instant) {
        inner.leases.end(lease, gone, time);
        let Inner { rooms, leaving, .. } = inner;
        for (channel, room) in rooms {
            room.view.end(lease, gone);
            if room.view.has_leaving() {
                leaving.insert(Arc::clone(channel));
            }
        }
    }

    /// A lease was not renewed in time: its users are gone then.
    pub(super) fn end(&self, lease: &Arc<str>, gone: Instant) {
        Self::end_in(&mut self.inner.lock(), lease, gone, Instant::now());
    }

    /// Acts upon what is known of leases.
    pub(super) fn leases<T>(&self, act: impl FnOnce(&mut Leases) -> T) -> T {
        act(&mut self.inner.lock().leases)
    }

    /// Our own message of a room has this number.
    pub(super) fn stored(&self, channel: &[u8], sequence: u64) {
        if let Some(room) = self.inner.lock().rooms.get_mut(channel) {
            room.need = room.need.max(sequence);
        }
    }

    /// The next room that is to be read.
    pub(super) fn next_unread(&self) -> Option<Wanted> {
        let mut inner = self.inner.lock();
        while let Some(channel) = inner.unread.pop_front() {
            if let Some(room) = inner.rooms.get(&channel).filter(|room| !room.view.is_read()) {
                let (need, reading) = (room.need, room.reading);
                return Some(Wanted {
                    channel,
                    need,
                    reading,
                });
            }
        }
        None
    }

    /// What our own last message of a room is by now.
    pub(super) fn need(&self, wanted: &Wanted) -> u64 {
        let inner = self.inner.lock();
        inner.rooms.get(&wanted.channel).map_or(0, |room| room.need)
    }

    /// A room was read.
    pub(super) fn was_read(&self, wanted: &Wanted, stored: &[Change]) {
        let mut inner = self.inner.lock();
        let Inner { rooms, leases, .. } = &mut *inner;
        let mut now = self.now(leases, Instant::now());
        let room = rooms.get_mut(&wanted.channel);
        let Some(room) = room.filter(|room| room.reading == wanted.reading) else {
            return;
        };
        let told = room.view.read(stored, &mut now);
        inner.tell(&wanted.channel, told);
        drop(inner);
        self.told.notify_one();
        self.read.notify_waiters();
    }

    /// Who is in a room, once it is read; `None` when it has no members here.
    pub(super) async fn page(
        &self,
        channel: &[u8],
        roll: &Roll,
        patience: Duration,
    ) -> Option<Result<Attendance, BrokerError>> {
        let wait = async {
            loop {
                // before the look, so that nothing is missed between
                let mut read = std::pin::pin!(self.read.notified());
                read.as_mut().enable();
                {
                    let inner = self.inner.lock();
                    let view = &inner.rooms.get(channel)?.view;
                    if view.is_read() {
                        return Some(view.page(roll.after.as_deref(), roll.limit));
                    }
                }
                read.await;
            }
        };
        match timeout(patience, wait).await {
            Ok(page) => page.map(Ok),
            Err(_) => Some(Err(BrokerError::Unavailable)),
        }
    }

    /// Who is in a room by what was read of it just now.
    pub(super) fn page_of(&self, stored: &[Change], roll: &Roll) -> Attendance {
        let time = Instant::now();
        let mut view = View::unread();
        view.read(stored, &mut self.now(&mut self.inner.lock().leases, time));
        view.expire(self.rules, time);
        view.page(roll.after.as_deref(), roll.limit)
    }

    /// Users that have been away for too long are gone.
    pub(super) fn expire(&self) {
        let mut inner = self.inner.lock();
        let time = Instant::now();
        for channel in std::mem::take(&mut inner.leaving) {
            let Some(room) = inner.rooms.get_mut(&channel) else {
                continue;
            };
            let told = room.view.expire(self.rules, time);
            inner.tell(&channel, told);
        }
        drop(inner);
        self.told.notify_one();
    }

    /// Those of these rooms of which less was heard than is stored.
    pub(super) fn behind(&self, stored: &[(Arc<[u8]>, u64)]) -> Vec<(Arc<[u8]>, u64)> {
        let inner = self.inner.lock();
        let behind = stored.iter().filter(|(channel, last)| {
            let room = inner.rooms.get(channel);
            room.is_some_and(|room| room.view.is_read() && room.view.seen() < *last)
        });
        behind.cloned().collect()
    }

    /// Waits until something is to be announced, and takes all of it. Cancel-safe.
    pub(super) async fn announcements(&self) -> Vec<Delivery> {
        loop {
            let told = std::mem::take(&mut self.inner.lock().told);
            if !told.is_empty() {
                return told.into();
            }
            self.told.notified().await;
        }
    }

    fn now<'a>(&'a self, leases: &'a mut Leases, time: Instant) -> Now<'a> {
        Now {
            rules: self.rules,
            leases,
            time,
            own: &self.own,
        }
    }
}
