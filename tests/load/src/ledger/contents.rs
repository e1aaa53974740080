//! Which message has which offset: all members of a room must see the same one, and each message has one offset only. Pure.
//!
//! Memory: 8 bytes for each of a room's last [`MOST`] offsets, and one bit for each message of a run.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Offsets remembered per room.
const MOST: usize = 1024;
/// Messages of a run that are remembered; 128 MiB of bits.
const MOST_SEQUENCES: u64 = 1 << 30;

/// Who published a message, and which of its messages it is; 0 when that cannot be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity(u64);

impl Identity {
    pub(crate) const fn new(run: u32, sequence: u64) -> Self {
        Self(((run as u64) << 32) ^ (sequence + 1))
    }
}

/// What an offset was seen with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Nobody had seen this offset.
    First,
    /// The message that others saw there, or nobody can tell.
    Same,
    /// Another message.
    Other,
}

/// The latest offsets of a room's latest epoch.
#[derive(Debug, Default)]
pub(super) struct Contents {
    generation: u32,
    /// Offset of the last entry.
    top: u64,
    latest: VecDeque<Identity>,
}

impl Contents {
    /// Somebody was given this message at this place.
    pub(super) fn see(&mut self, generation: u32, offset: u64, message: Identity) -> Sight {
        if message == Identity::default() || offset == 0 || generation < self.generation {
            return Sight::Same;
        }
        if generation > self.generation || offset > self.top + MOST as u64 {
            self.generation = generation;
            self.latest.clear();
            self.top = offset - 1;
        }
        while self.top < offset {
            if self.latest.len() == MOST {
                self.latest.pop_front();
            }
            self.latest.push_back(Identity::default());
            self.top += 1;
        }
        let behind = (self.top - offset) as usize;
        let Some(index) = self.latest.len().checked_sub(behind + 1) else {
            return Sight::Same;
        };
        let known = &mut self.latest[index];
        if *known == Identity::default() {
            *known = message;
            return Sight::First;
        }
        if *known == message {
            Sight::Same
        } else {
            Sight::Other
        }
    }
}

/// Which of a run's messages have been seen.
#[derive(Debug, Default)]
pub(crate) struct Sequences(Mutex<Vec<u64>>);

impl Sequences {
    /// Notes a message; whether it had not been seen before.
    pub(crate) fn is_first(&self, sequence: u64) -> bool {
        if sequence >= MOST_SEQUENCES {
            return true;
        }
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        let mut seen = self.0.lock();
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        let first = seen[word] & bit == 0;
        seen[word] |= bit;
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn message(sequence: u64) -> Identity {
        Identity::new(7, sequence)
    }

    #[test]
    fn an_offset_has_one_message_for_all() {
        let mut contents = Contents::default();
        assert_eq!(contents.see(0, 5, message(1)), Sight::First);
        assert_eq!(contents.see(0, 5, message(1)), Sight::Same);
        assert_eq!(contents.see(0, 5, message(2)), Sight::Other);
        assert_eq!(contents.see(0, 7, message(3)), Sight::First);
        assert_eq!(
            contents.see(0, 6, message(4)),
            Sight::First,
            "whoever skipped it does not hide it"
        );
        assert_eq!(contents.see(0, 6, message(3)), Sight::Other);
    }

    #[test]
    fn another_epoch_has_other_messages_and_a_former_one_is_forgotten() {
        let mut contents = Contents::default();
        contents.see(0, 5, message(1));
        assert_eq!(contents.see(1, 5, message(2)), Sight::First);
        assert_eq!(contents.see(0, 5, message(9)), Sight::Same);
        assert_eq!(contents.see(1, 5, message(2)), Sight::Same);
    }

    #[test]
    fn what_cannot_be_known_is_no_contradiction_and_memory_is_bounded() {
        let mut contents = Contents::default();
        assert_eq!(contents.see(0, 1, Identity::default()), Sight::Same);
        for offset in 1..10_000 {
            contents.see(0, offset, message(offset));
        }
        assert_eq!(contents.latest.len(), MOST);
        assert_eq!(contents.see(0, 3, message(77)), Sight::Same);
        assert_eq!(contents.see(0, 9_999, message(77)), Sight::Other);
        assert_eq!(contents.see(0, 1 << 40, message(5)), Sight::First);
        assert_eq!(contents.latest.len(), 1);
    }

    #[test]
    fn a_message_is_new_once() {
        let sequences = Sequences::default();
        assert!(sequences.is_first(70) && sequences.is_first(6));
        assert!(!sequences.is_first(70) && !sequences.is_first(6));
        assert!(sequences.is_first(71));
    }
}
