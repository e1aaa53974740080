//! What was delivered to a room and not yet written to its members.
//!
//! A flush takes all of it as a [`Batch`], which is encoded when the first member asks for it, once for each format that
//! members use, without the room's lock: ready frames, one behind the other, shared by all who use that format. What is
//! compressed is made of the frames that are not: each message is encoded once a codec, and compressed once a window.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::broker::{Delivery, Event, Position, StreamKey};
use crate::config::SlowPolicy;
use crate::protocol::{Format, ServerMessage};
use crate::session::{ConnId, Lossy, Origin};
use crate::websocket::{DEFLATE_FROM, Deflate, deflate_frame};

/// Announcements are dropped when about so many bytes wait: they are hints, and must not crowd out messages.
const ANNOUNCEMENT_BYTES: usize = 1 << 20;
/// Bytes of a message beside its payload and its names, about.
const ENVELOPE: usize = 64;

/// Messages for every member, but for those that one is not meant for.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: Vec<Entry>,
    /// About so many bytes wait.
    bytes: usize,
    apart: Apart,
    /// When the oldest message was accepted, in milliseconds since 1970.
    oldest: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    position: Option<Position>,
}

/// Members that do not get all of it. Messages are named by their place in the list of entries.
#[derive(Debug, Default)]
struct Apart {
    /// What one connection does not get: its own announcement.
    without: Vec<(ConnId, usize)>,
    /// Where those begin that joined meanwhile: what was pending came before them.
    late: HashMap<ConnId, usize, ahash::RandomState>,
}

/// What one flush writes.
#[derive(Debug)]
pub(super) struct Batch {
    stream: StreamKey,
    entries: Vec<Entry>,
    apart: Apart,
    pub(super) oldest: Option<u64>,
    /// What was asked for so far; most rooms use one format.
    encoded: SmallVec<[(Format, Encoded); 1]>,
}

/// All of a batch in one format.
#[derive(Clone, Debug)]
struct Encoded {
    frames: Bytes,
    /// Where each message's frame ends.
    ends: SmallVec<[usize; 4]>,
    /// The messages one by one, for members for whom they have to wait.
    lossy: OnceCell<Box<[Lossy]>>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A member joins, behind what is pending.
    pub(super) fn joins(&mut self, id: ConnId) {
        if !self.is_empty() {
            self.apart.late.insert(id, self.entries.len());
        }
    }

    /// Takes a delivery in.
    pub(super) fn push(&mut self, delivery: &Delivery, instance: &str) {
        if delivery.position.is_none() && self.bytes > ANNOUNCEMENT_BYTES {
            return;
        }
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

    pub(super) fn take(&mut self, stream: &StreamKey) -> Batch {
        let pending = std::mem::take(self);
        Batch {
            stream: stream.clone(),
            entries: pending.entries,
            apart: pending.apart,
            oldest: pending.oldest,
            encoded: SmallVec::new(),
        }
    }
}

impl Batch {
    /// All of it in this format, and its place in the list.
    fn encoded(&mut self, format: Format) -> usize {
        let known = self.encoded.iter().position(|(known, _)| *known == format);
        known.unwrap_or_else(|| {
            let encoded = match format.deflate {
                Some(deflate) => {
                    let plain = self.encoded(Format::from(format.codec));
                    self.encoded[plain].1.deflated(deflate)
                }
                None => self.encode(format),
            };
            self.encoded.push((format, encoded));
            self.encoded.len() - 1
        })
    }

    fn encode(&self, format: Format) -> Encoded {
        let mut frames = Vec::new();
        let ends = self.entries.iter().map(|entry| {
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
    pub(super) fn of(&mut self, id: ConnId, format: Format) -> (Bytes, u32) {
        let index = self.encoded(format);
        let Encoded { frames, ends, .. } = &self.encoded[index].1;
        if self.apart.without.is_empty() && self.apart.late.is_empty() {
            return (frames.clone(), ends.len() as u32);
        }
        let end_of = |entry: usize| ends.get(entry).copied().unwrap_or(frames.len());
        let begin_of = |entry: usize| entry.checked_sub(1).map_or(0, end_of);
        let first = self.apart.late.get(&id).copied().unwrap_or_default();
        let not_mine = |(other, entry): &&(ConnId, usize)| *other == id && *entry >= first;
        let without: SmallVec<[usize; 4]> = (self.apart.without.iter().filter(not_mine))
            .map(|(_, entry)| *entry)
            .collect();
        let messages = (ends.len() - first - without.len()) as u32;
        let mut at = begin_of(first);
        if without.is_empty() {
            return (frames.slice(at..), messages);
        }
        let mut bytes = Vec::with_capacity(frames.len() - at);
        for entry in without {
            bytes.extend_from_slice(&frames[at..begin_of(entry)]);
            at = end_of(entry);
        }
        bytes.extend_from_slice(&frames[at..]);
        (bytes.into(), messages)
    }

    /// What [`Batch::of`] has given, message by message. Each has memory of its own: one that waits longer than the others
    /// must not keep theirs.
    pub(super) fn each(&self, id: ConnId, format: Format, policy: SlowPolicy) -> Vec<Lossy> {
        let Some((_, encoded)) = self.encoded.iter().find(|(known, _)| *known == format) else {
            return Vec::new();
        };
        let lossy = |(entry, frame): (&Entry, &[u8])| Lossy {
            frame: Bytes::copy_from_slice(frame),
            origin: Arc::new(origin(&self.stream, entry, policy)),
        };
        let lossy = || self.entries.iter().zip(encoded.each()).map(lossy).collect();
        let each = encoded.lossy.get_or_init(lossy);
        let first = self.apart.late.get(&id).copied().unwrap_or_default();
        let mine = |entry: &usize| !self.apart.without.contains(&(id, *entry));
        let messages = each.iter().enumerate().skip(first);
        messages
            .filter(|(entry, _)| mine(entry))
            .map(|(_, message)| message.clone())
            .collect()
    }

    /// Bytes of each message that was encoded, before it was compressed.
    pub(super) fn sizes(&self) -> impl Iterator<Item = usize> {
        let plain = self.encoded.iter().filter(|(format, _)| format.deflate.is_none());
        plain.flat_map(|(_, encoded)| encoded.each().map(<[u8]>::len))
    }
}

impl Encoded {
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
    let (StreamKey::Room(room) | StreamKey::User(room)) = stream;
    let sender = match &*entry.event {
        Event::RoomMessage { user_id, .. }
        | Event::UserJoined { user_id, .. }
        | Event::UserLeft { user_id, .. } => user_id,
        Event::DirectMessage { from_user_id, .. } => from_user_id,
    };
    Origin {
        policy,
        room: Arc::clone(room),
        sender: Arc::clone(sender),
        position: entry.position.clone(),
    }
}

fn message<'e>(stream: &'e StreamKey, entry: &'e Entry) -> ServerMessage<'e> {
    let room_id = match stream {
        StreamKey::Room(name) | StreamKey::User(name) => &**name,
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
        Event::UserLeft { user_id, server_id } => ServerMessage::UserLeft {
            room_id,
            user_id,
            server_id,
        },
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
