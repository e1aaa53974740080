//! Rooms that a connection joins and leaves.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::inbound::{Turn, code_of};
use super::{Aim, Awaited, Joining, Session, Step};
use crate::broker::StreamKey;
use crate::protocol::{ErrorCode, RequestId, ServerMessage};
use crate::room::{JoinError, JoinStep, Room};

impl Session {
    /// The room of that name, when the connection is in it.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<Room>> {
        self.rooms
            .iter()
            .find(|room| room.name().is_some_and(|known| **known == *name))
    }

    /// Whether the connection may be in a room of this name, as far as it decides.
    pub(super) fn may_enter(&self, name: &str) -> Result<(), ErrorCode> {
        let most = self.gateway().settings.limits.rooms_per_connection;
        if !self.may(|grants| grants.may_join(name)) {
            Err(ErrorCode::Forbidden)
        } else if self.find(name).is_none() && !most.allows(self.rooms.len()) {
            Err(ErrorCode::TooManyRooms)
        } else {
            Ok(())
        }
    }

    /// Joins a room; what must be awaited is given back.
    pub(super) fn join(
        &mut self,
        name: Cow<'_, str>,
        id: Option<RequestId<'_>>,
        turn: &mut Turn,
    ) -> Option<Step> {
        if let Err(code) = self.may_enter(&name) {
            turn.error(code, id);
            return None;
        }
        self.flush(turn);
        let gateway = self.gateway();
        match gateway
            .rooms
            .join(&self.conn, StreamKey::Room(name.into()), &gateway.broker)
        {
            JoinStep::Done(joined) => {
                self.joined_room(joined, id.map(RequestId::raw));
                None
            }
            JoinStep::Wait(done) => Some(Step::Await(Box::new(Awaited::Join(Joining {
                done,
                aim: Aim::Room,
                id: id.map(|id| id.raw().to_owned()),
            })))),
        }
    }

    /// A join has ended; the client was told by the room unless it failed.
    pub(super) fn joined_room(&mut self, joined: Result<Arc<Room>, JoinError>, id: Option<&RawValue>) {
        match joined {
            Ok(room) => {
                if !self.rooms.iter().any(|known| Arc::ptr_eq(known, &room)) {
                    self.rooms.push(room);
                }
            }
            Err(error) => self.refuse(code_of_join(&error), &error.to_string(), id),
        }
    }

    /// Tells the client that something was not done.
    pub(super) fn refuse(&self, code: ErrorCode, error: &str, id: Option<&RawValue>) {
        self.tell(&ServerMessage::error_because(code, error, id));
    }

    /// Tells the client something that is not part of a turn.
    pub(super) fn tell(&self, message: &ServerMessage<'_>) {
        let env = &self.conn.env;
        env.metrics.sent(1);
        self.conn
            .send(&self.conn.format.frame(message), 1, env.clock.tick());
    }

    /// Leaves a room; nothing to do when it is not in it.
    pub(super) fn leave(&mut self, name: &str) {
        let known = self
            .rooms
            .iter()
            .position(|room| room.name().is_some_and(|known| **known == *name));
        if let Some(index) = known {
            let room = self.rooms.swap_remove(index);
            self.gateway()
                .rooms
                .leave(&self.conn, &room, &*self.gateway().broker);
        }
    }
}

pub(super) const fn code_of_join(error: &JoinError) -> ErrorCode {
    match error {
        JoinError::Broker(error) => code_of(error),
        // rooms are never full; personal streams are, but nobody asks to join them
        JoinError::Full => ErrorCode::Internal,
    }
}
