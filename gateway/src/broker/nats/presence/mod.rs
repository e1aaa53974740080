//! Who is in which room, of one gateway's members, and what its members are told of others.
//!
//! Each connection in a room is the last message of a subject of its own, under the gateway's *lease*; adding or removing one
//! twice is harmless. What JetStream has stored it publishes where the room's messages are heard, so every gateway with
//! members in the room hears all changes in one order, and keeps a *view* of the room ([`view`]), from which it decides by
//! itself what its members are told, and how many there are.
//!
//! A lease lives while its gateway renews it. When it has run out its users have left, and are announced when they were not
//! back in time. Whenever a gateway may have missed something (its link was lost, its lease ran out, something was not
//! stored) it begins another lease, puts all its members back under it, ends the one before, and reads its rooms again.

mod change;
mod leases;
mod reading;
mod sweep;
mod view;
mod views;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::try_join3;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use self::change::{Sign, lease_text, text};
use super::core::Core;
use super::jetstream::JetStream;
use super::lease;
use super::link::Link;
use super::naming;
use super::outbox::{Letter, OnStored, Outbox};
use crate::broker::{Attendance, Attendee, BrokerError, Roll, StreamKey};
pub(super) use change::{Change, is_alive, is_sign};
pub(super) use views::{LEASES, Views};

/// A connection is forgotten when nobody has added it again for so long; while it is open, its gateway does so more often.
pub(super) const THERE_TTL: Duration = Duration::from_hours(1);
/// How long after a user is gone the message of its leave goes: those who read the room meanwhile have to see it.
const MARGIN: Duration = Duration::from_secs(2);
/// Members that are put back at a time.
const AT_ONCE: usize = 512;
/// Pause before another lease.
const PAUSE: Duration = Duration::from_millis(100);
/// Each so many rounds over all rooms their members are added again: more often than in [`THERE_TTL`].
const ADDED_AGAIN: usize = 8;

#[derive(Debug, Default)]
struct Held {
    current: Option<Arc<str>>,
    /// Those that were not ended.
    former: Vec<Arc<str>>,
    begun: u64,
}

/// A connection in a room: the room, and the connection.
type Member = (Arc<str>, Arc<str>);

/// What one gateway tells of its members.
pub(super) struct Presence {
    core: Arc<Core>,
    held: Mutex<Held>,
    /// Members whose coming may not have been stored: put back, they are news. Locked behind `held`.
    news: Arc<Mutex<HashSet<Member>>>,
    /// Told when something was not stored that others have to know.
    missed: Arc<Notify>,
}

impl Presence {
    /// Nobody is anywhere.
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            held: Mutex::default(),
            news: Arc::default(),
            missed: Arc::default(),
        }
    }

    /// Adds a connection; while there is no lease it is not told, but put back when there is one.
    pub(super) fn enter(&self, attendee: &Attendee<'_>, opens: bool) {
        if opens {
            let channel = channel(attendee.room);
            // what is not heard cannot be kept
            if self.core.table.has(&channel) {
                self.core.views.open(&channel, attendee.room);
            }
        }
        let held = self.held.lock();
        self.news.lock().insert(member(attendee));
        if let Some(lease) = &held.current {
            self.tell(lease, attendee, Sign::Came);
        }
    }

    /// Removes a connection.
    pub(super) fn exit(&self, attendee: &Attendee<'_>, closes: bool) {
        if closes {
            self.core.views.close(&channel(attendee.room));
        }
        let held = self.held.lock();
        self.news.lock().remove(&member(attendee));
        if let Some(lease) = &held.current {
            self.tell(lease, attendee, Sign::Left);
        }
    }

    fn tell(&self, lease: &str, attendee: &Attendee<'_>, sign: Sign) {
        let names = &self.core.config.names;
        let settings = &self.core.config.presence;
        let channel = channel(attendee.room);
        let left = (sign == Sign::Left).then(|| ("Nats-TTL", lease::seconds(settings.hold + MARGIN)));
        let letter = Letter {
            subject: names.there(&channel, attendee.user, lease, attendee.connection),
            headers: left.into_iter().collect(),
            body: text(sign, &settings.server_id, attendee),
        };
        // only where what is read may be behind
        let follows = self.core.config.replicas > 1 && sign != Sign::Left;
        let came = (sign == Sign::Came).then(|| (Arc::clone(&self.news), member(attendee)));
        let (missed, core) = (Arc::clone(&self.missed), Arc::downgrade(&self.core));
        let on_stored: OnStored = Box::new(move |outcome| {
            let Ok(receipt) = outcome else {
                missed.notify_one();
                return;
            };
            if let Some((news, member)) = came {
                news.lock().remove(&member);
            }
            if let Some(core) = core.upgrade().filter(|_| follows) {
                core.views.stored(&channel, receipt.sequence);
            }
        });
        Outbox::submit(&self.core, |core| &core.presence, [(letter, on_stored)]);
    }

    async fn flush(&self) -> Result<(), BrokerError> {
        Outbox::flush(&self.core, |core| &core.presence).await
    }

    fn streams<'a>(&'a self, link: &'a Link) -> JetStream<'a> {
        JetStream {
            config: &self.core.config,
            link,
        }
    }

    /// Who is in a room.
    pub(super) async fn attendance(&self, roll: Roll) -> Result<Attendance, BrokerError> {
        let link = self.core.link()?;
        let channel = channel(&roll.room);
        let patience = self.core.config.timing.answer;
        self.flush().await?;
        if let Some(page) = self.core.views.page(&channel, &roll, patience).await {
            return page;
        }
        let (stored, _) = self.streams(&link).there(&channel).await?;
        Ok(self.core.views.page_of(&stored, &roll))
    }

    /// Ends the lease.
    pub(super) async fn end(&self) {
        let current = self.held.lock().current.take();
        if let Some(lease) = current {
            // unreachable, it ends by itself
            let _ = self.end_lease(&lease).await;
        }
    }

    async fn end_lease(&self, lease: &str) -> Result<(), BrokerError> {
        let (names, settings) = (&self.core.config.names, &self.core.config.presence);
        let letter = Letter {
            subject: names.there_lease(&settings.server_id, lease),
            headers: vec![("Nats-TTL", lease::seconds(settings.hold + MARGIN))],
            body: lease_text(false).to_vec(),
        };
        let missed = Arc::clone(&self.missed);
        let on_stored: OnStored = Box::new(move |outcome| {
            if outcome.is_err() {
                missed.notify_one();
            }
        });
        Outbox::submit(&self.core, |core| &core.presence, [(letter, on_stored)]);
        self.flush().await
    }

    /// Keeps it known who is here until dropped.
    pub(super) async fn run(&self) {
        let mut up = self.core.up.subscribe();
        loop {
            if up.wait_for(|up| *up).await.is_err() {
                return;
            }
            let ended = tokio::select! {
                ended = self.hold() => ended,
                // any change: a link that is back already was lost meanwhile
                _ = up.changed() => Err(BrokerError::Unavailable),
            };
            if let Err(BrokerError::Refused(error)) = ended {
                tracing::warn!(%error, "NATS refuses presence: it is not known who is in the rooms of this gateway");
                sleep(self.core.views.times().lasts / 3).await;
            } else {
                sleep(PAUSE).await;
            }
        }
    }

    /// Tells the members here what is announced, until dropped.
    pub(super) async fn announce(&self) {
        loop {
            let told = self.core.views.announcements().await;
            if let Some(crowded) = self.core.sink.deliver(told) {
                crowded.await;
            }
        }
    }

    /// Begins a lease, puts all members back under it, and renews it until that fails.
    async fn hold(&self) -> Result<(), BrokerError> {
        // what was missed before is made good by this one
        let _ = self.missed.notified().now_or_never();
        self.core.views.doubt();
        let lease: Arc<str> = {
            let mut held = self.held.lock();
            // from here on nothing is told under it
            let former = held.current.take();
            held.former.extend(former);
            held.begun += 1;
            format!("{}-{}", self.core.instance, held.begun).into()
        };
        let Some(renewed) = self.renew_lease(&lease, 0).await? else {
            return Err(BrokerError::Unavailable);
        };
        self.held.lock().current = Some(Arc::clone(&lease));
        let back = async {
            self.put_all_back().await?;
            self.end_former().await?;
            // not before: what is read must have our own members
            self.read_views().await
        };
        try_join3(back, self.renew(&lease, renewed), self.sweep())
            .await
            .map(|_| ())
    }

    async fn renew_lease(&self, lease: &str, last: u64) -> Result<Option<u64>, BrokerError> {
        let config = &self.core.config;
        let subject = config.names.there_lease(&config.presence.server_id, lease);
        let lasts = self.core.views.times().lasts;
        lease::renew(&self.core, &subject, lease_text(true), (last, lasts)).await
    }

    async fn end_former(&self) -> Result<(), BrokerError> {
        let former = self.held.lock().former.clone();
        for lease in former {
            self.end_lease(&lease).await?;
            self.held.lock().former.retain(|other| *other != lease);
        }
        Ok(())
    }

    async fn put_all_back(&self) -> Result<(), BrokerError> {
        let (mut part, mut waiting) = (0, 0);
        loop {
            let Some(rooms) = self.rooms(part) else {
                return self.flush().await;
            };
            for room in rooms {
                let added = self.add_all(&room);
                self.core.stats.presence_restored.inc_by(added as u64);
                waiting += added;
                // those that come now must not wait behind all of them
                if waiting >= AT_ONCE {
                    self.flush().await?;
                    waiting = 0;
                }
            }
            part += 1;
        }
    }

    /// The rooms of one part that have members here; nothing when there is no such part.
    fn rooms(&self, part: usize) -> Option<Vec<Arc<str>>> {
        let mut rooms = Vec::new();
        let sink = &self.core.sink;
        let more = sink.each_room(part, &mut |room, _| rooms.push(Arc::clone(room)));
        more.then_some(rooms)
    }

    /// Adds the members of a room while none of them can leave, so that its removal comes later; tells how many.
    fn add_all(&self, room: &Arc<str>) -> usize {
        let mut added = 0;
        self.core.sink.each_member(room, &mut |attendee| {
            let held = self.held.lock();
            let is_news = self.news.lock().contains(&member(attendee));
            let sign = if is_news { Sign::Came } else { Sign::Stays };
            if let Some(lease) = &held.current {
                self.tell(lease, attendee, sign);
                added += 1;
            }
        });
        added
    }

    /// Renews the lease until that fails; with each renewal one part of the rooms is looked at.
    async fn renew(&self, lease: &Arc<str>, mut renewed: u64) -> Result<(), BrokerError> {
        let (mut part, mut round) = (0, 0);
        loop {
            tokio::select! {
                () = sleep(self.core.views.times().lasts / 3) => {}
                () = self.missed.notified() => return Err(BrokerError::Unavailable),
            }
            renewed = self
                .renew_lease(lease, renewed)
                .await?
                .ok_or(BrokerError::Unavailable)?;
            let Some(rooms) = self.rooms(part) else {
                (part, round) = (0, round + 1);
                continue;
            };
            part += 1;
            self.compare(&rooms).await?;
            if round % ADDED_AGAIN == ADDED_AGAIN - 1 {
                for room in &rooms {
                    self.add_all(room);
                    self.flush().await?;
                }
            }
        }
    }
}

fn member(attendee: &Attendee<'_>) -> Member {
    (Arc::clone(attendee.room), Arc::clone(attendee.connection))
}

fn channel(room: &Arc<str>) -> Arc<[u8]> {
    naming::channel(&StreamKey::Room(Arc::clone(room)))
}
