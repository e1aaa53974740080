//! What was delivered to a room and not yet written to its members: ready frames, one behind the other.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::broker::{Delivery, Event, StreamKey};
use crate::protocol::ServerMessage;
use crate::session::ConnId;

/// Announcements are dropped when so many bytes wait: they are hints, and must not crowd out messages.
const ANNOUNCEMENT_BYTES: usize = 1 << 20;

/// Frames for every member, but for those that a range is not meant for.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    messages: u32,
    apart: Apart,
    /// When the oldest message was accepted, in milliseconds since 1970.
    oldest: Option<u64>,
    /// Sizes are counted once a message, not once a member.
    sizes: Vec<usize>,
}

/// Members that do not get all of it.
#[derive(Debug, Default)]
struct Apart {
    /// Ranges that one connection does not get: its own announcement.
    without: Vec<(ConnId, Range<usize>)>,
    /// Where those begin that joined meanwhile, in bytes and messages: what was pending came before them.
    late: HashMap<ConnId, (usize, u32), ahash::RandomState>,
}

/// What one flush writes.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) all: Bytes,
    pub(super) messages: u32,
    apart: Apart,
    pub(super) oldest: Option<u64>,
    pub(super) sizes: Vec<usize>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A member joins, behind what is pending.
    pub(super) fn joins(&mut self, id: ConnId) {
        if !self.is_empty() {
            self.apart.late.insert(id, (self.bytes.len(), self.messages));
        }
    }

    /// Encodes a delivery.
    pub(super) fn push(&mut self, delivery: &Delivery, instance: &str) {
        if delivery.position.is_none() && self.bytes.len() > ANNOUNCEMENT_BYTES {
            return;
        }
        let start = self.bytes.len();
        let offset = delivery.position.as_ref().map_or(0, |position| position.offset);
        encode(&delivery.stream, &delivery.event, offset, &mut self.bytes);
        self.messages += 1;
        self.sizes.push(self.bytes.len() - start);
        match &*delivery.event {
            Event::RoomMessage { timestamp, .. } | Event::DirectMessage { timestamp, .. } => {
                self.oldest = Some(self.oldest.map_or(*timestamp, |oldest| oldest.min(*timestamp)));
            }
            Event::UserJoined { connection, .. } => {
                if let Some(id) = ConnId::parse(connection, instance) {
                    self.apart.without.push((id, start..self.bytes.len()));
                }
            }
            Event::UserLeft { .. } => {}
        }
    }

    pub(super) fn take(&mut self) -> Batch {
        let pending = std::mem::take(self);
        Batch {
            all: pending.bytes.into(),
            messages: pending.messages,
            apart: pending.apart,
            oldest: pending.oldest,
            sizes: pending.sizes,
        }
    }
}

impl Batch {
    /// Whether every member gets the same.
    pub(super) fn is_uniform(&self) -> bool {
        self.apart.without.is_empty() && self.apart.late.is_empty()
    }

    /// What this member gets, and how many messages that is.
    pub(super) fn of(&self, id: ConnId) -> (Bytes, u32) {
        let (start, before) = self.apart.late.get(&id).copied().unwrap_or_default();
        let own = || {
            self.apart
                .without
                .iter()
                .filter(|(other, range)| *other == id && range.start >= start)
        };
        let messages = self.messages - before - own().count() as u32;
        if own().next().is_none() {
            return (self.all.slice(start..), messages);
        }
        let mut bytes = Vec::with_capacity(self.all.len() - start);
        let mut at = start;
        for (_, range) in own() {
            bytes.extend_from_slice(&self.all[at..range.start]);
            at = range.end;
        }
        bytes.extend_from_slice(&self.all[at..]);
        (bytes.into(), messages)
    }
}

fn encode(stream: &StreamKey, event: &Arc<Event>, offset: u64, out: &mut Vec<u8>) {
    let room_id = match stream {
        StreamKey::Room(name) | StreamKey::User(name) => &**name,
    };
    let message = match &**event {
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
    };
    message.encode_frame(out);
}
