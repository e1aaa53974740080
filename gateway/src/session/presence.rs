//! Who is in a room, for clients that ask.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::inbound::{Turn, code_of};
use super::{Awaited, Conn, Session, Step};
use crate::broker::{Attendance, Roll};
use crate::protocol::{ErrorCode, RequestId, ServerMessage};
use crate::room::{PAGE_USERS, PresenceError};

/// Users that one answer names, when the client does not say how many.
const SOME_USERS: usize = 100;
/// Bytes of a user's name in an answer besides those of the name.
const QUOTES: usize = 3;

impl Session {
    /// Tells whoever might join a room who is in it.
    pub(super) fn presence(
        &mut self,
        room: &str,
        limit: Option<u64>,
        after: Option<&str>,
        id: Option<RequestId<'_>>,
        turn: &mut Turn,
    ) -> Option<Step> {
        if !self.may(|grants| grants.may_join(room)) {
            turn.error(ErrorCode::Forbidden, id);
            return None;
        }
        self.flush(turn);
        let most = limit.map_or(SOME_USERS, |limit| usize::try_from(limit).unwrap_or(PAGE_USERS));
        let roll = Roll {
            room: room.into(),
            after: after.map(Into::into),
            limit: most.clamp(1, PAGE_USERS),
        };
        let (conn, id) = (Arc::clone(&self.conn), id.map(|id| id.raw().to_owned()));
        let (rooms, broker) = (
            Arc::clone(&self.gateway().rooms),
            Arc::clone(&self.gateway().broker),
        );
        Some(Step::Await(Box::new(Awaited::Answer(Box::pin(async move {
            let room = Arc::clone(&roll.room);
            let attendance = rooms.presence(roll, &*broker).await;
            conn.drained().await;
            tell_presence(&conn, &room, &attendance, id.as_deref());
        })))))
    }
}

fn tell_presence(
    conn: &Arc<Conn>,
    room: &str,
    attendance: &Result<Attendance, PresenceError>,
    id: Option<&RawValue>,
) {
    let (users, text): (Vec<&str>, String);
    let message = match attendance {
        Ok(attendance) => {
            // it is one message, and must find room in the connection's queue
            users = fitting(attendance, conn.env.queue_bytes / 4 * 3);
            let more = attendance.more || users.len() < attendance.users.len();
            ServerMessage::Presence {
                room,
                users: &users,
                count: attendance.count,
                next: users.last().copied().filter(|_| more),
                id,
            }
        }
        Err(error) => {
            text = error.to_string();
            let code = match error {
                PresenceError::Off => ErrorCode::PresenceOff,
                PresenceError::Broker(error) => code_of(error),
            };
            ServerMessage::error_because(code, &text, id)
        }
    };
    conn.env.metrics.sent(1);
    conn.send(&conn.format.frame(&message), 1, conn.env.clock.tick());
}

/// As many users as fit, but one in any case.
fn fitting(attendance: &Attendance, bytes: usize) -> Vec<&str> {
    let mut left = bytes;
    let fits = |(index, user): &(usize, &Arc<str>)| {
        left = left.saturating_sub(user.len() + QUOTES);
        *index == 0 || left > 0
    };
    let users = attendance.users.iter().enumerate().take_while(fits);
    users.map(|(_, user)| &**user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_as_many_users_as_fit_and_one_in_any_case() {
        let attendance = Attendance {
            count: 3,
            users: vec!["ann".into(), "bob".into(), "cleo".into()],
            more: false,
        };
        assert_eq!(fitting(&attendance, 100), ["ann", "bob", "cleo"]);
        assert_eq!(fitting(&attendance, 13), ["ann", "bob"]);
        assert_eq!(fitting(&attendance, 0), ["ann"]);
    }
}
