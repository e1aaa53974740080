//! How many connections each user has in the whole fleet.
//!
//! A user's connections are the fields of one hash ([`seat`](super::seat)); a field names the gateway's *lease* and the
//! connection. Adding or removing one twice is harmless, so there is no count that could drift.
//!
//! A lease is a key that expires unless its gateway renews it: the fields of a gateway that was killed count for
//! [`LEASE`] at most, and whoever would be refused because of them removes them. Whenever a gateway may have missed
//! something (its link was lost, its lease ran out, Redis came back empty) it ends its lease, begins another one and
//! adds all its connections again; what the old one had left behind is void.
//!
//! While that cannot be done nobody is refused here: the gateway's own count remains ([`crate::room`]).

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::super::{BrokerError, Seat, Sink, Whereabouts};
use super::answer::Answer;
use super::naming;
use super::script::Request;
use super::seat::{LEASE, SeatRequest};
use super::shards::Shards;

/// Time between renewals of the lease; with each, one part of the connections is added again, so that none is forgotten.
const RENEWAL: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// How long a connection waits for the first lease after the link came up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before another lease.
const PAUSE: Duration = Duration::from_millis(100);
/// How often dead leases are removed for one connection before the count is not known.
const ATTEMPTS: usize = 4;

/// Under what connections are counted. Number 0 is none.
#[derive(Debug, Default)]
struct Lease {
    number: u64,
    name: String,
}

/// Where a gateway stands with its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its connections are being added.
    Settling,
    /// All are counted.
    Counted,
    /// Redis refuses the lease.
    Refused,
}

/// The fleet's count, as one gateway sees it.
pub(super) struct Seats {
    database: i64,
    instance: String,
    shards: Arc<Shards>,
    sink: Arc<dyn Sink>,
    lease: Mutex<Lease>,
    standing: watch::Sender<Standing>,
}

impl Seats {
    /// Nothing is counted; `instance` is unique in the fleet.
    pub(super) fn new(database: i64, instance: &str, shards: Arc<Shards>, sink: Arc<dyn Sink>) -> Self {
        Self {
            database,
            instance: instance.to_owned(),
            shards,
            sink,
            lease: Mutex::default(),
            standing: watch::Sender::new(Standing::Settling),
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
        let seats = naming::seats(self.database, user);
        let (number, field) = {
            let lease = self.lease.lock();
            (lease.number, field(&lease, connection))
        };
        for _ in 0..ATTEMPTS {
            let take = SeatRequest::Take {
                seats: Arc::clone(&seats),
                field: Arc::clone(&field),
                most,
            };
            let Answer::Text(leases) = self.ask(take).await? else {
                return Ok(Seat::Taken(number));
            };
            let ended = self.ended(&leases).await?;
            if ended.is_empty() {
                return Ok(Seat::Full);
            }
            let cleared = ended.into_iter().map(|lease| {
                let seats = Arc::clone(&seats);
                self.ask(SeatRequest::Clear { seats, lease })
            });
            for answer in join_all(cleared).await {
                answer?;
            }
        }
        Err(BrokerError::Unavailable)
    }

    /// Adds a connection that is there, whatever the limit, unless it was added under the lease that counts now.
    pub(super) fn keep(&self, user: &str, connection: u64, seat: Seat) {
        let lease = self.lease.lock();
        if lease.number > 0 && seat != Seat::Taken(lease.number) {
            self.add(&lease, user, connection);
        }
    }

    /// Removes a connection. If that fails the link is lost, and the lease with it.
    pub(super) fn give(&self, user: &str, connection: u64) {
        let lease = self.lease.lock();
        self.submit(SeatRequest::Give {
            seats: naming::seats(self.database, user),
            field: field(&lease, connection),
        });
    }

    /// Ends the lease: what is counted under it is void at once. What was submitted before is done before.
    pub(super) async fn end(&self) {
        // unreachable, Redis ends it by itself
        let _ = self.end_lease().await;
    }

    async fn end_lease(&self) -> Result<(), BrokerError> {
        let key = {
            let lease = self.lease.lock();
            if lease.number == 0 {
                return Ok(());
            }
            naming::lease(self.database, &lease.name)
        };
        self.ask(SeatRequest::EndLease { key }).await.map(|_| ())
    }

    /// Keeps this gateway's connections counted until dropped.
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
            let standing = if let Err(BrokerError::Refused(error)) = ended {
                tracing::warn!(%error, "Redis refuses the lease: users' connections are not counted in the fleet");
                Standing::Refused
            } else {
                Standing::Settling
            };
            self.standing.send_replace(standing);
            sleep(if standing == Standing::Refused {
                RENEWAL
            } else {
                PAUSE
            })
            .await;
        }
    }

    /// Begins a lease, adds all connections under it, and renews it until that fails.
    async fn hold(&self) -> Result<(), BrokerError> {
        // else what it had left behind would count beside what is added now
        self.end_lease().await?;
        let number = self.lease.lock().number + 1;
        let name = format!("{}.{number}", self.instance);
        let key = naming::lease(self.database, &name);
        let gateway: Arc<str> = self.sink.gateway().into();
        let begin = SeatRequest::BeginLease {
            key: Arc::clone(&key),
            gateway: Arc::clone(&gateway),
        };
        self.ask(begin).await?;
        // not before it is there: what is under a lease that is not there may be removed by anybody
        *self.lease.lock() = Lease { number, name };
        let mut part = 0;
        while self.add_part(part) {
            // publishes must not wait behind all of them
            self.shards.ping().await?;
            part += 1;
        }
        self.standing.send_replace(Standing::Counted);
        loop {
            sleep(RENEWAL).await;
            let renew = SeatRequest::RenewLease {
                key: Arc::clone(&key),
                gateway: Arc::clone(&gateway),
            };
            if self.ask(renew).await? == Answer::Nothing {
                return Ok(());
            }
            part = if self.add_part(part) { part + 1 } else { 0 };
        }
    }

    /// Adds one part of what is there, each while it cannot leave, so that its removal comes later; false when there is
    /// no such part.
    fn add_part(&self, part: usize) -> bool {
        self.sink.each_device(part, &mut |user, connection| {
            self.add(&self.lease.lock(), user, connection);
        })
    }

    fn add(&self, lease: &Lease, user: &str, connection: u64) {
        self.submit(SeatRequest::Take {
            seats: naming::seats(self.database, user),
            field: field(lease, connection),
            most: u32::MAX,
        });
    }

    /// Waits until this gateway's connections are counted.
    async fn settled(&self) -> Result<(), BrokerError> {
        if !self.shards.is_up() {
            return Err(BrokerError::Unavailable);
        }
        let mut standing = self.standing.subscribe();
        let settled = standing.wait_for(|standing| *standing != Standing::Settling);
        match timeout(PATIENCE, settled).await {
            Ok(Ok(standing)) if *standing == Standing::Counted => Ok(()),
            _ => Err(BrokerError::Unavailable),
        }
    }

    /// Those of these leases (separated by spaces) that have run out. This gateway's own is [`Seats::hold`]'s to judge.
    async fn ended(&self, leases: &str) -> Result<Vec<Arc<str>>, BrokerError> {
        let own = self.lease.lock().name.clone();
        let others = leases.split(' ').filter(|lease| *lease != own);
        let read = others.map(|lease| async move {
            let key = naming::lease(self.database, lease);
            let answer = self.ask(SeatRequest::ReadLease { key }).await?;
            Ok((answer == Answer::Nothing).then(|| Arc::from(lease)))
        });
        let read: Result<Vec<Option<_>>, BrokerError> = join_all(read).await.into_iter().collect();
        Ok(read?.into_iter().flatten().collect())
    }

    /// Where a user's connections are: those under leases that have not run out.
    pub(super) async fn list(&self, user: &str) -> Result<Vec<Whereabouts>, BrokerError> {
        let seats = naming::seats(self.database, user);
        let Answer::Text(fields) = self.ask(SeatRequest::List { seats }).await? else {
            return Err(BrokerError::Refused("an answer without connections".into()));
        };
        let fields: Vec<_> = fields.lines().filter_map(|field| field.split_once(' ')).collect();
        let mut leases: Vec<_> = fields.iter().map(|(lease, _)| *lease).collect();
        leases.sort_unstable();
        leases.dedup();
        let read = leases.iter().map(|lease| {
            let key = naming::lease(self.database, lease);
            self.ask(SeatRequest::ReadLease { key })
        });
        let owners: Vec<_> = join_all(read).await.into_iter().collect::<Result<_, _>>()?;
        let found = fields.into_iter().filter_map(|(lease, connection)| {
            let Answer::Text(owner) = &owners[leases.binary_search(&lease).ok()?] else {
                return None;
            };
            let (instance, server_id) = owner.split_once(' ')?;
            Some(Whereabouts {
                server_id: server_id.into(),
                instance: instance.into(),
                connection: u64::from_str_radix(connection, 16).ok()?,
            })
        });
        Ok(found.collect())
    }

    async fn ask(&self, request: SeatRequest) -> Result<Answer, BrokerError> {
        self.shards.ask(Request::Seat(request)).await
    }

    fn submit(&self, request: SeatRequest) {
        self.shards.submit_leased(Request::Seat(request));
    }
}

fn field(lease: &Lease, connection: u64) -> Arc<str> {
    format!("{} {connection:x}", lease.name).into()
}
