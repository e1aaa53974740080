//! Who is in which room, of one gateway's members, and the leave of those that were members of gateways that have ended.
//!
//! Each connection is an entry under the gateway's *lease*; adding or removing one twice is harmless. A lease lives while
//! its gateway renews it. When it has run out the other gateways remove what is under it: its users have left, and are
//! announced when they were not back in time. Whenever a gateway may have missed something (its link was lost, its lease
//! ran out, Redis came back empty) it ends its lease, begins another one and puts all its members back.

mod sweep;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{try_join_all, try_join3};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::super::{Attendance, Attendee, BrokerError, PresenceSettings, Roll, Sink, StreamKey};
use super::answer::Answer;
use super::attend::{Enter, Fleet, FleetRequest, PresenceRequest, Under};
use super::naming;
use super::script::Request;
use super::shards::Shards;
use crate::broker::stats::Stats;

/// Members that are put back at a time.
const AT_ONCE: usize = 512;
/// Pause before another lease.
const PAUSE: Duration = Duration::from_millis(100);

/// Under what members are told of.
#[derive(Debug)]
struct Lease {
    under: Under,
    /// By this gateway's clock: afterwards others may have removed what is under it.
    until: Instant,
}

#[derive(Debug, Default)]
struct Leases {
    current: Option<Lease>,
    /// Those that Redis was not told the end of.
    former: Vec<Under>,
    begun: u64,
}

/// What one gateway tells of its members, and does for the fleet.
pub(super) struct Presence {
    database: i64,
    instance: String,
    settings: PresenceSettings,
    /// How long a lease lives.
    lasts: Duration,
    shards: Arc<Shards>,
    sink: Arc<dyn Sink>,
    stats: Arc<Stats>,
    leases: Mutex<Leases>,
}

impl Presence {
    /// Nobody is anywhere; `instance` is unique in the fleet.
    pub(super) fn new(
        (database, instance): (i64, &str),
        (settings, lasts): (PresenceSettings, Duration),
        shards: Arc<Shards>,
        sink: Arc<dyn Sink>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            database,
            instance: instance.to_owned(),
            settings,
            lasts,
            shards,
            sink,
            stats,
            leases: Mutex::default(),
        }
    }

    /// Adds a connection; while there is no lease it is not told, but put back when there is one.
    pub(super) fn enter(&self, attendee: &Attendee<'_>, opens: bool) {
        let leases = self.leases.lock();
        if let Some(lease) = leases
            .current
            .as_ref()
            .filter(|lease| Instant::now() < lease.until)
        {
            self.add(&lease.under, attendee, opens, false);
        }
    }

    /// Removes a connection. If that fails the link is lost, and the lease with it.
    pub(super) fn exit(&self, attendee: &Attendee<'_>, closes: bool) {
        let leases = self.leases.lock();
        let Some(Lease { under, .. }) = &leases.current else {
            return;
        };
        let room = Arc::clone(attendee.room);
        let exit = PresenceRequest::Exit {
            stream: self.stream(&room),
            under: under.clone(),
            connection: Arc::clone(attendee.connection),
            hold: self.settings.hold,
        };
        // whoever looks for users that are gone before this one has left would find nobody, and look no more
        let due = self.fleet(Fleet::Due {
            room: Arc::clone(&room),
            wait: self.settings.hold,
            sooner: true,
        });
        self.shards
            .submit_leased_pair(Request::Presence(exit), Request::Presence(due));
        if closes {
            let lease = under.name();
            self.submit(self.fleet(Fleet::Unregister { lease, room }));
        }
    }

    fn add(&self, under: &Under, attendee: &Attendee<'_>, opens: bool, back: bool) {
        if opens {
            self.register(under, attendee.room);
        }
        self.submit(PresenceRequest::Enter(Box::new(Enter {
            stream: self.stream(attendee.room),
            under: under.clone(),
            connection: Arc::clone(attendee.connection),
            user: Arc::clone(attendee.user),
            most: self.settings.announced,
            quiet: self.lasts * 2,
            back,
        })));
    }

    fn register(&self, under: &Under, room: &Arc<str>) {
        let (lease, room) = (under.name(), Arc::clone(room));
        self.submit(self.fleet(Fleet::Register { lease, room }));
    }

    /// Who is in a room.
    pub(super) async fn attendance(&self, roll: Roll) -> Result<Attendance, BrokerError> {
        let page = PresenceRequest::Page {
            stream: self.stream(&roll.room),
            after: roll.after,
            limit: roll.limit,
        };
        match self.shards.ask_for_client(Request::Presence(page)).await? {
            Answer::List(count, more, users) => Ok(Attendance {
                count,
                users,
                more: more > 0,
            }),
            _ => Err(BrokerError::Refused("an answer without users".into())),
        }
    }

    /// Ends the lease. What was submitted before is done before.
    pub(super) async fn end(&self) {
        let current = self.leases.lock().current.take();
        if let Some(Lease { under, .. }) = current {
            // unreachable, Redis ends it by itself
            let _ = self.end_lease(&under).await;
        }
    }

    async fn end_lease(&self, under: &Under) -> Result<(), BrokerError> {
        let lease = under.name();
        let hold = self.settings.hold;
        self.ask(self.fleet(Fleet::End { lease, hold })).await.map(|_| ())
    }

    /// Keeps it known who is here until dropped.
    pub(super) async fn run(&self) {
        let mut up = self.shards.watch_up();
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
                tracing::warn!(%error, "Redis refuses presence: it is not known who is in the rooms of this gateway");
                sleep(self.lasts / 3).await;
            } else {
                sleep(PAUSE).await;
            }
        }
    }

    /// Begins a lease, puts all members back under it, and renews it until that fails.
    async fn hold(&self) -> Result<(), BrokerError> {
        let under = {
            let mut leases = self.leases.lock();
            // from here on nothing is told under it
            let former = leases.current.take().map(|lease| lease.under);
            leases.former.extend(former);
            leases.begun += 1;
            Under::new(&self.instance, leases.begun, &self.settings.server_id)
        };
        let until = Instant::now() + self.lasts;
        let lease = under.name();
        let lasts = self.lasts;
        self.ask(self.fleet(Fleet::Begin { lease, lasts })).await?;
        self.leases.lock().current = Some(Lease {
            under: under.clone(),
            until,
        });
        let back = async {
            self.put_all_back().await?;
            self.end_former().await
        };
        try_join3(back, self.renew(&under), self.sweep())
            .await
            .map(|_| ())
    }

    /// Ends what was held before. Others may have cleared it already, and this gateway told more under it before it knew:
    /// so all rooms are to be cleared again.
    async fn end_former(&self) -> Result<(), BrokerError> {
        let former = self.leases.lock().former.clone();
        for under in former {
            let mut part = 0;
            while self
                .sink
                .each_room(part, &mut |room, _| self.register(&under, room))
            {
                self.shards.ping().await?;
                part += 1;
            }
            self.end_lease(&under).await?;
            self.leases.lock().former.retain(|other| *other != under);
        }
        Ok(())
    }

    async fn put_all_back(&self) -> Result<(), BrokerError> {
        let (mut part, mut waiting) = (0, 0);
        loop {
            let mut rooms = Vec::new();
            let more = self
                .sink
                .each_room(part, &mut |room, _| rooms.push(Arc::clone(room)));
            if !more {
                return Ok(());
            }
            for room in rooms {
                waiting += self.put_back(&room);
                // publishes must not wait behind all of them
                if waiting >= AT_ONCE {
                    self.shards.ping().await?;
                    waiting = 0;
                }
            }
            part += 1;
        }
    }

    /// Adds the members of a room while none of them can leave, so that its removal comes later; tells how many.
    fn put_back(&self, room: &Arc<str>) -> usize {
        let mut added = 0;
        self.sink.each_member(room, &mut |attendee| {
            if let Some(lease) = &self.leases.lock().current {
                self.add(&lease.under, attendee, added == 0, true);
                added += 1;
            }
        });
        self.stats.presence_restored.inc_by(added as u64);
        added
    }

    async fn renew(&self, under: &Under) -> Result<(), BrokerError> {
        let mut part = 0;
        loop {
            sleep(self.lasts / 3).await;
            let until = Instant::now() + self.lasts;
            let (lease, lasts) = (under.name(), self.lasts);
            let renewed = self.ask(self.fleet(Fleet::Renew { lease, lasts })).await?;
            if renewed == Answer::Nothing || !self.prolong(until) {
                // others take the gateway for ended, or members were not told of: begin anew
                return Err(BrokerError::Unavailable);
            }
            part = if self.verify(under, part).await? {
                part + 1
            } else {
                0
            };
        }
    }

    /// False when the lease had run out by this gateway's clock.
    fn prolong(&self, until: Instant) -> bool {
        let mut leases = self.leases.lock();
        let current = leases.current.as_mut();
        current
            .filter(|lease| Instant::now() < lease.until)
            .is_some_and(|lease| {
                lease.until = until;
                true
            })
    }

    /// Looks whether Redis knows all members of a part of the rooms; false when there is no such part.
    async fn verify(&self, under: &Under, part: usize) -> Result<bool, BrokerError> {
        let mut rooms = Vec::new();
        let more = self
            .sink
            .each_room(part, &mut |room, members| rooms.push((Arc::clone(room), members)));
        let verified = rooms.iter().map(|(room, members)| async move {
            let touch = PresenceRequest::Touch {
                stream: self.stream(room),
                under: under.clone(),
            };
            let Answer::Text(counts) = self.ask(touch).await? else {
                return Ok(());
            };
            let (known, leaving) = counts.split_once(' ').unwrap_or_default();
            if known.parse::<usize>().is_ok_and(|known| known < *members) {
                self.put_back(room);
            }
            if leaving != "0" {
                self.due(room, Duration::ZERO, true).await?;
            }
            Ok::<_, BrokerError>(())
        });
        try_join_all(verified).await?;
        Ok(more)
    }

    fn stream(&self, room: &Arc<str>) -> Arc<[u8]> {
        naming::stream(self.database, &StreamKey::Room(Arc::clone(room)))
    }

    fn fleet(&self, what: Fleet) -> PresenceRequest {
        PresenceRequest::Fleet(Box::new(FleetRequest {
            database: self.database,
            what,
        }))
    }

    async fn ask(&self, request: PresenceRequest) -> Result<Answer, BrokerError> {
        self.shards.ask(Request::Presence(request)).await
    }

    fn submit(&self, request: PresenceRequest) {
        self.shards.submit_leased(Request::Presence(request));
    }
}
