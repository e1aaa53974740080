//! Holes in what was delivered of a stream: found once for the gateway, read once, and filled before anything that came
//! behind is delivered. What cannot be read is told as missing.

use std::sync::Arc;

use super::{Entry, Seen, Step, Table, Ticket};
use crate::broker::message::Message;
use crate::broker::{Delivery, Event, Kept, Position, StreamKey};
use crate::config::Retention;

/// Messages that wait behind a hole, at most; those beyond are missing.
const WAITING: usize = 4_096;
/// Bytes of payload that wait there, at most.
const WAITING_BYTES: usize = 4 << 20;

/// Offsets of a stream that were not delivered, to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Hole {
    pub(in crate::broker) ticket: Ticket,
    /// Behind this place.
    pub(in crate::broker) after: Position,
    /// Up to this offset; none, when the stream has begun anew and nothing of it is missing.
    pub(in crate::broker) to: u64,
}

/// A hole that is being filled.
pub(super) struct Filling {
    /// The last place that was delivered.
    delivered: Position,
    /// Behind this place; that is where a new epoch begins, or what was delivered.
    after: Position,
    waiting: Vec<Delivery>,
    bytes: usize,
}

/// What became of a message.
pub(super) enum Taken {
    /// It was seen before, or waits.
    Nothing,
    /// It is to be delivered.
    Delivery(Delivery),
    /// It is the first one behind a hole, which begins behind this place.
    BehindHole(Position, Delivery),
}

impl Entry {
    /// Takes a message of the stream in.
    pub(super) fn take(&mut self, message: Message<'_>, seen: &mut Seen) -> Taken {
        self.heard = true;
        let mut delivery = Delivery {
            stream: self.stream.clone(),
            position: None,
            event: Arc::new(message.event),
        };
        let Some((epoch, offset)) = message.position else {
            return Taken::Delivery(delivery);
        };
        let step = seen.advance(&mut self.last, epoch, offset);
        delivery.position.clone_from(&self.last);
        match step {
            Step::Known => Taken::Nothing,
            _ if self.filling.is_some() => {
                self.wait(delivery);
                Taken::Nothing
            }
            Step::Next => Taken::Delivery(delivery),
            Step::Hole(before) => Taken::BehindHole(before, delivery),
        }
    }

    /// Begins to fill the hole before a delivery.
    pub(super) fn dig_before(
        &mut self,
        ticket: Ticket,
        before: Position,
        delivery: Delivery,
    ) -> Option<Hole> {
        let to = delivery.position.as_ref()?.offset.saturating_sub(1);
        let hole = self.dig(ticket, before, to);
        self.wait(delivery);
        hole
    }

    /// Begins to fill the hole between the last place that was delivered and this offset of the present epoch.
    fn dig(&mut self, ticket: Ticket, delivered: Position, to: u64) -> Option<Hole> {
        let after = delivered.carried_to(&self.last.as_ref()?.epoch);
        self.filling = Some(Box::new(Filling {
            delivered,
            after: after.clone(),
            waiting: Vec::new(),
            bytes: 0,
        }));
        Some(Hole { ticket, after, to })
    }

    /// Keeps a delivery until the hole before it is filled.
    fn wait(&mut self, delivery: Delivery) {
        let Some(filling) = &mut self.filling else { return };
        let size = delivery.event.payload().map_or(0, |payload| payload.get().len());
        if filling.waiting.len() < WAITING && filling.bytes + size <= WAITING_BYTES {
            filling.bytes += size;
            filling.waiting.push(delivery);
        }
    }

    /// The link is lost: what waits comes again, with what is missing, when everything is compared.
    pub(super) fn give_up(&mut self) {
        if let Some(filling) = self.filling.take() {
            self.last = Some(filling.delivered);
        }
    }

    /// The stream stands at `current`, and everything before that has been taken from the link.
    fn compare(&mut self, ticket: &Ticket, current: &Position, seen: &mut Seen) -> Option<Hole> {
        if self.filling.is_some() {
            return None;
        }
        let Some(last) = &mut self.last else {
            self.last = Some(current.clone());
            return None;
        };
        if last.epoch == current.epoch {
            if current.offset <= last.offset {
                return None;
            }
            seen.missed += current.offset - last.offset;
        } else {
            seen.epoch_changes += 1;
            seen.missed += current.offset - last.carried_to(&current.epoch).offset.min(current.offset);
        }
        let delivered = std::mem::replace(last, current.clone());
        self.dig(ticket.clone(), delivered, current.offset)
    }
}

impl Filling {
    /// What was read, what waits, and between them what is missing, up to `last`; and how many that are.
    fn merge(self, stream: &StreamKey, read: Vec<Kept>, last: &Position) -> (Vec<Delivery>, u64) {
        let mut anew = self.delivered.epoch != self.after.epoch;
        let mut at = self.after;
        let mut out = Vec::with_capacity(read.len() + self.waiting.len() + 1);
        let mut missing = 0;
        let mut miss = |at: &Position, to: u64, out: &mut Vec<Delivery>| {
            missing += to - at.offset;
            out.push(Delivery {
                stream: stream.clone(),
                position: Some(Position {
                    epoch: Arc::clone(&at.epoch),
                    offset: to,
                }),
                event: Arc::new(Event::Missing { from: at.offset + 1 }),
            });
        };
        let epoch = Arc::clone(&at.epoch);
        let read = read.into_iter().map(|Kept { offset, event }| Delivery {
            stream: stream.clone(),
            position: Some(Position {
                epoch: Arc::clone(&epoch),
                offset,
            }),
            event,
        });
        for delivery in read.chain(self.waiting) {
            let Some(place) = delivery.position.clone() else {
                continue;
            };
            if place.epoch != at.epoch {
                anew = true;
                at = at.carried_to(&place.epoch);
            }
            if place.offset <= at.offset {
                continue;
            }
            if anew || place.offset > at.offset + 1 {
                miss(&at, place.offset - 1, &mut out);
                anew = false;
            }
            at = place;
            out.push(delivery);
        }
        if at.epoch == last.epoch && (anew || at.offset < last.offset) {
            miss(&at, last.offset.max(at.offset), &mut out);
        }
        (out, missing)
    }
}

impl Table {
    /// A hole was read, as far as that was possible: what is to be delivered now, and how many messages are lost.
    pub(in crate::broker) fn filled(&self, hole: &Hole, read: Vec<Kept>) -> (Vec<Delivery>, u64) {
        let mut inner = self.inner.lock();
        let entry = inner.entries.get_mut(&hole.ticket.channel);
        let Some(entry) = entry.filter(|entry| entry.id == hole.ticket.id) else {
            return (Vec::new(), 0);
        };
        let (Some(filling), Some(last)) = (entry.filling.take(), &entry.last) else {
            return (Vec::new(), 0);
        };
        filling.merge(&entry.stream, read, last)
    }

    /// The streams of which nothing was heard since this was called last, with the last place delivered.
    pub(in crate::broker) fn silent(&self) -> Vec<(Ticket, Option<Position>)> {
        let mut inner = self.inner.lock();
        let mut silent = Vec::new();
        for (channel, entry) in &mut inner.entries {
            if std::mem::replace(&mut entry.heard, false) || entry.waiter.is_some() || entry.filling.is_some()
            {
                continue;
            }
            let ticket = Ticket {
                channel: Arc::clone(channel),
                id: entry.id,
                retention: self.histories.of(&entry.stream),
            };
            if ticket.retention != Retention::Ephemeral {
                silent.push((ticket, entry.last.clone()));
            }
        }
        silent
    }

    /// As [`Table::settle`], but for streams that were heard of after [`Table::silent`] told them.
    pub(in crate::broker) fn compare(&self, positions: &[(Ticket, Position)]) -> (Seen, Vec<Hole>) {
        self.compare_with(positions, |entry| !entry.heard)
    }

    pub(super) fn compare_with(
        &self,
        positions: &[(Ticket, Position)],
        wanted: impl Fn(&Entry) -> bool,
    ) -> (Seen, Vec<Hole>) {
        let mut seen = Seen::default();
        let mut holes = Vec::new();
        let mut inner = self.inner.lock();
        for (ticket, current) in positions {
            let entry = inner.entries.get_mut(&ticket.channel);
            if let Some(entry) = entry.filter(|entry| entry.id == ticket.id && wanted(entry)) {
                holes.extend(entry.compare(ticket, current, &mut seen));
            }
        }
        (seen, holes)
    }
}
