//! Who must have got which message: one [`RoomLedger`] per room, and what a client missed between two sockets.

mod contents;
mod epochs;
mod handover;
mod member;
mod room;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::Serialize;

pub(crate) use contents::{Identity, Sequences};
pub(crate) use handover::{Handover, Seam};
pub(crate) use room::{MemberKey, RoomLedger};

/// What went wrong, in messages times members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Not delivered to a member that was joined and stayed joined until it should have come.
    pub lost: u64,
    /// Delivered after the grace period.
    pub late: u64,
    /// Delivered more than once to the same socket.
    pub duplicated: u64,
    /// Delivered after a message with a higher offset.
    pub out_of_order: u64,
    /// Messages of this run that are in their room twice, at two offsets: a client that drops offsets that it has seen gets
    /// them twice all the same.
    pub repeated: u64,
    /// Deliveries and acknowledgements that say of an offset that it is another message than others were told.
    pub contradicted: u64,
    /// Not delivered, and told so with `gap`.
    pub gapped: u64,
    /// Acknowledged in an epoch that is over, and not delivered to a member that was joined: it was told so by the new epoch.
    /// Not an error by itself: what had not reached a replica, or the disk, is gone with the broker.
    pub taken_back: u64,
    /// Members that saw their room begin a new epoch while joined. Not an error by itself.
    pub epoch_changes: u64,
}

impl Counts {
    pub(crate) const fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.late += other.late;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.repeated += other.repeated;
        self.contradicted += other.contradicted;
        self.gapped += other.gapped;
        self.taken_back += other.taken_back;
        self.epoch_changes += other.epoch_changes;
    }

    /// Whether every member got every message once, in order and in time.
    pub const fn is_clean(&self) -> bool {
        self.wrong() == 0
    }

    /// Everything that is wrong, in one number.
    const fn wrong(&self) -> u64 {
        self.lost
            + self.late
            + self.duplicated
            + self.out_of_order
            + self.repeated
            + self.contradicted
            + self.gapped
    }
}

/// A room by name.
pub(crate) struct Room {
    pub(crate) name: String,
    pub(crate) ledger: Mutex<RoomLedger>,
}

/// All rooms of a run, by index.
pub(crate) struct Ledger {
    prefix: String,
    grace: Duration,
    rooms: RwLock<Vec<Arc<Room>>>,
    /// Messages of this run that somebody got.
    pub(crate) seen: Sequences,
}

impl Ledger {
    pub(crate) fn new(prefix: &str, grace: Duration) -> Self {
        Self {
            prefix: prefix.into(),
            grace,
            rooms: RwLock::default(),
            seen: Sequences::default(),
        }
    }

    /// The room with this index, made when it is asked for the first time.
    pub(crate) fn room(&self, index: u32) -> Arc<Room> {
        let index = index as usize;
        if let Some(room) = self.rooms.read().get(index) {
            return Arc::clone(room);
        }
        let mut rooms = self.rooms.write();
        while rooms.len() <= index {
            let name = format!("{}{}", self.prefix, rooms.len());
            rooms.push(Arc::new(Room {
                name,
                ledger: Mutex::new(RoomLedger::new(self.grace)),
            }));
        }
        Arc::clone(&rooms[index])
    }

    /// Judges what has become due; call it about once a second.
    pub(crate) fn sweep(&self, now: Duration) {
        for room in self.rooms.read().iter() {
            room.ledger.lock().sweep(now);
        }
    }

    /// Sums of all rooms.
    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for room in self.rooms.read().iter() {
            sum.add(room.ledger.lock().counts());
        }
        sum
    }

    /// Rooms in which something went wrong, the worst first, at most `most`.
    pub(crate) fn worst(&self, most: usize) -> Vec<(String, Counts)> {
        let mut bad: Vec<(String, Counts)> = Vec::new();
        for room in self.rooms.read().iter() {
            let counts = room.ledger.lock().counts();
            if !counts.is_clean() {
                bad.push((room.name.clone(), counts));
            }
        }
        bad.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.wrong()));
        bad.truncate(most);
        bad
    }
}
