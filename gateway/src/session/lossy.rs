//! What is dropped when more waits for a connection than may, and how it is told.
//!
//! A room that is told to (`--slow-consumer`) rather loses messages than members. Its messages wait one by one; those that
//! are dropped leave a `gap` in their place, which says which offsets are missing, so that what a member gets of a room,
//! messages and gaps, is still every offset once and in order. Neighbouring gaps are one: a room has at most one more of them
//! than it has messages that wait.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::outbox::{Kind, Outbox, Queued};
use crate::broker::Position;
use crate::config::SlowPolicy;
use crate::protocol::{Format, ServerMessage};

/// One message that may be dropped while it waits. Shared by all for whom it waits.
#[derive(Clone, Debug)]
pub(crate) struct Lossy {
    /// Ready to be written.
    pub(crate) frame: Bytes,
    /// What it is.
    pub(crate) origin: Arc<Origin>,
}

/// What is to be known of a message to drop it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) policy: SlowPolicy,
    pub(crate) room: Arc<str>,
    pub(crate) sender: Arc<str>,
    /// No announcement: of each sender the latest may be what counts.
    pub(crate) message: bool,
    /// The first offset that is missing without it.
    pub(crate) first: u64,
    /// Announcements and messages of ephemeral rooms have none, and leave no gap.
    pub(crate) position: Option<Position>,
}

/// Offsets that were dropped.
#[derive(Debug)]
pub(super) struct Gap {
    room: Arc<str>,
    epoch: Arc<str>,
    from: u64,
    to: u64,
}

/// Bytes and messages, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) messages: usize,
}

/// Messages and bytes that were dropped, by policy.
pub(super) type Dropped = [(u64, u64); SlowPolicy::ALL.len()];

impl Bounds {
    pub(super) const fn allow(self, (bytes, messages): (usize, usize)) -> bool {
        bytes <= self.bytes && messages <= self.messages
    }
}

impl Gap {
    fn queued(self, format: Format) -> Queued {
        let message = ServerMessage::Gap {
            room: Some(&self.room),
            from: self.from,
            to: self.to,
            epoch: &self.epoch,
        };
        Queued {
            bytes: format.frame(&message),
            messages: 1,
            kind: Kind::Gap(Box::new(self)),
        }
    }
}

impl Queued {
    fn room(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Kept => None,
            Kind::Lossy(message) => Some(&message.origin.room),
            Kind::Gap(gap) => Some(&gap.room),
        }
    }

    fn origin(&self) -> Option<&Origin> {
        match &self.kind {
            Kind::Lossy(message) => Some(&message.origin),
            Kind::Kept | Kind::Gap(_) => None,
        }
    }
}

impl Outbox {
    /// Drops what may be dropped until what waits fits, or nothing is left that may be.
    pub(super) fn relieve(&mut self, bounds: Bounds, format: Format) -> Dropped {
        let mut dropped = Dropped::default();
        let latest = self.keep_latest(format, &mut dropped);
        // looking for what is stale is work: when it was not enough, there must be room before it is done again
        let target = if latest && !bounds.allow(self.size()) {
            Bounds {
                bytes: bounds.bytes / 4 * 3,
                messages: bounds.messages / 4 * 3,
            }
        } else {
            bounds
        };
        let mut from = usize::from(self.split);
        while !target.allow(self.size()) {
            let lossy = |queued: &Queued| queued.origin().is_some();
            let Some(next) = self.frames.iter().skip(from).position(lossy) else {
                break;
            };
            from += next;
            self.drop_at(from, format, &mut dropped);
        }
        dropped
    }

    /// Drops all messages whose sender has a later one in the same room, where that is what the room wants. False when
    /// there is no such room here.
    fn keep_latest(&mut self, format: Format, dropped: &mut Dropped) -> bool {
        let mut stale = Vec::new();
        let any = {
            let mut seen: HashSet<(&str, &str), ahash::RandomState> = HashSet::default();
            for (index, queued) in self.frames.iter().enumerate().rev() {
                let Some(origin) = queued.origin() else { continue };
                let keeps_latest = origin.policy == SlowPolicy::KeepLatest && origin.message;
                if keeps_latest && !seen.insert((&origin.room, &origin.sender)) {
                    stale.push(index);
                }
            }
            !seen.is_empty()
        };
        let mut removed = 0;
        for index in stale.into_iter().rev() {
            removed += self.drop_at(index - removed, format, dropped);
        }
        any
    }

    /// Drops the message at `index`; tells by how many entries the queue is shorter.
    fn drop_at(&mut self, index: usize, format: Format, dropped: &mut Dropped) -> usize {
        let Some(queued) = self.frames.get(index) else {
            return 0;
        };
        let Kind::Lossy(Lossy { origin, .. }) = &queued.kind else {
            return 0;
        };
        let origin = Arc::clone(origin);
        let (messages, bytes) = &mut dropped[origin.policy.index()];
        *messages += 1;
        *bytes += queued.bytes.len() as u64;
        let Some(position) = &origin.position else {
            self.remove(index);
            return 1;
        };
        let mut gap = Gap {
            room: Arc::clone(&origin.room),
            epoch: Arc::clone(&position.epoch),
            from: origin.first,
            to: position.offset,
        };
        let mut removed = 0;
        // the gap behind first: it does not move the one before
        if let Some((behind, next)) = self.neighbour(&gap, index + 1..self.frames.len())
            && next.from == gap.to + 1
        {
            gap.to = next.to;
            self.remove(behind);
            removed += 1;
        }
        let first = usize::from(self.split);
        let before = self.neighbour_before(&gap, first..index);
        if let Some((before, last)) = before
            && last.to + 1 == gap.from
        {
            gap.from = last.from;
            self.remove(index);
            self.replace(before, gap.queued(format));
            return removed + 1;
        }
        self.replace(index, gap.queued(format));
        removed
    }

    /// The gap that is the first thing of the same room in `range`.
    fn neighbour(&self, gap: &Gap, range: std::ops::Range<usize>) -> Option<(usize, &Gap)> {
        let mut entries = range.clone().zip(self.frames.range(range));
        as_gap(gap, entries.find(|(_, queued)| queued.room() == Some(&gap.room))?)
    }

    /// The gap that is the last thing of the same room in `range`.
    fn neighbour_before(&self, gap: &Gap, range: std::ops::Range<usize>) -> Option<(usize, &Gap)> {
        let mut entries = range.clone().zip(self.frames.range(range)).rev();
        as_gap(gap, entries.find(|(_, queued)| queued.room() == Some(&gap.room))?)
    }
}

fn as_gap<'q>(of: &Gap, (index, queued): (usize, &'q Queued)) -> Option<(usize, &'q Gap)> {
    match &queued.kind {
        Kind::Gap(gap) if gap.epoch == of.epoch => Some((index, gap)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const FRAME: usize = 100;

    fn message(policy: SlowPolicy, room: &str, sender: &str, offset: u64) -> Lossy {
        let position = (offset > 0).then(|| Position {
            epoch: "e".into(),
            offset,
        });
        let text = format!("{room} {offset:0>width$}", width = FRAME - room.len() - 1);
        Lossy {
            frame: text.into(),
            origin: Arc::new(Origin {
                policy,
                room: room.into(),
                sender: sender.into(),
                message: offset > 0,
                first: offset,
                position,
            }),
        }
    }

    /// What the queue says, in words.
    fn told(outbox: &Outbox) -> Vec<String> {
        let entries = outbox.frames.iter().map(|queued| match &queued.kind {
            Kind::Kept => "kept".to_owned(),
            Kind::Gap(gap) => format!("{} gap {}-{}", gap.room, gap.from, gap.to),
            Kind::Lossy(Lossy { origin, .. }) => {
                let offset = origin.position.as_ref().map_or(0, |position| position.offset);
                format!("{} {offset}", origin.room)
            }
        });
        entries.collect()
    }

    const fn of_messages(messages: usize) -> Bounds {
        Bounds {
            bytes: usize::MAX / 8,
            messages,
        }
    }

    #[test]
    fn the_oldest_messages_give_way_to_one_gap_a_room_in_their_place() {
        let mut outbox = Outbox::default();
        for offset in 1..=4 {
            for room in ["a", "b"] {
                outbox.push_lossy([message(SlowPolicy::DropOldest, room, "u", offset)], 0);
            }
            outbox.push(Bytes::from_static(b"kept"), 1);
        }
        let dropped = outbox.relieve(of_messages(9), Format::default());
        let expected = "a gap 1-3,b gap 1-2,kept,kept,b 3,kept,a 4,b 4,kept";
        assert_eq!(told(&outbox).join(","), expected);
        assert_eq!(dropped[SlowPolicy::DropOldest.index()], (5, 5 * FRAME as u64));
        let gap = String::from_utf8_lossy(&outbox.frames[0].bytes).into_owned();
        assert!(
            gap.ends_with(r#"{"type":"gap","room":"a","from":1,"to":3,"epoch":"e"}"#),
            "{gap}"
        );
        let nothing = outbox.relieve(of_messages(9), Format::default());
        assert_eq!(nothing, Dropped::default());
    }

    #[test]
    fn of_each_sender_the_latest_message_is_kept_and_only_then_the_oldest_go() {
        let fill = || {
            let mut outbox = Outbox::default();
            for (offset, sender) in (1..).zip(["x", "y", "x", "x", "z", "y", "x"]) {
                outbox.push_lossy([message(SlowPolicy::KeepLatest, "a", sender, offset)], 0);
            }
            outbox
        };
        let mut outbox = fill();
        let dropped = outbox.relieve(of_messages(6), Format::default());
        assert_eq!(told(&outbox).join(","), "a gap 1-4,a 5,a 6,a 7");
        assert_eq!(dropped[SlowPolicy::KeepLatest.index()].0, 4);
        let mut outbox = fill();
        outbox.relieve(of_messages(3), Format::default());
        assert_eq!(
            told(&outbox).join(","),
            "a gap 1-7",
            "a quarter of the room is made free"
        );
    }

    #[test]
    fn what_was_begun_is_finished_and_announcements_leave_no_gap() {
        let policy = SlowPolicy::DropOldest;
        let batch = [1, 2, 0, 3].map(|offset| message(policy, "a", "u", offset));
        let mut outbox = Outbox::default();
        outbox.push_lossy(batch, FRAME + 10);
        assert_eq!(outbox.size(), (3 * FRAME - 10, 3), "the first is on the wire");
        outbox.push_lossy([message(policy, "a", "u", 4)], 0);
        outbox.relieve(of_messages(2), Format::default());
        assert_eq!(told(&outbox).join(","), "kept,a gap 3-4");
        outbox.relieve(of_messages(0), Format::default());
        assert_eq!(told(&outbox).join(","), "kept,a gap 3-4", "gaps themselves stay");
    }

    proptest! {
        #[test]
        fn messages_and_gaps_together_are_every_offset_once_and_in_order_within_the_bounds(
            pushes in proptest::collection::vec((0..3_usize, 0..4_u8, 0..5_u8), 1..200),
            messages in 8..20_usize,
        ) {
            let rooms = [("a", SlowPolicy::DropOldest), ("b", SlowPolicy::KeepLatest), ("c", SlowPolicy::KeepLatest)];
            let bounds = Bounds { bytes: messages * FRAME, messages };
            let mut outbox = Outbox::default();
            let mut published = [0_u64; 3];
            let mut got: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
            let mut note = |queued: &Queued| {
                let (room, range) = match &queued.kind {
                    Kind::Gap(gap) => (&gap.room, (gap.from, gap.to)),
                    Kind::Lossy(Lossy { origin, .. }) => {
                        let offset = origin.position.as_ref().unwrap().offset;
                        (&origin.room, (offset, offset))
                    }
                    Kind::Kept => unreachable!("nothing is"),
                };
                got.entry(room.to_string()).or_default().push(range);
            };
            for (room, sender, read) in pushes {
                published[room] += 1;
                let (name, policy) = rooms[room];
                outbox.push_lossy([message(policy, name, &sender.to_string(), published[room])], 0);
                if !bounds.allow(outbox.size()) {
                    outbox.relieve(bounds, Format::default());
                }
                prop_assert!(bounds.allow(outbox.size()), "{:?}", outbox.size());
                // the member reads now and then
                if read == 0 && let Some(first) = outbox.frames.front() {
                    note(first);
                    let length = first.bytes.len();
                    outbox.advance(length);
                }
            }
            outbox.frames.iter().for_each(&mut note);
            for (index, (name, _)) in rooms.iter().enumerate() {
                let mut next = 1;
                for (from, to) in got.remove(*name).unwrap_or_default() {
                    prop_assert_eq!(from, next);
                    next = to + 1;
                }
                prop_assert_eq!(next, published[index] + 1);
            }
        }
    }
}
