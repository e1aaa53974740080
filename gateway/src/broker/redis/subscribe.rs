//! The subscription link: keeps one link up, tells Redis what to subscribe to, and hands messages on.
//!
//! A new link subscribes to everything in batches, reads where each stream stands, and then publishes a probe to itself
//! through the command link. When the probe arrives, all that was published before it has arrived too (Redis executes
//! in order, and a channel's messages travel one way), so positions can be compared with what was delivered, and the
//! link is proven. Later a probe is published whenever the link was silent for a while: a link that is black-holed, or
//! that ends at another Redis than the command link, is found that way.
//!
//! What was missed is read from the streams ([`Subscriber::fill`]), once for all members of a room, and delivered before
//! anything that came behind it. Streams of which nothing is heard are compared every now and then: a message that was
//! lost last shows no hole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::{BrokerError, Kept, Position, Sink, Span};
use super::config::RedisConfig;
use super::history::Read;
use super::intake::Intake;
use super::link;
use super::queue::Commands;
use super::script::Request;
use super::session::Session;
use crate::broker::stats::Stats;
use crate::broker::table::{Hole, Table, Ticket};
use crate::broker::timing::Backoff;
use crate::config::{Durability, Retention};
use crate::room::{PAGE_BYTES, PAGE_MESSAGES};

/// What the subscription link's task works with.
pub(super) struct Subscriber {
    pub(super) config: RedisConfig,
    pub(super) commands: Arc<Commands>,
    pub(super) table: Arc<Table>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) stats: Arc<Stats>,
    /// Whether the link is proven: subscribed to everything, and heard from lately.
    pub(super) proven: Arc<AtomicBool>,
    /// This broker's own channel; in a cluster it has to be one of the node's slots, which move.
    pub(super) probe_channel: Arc<Mutex<Arc<[u8]>>>,
    /// Subscriptions of this link that are in the gauge.
    pub(super) counted: AtomicI64,
}

/// Keeps the subscription link up until cancelled.
pub(super) async fn run(subscriber: Subscriber, cancelled: CancellationToken) {
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = subscriber.keep_up() => {}
    }
    subscriber.count_subscriptions();
}

impl Subscriber {
    async fn keep_up(&self) {
        let mut backoff = Backoff::new(self.config.timing);
        let mut up = self.commands.watch_up();
        loop {
            // without the command link positions cannot be read, and the complaint is that link's to make
            if up.wait_for(|up| *up).await.is_err() {
                return;
            }
            let moved = self.commands.moved();
            let intake = Arc::new(Intake::default());
            match link::connect_subscriber(&self.config, intake.sender()).await {
                Ok(connection) => {
                    self.stats.subscription_links.inc();
                    let session = Session::new(self, connection, intake);
                    let reason = tokio::select! {
                        reason = session.serve(&mut backoff) => reason,
                        // positions of one and messages of the other would pass for whole
                        () = moved => "commands go to another server, or to one that was restarted",
                    };
                    tracing::warn!(redis = self.config.address(), reason, "subscription link is lost");
                }
                Err(error) => {
                    tracing::warn!(redis = self.config.address(), %error, "subscription link cannot be made");
                }
            }
            sleep(backoff.step(rand::random())).await;
        }
    }

    /// Keeps the gauge, in which all links' subscriptions are.
    pub(super) fn count_subscriptions(&self) {
        let now = self.table.len() as i64;
        let before = self.counted.swap(now, Ordering::Relaxed);
        self.stats.subscriptions.add(now - before);
    }

    /// Reads where streams stand; one in whose epoch Redis went back gets a new epoch.
    pub(super) async fn positions(
        &self,
        wanted: Vec<(Ticket, Option<Position>)>,
    ) -> Vec<(Ticket, Result<Position, BrokerError>)> {
        join_all(wanted.into_iter().map(|(ticket, before)| async move {
            if ticket.retention == Retention::Ephemeral {
                return (ticket, Ok(Position::none()));
            }
            let stream = Arc::clone(&ticket.channel);
            let mut result = self
                .commands
                .place(Request::Position {
                    stream: Arc::clone(&stream),
                })
                .await;
            if let (Some(delivered), Ok(current)) = (before, &result)
                && delivered.epoch == current.epoch
                && current.offset < delivered.offset
            {
                let renew = Request::Renew {
                    stream,
                    delivered,
                    // what a replica had is there: nothing of what is lost was acknowledged
                    keep: self.config.durability == Durability::Replicated,
                };
                result = self.commands.place(renew).await;
            }
            (ticket, result)
        }))
        .await
    }

    /// Reads what is missing, page by page; less of it when it is not kept.
    pub(super) async fn fill(&self, hole: &Hole) -> Result<Vec<Kept>, BrokerError> {
        let mut read = Vec::new();
        let mut after = hole.after.offset;
        while after < hole.to && matches!(hole.ticket.retention, Retention::Keep { .. }) {
            let page = self
                .commands
                .read(Read {
                    stream: Arc::clone(&hole.ticket.channel),
                    span: Span::After(after),
                    messages: PAGE_MESSAGES,
                    bytes: PAGE_BYTES,
                    retention: hole.ticket.retention,
                })
                .await?;
            let Some(last) = page.messages.last().map(|kept| kept.offset) else {
                break;
            };
            if page.position.epoch != hole.after.epoch {
                break;
            }
            read.extend(page.messages.into_iter().filter(|kept| kept.offset <= hole.to));
            after = last;
        }
        Ok(read)
    }
}
