//! How many connections each user has in the whole fleet.
//!
//! A connection is the last message of a subject of its own, `<prefix>.seats.<user>.<lease>.<connection>`; an empty one says
//! that it is given up. Adding or removing one twice is harmless, so there is no count that could drift. Whoever wants one more
//! stores it first and then looks: of those that are being taken only the earlier ones count, so of many at once exactly as
//! many as may be are taken, on whatever gateways.
//!
//! A lease is a message that JetStream removes by itself unless its gateway renews it (`Nats-TTL`): the connections of a gateway
//! that was killed count for [`LEASE`] at most, and whoever would be refused because of them removes them. Whenever a gateway may
//! have missed something (its link was lost, its lease ran out, something was not stored) it ends its lease, begins another
//! one and adds all its connections again; what the old one had left behind is void.
//!
//! While that cannot be done nobody is refused here: the gateway's own count remains ([`crate::room`]).

mod hold;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::core::Core;
use super::jetstream::JetStream;
use super::link::Link;
use super::outbox::{Letter, OnStored, Outbox, Receipt};
use crate::broker::{BrokerError, Seat, Whereabouts};

/// How long the connections of a gateway that is gone still count, as with Redis.
const LEASE: Duration = Duration::from_secs(30);
/// A connection is forgotten when nobody has added it again for so long; while it is open, its gateway does so more often.
pub(super) const SEATS_TTL: Duration = Duration::from_hours(1);
/// How long a connection waits for the first lease after the link came up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before another lease, or before a server that is behind is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often dead leases are removed for one connection before the count is not known.
const ATTEMPTS: usize = 4;
/// Before the gateway in a message, of a connection that counts for everybody.
pub(super) const KEPT: &str = "kept";
/// The same of one that counts for those that come later.
const TAKEN: &str = "taken";

/// A connection of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seated {
    pub(super) lease: Arc<str>,
    pub(super) connection: u64,
    /// Number of its message.
    pub(super) sequence: u64,
    /// It counts for everybody.
    pub(super) kept: bool,
    /// What makes the gateway's connections unique, a space, its name.
    pub(super) gateway: Arc<str>,
}

/// Under what connections are counted. Number 0 is none.
#[derive(Debug, Default)]
struct Lease {
    number: u64,
    name: Arc<str>,
}

/// Where a gateway stands with its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its connections are being added.
    Settling,
    /// All are counted.
    Counted,
    /// NATS refuses the lease.
    Refused,
}

/// The fleet's count, as one gateway sees it.
pub(super) struct Seats {
    core: Arc<Core>,
    gateway: String,
    lease: Mutex<Lease>,
    standing: watch::Sender<Standing>,
    /// Told when something was not stored that others have to know.
    missed: Arc<Notify>,
}

impl Seats {
    /// Nothing is counted.
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self {
            gateway: core.sink.gateway(),
            core,
            lease: Mutex::default(),
            standing: watch::Sender::new(Standing::Settling),
            missed: Arc::default(),
        }
    }

    /// Adds a connection of a user that may have `most`.
    pub(super) async fn take(&self, user: &str, connection: u64, most: u32) -> Seat {
        self.try_take(user, connection, most)
            .await
            .unwrap_or(Seat::Unknown)
    }

    async fn try_take(&self, user: &str, connection: u64, most: u32) -> Result<Seat, BrokerError> {
        self.settled().await?;
        let (number, lease) = {
            let lease = self.lease.lock();
            (lease.number, Arc::clone(&lease.name))
        };
        let (tell, told) = oneshot::channel();
        // nobody waits any more: it is given up, or kept
        let on_stored: OnStored = Box::new(move |outcome| drop(tell.send(outcome)));
        self.submit(self.letter(user, &lease, connection, TAKEN), on_stored);
        let own = told.await.map_err(|_| BrokerError::Unconfirmed)??;
        for _ in 0..ATTEMPTS {
            let others = self.others(user, (&lease, connection), own).await?;
            if others.len() < usize::try_from(most).unwrap_or(usize::MAX) {
                return Ok(Seat::Taken(number));
            }
            let ended = self.ended(&others, &lease).await?;
            if ended.is_empty() {
                self.remove(user, &lease, connection);
                return Ok(Seat::Full);
            }
            for seat in others.iter().filter(|seat| ended.contains(&seat.lease)) {
                self.remove(user, &seat.lease, seat.connection);
            }
            self.flush().await?;
        }
        Err(BrokerError::Unavailable)
    }

    /// The user's other connections that count for this one. A server that does not have it yet is asked again.
    async fn others(
        &self,
        user: &str,
        (lease, connection): (&Arc<str>, u64),
        own: Receipt,
    ) -> Result<Vec<Seated>, BrokerError> {
        let link = self.core.link()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seats = self.streams(&link).seats(user).await?;
            if let Some(others) = counted(seats, (lease, connection), own.sequence) {
                return Ok(others);
            }
            if Instant::now() >= deadline {
                return Err(BrokerError::Unavailable);
            }
            sleep(PAUSE).await;
        }
    }

    /// Adds a connection that is there, whatever the limit, unless it was added under the lease that counts now.
    pub(super) fn keep(&self, user: &str, connection: u64, seat: Seat) {
        let lease = self.lease.lock();
        if lease.number > 0 && seat != Seat::Taken(lease.number) {
            self.add(&lease, user, connection);
        }
    }

    /// Removes a connection.
    pub(super) fn give(&self, user: &str, connection: u64) {
        let lease = self.lease.lock();
        if lease.number > 0 {
            self.remove(user, &lease.name, connection);
        }
    }

    fn add(&self, lease: &Lease, user: &str, connection: u64) {
        self.submit(
            self.letter(user, &lease.name, connection, KEPT),
            self.or_begin_anew(),
        );
    }

    fn remove(&self, user: &str, lease: &str, connection: u64) {
        let letter = given_up(self.core.config.names.seat(user, lease, connection));
        self.submit(letter, self.or_begin_anew());
    }

    /// What is not stored is made good by another lease.
    fn or_begin_anew(&self) -> OnStored {
        let missed = Arc::clone(&self.missed);
        Box::new(move |outcome| {
            if outcome.is_err() {
                missed.notify_one();
            }
        })
    }

    fn letter(&self, user: &str, lease: &str, connection: u64, standing: &str) -> Letter {
        Letter {
            subject: self.core.config.names.seat(user, lease, connection),
            headers: Vec::new(),
            body: format!("{standing} {}", self.gateway).into_bytes(),
        }
    }

    fn submit(&self, letter: Letter, on_stored: OnStored) {
        Outbox::submit(&self.core, |core| &core.seats, [(letter, on_stored)]);
    }

    /// Awaits that everything that was submitted is stored, or is not.
    async fn flush(&self) -> Result<(), BrokerError> {
        Outbox::flush(&self.core, |core| &core.seats).await
    }

    fn streams<'a>(&'a self, link: &'a Link) -> JetStream<'a> {
        JetStream {
            config: &self.core.config,
            link,
        }
    }

    /// Those of these connections' leases that have run out. This gateway's own is [`Seats::hold`]'s to judge.
    async fn ended(&self, seats: &[Seated], own: &Arc<str>) -> Result<Vec<Arc<str>>, BrokerError> {
        let live = self.live(seats).await?;
        let ended = live.into_iter().filter(|(lease, lives)| !lives && lease != own);
        Ok(ended.map(|(lease, _)| lease).collect())
    }

    /// The leases of these connections, and whether they live.
    async fn live(&self, seats: &[Seated]) -> Result<Vec<(Arc<str>, bool)>, BrokerError> {
        let mut leases: Vec<_> = seats.iter().map(|seat| Arc::clone(&seat.lease)).collect();
        leases.sort_unstable();
        leases.dedup();
        let link = self.core.link()?;
        let streams = self.streams(&link);
        let read = leases.into_iter().map(|lease| async move {
            let found = streams.lease(&lease).await?;
            Ok((lease, found.is_some_and(|gateway| !gateway.is_empty())))
        });
        join_all(read).await.into_iter().collect()
    }

    /// Where a user's connections are: those under leases that have not run out.
    pub(super) async fn list(&self, user: &str) -> Result<Vec<Whereabouts>, BrokerError> {
        let link = self.core.link()?;
        let seats = self.streams(&link).seats(user).await?;
        let live = self.live(&seats).await?;
        let found = seats.into_iter().filter_map(|seat| {
            let (instance, server_id) = seat.gateway.split_once(' ')?;
            let lives = live.iter().any(|(lease, lives)| *lives && *lease == seat.lease);
            lives.then(|| Whereabouts {
                server_id: server_id.into(),
                instance: instance.into(),
                connection: seat.connection,
            })
        });
        Ok(found.collect())
    }
}

/// A subject that is no more: what was there before goes at once, this in a moment.
fn given_up(subject: String) -> Letter {
    Letter {
        subject,
        headers: vec![("Nats-TTL", "1s".to_owned())],
        body: Vec::new(),
    }
}

/// Those of a user's connections that count for one that was stored at this number; `None` when it is not among them.
fn counted(
    mut seats: Vec<Seated>,
    (lease, connection): (&Arc<str>, u64),
    stored: u64,
) -> Option<Vec<Seated>> {
    let own = |seat: &Seated| seat.lease == *lease && seat.connection == connection;
    seats.iter().find(|seat| own(seat) && seat.sequence >= stored)?;
    seats.retain(|seat| !own(seat) && (seat.kept || seat.sequence < stored));
    Some(seats)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(connection: u64, sequence: u64, kept: bool) -> Seated {
        Seated {
            lease: "l-1".into(),
            connection,
            sequence,
            kept,
            gateway: "i g".into(),
        }
    }

    #[test]
    fn of_those_that_are_being_taken_only_the_earlier_ones_count() {
        let seats = [
            seat(1, 5, false),
            seat(2, 7, false),
            seat(3, 6, false),
            seat(4, 9, true),
        ];
        let lease: Arc<str> = "l-1".into();
        let counting = |connection, stored| {
            let others = counted(seats.to_vec(), (&lease, connection), stored)?;
            Some(others.iter().map(|seat| seat.connection).collect::<Vec<_>>())
        };
        assert_eq!(counting(1, 5), Some(vec![4]));
        assert_eq!(counting(3, 6), Some(vec![1, 4]));
        assert_eq!(counting(2, 7), Some(vec![1, 3, 4]));
        assert_eq!(counting(9, 8), None, "a server that does not have it yet");
        assert_eq!(counting(2, 8), None, "or has an earlier one");
    }
}
