//! What was delivered to a room and not yet written to its members: blocks, each of which becomes one [`Batch`].
//!
//! [`Batch`]: super::batch::Batch

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::broker::{Delivery, Event, Position};
use crate::session::ConnId;

/// Announcements are dropped when so many blocks wait: they are hints, and must not crowd out messages.
const ANNOUNCED_BLOCKS: usize = 4;
/// A block is closed when it has about so many bytes: a member that reads well must have a chance to take one before the
/// next comes, so it is half of what may wait for a member.
const BLOCK_BYTES: usize = 128 << 10;
/// A block is closed when it has so many messages, for the same reason.
const BLOCK_MESSAGES: usize = 500;
/// When so many blocks wait, who delivers is asked to wait too.
const CROWDED_BLOCKS: usize = 8;
/// Bytes of a message beside its payload and its names, about.
const ENVELOPE: usize = 64;

/// Messages for every member, but for those that one is not meant for.
#[derive(Debug, Default)]
pub(super) struct Pending {
    blocks: VecDeque<Block>,
    /// Told when there is room again.
    relief: Option<Relief>,
}

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

#[derive(Debug)]
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

/// Tells those who wait when it is dropped, whatever the reason.
#[derive(Debug, Default)]
struct Relief(Arc<Notify>);

impl Drop for Relief {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl Pending {
    /// A member joins, behind what is pending.
    pub(super) fn joins(&mut self, id: ConnId) {
        for block in &mut self.blocks {
            block.apart.late.insert(id, block.entries.len());
        }
    }

    /// Takes a delivery in.
    pub(super) fn push(&mut self, delivery: &Delivery, instance: &str) {
        if delivery.position.is_none() && self.blocks.len() > ANNOUNCED_BLOCKS {
            return;
        }
        if self.blocks.back().is_none_or(Block::is_full) {
            self.blocks.push_back(Block::default());
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push(delivery, instance);
        }
    }

    /// What is to be written next. Who waits for room is told if there is some.
    pub(super) fn take(&mut self) -> Option<Block> {
        let block = self.blocks.pop_front();
        if !self.is_crowded() {
            self.relief = None;
        }
        block
    }

    fn is_crowded(&self) -> bool {
        self.blocks.len() >= CROWDED_BLOCKS
    }

    /// What to await before more is delivered, when too much is pending.
    pub(super) fn crowded(&mut self) -> Option<OwnedNotified> {
        let crowded = self.is_crowded();
        crowded.then(|| {
            let relief = self.relief.get_or_insert_default();
            Arc::clone(&relief.0).notified_owned()
        })
    }
}

impl Block {
    fn is_full(&self) -> bool {
        self.bytes >= BLOCK_BYTES || self.entries.len() >= BLOCK_MESSAGES
    }

    fn push(&mut self, delivery: &Delivery, instance: &str) {
        match &*delivery.event {
            Event::RoomMessage {
                timestamp, payload, ..
            }
            | Event::DirectMessage {
                timestamp, payload, ..
            } => {
                self.oldest = Some(self.oldest.map_or(*timestamp, |oldest| oldest.min(*timestamp)));
                self.bytes += payload.get().len();
            }
            Event::UserJoined { connection, .. } => {
                if let Some(id) = ConnId::parse(connection, instance) {
                    self.apart.without.push((id, self.entries.len()));
                }
            }
            Event::UserLeft { .. } => {}
        }
        self.bytes += ENVELOPE;
        self.entries.push(Entry {
            event: Arc::clone(&delivery.event),
            position: delivery.position.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::value::RawValue;

    use super::*;
    use crate::broker::StreamKey;

    fn delivery(offset: u64, size: usize) -> Delivery {
        Delivery {
            stream: StreamKey::Room("r".into()),
            position: Some(Position {
                epoch: "e".into(),
                offset,
            }),
            event: Arc::new(Event::RoomMessage {
                user_id: "u".into(),
                payload: RawValue::from_string("1".repeat(size)).unwrap(),
                timestamp: offset,
                server_id: "s".into(),
            }),
        }
    }

    fn offsets(block: &Block) -> Vec<u64> {
        let offset = |entry: &Entry| entry.position.as_ref().map(|position| position.offset);
        block.entries.iter().filter_map(offset).collect()
    }

    #[test]
    fn much_is_taken_in_blocks_that_keep_the_order_and_know_their_oldest_message() {
        let mut pending = Pending::default();
        for offset in 1..=5 {
            pending.push(&delivery(offset, BLOCK_BYTES / 2), "i");
        }
        for offset in 6..=1_000 {
            pending.push(&delivery(offset, 1), "i");
        }
        let mut blocks = Vec::new();
        while let Some(block) = pending.take() {
            assert!(block.entries.len() <= BLOCK_MESSAGES);
            assert_eq!(block.oldest, offsets(&block).first().copied());
            blocks.push(offsets(&block));
        }
        assert!(blocks.concat().into_iter().eq(1..=1_000));
        assert_eq!(blocks[..2], [[1, 2], [3, 4]]);
    }

    #[test]
    fn whoever_joins_gets_nothing_of_any_block_that_was_there() {
        let mut pending = Pending::default();
        for offset in 1..=3 {
            pending.push(&delivery(offset, BLOCK_BYTES), "i");
        }
        pending.push(&delivery(4, 1), "i");
        pending.joins(ConnId(1));
        pending.push(&delivery(5, 1), "i");
        let late: Vec<_> = std::iter::from_fn(|| pending.take())
            .map(|block| (block.entries.len(), block.apart.late[&ConnId(1)]))
            .collect();
        assert_eq!(late, [(1, 1), (1, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn who_delivers_waits_while_it_is_crowded_and_until_it_is_dropped_at_most() {
        let mut pending = Pending::default();
        for offset in 0..CROWDED_BLOCKS as u64 {
            assert!(pending.crowded().is_none());
            pending.push(&delivery(offset, BLOCK_BYTES), "i");
        }
        let mut taken = Box::pin(pending.crowded().unwrap());
        let dropped = pending.crowded().unwrap();
        assert!((&mut taken).now_or_never().is_none());
        pending.take().unwrap();
        assert!(taken.now_or_never().is_some());
        assert!(pending.crowded().is_none());
        pending.push(&delivery(100, BLOCK_BYTES), "i");
        let waits = pending.crowded().unwrap();
        drop(pending);
        assert!(dropped.now_or_never().is_some() && waits.now_or_never().is_some());
    }
}
