//! All connections of the gateway: found by place, walked by the sweeper and by drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::conn::Conn;
use super::env::ConnId;

/// Shards of the table; a connection's id names its shard.
const SHARDS: usize = 16;

/// Where a connection stands. Stays valid, and finds nothing, after the connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    id: ConnId,
    slot: u32,
}

impl Place {
    pub(super) const fn new(id: ConnId, slot: u32) -> Self {
        Self { id, slot }
    }

    pub(super) const fn slot(self) -> u32 {
        self.slot
    }
}

/// The table of connections.
#[derive(Debug)]
pub struct Connections {
    next: AtomicU64,
    count: AtomicUsize,
    shards: Box<[Mutex<Slab>]>,
}

#[derive(Debug, Default)]
struct Slab {
    slots: Vec<Option<Arc<Conn>>>,
    free: Vec<u32>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            // 1: the instance text and 0 would look like a constant
            next: AtomicU64::new(1),
            count: AtomicUsize::new(0),
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
        }
    }
}

impl Connections {
    /// An id that no connection of this process had.
    pub fn next_id(&self) -> ConnId {
        ConnId(self.next.fetch_add(1, Relaxed))
    }

    /// Open connections.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, id: ConnId) -> &Mutex<Slab> {
        &self.shards[id.0 as usize % SHARDS]
    }

    /// Adds a connection.
    pub fn insert(&self, conn: Arc<Conn>) -> Place {
        let id = conn.id;
        let mut slab = self.shard(id).lock();
        self.count.fetch_add(1, Relaxed);
        let slot = if let Some(slot) = slab.free.pop() {
            slab.slots[slot as usize] = Some(conn);
            slot
        } else {
            slab.slots.push(Some(conn));
            (slab.slots.len() - 1) as u32
        };
        Place { id, slot }
    }

    /// Takes a connection out.
    pub fn remove(&self, place: Place) {
        let mut slab = self.shard(place.id).lock();
        let entry = slab.slots.get_mut(place.slot as usize);
        if let Some(entry) = entry.filter(|entry| entry.as_ref().is_some_and(|conn| conn.id == place.id)) {
            *entry = None;
            slab.free.push(place.slot);
            self.count.fetch_sub(1, Relaxed);
        }
    }

    /// The connection, while it is open.
    pub fn get(&self, place: Place) -> Option<Arc<Conn>> {
        let slab = self.shard(place.id).lock();
        let conn = slab.slots.get(place.slot as usize)?.as_ref()?;
        (conn.id == place.id).then(|| Arc::clone(conn))
    }

    /// The connection of this id, while it is open; walks through its shard.
    pub fn find(&self, id: ConnId) -> Option<Arc<Conn>> {
        let slab = self.shard(id).lock();
        slab.slots.iter().flatten().find(|conn| conn.id == id).cloned()
    }

    /// The open connections of a user; walks through all.
    pub fn of_user(&self, user: &str) -> Vec<Arc<Conn>> {
        let mut found = Vec::new();
        self.for_each(|_, conn| {
            if *conn.user == *user {
                found.push(Arc::clone(conn));
            }
        });
        found
    }

    /// Calls `visit` for each connection, under one shard's lock at a time: it must be quick and not come back here.
    pub fn for_each(&self, mut visit: impl FnMut(Place, &Arc<Conn>)) {
        for shard in &self.shards {
            let slab = shard.lock();
            for (slot, conn) in slab.slots.iter().enumerate() {
                if let Some(conn) = conn {
                    visit(
                        Place {
                            id: conn.id,
                            slot: slot as u32,
                        },
                        conn,
                    );
                }
            }
        }
    }
}
