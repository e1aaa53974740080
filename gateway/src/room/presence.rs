//! Who is in a room. A shared broker knows it of the whole fleet; a gateway that is alone finds it in its own rooms.

use std::sync::Arc;

use super::members::Members;
use super::{Room, Rooms};
use crate::broker::{Attendance, Attendee, Broker, BrokerError, Event, Publish, Roll, StreamKey};
use crate::session::{Conn, Env};

/// Users that one answer names, at most.
pub const PAGE_USERS: usize = 500;

/// Why it is not told who is in a room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// Presence of this room is off; `--presence` says so.
    #[error("it is not known who is in this room: presence is off")]
    Off,
    /// The broker did not answer; try again later.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Rooms {
    /// Who is in a room, in the whole fleet.
    pub async fn presence(&self, roll: Roll, broker: &dyn Broker) -> Result<Attendance, PresenceError> {
        let key = StreamKey::Room(Arc::clone(&roll.room));
        if !self.env.presences.of(&key) {
            return Err(PresenceError::Off);
        }
        match broker.attendance(roll.clone()) {
            Some(answer) => Ok(answer.await?),
            None => Ok(self.local_attendance(&key, &roll)),
        }
    }

    fn local_attendance(&self, key: &StreamKey, roll: &Roll) -> Attendance {
        if let Some(room) = self.find(key) {
            return room.attendance(roll, &self.env);
        }
        let (count, users) = self
            .env
            .absent
            .of(&roll.room, roll.after.as_deref(), roll.limit + 1);
        page(count, users, roll.limit)
    }

    /// Announces users that are gone from rooms, until dropped. With a shared broker there is nothing to do: it does it.
    pub async fn announce_gone(&self, broker: &dyn Broker) {
        let absent = &self.env.absent;
        loop {
            let gone = absent.next().await;
            let left = gone.iter().filter(|(_, room)| self.is_announced(room));
            let left = left.map(|(user, room)| {
                let event = Event::UserLeft {
                    user_id: Arc::clone(user),
                    server_id: Arc::clone(&self.env.server_id),
                };
                announcement(room, event)
            });
            broker.publish(left.collect());
            let back = absent.told(&gone);
            broker.publish(
                back.into_iter()
                    .map(|(room, joined)| announcement(&room, joined))
                    .collect(),
            );
        }
    }

    fn is_announced(&self, room: &Arc<str>) -> bool {
        let here = self.find(&StreamKey::Room(Arc::clone(room)));
        here.is_some_and(|here| self.env.announce_members.allows(here.len() + 1))
    }

    pub(super) fn announce_join(&self, room: &Room, conn: &Conn, broker: &dyn Broker) {
        if let Some(name) = room.name() {
            broker.publish(vec![announcement(name, joined(conn, &self.env))]);
        }
    }
}

impl Room {
    fn attendance(&self, roll: &Roll, env: &Env) -> Attendance {
        let after = roll.after.as_deref();
        self.with_members(|members, users| {
            // under the room's lock, as joins and leaves: nobody is on both lists, or on none
            let (away, mut names) = env.absent.of(&roll.room, after, roll.limit + 1);
            let mut here: Vec<_> = members
                .after(after)
                .chunk_by(|one, other| one.user == other.user)
                .filter_map(|devices| devices.first())
                .map(|conn| Arc::clone(&conn.user))
                .take(roll.limit + 1)
                .collect();
            here.append(&mut names);
            here.sort_unstable();
            page(users + away, here, roll.limit)
        })
    }
}

/// Lets it be known who has come to a room, in the order of joins and leaves; true when the caller is to announce it.
pub(super) fn enters(
    room: Option<&Arc<str>>,
    conn: &Conn,
    (members, users): (&Members, &mut u32),
    env: &Env,
    broker: &dyn Broker,
) -> bool {
    let Some(room) = room else { return false };
    let first = !members.has_other_of(conn);
    *users += u32::from(first);
    let attendee = Attendee {
        room,
        user: &conn.user,
        connection: &conn.id.text(&env.instance),
    };
    !broker.enter(&attendee, members.len() == 1)
        && first
        && env.absent.returns(room, &conn.user, || joined(conn, env))
        && env.announce_members.allows(members.len())
}

/// Lets it be known who has left.
pub(super) fn exits(
    room: Option<&Arc<str>>,
    conn: &Conn,
    (members, users): (&Members, &mut u32),
    env: &Env,
    broker: &dyn Broker,
) {
    let Some(room) = room else { return };
    let last = !members.has_other_of(conn);
    *users -= u32::from(last);
    let attendee = Attendee {
        room,
        user: &conn.user,
        connection: &conn.id.text(&env.instance),
    };
    if !broker.exit(&attendee, members.is_empty()) && last {
        env.absent.leaves(room, &conn.user, env.presences.hold());
    }
}

/// The page that begins with these users.
fn page(count: usize, mut users: Vec<Arc<str>>, limit: usize) -> Attendance {
    let more = users.len() > limit;
    users.truncate(limit);
    Attendance {
        count: count as u64,
        users,
        more,
    }
}

fn announcement(room: &Arc<str>, event: Event) -> Publish {
    Publish {
        stream: StreamKey::Room(Arc::clone(room)),
        event,
        msg_id: None,
        reply: None,
    }
}

/// The announcement of a connection's user.
fn joined(conn: &Conn, env: &Env) -> Event {
    Event::UserJoined {
        user_id: Arc::clone(&conn.user),
        server_id: Arc::clone(&env.server_id),
        connection: conn.id.text(&env.instance),
    }
}
