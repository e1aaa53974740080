//! The broker on NATS with JetStream: messages are stored in JetStream, which publishes each that it has stored on a second
//! subject, from which core subscribers hear it. No consumer is made for any room.
//!
//! A gateway has one connection ([`link`]), whatever the number of rooms and users. A stream's offset is assigned by the
//! gateway that appends, and JetStream stores the message only behind the very one that this gateway saw last ([`frame`],
//! [`lanes`]): so every gateway sees the same order. It hears its own messages the way it hears all others. Why it is made
//! like this is in `docs/decisions/0009-nats.md`.
//!
//! The broker starts whether or not NATS can be reached, says so in [`Broker::health`], and keeps trying. While there is no
//! connection publishes and subscriptions fail at once with a temporary error; subscriptions that stand are kept, and after
//! a reconnect each is compared with its stream, and what was missed is read.

mod config;
mod core;
mod events;
mod frame;
mod intake;
mod jetstream;
mod lanes;
mod lease;
mod link;
mod naming;
mod outbox;
mod presence;
mod seats;
mod session;
mod streams;
mod tls;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::core::Core;
use super::stats::Stats;
use super::table::Table;
use super::timing::Backoff;
use super::{
    Attendance, Attendee, Broker, BrokerError, Health, Page, Position, Publish, Reading, Reply, Roll, Seat,
    Sink, Span, StreamKey, Whereabouts, WorkerEvent, encode,
};
use crate::config::{Histories, Retention};
use jetstream::JetStream;
use lanes::{Job, Lanes};
use link::{ConnectError, Link};
use outbox::Outbox;
use presence::{Presence, Views};
use seats::Seats;
use session::Session;
use streams::Read;

pub use config::{ConfigError, NatsConfig};

/// Places in streams that are remembered for the next page.
const MARKS: usize = 1_024;

/// A broker on NATS. Dropping it ends its work; [`Broker::close`] also waits for the end.
pub struct NatsBroker {
    core: Arc<Core>,
    seats: Arc<Seats>,
    presence: Arc<Presence>,
    /// Where the next page of a stream begins, behind what was read of it.
    marks: Arc<Mutex<HashMap<Mark, u64>>>,
}

/// An offset of a channel. One of a former epoch may be taken for it: that was earlier, so nothing is left out.
type Mark = (Arc<[u8]>, u64);

impl std::fmt::Debug for NatsBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsBroker")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl NatsBroker {
    /// Starts the connection in the background; to be called inside a tokio runtime. Never waits for NATS.
    /// Fails only by a mistake in the metrics' names.
    pub fn start(config: &NatsConfig, histories: Histories, sink: Arc<dyn Sink>) -> prometheus::Result<Self> {
        let histories = Arc::new(histories);
        let instance = uuid::Uuid::new_v4().simple().to_string();
        let core = Arc::new(Core {
            config: config.clone(),
            table: Table::new(Arc::clone(&histories)),
            histories,
            lanes: Lanes::default(),
            events: Outbox::default(),
            seats: Outbox::default(),
            presence: Outbox::default(),
            views: Views::new(&config.presence, &instance, config.timing.lease),
            instance,
            sink,
            stats: Stats::new()?,
            current: Mutex::new(None),
            up: watch::Sender::new(false),
            proven: AtomicBool::new(false),
            cancelled: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let run = core
            .cancelled
            .clone()
            .run_until_cancelled_owned(keep_up(Arc::clone(&core)));
        core.tasks.spawn(run);
        let sweep = lanes::sweep(Arc::clone(&core));
        core.tasks
            .spawn(core.cancelled.clone().run_until_cancelled_owned(sweep));
        let seats = Arc::new(Seats::new(Arc::clone(&core)));
        let (count, cancelled) = (Arc::clone(&seats), core.cancelled.clone());
        core.tasks.spawn(async move {
            cancelled.run_until_cancelled(count.run()).await;
        });
        let presence = Arc::new(Presence::new(Arc::clone(&core)));
        let (attendance, cancelled) = (Arc::clone(&presence), core.cancelled.clone());
        core.tasks.spawn(async move {
            let work = futures::future::join(attendance.run(), attendance.announce());
            cancelled.run_until_cancelled(work).await;
        });
        core.tasks.close();
        Ok(Self {
            core,
            seats,
            presence,
            marks: Arc::default(),
        })
    }

    /// What happened on the connection so far.
    pub fn stats(&self) -> &Stats {
        &self.core.stats
    }

    /// Publishes what is not kept; the replies wait until the server has taken all of it.
    fn pass(&self, events: Vec<(String, Bytes, Option<Reply>)>) {
        let flushed = self.core.link().and_then(|link| {
            for (subject, event, _) in &events {
                link.publish(subject, event)?;
            }
            link.flush()
        });
        let replies: Vec<Reply> = events.into_iter().filter_map(|(.., reply)| reply).collect();
        if replies.is_empty() {
            return;
        }
        let answer = self.core.config.timing.answer;
        self.core.tasks.spawn(async move {
            let outcome = match flushed {
                Err(error) => Err(error),
                Ok(done) => match tokio::time::timeout(answer, done).await {
                    Ok(Ok(())) => Ok(Position::none().into()),
                    Ok(Err(_)) | Err(_) => Err(BrokerError::Unconfirmed),
                },
            };
            for reply in replies {
                reply(outcome.clone());
            }
        });
    }
}

impl Drop for NatsBroker {
    fn drop(&mut self) {
        self.core.cancelled.cancel();
    }
}

/// Keeps a connection up until cancelled.
async fn keep_up(core: Arc<Core>) {
    let mut backoff = Backoff::new(core.config.timing);
    let servers = &core.config.servers;
    // a fleet spreads over the servers
    let mut turn = rand::random_range(0..servers.len().max(1));
    loop {
        let Some(server) = servers.get(turn % servers.len().max(1)) else {
            return;
        };
        turn += 1;
        match connect(&core, server).await {
            Ok(link) => {
                core.stats.command_links.inc();
                core.stats.subscription_links.inc();
                let reason = Session::new(&core, Arc::new(link)).serve(&mut backoff).await;
                tracing::warn!(nats = server, reason, "the connection to NATS is lost");
            }
            Err(error) => tracing::warn!(nats = server, %error, "NATS cannot be used"),
        }
        sleep(backoff.step(rand::random())).await;
    }
}

/// Connects, and makes JetStream as we need it.
async fn connect(core: &Core, server: &str) -> Result<Link, ConnectError> {
    let link = link::connect(&core.config, server, &core.tasks).await?;
    let streams = JetStream {
        config: &core.config,
        link: &link,
    };
    let prepared = streams.prepare(&core.histories).await;
    prepared.map_err(|error| match error {
        BrokerError::Refused(text) => ConnectError::Refused(text.to_string()),
        _ => ConnectError::Unfit(
            "JetStream does not answer; run nats-server with --jetstream, and its cluster with a quorum",
        ),
    })?;
    Ok(link)
}

impl Broker for NatsBroker {
    fn publish(&self, batch: Vec<Publish>) {
        let mut passing = Vec::new();
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
            if self.core.cancelled.is_cancelled() {
                if let Some(reply) = publish.reply {
                    reply(Err(BrokerError::Unavailable));
                }
                continue;
            }
            let channel = naming::channel(&publish.stream);
            let retention = self.core.histories.of(&publish.stream);
            if retention == Retention::Ephemeral || !publish.event.is_message() {
                passing.push((self.core.config.names.live(&channel), event, publish.reply));
                continue;
            }
            let id = publish.msg_id.as_ref();
            let id = id.map(|id| naming::message_id(&channel, id.parts(&publish.event)));
            let job = Job {
                event,
                id,
                reply: publish.reply,
            };
            Lanes::submit(&self.core, channel, retention, job);
        }
        if !passing.is_empty() {
            self.pass(passing);
        }
    }

    fn append(&self, events: Vec<(WorkerEvent, Reply)>) {
        if self.core.config.events.is_some() {
            return events::append(&self.core, events);
        }
        for (_, reply) in events {
            reply(Err(BrokerError::EventsOff));
        }
    }

    fn subscribe(&self, stream: StreamKey) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let (waiter, position) = oneshot::channel();
        self.core
            .table
            .subscribe(naming::channel(&stream), stream, waiter);
        // the sender is dropped without a word when the subscription was ended meanwhile
        async move { position.await.unwrap_or(Err(BrokerError::Unavailable)) }.boxed()
    }

    fn history(&self, reading: Reading) -> BoxFuture<'static, Result<Page, BrokerError>> {
        let retention = self.core.histories.of(&reading.stream);
        if retention == Retention::Ephemeral {
            let page = Page {
                position: Position::none(),
                messages: Vec::new(),
                more: false,
            };
            return ready(Ok(page)).boxed();
        }
        let (core, marks) = (Arc::clone(&self.core), Arc::clone(&self.marks));
        async move { read(&core, &marks, &reading, retention).await }.boxed()
    }

    fn unsubscribe(&self, stream: &StreamKey) {
        self.core.table.unsubscribe(&naming::channel(stream));
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
        Health {
            up: self.core.current.lock().is_some(),
            degraded: !self.core.is_proven(),
        }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let core = Arc::clone(&self.core);
        let (seats, presence) = (Arc::clone(&self.seats), Arc::clone(&self.presence));
        async move {
            futures::future::join(seats.end(), presence.end()).await;
            core.cancelled.cancel();
            core.current.lock().take();
            core.tasks.wait().await;
            core.lanes.end();
            core.events.end();
            core.seats.end();
            core.presence.end();
        }
        .boxed()
    }
}

/// Reads a page, from where the one before it ended.
async fn read(
    core: &Core,
    marks: &Mutex<HashMap<Mark, u64>>,
    reading: &Reading,
    retention: Retention,
) -> Result<Page, BrokerError> {
    let link = core.link()?;
    let streams = JetStream {
        config: &core.config,
        link: &link,
    };
    let channel = naming::channel(&reading.stream);
    let from = match reading.span {
        Span::After(after) => marks.lock().get(&(Arc::clone(&channel), after)).copied(),
        Span::Before(_) => None,
    };
    let question = Read {
        channel: &channel,
        span: reading.span,
        messages: reading.messages,
        bytes: reading.bytes,
        retention,
        from: from.unwrap_or(0),
    };
    let pages = streams.read(&question).await?;
    if pages.page.more
        && let (Span::After(_), Some(last)) = (reading.span, pages.page.messages.last())
    {
        let mut marks = marks.lock();
        if marks.len() >= MARKS {
            marks.clear();
        }
        marks.insert((channel, last.offset), pages.next);
    }
    Ok(pages.page)
}
