//! Which streams this gateway is subscribed to, and the last place delivered in each. No I/O.

mod again;
mod filling;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::message::{self, Raw};
use super::{BrokerError, Delivery, Position, StreamKey};
use crate::config::{Histories, Retention};
pub(in crate::broker) use filling::Hole;
use filling::{Filling, Taken};

/// Subscriptions that may wait to be sent; more are `Overloaded`. (Each waiting unsubscription was one of these.)
const WAITING: usize = 1 << 18;

/// One subscription's name; the `id` tells a later subscription to the same stream apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Ticket {
    pub(in crate::broker) channel: Arc<[u8]>,
    pub(in crate::broker) id: u64,
    pub(in crate::broker) retention: Retention,
}

/// What is to be told to Redis, in order.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::broker) enum Change {
    Subscribe(Ticket),
    Unsubscribe(Arc<[u8]>),
}

/// Changes of one kind, to be told in one command.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::broker) enum Changes {
    Subscribe(Vec<Ticket>),
    Unsubscribe(Vec<Arc<[u8]>>),
}

/// Where a subscriber waits for the stream's position.
pub(in crate::broker) type Waiter = oneshot::Sender<Result<Position, BrokerError>>;

struct Entry {
    id: u64,
    stream: StreamKey,
    /// The last place that was seen; delivered, unless a hole before it is being filled.
    last: Option<Position>,
    waiter: Option<Waiter>,
    /// A hole that is being filled, and what waits behind it.
    filling: Option<Box<Filling>>,
    /// Something came since the last comparison.
    heard: bool,
    /// Redis did not take it the first time.
    refused: bool,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Arc<[u8]>, Entry, ahash::RandomState>,
    changes: VecDeque<Change>,
    /// Channels to be told once more.
    again: Vec<Arc<[u8]>>,
    /// Whether a link takes changes; without one only the entries are kept.
    linked: bool,
    next_id: u64,
}

/// What a batch of messages, or a comparison, showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Seen {
    pub(in crate::broker) missed: u64,
    pub(in crate::broker) duplicates: u64,
    pub(in crate::broker) epoch_changes: u64,
    pub(in crate::broker) undecodable: u64,
}

/// What came of looking at a place.
enum Step {
    /// It is the next one.
    Next,
    /// It had been seen.
    Known,
    /// What lies between this place, the last one, and it was not seen; the epoch may be another one.
    Hole(Position),
}

impl Seen {
    /// Moves a stream's last place to another one.
    fn advance(&mut self, last: &mut Option<Position>, epoch: &str, offset: u64) -> Step {
        let Some(position) = last else {
            *last = Some(Position {
                epoch: epoch.into(),
                offset,
            });
            return Step::Next;
        };
        if *position.epoch != *epoch {
            let anew = Position {
                epoch: epoch.into(),
                offset,
            };
            self.epoch_changes += 1;
            self.missed += offset.saturating_sub(position.carried_to(&anew.epoch).offset + 1);
            return Step::Hole(std::mem::replace(position, anew));
        }
        if offset <= position.offset {
            self.duplicates += 1;
            return Step::Known;
        }
        let before = position.clone();
        position.offset = offset;
        if before.offset + 1 == offset {
            return Step::Next;
        }
        self.missed += offset - before.offset - 1;
        Step::Hole(before)
    }
}

/// The subscriptions. Every method is short and may be called from any thread.
#[derive(Default)]
pub(in crate::broker) struct Table {
    histories: Arc<Histories>,
    inner: Mutex<Inner>,
    pub(in crate::broker) wake: Notify,
}

impl Table {
    pub(in crate::broker) fn new(histories: Arc<Histories>) -> Self {
        Self {
            histories,
            ..Self::default()
        }
    }

    /// Adds a subscription; `waiter` is told the position, or why there is none (the subscription is gone then).
    pub(in crate::broker) fn subscribe(&self, channel: Arc<[u8]>, stream: StreamKey, waiter: Waiter) {
        let retention = self.histories.of(&stream);
        let refusal = {
            let mut inner = self.inner.lock();
            if !inner.linked {
                Some((waiter, BrokerError::Unavailable))
            } else if inner.changes.len() >= WAITING {
                Some((waiter, BrokerError::Overloaded))
            } else {
                inner.next_id += 1;
                let id = inner.next_id;
                let entry = Entry {
                    id,
                    stream,
                    last: None,
                    waiter: Some(waiter),
                    filling: None,
                    heard: true,
                    refused: false,
                };
                inner.entries.insert(Arc::clone(&channel), entry);
                inner.changes.push_back(Change::Subscribe(Ticket {
                    channel,
                    id,
                    retention,
                }));
                None
            }
        };
        match refusal {
            Some((waiter, error)) => tell(waiter, Err(error)),
            None => self.wake.notify_one(),
        }
    }

    /// Ends a subscription.
    pub(in crate::broker) fn unsubscribe(&self, channel: &Arc<[u8]>) {
        let mut inner = self.inner.lock();
        if inner.entries.remove(channel).is_some() && inner.linked {
            inner.changes.push_back(Change::Unsubscribe(Arc::clone(channel)));
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// Whether there is such a subscription.
    pub(in crate::broker) fn has(&self, channel: &[u8]) -> bool {
        self.inner.lock().entries.contains_key(channel)
    }

    /// Streams subscribed to.
    pub(in crate::broker) fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    /// A link is there: gives everything to be subscribed with the last place delivered; changes are taken from now on.
    pub(in crate::broker) fn link(&self) -> Vec<(Ticket, Option<Position>)> {
        let mut inner = self.inner.lock();
        inner.linked = true;
        inner
            .entries
            .iter()
            .map(|(channel, entry)| {
                (
                    Ticket {
                        channel: Arc::clone(channel),
                        id: entry.id,
                        retention: self.histories.of(&entry.stream),
                    },
                    entry.last.clone(),
                )
            })
            .collect()
    }

    /// The link is lost: whoever still waits is told, and is not subscribed.
    pub(in crate::broker) fn unlink(&self) {
        let waiters: Vec<Waiter> = {
            let mut inner = self.inner.lock();
            inner.linked = false;
            inner.changes.clear();
            inner.again.clear();
            let mut waiters = Vec::new();
            for entry in inner.entries.values_mut() {
                entry.give_up();
            }
            inner.entries.retain(|_, entry| match entry.waiter.take() {
                Some(waiter) => {
                    waiters.push(waiter);
                    false
                }
                None => true,
            });
            waiters
        };
        for waiter in waiters {
            tell(waiter, Err(BrokerError::Unavailable));
        }
    }

    /// The next changes to be told, up to `most` of one kind; order between kinds is kept.
    pub(in crate::broker) fn take_changes(&self, most: usize) -> Option<Changes> {
        let mut inner = self.inner.lock();
        let changes = &mut inner.changes;
        match changes.front()? {
            Change::Subscribe(_) => {
                let mut tickets = Vec::new();
                while tickets.len() < most
                    && let Some(change) = changes.pop_front_if(|c| matches!(c, Change::Subscribe(_)))
                    && let Change::Subscribe(ticket) = change
                {
                    tickets.push(ticket);
                }
                Some(Changes::Subscribe(tickets))
            }
            Change::Unsubscribe(_) => {
                let mut channels = Vec::new();
                while channels.len() < most
                    && let Some(change) = changes.pop_front_if(|c| matches!(c, Change::Unsubscribe(_)))
                    && let Change::Unsubscribe(channel) = change
                {
                    channels.push(channel);
                }
                Some(Changes::Unsubscribe(channels))
            }
        }
    }

    /// The position of a new subscription was read, or could not be.
    pub(in crate::broker) fn positioned(&self, ticket: &Ticket, result: Result<Position, BrokerError>) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner
            .entries
            .get_mut(&ticket.channel)
            .filter(|e| e.id == ticket.id)
        else {
            return;
        };
        let Some(waiter) = entry.waiter.take() else { return };
        if let Ok(position) = &result {
            // what was published since may have been delivered before the position was known
            let ahead = entry
                .last
                .as_ref()
                .is_some_and(|l| l.epoch == position.epoch && l.offset > position.offset);
            if !ahead {
                entry.last = Some(position.clone());
            }
        } else {
            inner.entries.remove(&ticket.channel);
            inner
                .changes
                .push_back(Change::Unsubscribe(Arc::clone(&ticket.channel)));
            self.wake.notify_one();
        }
        drop(inner);
        tell(waiter, result);
    }

    /// Everything published before `current` was read has been taken from the link: what of it was not seen is missed.
    /// The last place moves there, so nothing is delivered twice; the holes are to be filled.
    pub(in crate::broker) fn settle(&self, positions: &[(Ticket, Position)]) -> (Seen, Vec<Hole>) {
        self.compare_with(positions, |_| true)
    }

    /// Makes deliveries of messages: those of unknown channels and those seen before are left out, those behind a hole wait
    /// until it is filled.
    pub(in crate::broker) fn deliveries(&self, messages: &[Raw]) -> (Vec<Delivery>, Seen, Vec<Hole>) {
        let mut seen = Seen::default();
        // parsed before the lock is taken: subscribers on other threads wait for lookups only
        let parsed: Vec<_> = messages
            .iter()
            .map(|m| (m, message::decode(&m.payload)))
            .collect();
        let mut out = Vec::with_capacity(parsed.len());
        let mut holes = Vec::new();
        let mut inner = self.inner.lock();
        for (raw, message) in parsed {
            let Some(entry) = inner.entries.get_mut(&raw.channel[..]) else {
                continue;
            };
            let Some(message) = message else {
                seen.undecodable += 1;
                continue;
            };
            match entry.take(message, &mut seen) {
                Taken::Nothing => {}
                Taken::Delivery(delivery) => out.push(delivery),
                Taken::BehindHole(before, delivery) => {
                    let ticket = Ticket {
                        channel: raw.channel[..].into(),
                        id: entry.id,
                        retention: self.histories.of(&entry.stream),
                    };
                    holes.extend(entry.dig_before(ticket, before, delivery));
                }
            }
        }
        (out, seen, holes)
    }
}

fn tell(waiter: Waiter, result: Result<Position, BrokerError>) {
    // who does not wait any more unsubscribes, as the contract of `Broker::subscribe` asks
    let _ = waiter.send(result);
}

#[cfg(test)]
mod tests;
