//! Members that get nothing yet, because what they have missed is being read: what is delivered to the room meanwhile is
//! kept once for all of them.

use smallvec::SmallVec;

use super::block::Entry;
use crate::broker::{Delivery, Position};
use crate::session::ConnId;

/// Messages of the tail, at most.
const MESSAGES: usize = 4_096;
/// Bytes of the tail, about, at most.
const BYTES: usize = 4 << 20;

/// The members that are held, and the tail.
#[derive(Debug, Default)]
pub(super) struct Held {
    members: SmallVec<[Member; 1]>,
    tail: Vec<Entry>,
    bytes: usize,
    /// The tail grew beyond its bounds, and was dropped.
    lost: bool,
}

#[derive(Debug)]
struct Member {
    id: ConnId,
    /// It was given everything up to this place, which the room has not reached yet.
    until: Option<Position>,
}

/// What came between the place that a member was told and the one that the room has reached.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) entries: Vec<Entry>,
    /// There was more than could be kept: it is missing.
    pub(super) lost: bool,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.members.iter().map(|member| member.id)
    }

    pub(super) fn add(&mut self, id: ConnId) {
        self.remove(id);
        self.members.push(Member { id, until: None });
    }

    pub(super) fn remove(&mut self, id: ConnId) {
        self.members.retain(|member| member.id != id);
    }

    /// Stays held until the room has reached this place.
    pub(super) fn until(&mut self, id: ConnId, place: &Position) {
        for member in self.members.iter_mut().filter(|member| member.id == id) {
            member.until = Some(place.clone());
        }
    }

    /// Takes a delivery in, behind which the room stands at `position`; before it, at `before`.
    pub(super) fn push(&mut self, delivery: &Delivery, bytes: usize) {
        if delivery.position.is_none() {
            return;
        }
        self.bytes += bytes;
        if self.tail.len() >= MESSAGES || self.bytes > BYTES {
            self.tail = Vec::new();
            self.bytes = 0;
            self.lost = true;
        }
        self.tail.push(Entry {
            event: delivery.event.clone(),
            position: delivery.position.clone(),
        });
    }

    /// The members for whom this place is the first, or the next one is, that they do not have: they are held no more.
    pub(super) fn reached(&mut self, before: &Position, place: &Position) -> SmallVec<[(ConnId, Wants); 1]> {
        let mut free = SmallVec::new();
        self.members.retain(|member| {
            let Some(until) = &member.until else { return true };
            let same = until.epoch == place.epoch;
            let wants = if same && until.offset > place.offset {
                return true;
            } else if same && until.offset == place.offset {
                Wants::Next
            } else if !same && until.epoch != before.epoch && before.epoch == place.epoch {
                // the room has still to get to the epoch that was read
                return true;
            } else {
                Wants::This
            };
            free.push((member.id, wants));
            false
        });
        free
    }

    /// What of the tail is behind `place`; the member that was told it is held no more.
    pub(super) fn release(&mut self, id: ConnId, place: &Position) -> Tail {
        self.remove(id);
        // what is of another epoch and not behind one of this epoch is older
        let behind = |entry: &&Entry| {
            let position = entry.position.as_ref();
            position.is_some_and(|p| p.epoch == place.epoch && p.offset > place.offset)
        };
        let first = self.tail.iter().position(|entry| behind(&entry));
        let entries = self.tail.iter().skip(first.unwrap_or(self.tail.len()));
        let next = first.and_then(|first| self.tail[first].position.as_ref());
        // a member that came later may have everything that was dropped
        let whole = next.is_some_and(|next| next.offset <= place.offset + 1);
        Tail {
            entries: entries.cloned().collect(),
            lost: self.lost && !whole,
        }
    }
}

/// What a member that is held no more gets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// What is being delivered.
    This,
    /// What comes behind it.
    Next,
}
