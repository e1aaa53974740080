//! Clients that come back: what they have missed, and messages that are kept.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::inbound::{Turn, code_of};
use super::membership::code_of_join;
use super::{Aim, Awaited, Conn, Joining, Session, Step};
use crate::broker::{BrokerError, Event, Kept, Page, Position, Reading, Span, StreamKey};
use crate::protocol::{CloseReason, Entry, ErrorCode, Place, RequestId, RoomPlace, ServerMessage};
use crate::room::{JoinError, JoinStep, PAGE_BYTES, PAGE_MESSAGES, Room};

/// A stream, and where the client was in it.
pub(super) struct Wanted {
    stream: StreamKey,
    from: Position,
}

impl Wanted {
    fn new(stream: StreamKey, place: &Place<'_>) -> Self {
        Self {
            stream,
            from: Position {
                epoch: place.epoch.as_ref().into(),
                offset: place.offset,
            },
        }
    }
}

impl Session {
    /// Comes back to the user's personal stream, then to rooms, one after the other.
    pub(super) fn resume_rooms(
        &mut self,
        rooms: Vec<RoomPlace<'_>>,
        user: Option<Place<'_>>,
        id: Option<RequestId<'_>>,
        turn: &mut Turn,
    ) -> Option<Step> {
        self.flush(turn);
        let personal = || StreamKey::User(Arc::clone(&self.conn.user));
        let user = user.map(|place| Wanted::new(personal(), &place));
        let rooms = rooms
            .into_iter()
            .map(|RoomPlace { room, place }| Wanted::new(StreamKey::Room(room.into()), &place));
        // the next one is taken from the end
        let mut wanted: Vec<_> = user.into_iter().chain(rooms).collect();
        wanted.reverse();
        let next = self.resume_next(wanted, id.map(|id| id.raw().to_owned()));
        next.map(Step::Await)
    }

    /// Begins to come back to the next stream that may be.
    pub(super) fn resume_next(
        &mut self,
        mut wanted: Vec<Wanted>,
        id: Option<Box<RawValue>>,
    ) -> Option<Box<Awaited>> {
        while let Some(Wanted { stream, from }) = wanted.pop() {
            if let StreamKey::Room(room) = &stream
                && let Err(code) = self.may_enter(room)
            {
                self.refuse(code, code.text(), id.as_deref());
                self.tell(&ServerMessage::Left { room });
                continue;
            }
            let gateway = self.gateway();
            match gateway
                .rooms
                .resume(&self.conn, stream.clone(), from, &gateway.broker)
            {
                JoinStep::Done(joined) => self.resumed(joined, &stream, id.as_deref()),
                JoinStep::Wait(done) => {
                    let aim = Aim::Resume(stream, wanted);
                    return Some(Box::new(Awaited::Join(Joining { done, aim, id })));
                }
            }
        }
        None
    }

    /// The client came back to a stream, or it could not; it was told unless it could not.
    pub(super) fn resumed(
        &mut self,
        joined: Result<Arc<Room>, JoinError>,
        stream: &StreamKey,
        id: Option<&RawValue>,
    ) {
        let error = match joined {
            Ok(room) if room.name().is_some() => return self.joined_room(Ok(room), id),
            Ok(_) => return,
            Err(error) => error,
        };
        match stream {
            StreamKey::Room(room) => {
                self.rooms.retain(|known| known.name() != Some(room));
                self.refuse(code_of_join(&error), &error.to_string(), id);
                self.tell(&ServerMessage::Left { room });
            }
            // it is held, and cannot be left: on another connection the client can try again
            StreamKey::User(_) | StreamKey::Fleet(_) => drop(self.conn.close(CloseReason::BrokerUnavailable)),
        }
    }

    /// Gives messages of a room that are kept to whoever might join it.
    pub(super) fn history(
        &mut self,
        room: &str,
        limit: u64,
        before: Option<u64>,
        id: Option<RequestId<'_>>,
        turn: &mut Turn,
    ) -> Option<Step> {
        if !self.may(|grants| grants.may_join(room)) {
            turn.error(ErrorCode::Forbidden, id);
            return None;
        }
        self.flush(turn);
        let room: Arc<str> = room.into();
        let most = usize::try_from(limit).unwrap_or(PAGE_MESSAGES);
        let reading = Reading {
            stream: StreamKey::Room(Arc::clone(&room)),
            span: Span::Before(before),
            messages: most.clamp(1, PAGE_MESSAGES),
            // it is one message, and must find room in the connection's queue
            bytes: PAGE_BYTES.min(self.conn.env.queue_bytes / 4 * 3),
        };
        let (conn, id) = (Arc::clone(&self.conn), id.map(|id| id.raw().to_owned()));
        let page = self.gateway().broker.history(reading);
        Some(Step::Await(Box::new(Awaited::Answer(Box::pin(async move {
            let page = page.await;
            conn.drained().await;
            tell_history(&conn, &room, &page, id.as_deref());
        })))))
    }
}

fn tell_history(conn: &Arc<Conn>, room: &str, page: &Result<Page, BrokerError>, id: Option<&RawValue>) {
    let (entries, text): (Vec<_>, String);
    let message = match page {
        Ok(page) => {
            entries = page.messages.iter().filter_map(entry).collect();
            let oldest = page.messages.first().map(|kept| kept.offset);
            ServerMessage::History {
                room,
                epoch: &page.position.epoch,
                offset: page.position.offset,
                messages: &entries,
                next: oldest.filter(|_| page.more),
                id,
            }
        }
        Err(error) => {
            text = error.to_string();
            ServerMessage::error_because(code_of(error), &text, id)
        }
    };
    conn.env.metrics.sent(1);
    conn.send(&conn.format.frame(&message), 1, conn.env.clock.tick());
}

/// A room's message that was kept, in the form in which it is told.
pub(crate) fn entry(kept: &Kept) -> Option<Entry<'_>> {
    match &*kept.event {
        Event::RoomMessage {
            user_id,
            payload,
            timestamp,
            server_id,
        } => Some(Entry {
            user_id,
            payload,
            timestamp: *timestamp,
            server_id,
            offset: kept.offset,
        }),
        Event::DirectMessage { .. }
        | Event::UserJoined { .. }
        | Event::UserLeft { .. }
        | Event::Missing { .. } => None,
    }
}
