//! A client's events, on their way to the workers.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Session;
use super::inbound::{Turn, answer};
use crate::broker::{Reply, WorkerEvent};
use crate::clock::Clock;
use crate::protocol::{ErrorCode, RequestId};

impl Session {
    /// Has an event appended when the turn is over, unless the token says that it may not be sent.
    pub(super) fn event(
        &self,
        name: &str,
        payload: &RawValue,
        [id, msg_id]: [Option<RequestId<'_>>; 2],
        turn: &mut Turn,
    ) {
        if !self.may(|grants| grants.may_send(name)) {
            return turn.error(ErrorCode::Forbidden, id);
        }
        let env = &self.gateway().env;
        let event = WorkerEvent {
            name: name.into(),
            payload: payload.to_owned(),
            user_id: Arc::clone(&self.conn.user),
            connection_id: self.conn.id.text(&env.instance),
            server_id: Arc::clone(&env.server_id),
            timestamp: Clock::unix_millis(),
            msg_id: msg_id.map(|id| id.said().into()),
        };
        let tell = answer(Arc::clone(&self.conn), id.map(|id| id.raw().to_owned()));
        let env = Arc::clone(env);
        let reply: Reply = Box::new(move |outcome| {
            env.metrics.events.count(&outcome);
            tell(outcome);
        });
        turn.events.push((event, reply));
    }
}
