//! One subscription link's life: resubscription, changes, hand-over, probes, repairs.

mod probe;
mod repair;
mod tell;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep_until};

use self::probe::Probe;
use self::repair::Repairs;
use self::tell::{Telling, Told, next_told};
use super::super::{BrokerError, Crowded, Position};
use super::intake::{Intake, Taken};
use super::role;
use super::script::Channels;
use super::subscribe::Subscriber;
use crate::broker::table::{Seen, Ticket};
use crate::broker::timing::Backoff;

/// Channels in one SUBSCRIBE or UNSUBSCRIBE.
const BATCH: usize = 512;
/// Batches of positions that are read at a time.
const READS: usize = 8;

/// What is to be subscribed after a reconnect, and what it showed.
struct Resync {
    started: Instant,
    left: VecDeque<Vec<(Ticket, Option<Position>)>>,
    /// Batches that were sent and are not done: confirmed, and their positions read.
    open: usize,
    positions: Vec<(Ticket, Position)>,
}

/// Why positions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Of new subscriptions.
    New,
    /// Of everything, on a new link.
    Resync,
    /// Of streams of which nothing was heard.
    Compare,
    /// Of what was told again.
    Again,
}

/// Positions that were read.
struct ReadBack {
    positions: Vec<(Ticket, Result<Position, BrokerError>)>,
    purpose: Purpose,
}

/// One link's life.
pub(super) struct Session<'a> {
    subscriber: &'a Subscriber,
    connection: MultiplexedConnection,
    intake: Arc<Intake>,
    probe_channel: Arc<[u8]>,
    /// The command on its way; one at a time, so that changes of one channel keep their order.
    telling: Option<Telling>,
    /// Not before this time anything is told again.
    again_at: Instant,
    reads: FuturesUnordered<BoxFuture<'a, ReadBack>>,
    resync: Option<Resync>,
    repairs: Repairs<'a>,
    probe: Option<Probe>,
    probes: u64,
    /// When the link will have been silent for long.
    silent_at: Instant,
    /// Members do not keep up: messages are left in the intake meanwhile.
    crowded: Option<Crowded>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.subscriber.proven.store(false, Ordering::Relaxed);
        self.subscriber.table.unlink();
        self.subscriber.count_subscriptions();
    }
}

impl<'a> Session<'a> {
    /// Begins: takes everything that is to be subscribed.
    pub(super) fn new(
        subscriber: &'a Subscriber,
        connection: MultiplexedConnection,
        intake: Arc<Intake>,
    ) -> Self {
        let mut wanted = subscriber.table.link();
        let mut left = VecDeque::with_capacity(wanted.len() / BATCH + 1);
        while !wanted.is_empty() {
            left.push_back(wanted.split_off(wanted.len().saturating_sub(BATCH)));
        }
        let now = Instant::now();
        let resync = Resync {
            started: now,
            left,
            open: 1,
            positions: Vec::new(),
        };
        let mut session = Self {
            subscriber,
            connection,
            intake,
            probe_channel: Arc::clone(&subscriber.probe_channel.lock()),
            telling: None,
            again_at: now,
            reads: FuturesUnordered::new(),
            resync: Some(resync),
            repairs: Repairs::new(now + subscriber.config.timing.compare),
            probe: None,
            probes: 0,
            silent_at: now + subscriber.config.timing.silence,
            crowded: None,
        };
        session.tell(Told::Own, vec![Arc::clone(&session.probe_channel)]);
        session
    }

    /// Serves the link until it is lost; tells why it was.
    pub(super) async fn serve(mut self, backoff: &mut Backoff) -> &'static str {
        let timing = self.subscriber.config.timing;
        let mut demoted = pin!(role::demoted(self.connection.clone(), timing.silence));
        loop {
            self.tell_next();
            self.repair_next();
            self.subscriber.count_subscriptions();
            self.end_of_resync();
            let alarm = self
                .probe
                .as_ref()
                .map_or(self.silent_at, |p| p.sent + timing.answer);
            tokio::select! {
                taken = self.intake.take(), if self.crowded.is_none() => {
                    if let Err(reason) = self.hand_on(&taken, backoff) {
                        return reason;
                    }
                }
                reason = &mut demoted => return reason,
                (told, result) = next_told(&mut self.telling), if self.telling.is_some() => {
                    self.telling = None;
                    if !result.is_ok_and(|confirmed| self.confirmed(told, &confirmed)) {
                        return "a subscription was not confirmed";
                    }
                }
                Some(read) = self.reads.next(), if !self.reads.is_empty() => {
                    if !self.read_back(read) {
                        return "positions cannot be read";
                    }
                }
                Some(filled) = self.repairs.reads.next(), if self.repairs.is_due(self.crowded.is_none()) => {
                    self.filled(filled);
                }
                () = sleep_until(self.repairs.compare_at), if self.resync.is_none() => self.compare_silent(),
                () = self.subscriber.table.wake.notified(), if self.telling.is_none() => {}
                () = sleep_until(self.again_at), if self.waits_again() => {}
                () = relieved(&mut self.crowded), if self.crowded.is_some() => {
                    self.crowded = None;
                    self.listen_again();
                }
                () = sleep_until(alarm), if self.crowded.is_none() => {
                    if self.alarm() {
                        return "a probe did not arrive";
                    }
                }
            }
        }
    }

    fn read_positions(&mut self, tickets: Vec<(Ticket, Option<Position>)>, purpose: Purpose) {
        let subscriber = self.subscriber;
        let read = async move {
            ReadBack {
                positions: subscriber.positions(tickets).await,
                purpose,
            }
        };
        self.reads.push(read.boxed());
    }

    /// Takes positions; false when those of a resubscription could not be read.
    fn read_back(&mut self, read: ReadBack) -> bool {
        match read.purpose {
            Purpose::Resync => {}
            Purpose::Compare => {
                self.compared(read.positions);
                return true;
            }
            Purpose::New | Purpose::Again => {
                self.stand(read.positions);
                return true;
            }
        }
        let moves = self.moves();
        let Some(resync) = self.resync.as_mut() else {
            return true;
        };
        resync.open -= 1;
        let mut refused = Vec::new();
        for (ticket, result) in read.positions {
            match result {
                Ok(position) => resync.positions.push((ticket, position)),
                Err(_) if moves => refused.push(ticket),
                Err(_) => return false,
            }
        }
        self.refused(refused.iter());
        true
    }

    /// New subscriptions, or those that were told again, stand from here on; these are compared.
    fn stand(&mut self, positions: Vec<(Ticket, Result<Position, BrokerError>)>) {
        let mut refused = Vec::new();
        let mut read = Vec::new();
        for (ticket, result) in positions {
            if result == Err(BrokerError::Unavailable) && self.moves() {
                refused.push(ticket);
                continue;
            }
            self.subscriber.table.positioned(&ticket, result.clone());
            match result {
                Ok(position) => read.push((ticket, position)),
                // it stands, and is not known to be whole
                Err(_) => refused.push(ticket),
            }
        }
        self.refused(refused.iter());
        let (seen, holes) = self.subscriber.table.compare(&read);
        self.repairs.add(holes);
        self.count(&seen);
    }

    /// Whether streams move from server to server.
    fn moves(&self) -> bool {
        self.subscriber.config.channels() == Channels::Sharded
    }

    /// Publishes the probe that ends a resubscription once all is subscribed and read.
    fn end_of_resync(&mut self) {
        let done = self
            .resync
            .as_ref()
            .is_some_and(|r| r.left.is_empty() && r.open == 0);
        if done && self.probe.is_none() {
            self.send_probe(true);
        }
    }

    /// Hands messages on; `Err` tells why the link is to be given up.
    fn hand_on(&mut self, taken: &Taken, backoff: &mut Backoff) -> Result<(), &'static str> {
        let subscriber = self.subscriber;
        self.silent_at = Instant::now() + subscriber.config.timing.silence;
        let (deliveries, mut seen, holes) = subscriber.table.deliveries(&taken.messages);
        self.repairs.add(holes);
        if !deliveries.is_empty() {
            self.crowded = subscriber.sink.deliver(deliveries);
        }
        if let Some(probe) = self.take_seen_probe(&taken.messages) {
            let took = probe.sent.elapsed();
            subscriber.stats.probe_seconds.observe(took.as_secs_f64());
            if probe.proves_resync {
                self.settle(&mut seen);
                backoff.reset();
            }
        } else if self.probe.as_ref().is_some_and(|p| !p.proves_resync) && !taken.messages.is_empty() {
            // any message proves the link as well as the probe does
            self.probe = None;
        }
        self.count(&seen);
        self.ended(&taken.ended)?;
        if taken.overflow {
            subscriber.stats.overflows.inc();
            return Err("more messages came than could be handed on");
        }
        if taken.gone {
            Err("closed by Redis or the network")
        } else {
            Ok(())
        }
    }

    /// Everything is subscribed, and everything published before the positions were read has arrived.
    fn settle(&mut self, seen: &mut Seen) {
        let Some(resync) = self.resync.take() else { return };
        let subscriber = self.subscriber;
        let (compared, holes) = subscriber.table.settle(&resync.positions);
        self.repairs.add(holes);
        seen.missed += compared.missed;
        seen.epoch_changes += compared.epoch_changes;
        let took = resync.started.elapsed();
        subscriber.stats.resubscribe_seconds.observe(took.as_secs_f64());
        subscriber.proven.store(true, Ordering::Relaxed);
        tracing::info!(
            redis = subscriber.config.address(),
            streams = resync.positions.len(),
            missed = compared.missed,
            epoch_changes = compared.epoch_changes,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "subscription link is up"
        );
    }

    fn count(&self, seen: &Seen) {
        self.subscriber.stats.count(seen);
    }
}

/// When members have caught up. Cancel-safe: what is awaited stays where it is.
async fn relieved(crowded: &mut Option<Crowded>) {
    match crowded {
        Some(wait) => wait.await,
        None => std::future::pending().await,
    }
}
