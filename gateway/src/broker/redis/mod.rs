//! The broker that makes many gateways one: a standalone Redis, one whose master the Sentinels know, or a cluster
//! ([`cluster`]).
//!
//! Per broker and server there are exactly two connections, whatever the number of rooms and users: a command link on
//! which everything is pipelined ([`command`]), and a subscription link ([`subscribe`]). A stream's offset is assigned, and
//! the message published, by one script in one atomic step ([`script`]); a gateway hears its own messages the way it
//! hears all others, through its subscription, so that every gateway delivers in the same order.
//!
//! The broker starts whether or not Redis can be reached, says so in [`Broker::health`], and keeps trying. While a link
//! is down publishes and subscriptions fail at once with a temporary error; subscriptions that stand are kept, and
//! after a reconnect each is compared with its stream, so that missed offsets are known, and counted ([`Stats`]). When
//! Redis itself was restarted, publishes go on failing until the other gateways have had the time to come back, too:
//! an acknowledged message would otherwise pass them by. A failover is the same: the master is another process. Each link
//! asks its server every few seconds whether it still is the master ([`role`]), and a Sentinel ([`sentinel`]), and is given
//! up when it is not.

mod answer;
mod attend;
mod cluster;
mod command;
mod config;
mod entry;
mod history;
mod intake;
mod link;
mod naming;
mod presence;
mod queue;
mod role;
mod script;
mod seat;
mod seats;
mod sentinel;
mod session;
mod shard;
mod shards;
mod subscribe;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, ready};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Attendance, Attendee, Broker, BrokerError, Health, Page, Position, Publish, Reading, Reply, Roll, Seat,
    Sink, StreamKey, Whereabouts, WorkerEvent, encode,
};
use crate::config::{EventStream, Histories, Retention};
use answer::Answer;
use cluster::Watcher;
use config::Shape;
use entry::Entry;
use history::{Append, Read};
use presence::Presence;
use queue::{Item, OnAnswer};
use script::Request;
use seats::Seats;
use shard::{Common, Shard};
use shards::Shards;

pub use super::PresenceSettings;
pub use super::stats::Stats;
pub use super::timing::Timing;
pub use config::{ConfigError, RedisConfig};

/// A broker on Redis, of whatever shape. Dropping it ends its work; [`Broker::close`] also waits for the end.
pub struct RedisBroker {
    database: i64,
    histories: Arc<Histories>,
    events: Option<EventStream>,
    shards: Arc<Shards>,
    seats: Arc<Seats>,
    presence: Arc<Presence>,
    stats: Arc<Stats>,
    cancelled: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBroker")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// Starts the links in the background; to be called inside a tokio runtime. Never waits for Redis.
    /// Fails only by a mistake in the metrics' names.
    pub fn start(
        config: &RedisConfig,
        histories: Histories,
        sink: Arc<dyn Sink>,
    ) -> prometheus::Result<Self> {
        let common = Common {
            instance: uuid::Uuid::new_v4().simple().to_string().into(),
            histories: Arc::new(histories),
            sink,
            stats: Arc::new(Stats::new()?),
            cancelled: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let shards = shards(config, &common);
        let seats = Arc::new(Seats::new(
            config.database(),
            &common.instance,
            Arc::clone(&shards),
            Arc::clone(&common.sink),
        ));
        let (count, cancelled) = (Arc::clone(&seats), common.cancelled.clone());
        common.tasks.spawn(async move {
            cancelled.run_until_cancelled(count.run()).await;
        });
        let presence = Arc::new(Presence::new(
            (config.database(), &common.instance),
            (config.presence.clone(), config.timing.lease),
            Arc::clone(&shards),
            Arc::clone(&common.sink),
            Arc::clone(&common.stats),
        ));
        let (attendance, cancelled) = (Arc::clone(&presence), common.cancelled.clone());
        common.tasks.spawn(async move {
            cancelled.run_until_cancelled(attendance.run()).await;
        });
        common.tasks.close();
        Ok(Self {
            database: config.database(),
            histories: common.histories,
            events: config.events.clone(),
            shards,
            seats,
            presence,
            stats: common.stats,
            cancelled: common.cancelled,
            tasks: common.tasks,
        })
    }

    /// What is asked for a publish, and whether the answer has a place.
    fn request(&self, publish: &Publish, event: Bytes) -> (Request, bool) {
        let name = naming::stream(self.database, &publish.stream);
        if !publish.event.is_message() {
            let announce = Request::Announce {
                channel: name,
                payload: event,
            };
            return (announce, false);
        }
        let retention = self.histories.of(&publish.stream);
        match (retention, &publish.msg_id) {
            (Retention::Ephemeral, _) => {
                let pass = Request::Pass {
                    channel: name,
                    payload: event,
                };
                (pass, false)
            }
            (Retention::Off, None) => (Request::Publish { stream: name, event }, true),
            (_, id) => {
                let id = id
                    .as_ref()
                    .map(|id| id.parts(&publish.event))
                    .map(|(sender, id)| (sender.into(), id.into()));
                let append = Append {
                    stream: name,
                    event,
                    id,
                    retention,
                };
                (Request::Append(Box::new(append)), true)
            }
        }
    }

    /// What happened on the links so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// The links that the shape asks for.
fn shards(config: &RedisConfig, common: &Common) -> Arc<Shards> {
    let Shape::Cluster { seeds } = &config.shape else {
        return Arc::new(Shards::One(Box::new(Shard::standalone(config, common))));
    };
    let shards = Arc::new(Shards::of_cluster());
    let watcher = Watcher {
        config: config.clone(),
        seeds: seeds.clone(),
        common: common.clone(),
        shards: Arc::clone(&shards),
    };
    common.tasks.spawn(watcher.run(common.cancelled.clone()));
    shards
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

impl Broker for RedisBroker {
    fn publish(&self, batch: Vec<Publish>) {
        let mut items = Vec::with_capacity(batch.len());
        for publish in batch {
            let event = match encode(&publish.event) {
                Ok(event) => event,
                Err(error) => {
                    if let Some(reply) = publish.reply {
                        reply(Err(BrokerError::Refused(error.to_string().into())));
                    }
                    continue;
                }
            };
            let (request, placed) = self.request(&publish, event);
            let on_answer = publish.reply.map(|reply| -> OnAnswer {
                Box::new(move |answer| {
                    reply(match answer {
                        Ok(Answer::Done) if !placed => Ok(Position::none().into()),
                        other => queue::accepted(other),
                    });
                })
            });
            items.push(Item { request, on_answer });
        }
        self.shards.submit(items);
    }

    fn append(&self, events: Vec<(WorkerEvent, Reply)>) {
        let Some(stream) = &self.events else {
            for (_, reply) in events {
                reply(Err(BrokerError::EventsOff));
            }
            return;
        };
        let items = events.into_iter().map(|(event, reply)| {
            let entry = Entry {
                stream: stream.clone(),
                event: Arc::new(event),
            };
            Item {
                request: Request::Entry(Box::new(entry)),
                on_answer: Some(Box::new(move |answer| reply(queue::accepted(answer)))),
            }
        });
        self.shards.submit(items.collect());
    }

    fn subscribe(&self, stream: StreamKey) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let (waiter, position) = oneshot::channel();
        self.shards
            .subscribe(naming::stream(self.database, &stream), stream, waiter);
        // the sender is dropped without a word when the subscription was ended meanwhile
        async move { position.await.unwrap_or(Err(BrokerError::Unavailable)) }.boxed()
    }

    fn history(&self, reading: Reading) -> BoxFuture<'static, Result<Page, BrokerError>> {
        let Reading {
            stream,
            span,
            messages,
            bytes,
        } = reading;
        let retention = self.histories.of(&stream);
        if retention == Retention::Ephemeral {
            let page = Page {
                position: Position::none(),
                messages: Vec::new(),
                more: false,
            };
            return ready(Ok(page)).boxed();
        }
        let read = Read {
            stream: naming::stream(self.database, &stream),
            span,
            messages,
            bytes,
            retention,
        };
        let shards = Arc::clone(&self.shards);
        async move { shards.read(read).await }.boxed()
    }

    fn unsubscribe(&self, stream: &StreamKey) {
        self.shards.unsubscribe(&naming::stream(self.database, stream));
    }

    fn take_seat(&self, user: &Arc<str>, connection: u64, most: u32) -> Option<BoxFuture<'static, Seat>> {
        let (seats, user) = (Arc::clone(&self.seats), Arc::clone(user));
        Some(async move { seats.take(&user, connection, most).await }.boxed())
    }

    fn keep_seat(&self, user: &str, connection: u64, seat: Seat) {
        self.seats.keep(user, connection, seat);
    }

    fn give_seat(&self, user: &str, connection: u64) {
        self.seats.give(user, connection);
    }

    fn enter(&self, attendee: &Attendee<'_>, opens: bool) -> bool {
        self.presence.enter(attendee, opens);
        true
    }

    fn exit(&self, attendee: &Attendee<'_>, closes: bool) -> bool {
        self.presence.exit(attendee, closes);
        true
    }

    fn attendance(&self, roll: Roll) -> Option<BoxFuture<'static, Result<Attendance, BrokerError>>> {
        let presence = Arc::clone(&self.presence);
        Some(async move { presence.attendance(roll).await }.boxed())
    }

    fn whereabouts(&self, user: &str) -> Option<BoxFuture<'static, Result<Vec<Whereabouts>, BrokerError>>> {
        let (seats, user) = (Arc::clone(&self.seats), user.to_owned());
        Some(async move { seats.list(&user).await }.boxed())
    }

    fn health(&self) -> Health {
        self.shards.health()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let (seats, cancelled) = (Arc::clone(&self.seats), self.cancelled.clone());
        let presence = Arc::clone(&self.presence);
        let tasks = self.tasks.clone();
        async move {
            seats.end().await;
            presence.end().await;
            cancelled.cancel();
            tasks.wait().await;
        }
        .boxed()
    }
}
