//! What was delivered to a room and not yet written to its members.
//!
//! A flush takes all of it as a [`Batch`], which is encoded when the first member asks for it, once for each format that
//! members use, without the room's lock: ready frames, one behind the other, shared by all who use that format.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::broker::{Delivery, Event, Position, StreamKey};
use crate::config::SlowPolicy;
use crate::protocol::{Format, ServerMessage};
use crate::session::{ConnId, Lossy, Origin};

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
    encoded: [OnceCell<Encoded>; Format::COUNT],
}

/// All of a batch in one format.
#[derive(Debug)]
struct Encoded {
    frames: Bytes,
    /// Where each message's frame ends.
    ends: SmallVec<[usize; 4]>,
    /// The messages one by one, for members for whom they have to wait.
    each: OnceCell<Box<[Lossy]>>,
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
            encoded: Default::default(),
        }
    }
}

impl Batch {
    fn encoded(&self, format: Format) -> &Encoded {
        self.encoded[format.index()].get_or_init(|| {
            let mut frames = Vec::new();
            let ends = self.entries.iter().map(|entry| {
                format.encode_frame(&message(&self.stream, entry), &mut frames);
                frames.len()
            });
            let ends = ends.collect();
            Encoded {
                frames: frames.into(),
                ends,
                each: OnceCell::new(),
            }
        })
    }

    /// What this member gets in its format, and how many messages that is.
    pub(super) fn of(&self, id: ConnId, format: Format) -> (Bytes, u32) {
        let Encoded { frames, ends, .. } = self.encoded(format);
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

    /// What [`Batch::of`] gives, message by message. Each has memory of its own: one that waits longer than the others must
    /// not keep theirs.
    pub(super) fn each(&self, id: ConnId, format: Format, policy: SlowPolicy) -> Vec<Lossy> {
        let encoded = self.encoded(format);
        let each = encoded.each.get_or_init(|| {
            let begins = std::iter::once(&0).chain(&encoded.ends);
            let ranges = begins.zip(&encoded.ends).map(|(begin, end)| *begin..*end);
            let lossy = |(entry, range): (&Entry, _)| Lossy {
                frame: Bytes::copy_from_slice(&encoded.frames[range]),
                origin: Arc::new(origin(&self.stream, entry, policy)),
            };
            self.entries.iter().zip(ranges).map(lossy).collect()
        });
        let first = self.apart.late.get(&id).copied().unwrap_or_default();
        let mine = |entry: &usize| !self.apart.without.contains(&(id, *entry));
        let messages = each.iter().enumerate().skip(first);
        messages
            .filter(|(entry, _)| mine(entry))
            .map(|(_, message)| message.clone())
            .collect()
    }

    /// Bytes of each frame that was made.
    pub(super) fn sizes(&self) -> impl Iterator<Item = usize> {
        let made = self.encoded.iter().filter_map(OnceCell::get);
        made.flat_map(|encoded| {
            let begins = std::iter::once(&0).chain(&encoded.ends);
            encoded.ends.iter().zip(begins).map(|(end, begin)| end - begin)
        })
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
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::protocol::Codec;

    fn delivery(offset: u64) -> Delivery {
        let position = Position {
            epoch: "e".into(),
            offset,
        };
        let event = match offset {
            0 => Event::UserJoined {
                user_id: "u".into(),
                server_id: "s".into(),
                connection: ConnId(7).text("i"),
            },
            _ => Event::RoomMessage {
                user_id: "u".into(),
                payload: RawValue::from_string("1".to_owned()).unwrap(),
                timestamp: offset,
                server_id: "s".into(),
            },
        };
        Delivery {
            stream: StreamKey::Room("r".into()),
            position: (offset > 0).then_some(position),
            event: Arc::new(event),
        }
    }

    /// The offsets that frames of less than 126 bytes carry, 0 for announcements.
    fn offsets(frames: &[u8], codec: Codec) -> Vec<u64> {
        let mut rest = frames;
        let mut offsets = Vec::new();
        while let [_, length, behind @ ..] = rest {
            let (payload, after) = behind.split_at(usize::from(*length));
            let value: serde_json::Value = match codec {
                Codec::MsgPack => rmp_serde::from_slice(payload).unwrap(),
                _ => serde_json::from_slice(payload).unwrap(),
            };
            offsets.push(value["offset"].as_u64().unwrap_or_default());
            rest = after;
        }
        offsets
    }

    fn batch(offsets: &[u64], late: ConnId) -> Batch {
        let mut pending = Pending::default();
        for (index, offset) in offsets.iter().enumerate() {
            if index == 2 {
                pending.joins(late);
            }
            pending.push(&delivery(*offset), "i");
        }
        pending.take(&StreamKey::Room("r".into()))
    }

    #[test]
    fn a_batch_is_encoded_once_for_each_codec_that_is_asked_for_and_shared() {
        let batch = batch(&[1, 2, 3], ConnId(9));
        let (json, msgpack) = (Format::default(), Format::from(Codec::MsgPack));
        assert!(batch.encoded.iter().all(|encoded| encoded.get().is_none()));
        let (first, second) = (batch.of(ConnId(1), json), batch.of(ConnId(2), json));
        assert_eq!((first.1, first.0.as_ptr()), (3, second.0.as_ptr()));
        assert!(
            batch.encoded[msgpack.index()].get().is_none(),
            "nobody asked for it"
        );
        let other = batch.of(ConnId(3), msgpack);
        assert_eq!(offsets(&other.0, Codec::MsgPack), [1, 2, 3]);
        assert_eq!(batch.sizes().count(), 6);
        assert_eq!(batch.sizes().sum::<usize>(), first.0.len() + other.0.len());
    }

    #[test]
    fn whoever_joined_late_and_whoever_is_announced_miss_the_same_in_every_codec() {
        // the third is the announcement of connection 7, and connection 9 came before it
        let batch = batch(&[1, 2, 0, 3], ConnId(9));
        for codec in [Codec::Json, Codec::MsgPack] {
            for (id, expected) in [(1, &[1, 2, 0, 3][..]), (7, &[1, 2, 3]), (9, &[0, 3])] {
                let (frames, messages) = batch.of(ConnId(id), codec.into());
                assert_eq!(offsets(&frames, codec), expected, "{codec:?} {id}");
                assert_eq!(messages as usize, expected.len());
            }
        }
    }
}
