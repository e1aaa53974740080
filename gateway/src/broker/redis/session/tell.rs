//! What is told to Redis on a subscription link: one command at a time, so that changes of one channel keep their order.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, PushKind, RedisError, Value};
use tokio::time::Instant;

use super::super::super::Position;
use super::super::link;
use super::super::script::Channels;
use super::{BATCH, Purpose, READS, Session};
use crate::broker::table::{Changes, Ticket};

/// How soon what a node refused is told to it again, if it is still this node's.
const RETRY: Duration = Duration::from_millis(100);

/// What a command on the link was for.
pub(super) enum Told {
    /// The probe's channel.
    Own,
    Subscribed {
        tickets: Vec<(Ticket, Option<Position>)>,
        purpose: Purpose,
    },
    Unsubscribed,
}

/// Which channels Redis confirmed; `None` is all.
pub(super) struct Confirmed(Option<HashSet<Vec<u8>>>);

impl Confirmed {
    fn has(&self, channel: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|channels| channels.contains(channel))
    }
}

/// The command on its way.
pub(super) type Telling = BoxFuture<'static, (Told, Result<Confirmed, RedisError>)>;

/// The outcome of the command on its way. Cancel-safe: the command stays where it is.
pub(super) async fn next_told(telling: &mut Option<Telling>) -> (Told, Result<Confirmed, RedisError>) {
    match telling {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

impl Session<'_> {
    /// Sends the next command, if none is on its way: resubscription first, then what is told again, then changes since.
    pub(super) fn tell_next(&mut self) {
        if self.telling.is_some() || self.reads.len() >= READS {
            return;
        }
        if let Some(resync) = &mut self.resync
            && let Some(batch) = resync.left.pop_front()
        {
            resync.open += 1;
            self.subscribe(batch, Purpose::Resync);
            return;
        }
        if self.again_at <= Instant::now() {
            let again = self.subscriber.table.take_again(BATCH);
            if !again.is_empty() {
                self.subscribe(again, Purpose::Again);
                return;
            }
        }
        match self.subscriber.table.take_changes(BATCH) {
            None => {}
            Some(Changes::Subscribe(tickets)) => {
                let tickets = tickets.into_iter().map(|ticket| (ticket, None)).collect();
                self.subscribe(tickets, Purpose::New);
            }
            Some(Changes::Unsubscribe(channels)) => self.tell(Told::Unsubscribed, channels),
        }
    }

    /// Whether something waits to be told again, and could be.
    pub(super) fn waits_again(&self) -> bool {
        self.telling.is_none() && self.reads.len() < READS && self.subscriber.table.has_again()
    }

    fn subscribe(&mut self, tickets: Vec<(Ticket, Option<Position>)>, purpose: Purpose) {
        let channels = tickets
            .iter()
            .map(|(ticket, _)| Arc::clone(&ticket.channel))
            .collect();
        self.tell(Told::Subscribed { tickets, purpose }, channels);
    }

    pub(super) fn tell(&mut self, told: Told, channels: Vec<Arc<[u8]>>) {
        let connection = self.connection.clone();
        let ends = matches!(told, Told::Unsubscribed);
        let sharded = self.subscriber.config.channels() == Channels::Sharded;
        let work = async move {
            let result = if sharded {
                tell_sharded(connection, ends, &channels).await
            } else {
                tell_plain(connection, ends, &channels).await
            };
            (told, result)
        };
        self.telling = Some(work.boxed());
    }

    /// Redis answered; false when the link is of no use.
    pub(super) fn confirmed(&mut self, told: Told, confirmed: &Confirmed) -> bool {
        match told {
            Told::Own => {
                self.read_positions(Vec::new(), Purpose::Resync);
                confirmed.has(&self.probe_channel)
            }
            Told::Unsubscribed => true,
            Told::Subscribed { tickets, purpose } => {
                let (taken, refused): (Vec<_>, Vec<_>) = tickets
                    .into_iter()
                    .partition(|(ticket, _)| confirmed.has(&ticket.channel));
                self.refused(refused.iter().map(|(ticket, _)| ticket));
                self.read_positions(taken, purpose);
                true
            }
        }
    }

    /// A node does not have these slots, or not now: the cluster is looked at, and what is still this node's is told again.
    pub(super) fn refused<'t>(&mut self, tickets: impl ExactSizeIterator<Item = &'t Ticket>) {
        if tickets.len() > 0 {
            self.subscriber.table.refused(tickets);
            self.look();
        }
    }

    /// The node ended subscriptions, as it was told, or because their slots are another's now; `Err` tells why the link is
    /// to be given up.
    pub(super) fn ended(&mut self, channels: &[Vec<u8>]) -> Result<(), &'static str> {
        if channels
            .iter()
            .any(|channel| channel[..] == self.probe_channel[..])
        {
            self.look();
            return Err("its probe's slot is another node's");
        }
        if self.subscriber.table.lost(channels) {
            self.look();
        }
        Ok(())
    }

    fn look(&mut self) {
        self.again_at = Instant::now() + RETRY;
        if let Some(alert) = &self.subscriber.commands.alert {
            alert.look();
        }
    }
}

async fn tell_plain(
    mut connection: MultiplexedConnection,
    ends: bool,
    channels: &[Arc<[u8]>],
) -> Result<Confirmed, RedisError> {
    let channels: Vec<&[u8]> = channels.iter().map(|channel| &channel[..]).collect();
    if ends {
        connection.unsubscribe(channels).await?;
    } else {
        connection.subscribe(channels).await?;
    }
    Ok(Confirmed(None))
}

/// One command for each channel: those of one command would have to be of one slot. A subscription that the node ends by
/// itself meanwhile looks to the connection like an answer, so the last ones may come too late to be seen here; they are
/// not confirmed then, and told again, which does no harm.
async fn tell_sharded(
    mut connection: MultiplexedConnection,
    ends: bool,
    channels: &[Arc<[u8]>],
) -> Result<Confirmed, RedisError> {
    let verb = if ends { "SUNSUBSCRIBE" } else { "SSUBSCRIBE" };
    let mut pipeline = Pipeline::with_capacity(channels.len());
    for channel in channels {
        pipeline.cmd(verb).arg(&channel[..]);
    }
    let answers = link::all(&mut connection, &pipeline).await?;
    let confirmed = answers.into_iter().filter_map(|answer| match answer {
        Value::Push {
            kind: PushKind::SSubscribe,
            data,
        } => match data.into_iter().next() {
            Some(Value::BulkString(channel)) => Some(channel),
            _ => None,
        },
        _ => None,
    });
    Ok(Confirmed(Some(confirmed.collect())))
}
