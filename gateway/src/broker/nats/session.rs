//! A connection's life: everything is subscribed again, its position read, and then a probe sent; when that has come back
//! the connection is proven. Questions for positions go the way of the subscriptions before them, so whatever is
//! published behind such a position comes by the subscription.

mod repair;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use self::repair::Repairs;
use super::core::Core;
use super::intake::Taken;
use super::jetstream::JetStream;
use super::link::Link;
use super::presence::LEASES;
use crate::broker::message::Raw;
use crate::broker::table::{Changes, Seen, Ticket};
use crate::broker::timing::Backoff;
use crate::broker::{BrokerError, Crowded, Position};

/// Channels that are subscribed, and whose positions are read, at a time.
const BATCH: usize = 128;
/// Such batches on their way.
const READS: usize = 4;
/// What the subscription to our own probes is called.
const PROBE: &[u8] = b"probe";

type Wanted = Vec<(Ticket, Option<Position>)>;

/// What is to be subscribed on a new connection, and what it showed.
struct Resync {
    started: Instant,
    left: VecDeque<Wanted>,
    /// Batches whose positions are not read yet.
    open: usize,
    positions: Vec<(Ticket, Position)>,
}

/// Why positions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Of new subscriptions.
    New,
    /// Of everything, on a new connection.
    Resync,
    /// Of streams of which nothing was heard.
    Compare,
}

/// Positions that were read.
struct ReadBack {
    positions: Vec<(Ticket, Result<Position, BrokerError>)>,
    purpose: Purpose,
}

/// A message of our own that has to come back.
struct Probe {
    number: u64,
    sent: Instant,
}

/// One connection's life.
pub(super) struct Session<'a> {
    core: &'a Core,
    link: Arc<Link>,
    reads: FuturesUnordered<BoxFuture<'a, ReadBack>>,
    resync: Option<Resync>,
    repairs: Repairs<'a>,
    probe: Option<Probe>,
    probes: u64,
    /// When it will have been silent for long.
    silent_at: Instant,
    /// Members do not keep up: messages are left in the intake meanwhile.
    crowded: Option<Crowded>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.core.proven.store(false, Ordering::Relaxed);
        self.core.current.lock().take();
        self.core.up.send_replace(false);
        self.core.table.unlink();
        self.core.views.doubt();
    }
}

impl<'a> Session<'a> {
    /// Begins: takes everything that is to be subscribed.
    pub(super) fn new(core: &'a Core, link: Arc<Link>) -> Self {
        let mut wanted = core.table.link();
        let mut left = VecDeque::with_capacity(wanted.len() / BATCH + 1);
        while !wanted.is_empty() {
            left.push_back(wanted.split_off(wanted.len().saturating_sub(BATCH)));
        }
        let now = Instant::now();
        Self {
            core,
            link,
            reads: FuturesUnordered::new(),
            resync: Some(Resync {
                started: now,
                left,
                open: 0,
                positions: Vec::new(),
            }),
            repairs: Repairs::new(now + core.config.timing.compare),
            probe: None,
            probes: 0,
            silent_at: now + core.config.timing.silence,
            crowded: None,
        }
    }

    /// Serves the connection until it is lost; tells why it was.
    pub(super) async fn serve(mut self, backoff: &mut Backoff) -> String {
        let own = self.core.config.names.probe(&self.core.instance);
        let leases = self.core.config.names.leases();
        let subscribed = self.link.subscribe(&own, PROBE);
        if subscribed
            .and_then(|()| self.link.subscribe(&leases, LEASES))
            .is_err()
        {
            return "closed at once".into();
        }
        let link = Arc::clone(&self.link);
        loop {
            if self.tell_next().and_then(|()| self.end_of_resync()).is_err() {
                return "it takes no more".into();
            }
            self.repair_next();
            self.core.stats.subscriptions.set(self.core.table.len() as i64);
            let answer = self.core.config.timing.answer;
            let alarm = self
                .probe
                .as_ref()
                .map_or(self.silent_at, |probe| probe.sent + answer);
            tokio::select! {
                taken = link.intake().take(), if self.crowded.is_none() => {
                    if let Err(reason) = self.hand_on(taken, backoff) {
                        return reason;
                    }
                }
                Some(read) = self.reads.next(), if !self.reads.is_empty() => {
                    if let Err(error) = self.read_back(read) {
                        return format!("positions cannot be read: {error}");
                    }
                }
                Some(filled) = self.repairs.reads.next(), if self.repairs.is_due(self.crowded.is_none()) => {
                    self.filled(filled);
                }
                () = sleep_until(self.repairs.compare_at), if self.resync.is_none() => self.compare_silent(),
                () = self.core.table.wake.notified(), if self.reads.len() < READS => {}
                () = relieved(&mut self.crowded), if self.crowded.is_some() => {
                    self.crowded = None;
                    self.heard();
                }
                () = sleep_until(alarm), if self.crowded.is_none() => {
                    if self.probe.is_some() {
                        self.core.stats.probes_missed.inc();
                        return "a probe did not come back".into();
                    }
                    if self.send_probe().is_err() {
                        return "it takes no more".into();
                    }
                }
            }
        }
    }

    /// Tells what is to be subscribed: first what was so before, then what has changed since.
    fn tell_next(&mut self) -> Result<(), BrokerError> {
        while self.reads.len() < READS {
            if let Some(resync) = &mut self.resync
                && let Some(batch) = resync.left.pop_front()
            {
                resync.open += 1;
                self.subscribe(batch, Purpose::Resync)?;
                continue;
            }
            match self.core.table.take_changes(BATCH) {
                None => return Ok(()),
                Some(Changes::Subscribe(tickets)) => {
                    let tickets = tickets.into_iter().map(|ticket| (ticket, None)).collect();
                    self.subscribe(tickets, Purpose::New)?;
                }
                Some(Changes::Unsubscribe(channels)) => {
                    for channel in channels {
                        self.link.unsubscribe(&channel)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, tickets: Wanted, purpose: Purpose) -> Result<(), BrokerError> {
        for (ticket, _) in &tickets {
            let subject = self.core.config.names.live(&ticket.channel);
            self.link.subscribe(&subject, &ticket.channel)?;
        }
        self.read_positions(tickets, purpose);
        Ok(())
    }

    fn read_positions(&mut self, tickets: Wanted, purpose: Purpose) {
        let (core, link) = (self.core, Arc::clone(&self.link));
        let read = async move {
            let streams = JetStream {
                config: &core.config,
                link: &link,
            };
            let positions = join_all(tickets.into_iter().map(|(ticket, before)| async move {
                let position = streams.position(&ticket, before.as_ref()).await;
                (ticket, position)
            }));
            ReadBack {
                positions: positions.await,
                purpose,
            }
        };
        self.reads.push(read.boxed());
    }

    /// Takes positions; an error when those of a resubscription could not be read.
    fn read_back(&mut self, read: ReadBack) -> Result<(), BrokerError> {
        match read.purpose {
            Purpose::Resync => {
                if let Some(resync) = &mut self.resync {
                    resync.open -= 1;
                    for (ticket, result) in read.positions {
                        resync.positions.push((ticket, result?));
                    }
                }
            }
            Purpose::Compare => self.compared(read.positions),
            Purpose::New => {
                for (ticket, result) in &read.positions {
                    self.core.table.positioned(ticket, result.clone());
                }
                self.compared(read.positions);
            }
        }
        Ok(())
    }

    /// Sends the probe that ends a resubscription once all is subscribed and read.
    fn end_of_resync(&mut self) -> Result<(), BrokerError> {
        let done = |resync: &Resync| resync.left.is_empty() && resync.open == 0;
        if self.probe.is_none() && self.resync.as_ref().is_some_and(done) {
            self.send_probe()?;
        }
        Ok(())
    }

    fn send_probe(&mut self) -> Result<(), BrokerError> {
        self.probes += 1;
        let subject = self.core.config.names.probe(&self.core.instance);
        self.link.publish(&subject, self.probes.to_string().as_bytes())?;
        self.core.stats.probes.inc();
        self.probe = Some(Probe {
            number: self.probes,
            sent: Instant::now(),
        });
        Ok(())
    }

    /// Something came, or could not be taken for a while: a probe has its full time from here on.
    fn heard(&mut self) {
        let now = Instant::now();
        self.silent_at = now + self.core.config.timing.silence;
        if let Some(probe) = &mut self.probe {
            probe.sent = now;
        }
    }

    /// Hands messages on; `Err` tells why the connection is to be given up.
    fn hand_on(&mut self, taken: Taken, backoff: &mut Backoff) -> Result<(), String> {
        let core = self.core;
        let probed = self.take_seen_probe(&taken.messages);
        self.heard();
        for (channel, frame) in taken.frames {
            core.lanes.hear(&channel, frame);
        }
        core.views.hear(&taken.presence);
        let (deliveries, mut seen, holes) = core.table.deliveries(&taken.messages);
        self.repairs.add(holes);
        if !deliveries.is_empty() {
            self.crowded = core.sink.deliver(deliveries);
        }
        if let Some(probe) = probed {
            core.stats
                .probe_seconds
                .observe(probe.sent.elapsed().as_secs_f64());
            if self
                .resync
                .as_ref()
                .is_some_and(|r| r.left.is_empty() && r.open == 0)
            {
                self.settle(&mut seen);
                backoff.reset();
            }
        }
        self.count(&seen);
        if taken.overflow {
            core.stats.overflows.inc();
            return Err("more messages came than could be handed on".into());
        }
        taken.gone.map_or(Ok(()), Err)
    }

    fn take_seen_probe(&mut self, messages: &[Raw]) -> Option<Probe> {
        let number = self.probe.as_ref()?.number.to_string();
        messages
            .iter()
            .find(|message| message.channel == PROBE && message.payload == number.as_bytes())?;
        self.probe.take()
    }

    /// Everything is subscribed, and everything that came before its position was read has been taken.
    fn settle(&mut self, seen: &mut Seen) {
        let Some(resync) = self.resync.take() else { return };
        let core = self.core;
        let (compared, holes) = core.table.settle(&resync.positions);
        self.repairs.add(holes);
        seen.missed += compared.missed;
        seen.epoch_changes += compared.epoch_changes;
        let took = resync.started.elapsed();
        core.stats.resubscribe_seconds.observe(took.as_secs_f64());
        core.lanes.look_again();
        // not before: where NATS went back, the streams have their new epochs now
        *core.current.lock() = Some(Arc::clone(&self.link));
        core.up.send_replace(true);
        core.proven.store(true, Ordering::Relaxed);
        tracing::info!(
            nats = core.config.address(),
            streams = resync.positions.len(),
            missed = compared.missed,
            epoch_changes = compared.epoch_changes,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "connected to NATS"
        );
    }

    fn count(&self, seen: &Seen) {
        self.core.stats.count(seen);
    }
}

/// When members have caught up. Cancel-safe: what is awaited stays where it is.
async fn relieved(crowded: &mut Option<Crowded>) {
    match crowded {
        Some(wait) => wait.await,
        None => std::future::pending().await,
    }
}
