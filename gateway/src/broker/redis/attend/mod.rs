//! What is asked of Redis about who is in rooms, as commands. The layout of the keys is in `docs/decisions/0007-presence.md`.

mod fleet;
pub(super) mod scripts;

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use super::super::{Event, encode};
use super::naming::{self, PresenceKeys};
use super::script::{Script, Scripts};
pub(super) use fleet::{Fleet, FleetRequest};

/// What is known of a room is forgotten when no gateway has touched it for so long; those with members do more often.
const TTL: Duration = Duration::from_hours(1);
/// Users that are announced as gone in one step.
const GONE_AT_ONCE: usize = 256;
/// Connections of an ended gateway that are removed in one step.
const CLEARED_AT_ONCE: usize = 512;

/// One thing asked about who is in rooms, or about the lease under which a gateway says it.
#[derive(Clone, Debug)]
pub(super) enum PresenceRequest {
    /// A connection more.
    Enter(Box<Enter>),
    /// A connection less.
    Exit {
        stream: Arc<[u8]>,
        under: Under,
        connection: Arc<str>,
        hold: Duration,
    },
    /// Connections less, under a lease that has ended; users without another one are gone at `until`, in milliseconds.
    Clear {
        stream: Arc<[u8]>,
        under: Under,
        until: Arc<str>,
    },
    /// Users that have been away for too long are gone.
    Expire { stream: Arc<[u8]>, most: u32 },
    /// Users, in the order of their bytes.
    Page {
        stream: Arc<[u8]>,
        after: Option<Arc<str>>,
        limit: usize,
    },
    /// The room is not to be forgotten.
    Touch { stream: Arc<[u8]>, under: Under },
    /// About what is not of one room.
    Fleet(Box<FleetRequest>),
}

/// A gateway's lease: `<instance>.<number> <server id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Under(Arc<str>);

impl Under {
    pub(super) fn new(instance: &str, number: u64, server: &str) -> Self {
        Self(format!("{instance}.{number} {server}").into())
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    fn server(&self) -> &str {
        self.0.split_once(' ').map_or("", |(_, server)| server)
    }
}

impl From<&str> for Under {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// A connection in a room.
#[derive(Clone, Debug)]
pub(super) struct Enter {
    pub(super) stream: Arc<[u8]>,
    pub(super) under: Under,
    pub(super) connection: Arc<str>,
    pub(super) user: Arc<str>,
    /// Users in the room, if they are to hear of a new one.
    pub(super) most: u32,
    /// For how long what is put back into a new room is not announced.
    pub(super) quiet: Duration,
    /// It was there before Redis, or the link to it, was lost.
    pub(super) back: bool,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl PresenceRequest {
    /// The name whose slot its keys are in.
    pub(super) fn name(&self) -> &[u8] {
        match self {
            Self::Enter(enter) => &enter.stream,
            Self::Exit { stream, .. }
            | Self::Clear { stream, .. }
            | Self::Expire { stream, .. }
            | Self::Page { stream, .. }
            | Self::Touch { stream, .. } => stream,
            Self::Fleet(_) => naming::FLEET,
        }
    }

    /// Bytes that it keeps while it waits.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Enter(enter) => enter.stream.len() + enter.connection.len() + size_of::<Enter>(),
            Self::Exit {
                stream, connection, ..
            } => stream.len() + connection.len(),
            Self::Clear { stream, .. }
            | Self::Expire { stream, .. }
            | Self::Page { stream, .. }
            | Self::Touch { stream, .. } => stream.len(),
            Self::Fleet(_) => size_of::<FleetRequest>(),
        }
    }

    /// The command.
    pub(super) fn command(&self, scripts: &Scripts) -> Cmd {
        match self {
            Self::Enter(enter) => enter.command(scripts),
            Self::Exit {
                stream,
                under,
                connection,
                hold,
            } => {
                let keys = PresenceKeys::of(stream);
                let at = naming::at(stream, &under.0);
                let mut cmd = scripts.run_on(Script::Exit, &[&at, &keys.state, &keys.leaving]);
                cmd.arg(&**connection).arg(under.server());
                cmd.arg(millis(*hold)).arg(TTL.as_secs()).take()
            }
            Self::Clear { stream, under, until } => {
                let keys = PresenceKeys::of(stream);
                let at = naming::at(stream, &under.0);
                let mut cmd = scripts.run_on(Script::ClearRoom, &[&at, &keys.state, &keys.leaving]);
                cmd.arg(under.server()).arg(&**until);
                cmd.arg(TTL.as_secs()).arg(CLEARED_AT_ONCE).take()
            }
            Self::Expire { stream, most } => {
                let keys = PresenceKeys::of(stream);
                let all = [&keys.users[..], &keys.state, &keys.leaving, stream];
                scripts
                    .run_on(Script::Expire, &all)
                    .arg(*most)
                    .arg(GONE_AT_ONCE)
                    .take()
            }
            Self::Page { stream, after, limit } => {
                let from = after
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), |user| format!("({user}"));
                let mut cmd = scripts.run(Script::Page, &PresenceKeys::of(stream).users);
                cmd.arg(from).arg(*limit).take()
            }
            Self::Touch { stream, under } => {
                let keys = PresenceKeys::of(stream);
                let at = naming::at(stream, &under.0);
                let all = [&at[..], &keys.users, &keys.state, &keys.leaving];
                scripts.run_on(Script::Touch, &all).arg(TTL.as_secs()).take()
            }
            Self::Fleet(request) => request.command(scripts),
        }
    }
}

impl Enter {
    fn command(&self, scripts: &Scripts) -> Cmd {
        let keys = PresenceKeys::of(&self.stream);
        let at = naming::at(&self.stream, &self.under.0);
        let all = [
            &at[..],
            &keys.users,
            &keys.state,
            &keys.leaving,
            &self.stream,
            &keys.quiet,
        ];
        let event = Event::UserJoined {
            user_id: Arc::clone(&self.user),
            server_id: self.under.server().into(),
            connection: Arc::clone(&self.connection),
        };
        // texts cannot fail to become JSON
        let event = encode(&event).unwrap_or_default();
        let mut cmd = scripts.run_on(Script::Enter, &all);
        cmd.arg(&*self.connection)
            .arg(&*self.user)
            .arg(&event[..])
            .arg(self.most);
        cmd.arg(TTL.as_secs()).arg(millis(self.quiet));
        cmd.arg(if self.back { "back" } else { "" }).take()
    }
}
