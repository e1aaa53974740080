//! The broker that makes many gateways one: a standalone Redis, or one whose master the Sentinels know.
//!
//! Per broker there are exactly two connections, whatever the number of rooms and users: a command link on which
//! everything is pipelined ([`command`]), and a subscription link ([`subscribe`]). A stream's offset is assigned, and
//! the message published, by one script in one atomic step ([`script`]); a gateway hears its own messages the way it
//! hears all others, through its subscription, so that every gateway delivers in the same order.
//!
//! The broker starts whether or not Redis can be reached, says so in [`Broker::health`], and keeps trying. While a link
//! is down publishes and subscriptions fail at once with a temporary error; subscriptions that stand are kept, and
//! after a reconnect each is compared with its stream, so that missed offsets are known, and counted ([`Stats`]). When
//! Redis itself was restarted, publishes go on failing until the other gateways have had the time to come back, too:
//! an acknowledged message would otherwise pass them by. A failover is the same: the master is another process. Each link
//! asks its server every few seconds whether it still is the master ([`role`]), and is given up when it is not.

mod command;
mod config;
mod history;
mod intake;
mod link;
mod message;
mod naming;
mod queue;
mod role;
mod script;
mod seat;
mod seats;
mod sentinel;
mod session;
mod stats;
mod subscribe;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, ready};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Broker, BrokerError, Health, Page, Position, Publish, Reading, Seat, Sink, StreamKey, encode};
use crate::config::{Histories, Retention};
use history::{Append, Read};
use queue::{Commands, Item, OnAnswer};
use script::{Answer, Request};
use seats::Seats;
use subscribe::Subscriber;
use table::Table;

pub use config::{ConfigError, RedisConfig, Timing};
pub use stats::Stats;

/// A broker on Redis. Dropping it ends its work; [`Broker::close`] also waits for the end.
pub struct RedisBroker {
    database: i64,
    histories: Arc<Histories>,
    commands: Arc<Commands>,
    table: Arc<Table>,
    seats: Arc<Seats>,
    stats: Arc<Stats>,
    proven: Arc<AtomicBool>,
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
    /// Starts the two links in the background; to be called inside a tokio runtime. Never waits for Redis.
    /// Fails only by a mistake in the metrics' names.
    pub fn start(
        config: &RedisConfig,
        histories: Histories,
        sink: Arc<dyn Sink>,
    ) -> prometheus::Result<Self> {
        let stats = Arc::new(Stats::new()?);
        let histories = Arc::new(histories);
        let commands = Arc::new(Commands::new());
        let instance = uuid::Uuid::new_v4().simple().to_string();
        let count = Seats::new(
            config.database(),
            &instance,
            Arc::clone(&commands),
            Arc::clone(&sink),
        );
        let broker = Self {
            database: config.database(),
            histories: Arc::clone(&histories),
            commands,
            seats: Arc::new(count),
            table: Arc::new(Table::new(histories)),
            stats,
            proven: Arc::new(AtomicBool::new(false)),
            cancelled: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let subscriber = Subscriber {
            config: config.clone(),
            commands: Arc::clone(&broker.commands),
            table: Arc::clone(&broker.table),
            sink,
            stats: Arc::clone(&broker.stats),
            proven: Arc::clone(&broker.proven),
            probe_channel: naming::probe(config.database(), &instance),
        };
        broker.tasks.spawn(command::run(
            Arc::clone(&broker.commands),
            config.clone(),
            Arc::clone(&broker.stats),
            broker.cancelled.clone(),
        ));
        broker
            .tasks
            .spawn(subscribe::run(subscriber, broker.cancelled.clone()));
        let (count, cancelled) = (Arc::clone(&broker.seats), broker.cancelled.clone());
        broker.tasks.spawn(async move {
            cancelled.run_until_cancelled(count.run()).await;
        });
        broker.tasks.close();
        Ok(broker)
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
                    .map(|id| (Arc::clone(publish.event.user()), id.clone()));
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
        self.commands.submit(items);
    }

    fn subscribe(&self, stream: StreamKey) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let (waiter, position) = oneshot::channel();
        self.table
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
        let commands = Arc::clone(&self.commands);
        async move { commands.read(read).await }.boxed()
    }

    fn unsubscribe(&self, stream: &StreamKey) {
        self.table.unsubscribe(&naming::stream(self.database, stream));
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

    fn health(&self) -> Health {
        let up = self.commands.is_up();
        Health {
            up,
            degraded: !(up && self.proven.load(Ordering::Relaxed)) || self.commands.regroups(),
        }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let (seats, cancelled) = (Arc::clone(&self.seats), self.cancelled.clone());
        let tasks = self.tasks.clone();
        async move {
            seats.end().await;
            cancelled.cancel();
            tasks.wait().await;
        }
        .boxed()
    }
}
