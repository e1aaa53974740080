//! What one flush writes to every member of a room: encoded when the first member asks for it, once for each format that
//! members use, without the room's lock: ready frames, one behind the other, shared by all who use that format. What is
//! compressed is made of the frames that are not: each message is encoded once a codec, and compressed once a window.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::block::{Block, Entry};
use crate::broker::{Event, StreamKey};
use crate::config::SlowPolicy;
use crate::protocol::{Format, ServerMessage};
use crate::session::{ConnId, Lossy, Origin};
use crate::websocket::{DEFLATE_FROM, Deflate, deflate_frame};

/// What one flush writes. Shared by the tasks that write it.
#[derive(Debug)]
pub(super) struct Batch {
    stream: StreamKey,
    block: Block,
    /// What was asked for so far; most rooms use one format.
    encoded: Mutex<Encodings>,
}

/// A batch in every format that was asked for.
type Encodings = SmallVec<[(Format, Encoded); 1]>;

/// All of a batch in one format.
#[derive(Clone, Debug)]
struct Encoded {
    frames: Bytes,
    /// Where each message's frame ends.
    ends: SmallVec<[usize; 4]>,
    /// The messages one by one, for members for whom they have to wait.
    lossy: OnceCell<Box<[Lossy]>>,
}

impl Batch {
    pub(super) fn new(stream: StreamKey, block: Block) -> Self {
        Self {
            stream,
            block,
            encoded: Mutex::default(),
        }
    }

    /// About so many bytes, in any format.
    pub(super) const fn size(&self) -> usize {
        self.block.bytes
    }

    /// When the oldest message was accepted, in milliseconds since 1970.
    pub(super) const fn oldest(&self) -> Option<u64> {
        self.block.oldest
    }

    /// Its place in the list; made by who asks first, while others wait for it.
    fn encoded(&self, format: Format, known: &mut Encodings) -> usize {
        if let Some(index) = known.iter().position(|(known, _)| *known == format) {
            return index;
        }
        let encoded = match format.deflate {
            Some(deflate) => {
                let plain = self.encoded(Format::from(format.codec), known);
                known[plain].1.deflated(deflate)
            }
            None => self.encode(format),
        };
        known.push((format, encoded));
        known.len() - 1
    }

    fn encode(&self, format: Format) -> Encoded {
        let mut frames = Vec::new();
        let ends = self.block.entries.iter().map(|entry| {
            format.encode_frame(&message(&self.stream, entry), &mut frames);
            frames.len()
        });
        let ends = ends.collect();
        Encoded {
            frames: frames.into(),
            ends,
            lossy: OnceCell::new(),
        }
    }

    /// What this member gets in its format, and how many messages that is.
    pub(super) fn of(&self, id: ConnId, format: Format) -> (Bytes, u32) {
        let mut known = self.encoded.lock();
        let index = self.encoded(format, &mut known);
        let encoded = &known[index].1;
        let apart = &self.block.apart;
        if apart.is_empty() {
            return (encoded.frames.clone(), encoded.ends.len() as u32);
        }
        let first = apart.late.get(&id).copied().unwrap_or_default();
        let not_mine = |(other, entry): &&(ConnId, usize)| *other == id && *entry >= first;
        let without: SmallVec<[usize; 4]> = (apart.without.iter().filter(not_mine))
            .map(|(_, entry)| *entry)
            .collect();
        encoded.some(first, &without)
    }

    /// To ask for many members in turn.
    pub(super) const fn shares(&self) -> Shares<'_> {
        Shares {
            batch: self,
            last: None,
        }
    }

    /// What [`Batch::of`] has given, message by message. Each has memory of its own: one that waits longer than the others
    /// must not keep theirs.
    pub(super) fn each(&self, id: ConnId, format: Format, policy: SlowPolicy) -> Vec<Lossy> {
        let known = self.encoded.lock();
        let Some((_, encoded)) = known.iter().find(|(known, _)| *known == format) else {
            return Vec::new();
        };
        let lossy = |(entry, frame): (&Entry, &[u8])| Lossy {
            frame: Bytes::copy_from_slice(frame),
            origin: Arc::new(origin(&self.stream, entry, policy)),
        };
        let Block { entries, apart, .. } = &self.block;
        let lossy = || entries.iter().zip(encoded.each()).map(lossy).collect();
        let each = encoded.lossy.get_or_init(lossy);
        let first = apart.late.get(&id).copied().unwrap_or_default();
        let mine = |entry: &usize| !apart.without.contains(&(id, *entry));
        let messages = each.iter().enumerate().skip(first);
        messages
            .filter(|(entry, _)| mine(entry))
            .map(|(_, message)| message.clone())
            .collect()
    }

    /// Bytes of each message that was encoded, before it was compressed.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let known = self.encoded.lock();
        let plain = known.iter().filter(|(format, _)| format.deflate.is_none());
        plain
            .flat_map(|(_, encoded)| encoded.each().map(<[u8]>::len))
            .collect()
    }
}

/// Gives one member after the other what [`Batch::of`] gives it, and asks only when that differs from the last one's.
#[derive(Debug)]
pub(super) struct Shares<'b> {
    batch: &'b Batch,
    last: Option<(Format, (Bytes, u32))>,
}

impl Shares<'_> {
    /// What this member gets in its format, and how many messages that is.
    pub(super) fn of(&mut self, id: ConnId, format: Format) -> &(Bytes, u32) {
        let all_alike = self.batch.block.apart.is_empty();
        let known = self
            .last
            .take()
            .filter(|(known, _)| all_alike && *known == format);
        let share = known.map_or_else(|| self.batch.of(id, format), |(_, share)| share);
        &self.last.insert((format, share)).1
    }
}

impl Encoded {
    /// From the message with this index on, but for some; and how many messages that is.
    fn some(&self, first: usize, without: &[usize]) -> (Bytes, u32) {
        let Self { frames, ends, .. } = self;
        let end_of = |entry: usize| ends.get(entry).copied().unwrap_or(frames.len());
        let begin_of = |entry: usize| entry.checked_sub(1).map_or(0, end_of);
        let messages = (ends.len() - first - without.len()) as u32;
        let mut at = begin_of(first);
        if without.is_empty() {
            return (frames.slice(at..), messages);
        }
        let mut bytes = Vec::with_capacity(frames.len() - at);
        for entry in without {
            bytes.extend_from_slice(&frames[at..begin_of(*entry)]);
            at = end_of(*entry);
        }
        bytes.extend_from_slice(&frames[at..]);
        (bytes.into(), messages)
    }

    /// Each message's frame.
    fn each(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins
            .zip(&self.ends)
            .map(|(begin, end)| &self.frames[*begin..*end])
    }

    /// The same, compressed; the very same bytes when nothing gets smaller by that.
    fn deflated(&self, deflate: Deflate) -> Self {
        if self.each().all(|frame| frame.len() < DEFLATE_FROM) {
            return self.clone();
        }
        let mut frames = Vec::with_capacity(self.frames.len());
        let mut smaller = false;
        let ends = self.each().map(|frame| {
            smaller |= deflate_frame(&mut frames, frame, deflate);
            frames.len()
        });
        let ends = ends.collect();
        if !smaller {
            return self.clone();
        }
        frames.shrink_to_fit();
        Self {
            frames: frames.into(),
            ends,
            lossy: OnceCell::new(),
        }
    }
}

fn origin(stream: &StreamKey, entry: &Entry, policy: SlowPolicy) -> Origin {
    let (StreamKey::Room(room) | StreamKey::User(room) | StreamKey::Fleet(room)) = stream;
    Origin {
        policy,
        room: Arc::clone(room),
        sender: Arc::clone(entry.event.user()),
        message: entry.event.is_message(),
        first: match (&*entry.event, &entry.position) {
            (Event::Missing { from }, _) => *from,
            (_, position) => position.as_ref().map_or(0, |position| position.offset),
        },
        position: entry.position.clone(),
    }
}

fn message<'e>(stream: &'e StreamKey, entry: &'e Entry) -> ServerMessage<'e> {
    let room_id = match stream {
        StreamKey::Room(name) | StreamKey::User(name) | StreamKey::Fleet(name) => &**name,
    };
    let offset = entry.position.as_ref().map_or(0, |position| position.offset);
    match &*entry.event {
        Event::RoomMessage {
            user_id,
            payload,
            timestamp,
            server_id,
        } => ServerMessage::RoomMessage {
            room_id,
            user_id,
            payload,
            timestamp: *timestamp,
            server_id,
            offset,
        },
        Event::DirectMessage {
            from_user_id,
            payload,
            timestamp,
        } => ServerMessage::DirectMessage {
            from_user_id,
            payload,
            timestamp: *timestamp,
            offset,
        },
        Event::UserJoined {
            user_id, server_id, ..
        } => ServerMessage::UserJoined {
            room_id,
            user_id,
            server_id,
        },
        Event::Missing { from } => ServerMessage::Gap {
            room: match stream {
                StreamKey::Room(name) => Some(name),
                StreamKey::User(_) | StreamKey::Fleet(_) => None,
            },
            from: *from,
            to: offset,
            epoch: entry.position.as_ref().map_or("", |position| &*position.epoch),
        },
        Event::UserLeft { user_id, server_id } => ServerMessage::UserLeft {
            room_id,
            user_id,
            server_id,
        },
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
