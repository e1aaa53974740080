//! What was delivered to a room and not yet written to its members: blocks, each of which becomes one [`Batch`].
//!
//! [`Batch`]: super::batch::Batch

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::block::Block;
use super::held::{Held, Tail, Wants};
use crate::broker::{Delivery, Position};
use crate::session::ConnId;

/// Announcements are dropped when so many blocks wait: they are hints, and must not crowd out messages.
const ANNOUNCED_BLOCKS: usize = 4;
/// When so many blocks wait, who delivers is asked to wait too.
const CROWDED_BLOCKS: usize = 8;

/// Messages for every member, but for those that one is not meant for.
#[derive(Debug, Default)]
pub(super) struct Pending {
    blocks: VecDeque<Block>,
    /// The block that was taken last was full.
    full: bool,
    /// Told when there is room again.
    relief: Option<Relief>,
    /// Members that get nothing of it yet.
    held: Option<Box<Held>>,
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

    /// A member gets nothing from here on, and nothing of what is pending.
    pub(super) fn hold(&mut self, id: ConnId) {
        self.joins(id);
        self.held.get_or_insert_default().add(id);
    }

    /// Whether members are held.
    pub(super) const fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// A member that was held has everything up to `place`, and gets what comes behind it: what of that was delivered
    /// already is given back, to be written before anything else.
    pub(super) fn release(&mut self, id: ConnId, place: &Position, room: &Position) -> Tail {
        let Some(held) = &mut self.held else {
            return Tail::default();
        };
        if room.epoch != place.epoch || room.offset < place.offset {
            held.until(id, place);
            return Tail::default();
        }
        let mut tail = held.release(id, place);
        tail.lost &= room.offset > place.offset;
        self.joins(id);
        self.drop_unheld();
        tail
    }

    /// A member leaves.
    pub(super) fn leaves(&mut self, id: ConnId) {
        if let Some(held) = &mut self.held {
            held.remove(id);
            self.drop_unheld();
        }
    }

    fn drop_unheld(&mut self) {
        self.held = self.held.take().filter(|held| !held.is_empty());
    }

    /// Takes a delivery in; before it the room stood at `before`.
    pub(super) fn push(&mut self, delivery: &Delivery, before: &Position, instance: &str) {
        let mut reached = SmallVec::new();
        if let (Some(held), Some(place)) = (&mut self.held, &delivery.position) {
            held.push(delivery, Block::size_of(&delivery.event));
            reached = held.reached(before, place);
        }
        for (id, _) in reached.iter().filter(|(_, wants)| *wants == Wants::This) {
            self.joins(*id);
        }
        self.append(delivery, instance);
        for (id, _) in reached.iter().filter(|(_, wants)| *wants == Wants::Next) {
            self.joins(*id);
        }
        if !reached.is_empty() {
            self.drop_unheld();
        }
    }

    fn append(&mut self, delivery: &Delivery, instance: &str) {
        if delivery.event.is_announcement() && self.blocks.len() > ANNOUNCED_BLOCKS {
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
        let mut block = self.blocks.pop_front();
        if let (Some(block), Some(held)) = (&mut block, &self.held) {
            block
                .apart
                .late
                .extend(held.ids().map(|id| (id, block.entries.len())));
        }
        self.full = block.as_ref().is_some_and(Block::is_full);
        if !self.is_crowded() {
            self.relief = None;
        }
        block
    }

    /// Whether more is to be written behind a full block.
    pub(super) fn is_backlog(&self) -> bool {
        self.full && !self.blocks.is_empty()
    }

    /// The members were waited for.
    pub(super) fn waited(&mut self) {
        self.full = false;
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::value::RawValue;

    use super::*;
    use crate::broker::Event;
    use crate::broker::StreamKey;
    use crate::room::block::{BLOCK_BYTES, BLOCK_MESSAGES, Entry};

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

    fn at(offset: u64) -> Position {
        Position {
            epoch: "e".into(),
            offset,
        }
    }

    fn push(pending: &mut Pending, offset: u64, size: usize) {
        pending.push(&delivery(offset, size), &at(offset.saturating_sub(1)), "i");
    }

    fn offsets(block: &Block) -> Vec<u64> {
        let offset = |entry: &Entry| entry.position.as_ref().map(|position| position.offset);
        block.entries.iter().filter_map(offset).collect()
    }

    #[test]
    fn much_is_taken_in_blocks_that_keep_the_order_and_know_their_oldest_message() {
        let mut pending = Pending::default();
        for offset in 1..=5 {
            push(&mut pending, offset, BLOCK_BYTES / 2);
        }
        for offset in 6..=1_000 {
            push(&mut pending, offset, 1);
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
            push(&mut pending, offset, BLOCK_BYTES);
        }
        push(&mut pending, 4, 1);
        pending.joins(ConnId(1));
        push(&mut pending, 5, 1);
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
            push(&mut pending, offset, BLOCK_BYTES);
        }
        let mut taken = Box::pin(pending.crowded().unwrap());
        let dropped = pending.crowded().unwrap();
        assert!((&mut taken).now_or_never().is_none());
        pending.take().unwrap();
        assert!(taken.now_or_never().is_some());
        assert!(pending.crowded().is_none());
        push(&mut pending, 100, BLOCK_BYTES);
        let waits = pending.crowded().unwrap();
        drop(pending);
        assert!(dropped.now_or_never().is_some() && waits.now_or_never().is_some());
    }

    /// What a member gets of everything that is pending.
    fn gets(pending: &mut Pending, id: ConnId) -> Vec<u64> {
        let mut got = Vec::new();
        while let Some(block) = pending.take() {
            let first = block.apart.late.get(&id).copied().unwrap_or_default();
            got.extend(offsets(&block).split_off(first));
        }
        got
    }

    fn offsets_of(tail: &Tail) -> Vec<u64> {
        let offset = |entry: &Entry| entry.position.as_ref().map(|position| position.offset);
        tail.entries.iter().filter_map(offset).collect()
    }

    #[test]
    fn a_member_that_is_held_gets_each_message_once_whichever_way_is_faster() {
        let held = ConnId(1);
        for told in 0..=6 {
            let mut pending = Pending::default();
            push(&mut pending, 1, 1);
            pending.hold(held);
            push(&mut pending, 2, 1);
            assert!(gets(&mut pending, held).is_empty());
            push(&mut pending, 3, 1);
            let tail = pending.release(held, &at(told), &at(3));
            let mut got = offsets_of(&tail);
            for offset in 4..=8 {
                push(&mut pending, offset, 1);
            }
            assert!(!pending.holds());
            got.extend(gets(&mut pending, held));
            let first = told.max(1) + 1;
            assert!(got.iter().copied().eq(first..=8), "told {told}: {got:?}");
        }
    }

    #[test]
    fn a_member_that_waits_for_a_place_is_let_go_when_the_stream_begins_anew() {
        let mut pending = Pending::default();
        pending.hold(ConnId(1));
        pending.release(ConnId(1), &at(9), &at(3));
        let mut other = delivery(1, 1);
        other.position = Some(Position {
            epoch: "f".into(),
            offset: 1,
        });
        pending.push(&other, &at(3), "i");
        assert_eq!(gets(&mut pending, ConnId(1)), [1]);
    }

    #[test]
    fn a_tail_that_grows_too_long_is_lost_and_says_so() {
        let mut pending = Pending::default();
        pending.hold(ConnId(1));
        for offset in 1..=5_000 {
            push(&mut pending, offset, 1);
            while pending.take().is_some() {}
        }
        let tail = pending.release(ConnId(1), &at(0), &at(5_000));
        assert!(tail.lost);
        assert!(offsets_of(&tail).into_iter().eq(4_097..=5_000));
    }

    #[test]
    fn a_member_that_was_told_a_place_behind_what_was_dropped_has_lost_nothing() {
        for (told, first) in [(4_095, None), (4_096, Some(4_097)), (5_000, None)] {
            let mut pending = Pending::default();
            pending.hold(ConnId(1));
            pending.hold(ConnId(2));
            for offset in 1..=5_000 {
                push(&mut pending, offset, 1);
                while pending.take().is_some() {}
            }
            let tail = pending.release(ConnId(2), &at(told), &at(5_000));
            assert_eq!(tail.lost, told == 4_095, "told {told}");
            assert_eq!(offsets_of(&tail).first().copied().filter(|_| !tail.lost), first);
        }
    }
}
