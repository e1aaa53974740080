//! What a client that comes back gets of a stream: it says where it was, and gets everything since, or is told why not.
//!
//! It is a member before anything is read, but held ([`super::held`]): what is delivered meanwhile goes behind what was
//! read, each message once.

use std::sync::Arc;

use super::batch::Batch;
use super::block::{Block, Entry};
use super::outcome::Begin;
use super::{JoinError, JoinStep, Room, Rooms};
use crate::broker::{Broker, BrokerError, Kept, Page, Position, Reading, Span, StreamKey};
use crate::protocol::{Lost, ServerMessage};
use crate::session::{Conn, Env};

/// Messages that are read at once, for a client that comes back or asks for history.
pub(crate) const PAGE_MESSAGES: usize = 300;
/// Bytes that are read at once, about.
pub(crate) const PAGE_BYTES: usize = 256 << 10;
/// Bytes of what was read that are written at once; more only when they are on their way.
const CHUNK_BYTES: usize = 64 << 10;

/// What a client that comes back is told: where it stands then, and what it has missed.
#[derive(Debug)]
struct Answer {
    place: Position,
    missed: Result<Vec<Kept>, Lost>,
}

impl Answer {
    /// All or nothing.
    fn new(page: Page, from: &Position) -> Self {
        let place = page.position;
        let known = from.is_part_of(&place.epoch) && from.offset <= place.offset;
        let next = page.messages.first().map(|kept| kept.offset);
        let whole = || {
            let offsets = page.messages.iter().map(|kept| kept.offset);
            offsets.eq(from.offset + 1..=place.offset)
        };
        let missed = if place.epoch.is_empty() {
            Err(Lost::TooOld)
        } else if !known {
            Err(Lost::EpochChanged)
        } else if page.more && next == Some(from.offset + 1) {
            Err(Lost::Limit)
        } else if whole() {
            Ok(page.messages)
        } else {
            Err(Lost::TooOld)
        };
        Self { place, missed }
    }
}

impl Rooms {
    /// As [`Rooms::join`], for a client that says where it was. One that is a member already gets what comes after that
    /// place again. When what it has missed cannot be read it is no member, unless it is the personal stream.
    pub fn resume(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        key: StreamKey,
        from: Position,
        broker: &Arc<dyn Broker>,
    ) -> JoinStep {
        let (rooms, conn, broker) = (Arc::clone(self), Arc::clone(conn), Arc::clone(broker));
        JoinStep::Wait(Box::pin(async move {
            let room = rooms.find_or_create(&key);
            let step = room.try_join(&conn, Begin::Held, &rooms.env, &*broker);
            let room = rooms
                .join_slowly(room, step, &conn, Begin::Held, key, &broker)
                .await?;
            match recover(&conn, &room, from, &*broker, &rooms.env).await {
                Ok(()) => Ok(room),
                Err(error) => {
                    if room.name().is_some() {
                        rooms.leave(&conn, &room, &*broker);
                    }
                    Err(JoinError::Broker(error))
                }
            }
        }))
    }
}

/// Gives a member that is held what it has missed.
async fn recover(
    conn: &Arc<Conn>,
    room: &Room,
    from: Position,
    broker: &dyn Broker,
    env: &Arc<Env>,
) -> Result<(), BrokerError> {
    let answer = if room
        .position()
        .is_some_and(|here| here == from && !here.epoch.is_empty())
    {
        Answer {
            place: from,
            missed: Ok(Vec::new()),
        }
    } else {
        let reading = Reading {
            stream: room.key().clone(),
            span: Span::After(from.offset),
            messages: PAGE_MESSAGES,
            bytes: PAGE_BYTES,
        };
        Answer::new(broker.history(reading).await?, &from)
    };
    let Answer { place, missed } = answer;
    env.metrics.resumes.count(missed.as_ref().err().copied());
    conn.drained().await;
    tell(conn, room, &place, missed.as_ref().err().copied(), env);
    for chunk in chunks(missed.unwrap_or_default(), &place, env) {
        let batch = Batch::new(room.key().clone(), Block::of(chunk));
        let (frames, messages) = batch.of(conn.id, conn.format);
        env.metrics.sent(u64::from(messages));
        conn.send(&frames, messages, env.clock.tick());
        conn.drained().await;
    }
    room.release(conn, &place, env);
    Ok(())
}

fn tell(conn: &Arc<Conn>, room: &Room, place: &Position, reason: Option<Lost>, env: &Env) {
    let (epoch, offset, recovered) = (&*place.epoch, place.offset, reason.is_none());
    let message = match room.name() {
        Some(room) => ServerMessage::Joined {
            room,
            epoch,
            offset,
            recovered: Some(recovered),
            reason,
        },
        None => ServerMessage::Resumed {
            epoch,
            offset,
            recovered,
            reason,
        },
    };
    env.metrics.sent(1);
    conn.send(&conn.format.frame(&message), 1, env.clock.tick());
}

/// Messages in portions that leave room for others in the connection's queue.
fn chunks(messages: Vec<Kept>, place: &Position, env: &Env) -> Vec<Vec<Entry>> {
    let (most, most_bytes) = (
        (env.queue_messages / 4).max(1),
        (env.queue_bytes / 4).min(CHUNK_BYTES),
    );
    let mut chunks: Vec<Vec<Entry>> = Vec::new();
    let mut bytes = 0;
    for Kept { offset, event } in messages {
        let size = Block::size_of(&event);
        let entry = Entry {
            event,
            position: Some(Position {
                epoch: Arc::clone(&place.epoch),
                offset,
            }),
        };
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < most && bytes + size <= most_bytes => {
                bytes += size;
                chunk.push(entry);
            }
            _ => {
                bytes = size;
                chunks.push(vec![entry]);
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::broker::Event;
    use crate::test_support::env;

    fn at(epoch: &str, offset: u64) -> Position {
        Position {
            epoch: epoch.into(),
            offset,
        }
    }

    fn kept(offset: u64, bytes: usize) -> Kept {
        let event = Event::RoomMessage {
            user_id: "u".into(),
            payload: RawValue::from_string("1".repeat(bytes)).unwrap(),
            timestamp: 0,
            server_id: "s".into(),
        };
        Kept {
            offset,
            event: Arc::new(event),
        }
    }

    fn answer(position: Position, offsets: &[u64], more: bool, from: &Position) -> Result<usize, Lost> {
        let page = Page {
            position,
            messages: offsets.iter().map(|offset| kept(*offset, 1)).collect(),
            more,
        };
        Answer::new(page, from).missed.map(|missed| missed.len())
    }

    #[test]
    fn what_was_missed_is_given_whole_or_the_reason_why_not() {
        let from = at("e", 5);
        assert_eq!(answer(at("e", 5), &[], false, &from), Ok(0));
        assert_eq!(answer(at("e", 7), &[6, 7], false, &from), Ok(2));
        assert_eq!(answer(at("e", 7), &[6], true, &from), Err(Lost::Limit));
        assert_eq!(answer(at("e", 7), &[7], false, &from), Err(Lost::TooOld));
        assert_eq!(answer(at("e", 9), &[7], true, &from), Err(Lost::TooOld));
        assert_eq!(
            answer(at("e", 8), &[6, 8], false, &from),
            Err(Lost::TooOld),
            "a hole"
        );
        assert_eq!(
            answer(at("e", 7), &[6], false, &from),
            Err(Lost::TooOld),
            "an end that is missing"
        );
        assert_eq!(answer(at("e", 7), &[], false, &from), Err(Lost::TooOld));
        assert_eq!(answer(at("f", 5), &[], false, &from), Err(Lost::EpochChanged));
        assert_eq!(
            answer(at("e", 4), &[], false, &from),
            Err(Lost::EpochChanged),
            "offsets went back"
        );
        assert_eq!(
            answer(at("f.5.e", 7), &[6, 7], false, &from),
            Ok(2),
            "another epoch that goes on with all that the client has"
        );
        assert_eq!(
            answer(at("f.4.e", 7), &[6, 7], false, &from),
            Err(Lost::EpochChanged),
            "the client has what was taken back"
        );
        assert_eq!(
            answer(Position::none(), &[], false, &Position::none()),
            Err(Lost::TooOld)
        );
    }

    #[test]
    fn what_was_missed_is_written_in_portions_that_the_queue_has_room_for() {
        let env = Env {
            queue_messages: 40,
            ..env()
        };
        let messages = (1..=25).map(|offset| kept(offset, 10)).collect();
        let sizes = |chunks: Vec<Vec<Entry>>| chunks.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(chunks(messages, &at("e", 25), &env)), [10, 10, 5]);
        let messages = (1..=5).map(|offset| kept(offset, 40_000)).collect();
        assert_eq!(sizes(chunks(messages, &at("e", 5), &env)), [1, 1, 1, 1, 1]);
    }
}
