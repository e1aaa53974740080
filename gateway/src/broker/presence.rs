//! Who is in a room: what brokers are told about it, and what they tell.

use std::sync::Arc;
use std::time::Duration;

/// A connection in a room.
#[derive(Clone, Copy, Debug)]
pub struct Attendee<'a> {
    /// Where.
    pub room: &'a Arc<str>,
    /// Whose.
    pub user: &'a Arc<str>,
    /// Which; no other one of the fleet is called so.
    pub connection: &'a Arc<str>,
}

/// A question for the users of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// Which.
    pub room: Arc<str>,
    /// Those behind this one in the order of their bytes, or all.
    pub after: Option<Arc<str>>,
    /// So many at most.
    pub limit: usize,
}

/// Users of a room: those that are in it, by whatever number of connections, and those that have left it too short a
/// time ago for that to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attendance {
    /// How many there are.
    pub count: u64,
    /// The first of those that were asked for, in the order of their bytes.
    pub users: Vec<Arc<str>>,
    /// There are more behind them.
    pub more: bool,
}

/// How it is told who is in rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceSettings {
    /// Name of this gateway, without white space.
    pub server_id: Arc<str>,
    /// How long a user who has left may be away before it is told.
    pub hold: Duration,
    /// Rooms with more users get no announcements.
    pub announced: u32,
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self {
            server_id: Arc::from("gateway"),
            hold: Duration::from_secs(15),
            announced: 256,
        }
    }
}
