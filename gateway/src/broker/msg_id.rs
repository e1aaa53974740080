//! What messages are called by who sends them.

use super::Event;

/// What a sender calls a message, so that sending it again is harmless. Names of different senders are never the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MsgId {
    /// Of the event's user.
    User(Box<str>),
    /// Of a back end, in whose name ever it speaks.
    BackEnd(Box<str>),
}

impl MsgId {
    /// Who gave it, and what it is. No user has an empty id, so back ends are among themselves.
    pub fn parts<'p>(&'p self, event: &'p Event) -> (&'p str, &'p str) {
        match self {
            Self::User(id) => (event.user(), id),
            Self::BackEnd(id) => ("", id),
        }
    }
}
