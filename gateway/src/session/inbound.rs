//! What a client's messages do.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::sweep::pong_latency;
use super::{Conn, Place, Session, Step, end_of};
use crate::admission::moment;
use crate::auth::{AuthError, Grants};
use crate::broker::{Accepted, BrokerError, Event, MsgId, Publish, Reply, StreamKey, WorkerEvent};
use crate::clock::Clock;
use crate::limits::Verdict;
use crate::protocol::{
    ClientMessage, CloseReason, ErrorCode, Format, MessageKind, ParseError, Rejected, RequestId, RoomPlace,
    ServerMessage,
};
use crate::websocket::{self, Incoming, Opcode, Rules};

/// What the messages of one read led to, kept so that it goes out together.
#[derive(Default)]
pub(super) struct Turn {
    format: Format,
    replies: Vec<u8>,
    count: u32,
    publish: Vec<Publish>,
    pub(super) events: Vec<(WorkerEvent, Reply)>,
}

impl Turn {
    fn reply(&mut self, message: &ServerMessage<'_>) {
        self.format.encode_frame(message, &mut self.replies);
        self.count += 1;
    }

    pub(super) fn error(&mut self, code: ErrorCode, id: Option<RequestId<'_>>) {
        self.reply(&ServerMessage::error(code, id.map(RequestId::raw)));
    }
}

impl Session {
    /// Serves the whole messages in `buf`; tells how many bytes are done with.
    pub(super) fn serve_messages(&mut self, buf: &mut [u8]) -> (usize, Step) {
        let env = Arc::clone(&self.gateway().env);
        self.conn.touch(env.clock.tick(), false);
        if self.deaf {
            return (buf.len(), Step::Read);
        }
        let rules = Rules {
            max_message: self.gateway().settings.limits.max_message_bytes(),
            deflate: self.conn.format.deflate.is_some(),
        };
        let mut turn = Turn {
            format: self.conn.format,
            ..Turn::default()
        };
        let mut used = 0;
        let step = loop {
            let rest = buf.get_mut(used..).unwrap_or_default();
            match self.decoder.next(rest, rules) {
                Ok(decoded) => {
                    used += decoded.used;
                    let Some(message) = decoded.message else {
                        break Step::Read;
                    };
                    if let Some(step) = self.serve_message(message, decoded.cost, &mut turn) {
                        break step;
                    }
                }
                Err(violation) => {
                    used = buf.len();
                    self.flush(&mut turn);
                    self.fail(violation.close_reason());
                    break Step::Read;
                }
            }
        };
        self.flush(&mut turn);
        (used, step)
    }

    /// The client broke the protocol, or sent what is not served: nothing it sends is looked at any more.
    fn fail(&mut self, reason: CloseReason) {
        self.deaf = true;
        self.conn.close(reason);
        self.conn.finish_writing();
    }

    /// Sends the replies and publishes what the turn has gathered.
    pub(super) fn flush(&self, turn: &mut Turn) {
        let env = &self.gateway().env;
        if turn.count > 0 {
            env.metrics.sent(u64::from(turn.count));
            let replies = std::mem::take(&mut turn.replies).into();
            self.conn
                .send(&replies, std::mem::take(&mut turn.count), env.clock.tick());
        }
        if !turn.publish.is_empty() {
            self.gateway().broker.publish(std::mem::take(&mut turn.publish));
        }
        if !turn.events.is_empty() {
            self.gateway().broker.append(std::mem::take(&mut turn.events));
        }
    }

    fn serve_message(&mut self, message: Incoming<'_>, bytes: usize, turn: &mut Turn) -> Option<Step> {
        if self.conn.closed().is_some() {
            // after our close frame only the peer's matters (RFC 6455 §5.5.1)
            if let Incoming::Close(close) = message {
                self.conn.peer_closed(close.code);
            }
            return None;
        }
        match message {
            Incoming::Text(text) if turn.format.codec.opcode() == Opcode::Text => {
                return self.serve_data(text.len(), bytes, || Ok(text), turn);
            }
            Incoming::Binary(data) if turn.format.codec.opcode() == Opcode::Binary => {
                let (codec, max) = (
                    turn.format.codec,
                    self.gateway().settings.limits.max_message_bytes(),
                );
                return self.serve_data(data.len(), bytes, || codec.to_json(&data, max), turn);
            }
            // the kind of frame that the negotiated codec does not use (RFC 6455 §7.4.1)
            Incoming::Text(_) | Incoming::Binary(_) => {
                self.flush(turn);
                self.conn.close(CloseReason::Unsupported);
            }
            Incoming::Ping(payload) => {
                if self.admit(bytes, turn) == Verdict::Admit {
                    self.flush(turn);
                    self.conn.send_control(&websocket::pong_frame(payload));
                }
            }
            Incoming::Pong(payload) => {
                let now = self.gateway().env.clock.now();
                if let Some(latency) = pong_latency(payload, now) {
                    self.gateway()
                        .env
                        .metrics
                        .heartbeat_latency
                        .observe(latency.as_secs_f64() * 1_000.0);
                }
            }
            Incoming::Close(close) => {
                self.flush(turn);
                self.conn.peer_closed(close.code);
            }
        }
        None
    }

    fn admit(&mut self, bytes: usize, turn: &mut Turn) -> Verdict {
        let gateway = self.permit.gateway();
        let verdict = self
            .limiter
            .check(moment(&gateway.env.clock), bytes, &gateway.inbound_rates);
        if verdict == Verdict::Close {
            self.flush(turn);
            self.conn.close(CloseReason::RateLimited);
        }
        verdict
    }

    /// Serves a message of `size` bytes in a frame of `bytes`, whose JSON text `read` gives.
    fn serve_data<'d>(
        &mut self,
        size: usize,
        bytes: usize,
        read: impl FnOnce() -> Result<Cow<'d, str>, ParseError>,
        turn: &mut Turn,
    ) -> Option<Step> {
        let verdict = self.admit(bytes, turn);
        if verdict == Verdict::Close {
            return None;
        }
        let room_name_bytes = self.gateway().settings.limits.room_name_bytes;
        let text = read();
        let parsed = match &text {
            Ok(text) => ClientMessage::parse(text, room_name_bytes),
            Err(error) => Err(Rejected {
                error: *error,
                id: None,
            }),
        };
        let kind = parsed.as_ref().map_or(MessageKind::Invalid, ClientMessage::kind);
        self.gateway().env.metrics.received(kind, size);
        self.conn.touch(self.gateway().env.clock.tick(), true);
        match (parsed, verdict) {
            (parsed, Verdict::TooManyMessages) => turn.error(ErrorCode::MessageRateExceeded, id_of(&parsed)),
            (parsed, Verdict::TooManyBytes) => turn.error(ErrorCode::ByteRateExceeded, id_of(&parsed)),
            (Ok(message), _) => return self.serve_parsed(message, turn),
            (Err(Rejected { error, id }), _) => {
                let (text, id) = (error.to_string(), id.map(RequestId::raw));
                turn.reply(&ServerMessage::error_because(error.code(), &text, id));
            }
        }
        None
    }

    fn serve_parsed(&mut self, message: ClientMessage<'_>, turn: &mut Turn) -> Option<Step> {
        match message {
            ClientMessage::Join {
                room,
                place: None,
                id,
            } => return self.join(room, id, turn),
            ClientMessage::Join {
                room,
                place: Some(place),
                id,
            } => return self.resume_rooms(vec![RoomPlace { room, place }], None, id, turn),
            ClientMessage::Resume { rooms, user, id } => return self.resume_rooms(rooms, user, id, turn),
            ClientMessage::History {
                room,
                limit,
                before,
                id,
            } => return self.history(&room, limit, before, id, turn),
            ClientMessage::Presence {
                room,
                limit,
                after,
                id,
            } => return self.presence(&room, limit, after.as_deref(), id, turn),
            ClientMessage::Leave { room, .. } => {
                self.flush(turn);
                self.leave(&room);
                turn.reply(&ServerMessage::Left { room: &room });
            }
            ClientMessage::RoomMessage {
                room,
                payload,
                id,
                msg_id,
            } => self.room_message(&room, payload, [id, msg_id], turn),
            ClientMessage::DirectMessage {
                target_user_id,
                payload,
                id,
                msg_id,
            } => {
                let event = Event::DirectMessage {
                    from_user_id: Arc::clone(&self.conn.user),
                    payload: payload.to_owned(),
                    timestamp: Clock::unix_millis(),
                };
                self.publish(StreamKey::User(target_user_id.into()), event, [id, msg_id], turn);
            }
            ClientMessage::Event {
                name,
                payload,
                id,
                msg_id,
            } => self.event(&name, payload, [id, msg_id], turn),
            ClientMessage::Refresh { token, id } => self.refresh(&token, id, turn),
            ClientMessage::Ping => turn.reply(&ServerMessage::Pong {}),
        }
        None
    }

    /// Goes on with another token; rooms that it does not open are left.
    fn refresh(&mut self, token: &str, id: Option<RequestId<'_>>, turn: &mut Turn) {
        let id = id.map(RequestId::raw);
        let gateway = self.gateway();
        let now = Clock::unix_seconds();
        let place = Place::new(self.conn.id, self.slot);
        let renewed = gateway.authenticator.renew(&self.conn.user, token, now);
        let identity = match renewed.and_then(|who| gateway.let_go_on(who, place)) {
            Ok(identity) => identity,
            Err(error) => {
                let code = match error {
                    AuthError::KeysUnavailable => ErrorCode::KeysUnavailable,
                    AuthError::RevocationsUnknown => ErrorCode::BrokerUnavailable,
                    _ => ErrorCode::InvalidToken,
                };
                return turn.reply(&ServerMessage::error_because(code, &error.to_string(), id));
            }
        };
        self.conn.renew(end_of(identity.expires_at, gateway));
        self.grants = identity.grants;
        turn.reply(&ServerMessage::Refreshed {
            expires_at: identity.expires_at.map(|at| at.saturating_mul(1_000)),
            id,
        });
        let names = self.rooms.iter().filter_map(|room| room.name().cloned());
        let closed: Vec<_> = names
            .filter(|room| !self.may(|grants| grants.may_join(room)))
            .collect();
        for room in closed {
            self.flush(turn);
            self.leave(&room);
            turn.reply(&ServerMessage::Left { room: &room });
        }
    }

    pub(super) fn may(&self, granted: impl FnOnce(&Grants) -> bool) -> bool {
        self.grants.as_deref().is_none_or(granted)
    }

    fn room_message(&self, room: &str, payload: &RawValue, ids: [Option<RequestId<'_>>; 2], turn: &mut Turn) {
        match self.find(room) {
            Some(_) if !self.may(|grants| grants.may_publish(room)) => {
                turn.error(ErrorCode::Forbidden, ids[0]);
            }
            Some(room) => {
                let event = Event::RoomMessage {
                    user_id: Arc::clone(&self.conn.user),
                    payload: payload.to_owned(),
                    timestamp: Clock::unix_millis(),
                    server_id: Arc::clone(&self.gateway().env.server_id),
                };
                self.publish(room.key().clone(), event, ids, turn);
            }
            None => turn.error(ErrorCode::NotInRoom, ids[0]),
        }
    }

    fn publish(
        &self,
        stream: StreamKey,
        event: Event,
        [id, msg_id]: [Option<RequestId<'_>>; 2],
        turn: &mut Turn,
    ) {
        let reply = answer(Arc::clone(&self.conn), id.map(|id| id.raw().to_owned()));
        turn.publish.push(Publish {
            stream,
            event,
            msg_id: msg_id.map(|id| MsgId::User(id.said().into())),
            reply: Some(reply),
        });
    }
}

fn id_of<'a>(parsed: &Result<ClientMessage<'a>, Rejected<'a>>) -> Option<RequestId<'a>> {
    match parsed {
        Ok(message) => message.id(),
        Err(rejected) => rejected.id,
    }
}

/// Tells the sender what became of its message: an `ack` if it gave an `id`, an `error` in any case.
pub(super) fn answer(conn: Arc<Conn>, id: Option<Box<RawValue>>) -> Reply {
    Box::new(move |outcome| {
        let text;
        let message = match (&outcome, &id) {
            (Ok(_), None) => return,
            (Ok(Accepted { position, duplicate }), Some(id)) => ServerMessage::Ack {
                id,
                epoch: &position.epoch,
                offset: position.offset,
                duplicate: *duplicate,
            },
            (Err(error), id) => {
                text = error.to_string();
                ServerMessage::error_because(code_of(error), &text, id.as_deref())
            }
        };
        conn.env.metrics.sent(1);
        conn.send_soon(&conn.format.frame(&message), 1, conn.env.clock.tick());
    })
}

pub(super) const fn code_of(error: &BrokerError) -> ErrorCode {
    match error {
        BrokerError::Unavailable => ErrorCode::BrokerUnavailable,
        BrokerError::Unconfirmed => ErrorCode::Unconfirmed,
        BrokerError::Overloaded => ErrorCode::Overloaded,
        BrokerError::Refused(_) => ErrorCode::BrokerRefused,
        BrokerError::EventsOff => ErrorCode::EventsOff,
    }
}
