//! How members come and go, and what the caller has to do then.

use std::time::Duration;

use tokio::sync::futures::OwnedNotified;

/// How long announcements wait for company: a crowd that joins is announced in few writes.
pub(super) const LINGER: Duration = Duration::from_millis(20);

/// How a membership begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The member is told where the room stands, and gets what comes after.
    Live,
    /// It gets nothing until [`Room::release`]: what it has missed has to be read.
    Held,
}

/// What came of an attempt to join.
#[derive(Debug)]
pub(super) enum Join {
    /// A member now; `announce`: the caller must tell the others that its user has come.
    Joined { announce: bool },
    /// A member already; was told the position again, or is held now.
    Already,
    /// A member already, who is being written to: try again soon.
    Busy,
    /// The user has as many connections as are allowed.
    Full,
    /// The caller must subscribe, and then call [`Room::subscribed`].
    Subscribe,
    /// Wait, then try again.
    Wait(OwnedNotified),
    /// The room was dropped; look it up again.
    Dead,
}

/// Who writes what was just delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Nobody needs to.
    No,
    /// The caller, at once, unless somebody does.
    Now,
    /// The caller, after [`LINGER`].
    Later,
}
