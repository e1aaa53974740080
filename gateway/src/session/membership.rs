//! Rooms that a connection joins and leaves.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::inbound::{Turn, code_of};
use super::{Joining, Session, Step};
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

    /// Joins a room; what must be awaited is given back.
    pub(super) fn join(
        &mut self,
        name: Cow<'_, str>,
        id: Option<RequestId<'_>>,
        turn: &mut Turn,
    ) -> Option<Step> {
        if !self.may(|grants| grants.may_join(&name)) {
            turn.error(ErrorCode::Forbidden, id);
            return None;
        }
        let known = self.find(&name).is_some();
        if !known
            && !self
                .gateway()
                .settings
                .limits
                .rooms_per_connection
                .allows(self.rooms.len())
        {
            turn.error(ErrorCode::TooManyRooms, id);
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
            JoinStep::Wait(done) => Some(Step::Join(Box::new(Joining {
                done,
                room: true,
                id: id.map(|id| id.raw().to_owned()),
            }))),
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
            Err(error) => {
                let env = &self.gateway().env;
                let code = match &error {
                    JoinError::Broker(error) => code_of(error),
                    // rooms are never full; personal streams are, but nobody asks to join them
                    JoinError::Full => ErrorCode::Internal,
                };
                let error = error.to_string();
                let frame = self
                    .conn
                    .format
                    .frame(&ServerMessage::error_because(code, &error, id));
                env.metrics.sent(1);
                self.conn.send(&frame, 1, env.clock.tick());
            }
        }
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
