//! What waits for a connection that does not take more at the moment. Bounded by its owner, allocated when needed.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::lossy::{Gap, Lossy};

/// Buffers of one vectored write.
pub(super) const SLICES: usize = 64;

/// Frames in order. The first may have been written in part.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) frames: VecDeque<Queued>,
    bytes: usize,
    messages: usize,
    /// The first frame's beginning is on the wire.
    pub(super) split: bool,
    /// Told when nothing waits any more.
    end: Option<End>,
}

/// Tells those who wait when it is dropped, whatever the reason.
#[derive(Debug, Default)]
struct End(Arc<Notify>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) bytes: Bytes,
    pub(super) messages: u32,
    pub(super) kind: Kind,
}

/// What may become of frames while they wait.
#[derive(Debug)]
pub(super) enum Kind {
    /// They are sent.
    Kept,
    /// One message of a room that rather drops messages than members.
    Lossy(Lossy),
    /// Tells what was dropped here; grows when more is.
    Gap(Box<Gap>),
}

impl Outbox {
    /// Ready when nothing waits any more, or nobody is there to take it.
    pub(super) fn ended(&mut self) -> OwnedNotified {
        let end = self.end.get_or_insert_default();
        Arc::clone(&end.0).notified_owned()
    }

    /// Appends frames that carry so many messages.
    pub(super) fn push(&mut self, bytes: Bytes, messages: u32) {
        self.append(Queued {
            bytes,
            messages,
            kind: Kind::Kept,
        });
    }

    /// Appends bytes that are to be sent whatever happens, where nothing waits before them.
    pub(super) fn push_begun(&mut self, bytes: Bytes) {
        self.push(bytes, 0);
        self.split = true;
    }

    /// Appends what is left of `frames` when `written` bytes of them are on the wire, where nothing waits before them.
    pub(super) fn push_rest(&mut self, frames: &Bytes, written: usize, messages: u32) {
        self.push(frames.slice(written..), messages);
        self.split |= written > 0;
    }

    /// As [`Outbox::push_rest`], each message for itself, so that it can be dropped; what was begun cannot.
    pub(super) fn push_lossy(&mut self, messages: impl IntoIterator<Item = Lossy>, written: usize) {
        let mut begin = 0;
        for message in messages {
            let end = begin + message.frame.len();
            if begin >= written {
                self.append(Queued {
                    bytes: message.frame.clone(),
                    messages: 1,
                    kind: Kind::Lossy(message),
                });
            } else if end > written {
                self.push(message.frame.slice(written - begin..), 1);
                self.split = true;
            }
            begin = end;
        }
    }

    pub(super) fn append(&mut self, queued: Queued) {
        self.bytes += queued.bytes.len();
        self.messages += queued.messages as usize;
        self.frames.push_back(queued);
    }

    /// Takes frames out that were not begun; what waits behind them moves up.
    pub(super) fn remove(&mut self, index: usize) -> Option<Queued> {
        let queued = self.frames.remove(index)?;
        self.bytes -= queued.bytes.len();
        self.messages -= queued.messages as usize;
        Some(queued)
    }

    /// Puts other frames where those at `index` were.
    pub(super) fn replace(&mut self, index: usize, queued: Queued) {
        if let Some(slot) = self.frames.get_mut(index) {
            self.bytes = self.bytes + queued.bytes.len() - slot.bytes.len();
            self.messages = self.messages + queued.messages as usize - slot.messages as usize;
            *slot = queued;
        }
    }

    /// Bytes and messages that wait.
    pub(super) const fn size(&self) -> (usize, usize) {
        (self.bytes, self.messages)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The first buffers, for one vectored write.
    pub(super) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut count = 0;
        for (slot, queued) in into.iter_mut().zip(&self.frames) {
            *slot = IoSlice::new(&queued.bytes);
            count += 1;
        }
        count
    }

    /// So many bytes were written.
    pub(super) fn advance(&mut self, mut written: usize) {
        self.bytes -= written.min(self.bytes);
        while let Some(first) = self.frames.front_mut() {
            if written < first.bytes.len() {
                first.bytes.advance(written);
                self.split |= written > 0;
                return;
            }
            written -= first.bytes.len();
            self.messages -= first.messages as usize;
            self.frames.pop_front();
            self.split = false;
        }
    }

    /// Drops everything that no byte of was written; frames must not end in the middle.
    pub(super) fn drop_unbegun(&mut self) {
        let keep = usize::from(self.split);
        self.frames.truncate(keep);
        self.bytes = self.frames.iter().map(|queued| queued.bytes.len()).sum();
        self.messages = self.frames.iter().map(|queued| queued.messages as usize).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_what_is_pushed_written_and_dropped() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abcdef"), 2);
        outbox.push(Bytes::from_static(b"ghi"), 1);
        assert_eq!(outbox.size(), (9, 3));
        outbox.advance(4);
        assert_eq!(
            outbox.size(),
            (5, 3),
            "messages leave with the last byte of their buffer"
        );
        outbox.push(Bytes::from_static(b"jkl"), 1);
        outbox.drop_unbegun();
        assert_eq!(outbox.size(), (2, 2), "what was begun is finished");
        outbox.advance(2);
        assert!(outbox.is_empty());
        assert_eq!(outbox.size(), (0, 0));
    }

    #[test]
    fn a_vectored_write_takes_buffers_in_order_and_at_most_its_slices() {
        let mut outbox = Outbox::default();
        for byte in 0..100_u8 {
            outbox.push(Bytes::from(vec![byte]), 1);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = outbox.slices(&mut slices);
        assert_eq!(count, SLICES);
        assert!(
            slices
                .iter()
                .enumerate()
                .all(|(index, slice)| slice[0] == index as u8)
        );
        outbox.advance(SLICES);
        assert_eq!(outbox.size(), (36, 36));
        outbox.drop_unbegun();
        assert!(outbox.is_empty(), "a whole buffer is not begun");
    }
}
