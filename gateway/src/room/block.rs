//! What is written to the members of a room at once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::broker::{Delivery, Event, Position};
use crate::session::ConnId;

/// A block is closed when it has about so many bytes: a member that reads well must have a chance to take one before the
/// next comes, so it is half of what may wait for a member.
pub(super) const BLOCK_BYTES: usize = 128 << 10;
/// A block is closed when it has so many messages, for the same reason.
pub(super) const BLOCK_MESSAGES: usize = 500;
/// Bytes of a message beside its payload and its names, about.
const ENVELOPE: usize = 64;

/// What is written at once.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) entries: Vec<Entry>,
    /// About so many.
    pub(super) bytes: usize,
    pub(super) apart: Apart,
    /// When the oldest message was accepted, in milliseconds since 1970.
    pub(super) oldest: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) event: Arc<Event>,
    pub(super) position: Option<Position>,
}

/// Members that do not get all of a block. Messages are named by their place in the list of entries.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// What one connection does not get: its own announcement.
    pub(super) without: Vec<(ConnId, usize)>,
    /// Where those begin that joined meanwhile: what was pending came before them.
    pub(super) late: HashMap<ConnId, usize, ahash::RandomState>,
}

impl Apart {
    /// Whether every member gets all.
    pub(super) fn is_empty(&self) -> bool {
        self.without.is_empty() && self.late.is_empty()
    }
}

impl Block {
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BLOCK_BYTES || self.entries.len() >= BLOCK_MESSAGES
    }

    /// Bytes of one message, about.
    pub(super) fn size_of(event: &Event) -> usize {
        ENVELOPE + event.payload().map_or(0, |payload| payload.get().len())
    }

    /// Messages that were kept, for one member.
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        Self {
            bytes: entries.iter().map(|entry| Self::size_of(&entry.event)).sum(),
            entries,
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, delivery: &Delivery, instance: &str) {
        match &*delivery.event {
            Event::RoomMessage { timestamp, .. } | Event::DirectMessage { timestamp, .. } => {
                self.oldest = Some(self.oldest.map_or(*timestamp, |oldest| oldest.min(*timestamp)));
            }
            Event::UserJoined { connection, .. } => {
                if let Some(id) = ConnId::parse(connection, instance) {
                    self.apart.without.push((id, self.entries.len()));
                }
            }
            Event::UserLeft { .. } | Event::Missing { .. } => {}
        }
        self.bytes += Self::size_of(&delivery.event);
        self.entries.push(Entry {
            event: Arc::clone(&delivery.event),
            position: delivery.position.clone(),
        });
    }
}
