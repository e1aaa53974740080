//! What a session does with what it reads. Everything here is synchronous: it runs inside one poll of the session,
//! on a buffer that belongs to the worker thread.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::session::Session;
use super::socket::InFlight;
use crate::ledger::Identity;
use crate::policy::Event;
use crate::retry::{Retry, again_after};
use crate::stats::Initiator;
use crate::wire::frame::{self, Frame, opcode};
use crate::wire::message::{Incoming, Payload};

/// Bytes read at once; also bounds a frame (the gateway's messages are at most 64 KiB and an envelope).
pub(super) const BUFFER: usize = 256 * 1024;
/// Messages kept that came before their room's `joined`.
const MOST_EARLY: usize = 1024;

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { buffer: vec![0; BUFFER], seen: Seen::default() });
}

/// One worker thread's buffer. Sockets keep only the beginning of a frame that has not come whole.
pub(super) struct Scratch {
    pub(super) buffer: Vec<u8>,
    pub(super) seen: Seen,
}

/// What one read brought, counted once for all of it.
#[derive(Default)]
pub(super) struct Seen {
    deliveries: u64,
    announcements: u64,
    /// Microseconds.
    latencies: Vec<u64>,
}

impl Session {
    /// Takes the whole frames at the front of `bytes`, keeps the rest.
    pub(super) fn consume(&mut self, mut bytes: &[u8], seen: &mut Seen) {
        let now = self.shared().now();
        while self.ended.is_none() {
            match frame::decode(bytes, BUFFER - 16) {
                Ok(Some((frame, used))) => {
                    self.frame(&frame, now, seen);
                    bytes = &bytes[used..];
                }
                Ok(None) => break,
                Err(error) => self.broken(&error.to_string(), now),
            }
        }
        self.partial = bytes.to_vec();
        let stats = &self.shared().stats;
        if seen.deliveries > 0 {
            stats.deliveries.add(std::mem::take(&mut seen.deliveries));
            stats.delivery.record_all(&seen.latencies);
            seen.latencies.clear();
        }
        stats.announcements.add(std::mem::take(&mut seen.announcements));
    }

    /// The server broke the protocol: 1002, and no more of it.
    fn broken(&mut self, what: &str, now: Duration) {
        self.shared().stats.errors.add(what);
        self.socket.close(1002);
        self.end(1002, Initiator::Client, now);
    }

    fn frame(&mut self, frame: &Frame<'_>, now: Duration, seen: &mut Seen) {
        match frame.opcode {
            opcode::PING => drop(self.socket.send(opcode::PONG, frame.payload)),
            opcode::CLOSE => {
                let code = frame::close_code(frame.payload);
                let echo = frame.payload.get(..2).unwrap_or_default();
                // the echo fails when ours went out first: then this is the answer to it
                match self.socket.send(opcode::CLOSE, echo) {
                    Ok(()) | Err(super::socket::NotSent::Full) => self.end(code, Initiator::Server, now),
                    Err(super::socket::NotSent::Closed) => self.end(code, Initiator::Client, now),
                }
            }
            opcode::TEXT if frame.fin => self.text(frame.payload, now, seen),
            opcode::TEXT | opcode::CONTINUATION => {
                if self.fragments.len() + frame.payload.len() > BUFFER {
                    return self.broken("a fragmented message is too large", now);
                }
                self.fragments.extend_from_slice(frame.payload);
                if frame.fin {
                    let message = std::mem::take(&mut self.fragments);
                    self.text(&message, now, seen);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &[u8], now: Duration, seen: &mut Seen) {
        let Ok(message) = Incoming::parse(text) else {
            self.shared().stats.errors.add("unreadable message");
            return;
        };
        match &*message.kind.0 {
            "room_message" => self.room_message(&message, now, seen),
            "user_joined" | "user_left" => seen.announcements += 1,
            "ack" => self.ack(&message, now),
            "joined" => self.joined(&message, now),
            "gap" => self.gap(&message, now),
            "welcome" => self.welcome(&message, now),
            "server_shutdown" => {
                let reconnect_delay = message.reconnect_delay.map(Duration::from_millis);
                self.told = Some(Event::ServerShutdown { reconnect_delay });
            }
            "error" => self.error(&message, now),
            _ => {}
        }
    }

    fn room_message(&mut self, message: &Incoming<'_>, now: Duration, seen: &mut Seen) {
        seen.deliveries += 1;
        let run = self.shared().run;
        let payload = message.payload.map(RawValue::get);
        let payload = payload.and_then(|text| serde_json::from_str::<Payload<'_>>(text).ok());
        let own = payload.as_ref().filter(|payload| payload.run == run);
        if let Some(own) = own {
            seen.latencies
                .push((now.as_micros() as u64).saturating_sub(own.sent));
        }
        let identity = payload.as_ref().map_or_else(Identity::default, Payload::identity);
        let (Some(name), Some(offset)) = (&message.room_id, message.offset) else {
            return;
        };
        let Some(room) = self.rooms.iter_mut().find(|room| room.room.name == name.0) else {
            return;
        };
        let Some(key) = room.key else {
            if room.early.len() < MOST_EARLY {
                room.early.push((offset, identity));
            }
            return;
        };
        let mut ledger = room.room.ledger.lock();
        if ledger.deliver(key, offset, identity, now)
            && own.is_some_and(|own| !self.client.shared.ledger.seen.is_first(own.sequence))
        {
            ledger.repeated();
        }
    }

    fn ack(&self, message: &Incoming<'_>, now: Duration) {
        let Some(publish) = message
            .sequence()
            .and_then(|sequence| self.socket.answered(sequence))
        else {
            return;
        };
        let shared = self.shared();
        shared.stats.acked.add(1);
        shared
            .stats
            .acked_again
            .add(u64::from(message.duplicate == Some(true)));
        shared.stats.ack.record(now.saturating_sub(publish.sent));
        if let (Some(epoch), Some(offset)) = (&message.epoch, message.offset)
            && let Some(room) = self.rooms.get(publish.room as usize)
        {
            let identity = Identity::new(shared.run, publish.sequence);
            let mut ledger = room.room.ledger.lock();
            if ledger.acked(&epoch.0, offset, identity, now) && !shared.ledger.seen.is_first(publish.sequence)
            {
                ledger.repeated();
            }
        }
    }

    fn gap(&self, message: &Incoming<'_>, now: Duration) {
        let (Some(name), Some(epoch)) = (&message.room, &message.epoch) else {
            return;
        };
        let (Some(from), Some(to)) = (message.from, message.to) else {
            return;
        };
        if let Some(room) = self.rooms.iter().find(|room| room.room.name == name.0)
            && let Some(key) = room.key
        {
            room.room.ledger.lock().gap(key, &epoch.0, from, to, now);
        }
    }

    fn welcome(&mut self, message: &Incoming<'_>, now: Duration) {
        let server = message.server_id.as_ref().map_or("unknown", |server| &*server.0);
        if self.server.is_none() {
            self.server = Some(self.shared().stats.servers.opened(server));
        }
        self.send_joins(now);
    }

    fn joined(&mut self, message: &Incoming<'_>, now: Duration) {
        let Some(name) = message.room.as_ref().or(message.room_id.as_ref()) else {
            return;
        };
        let Some(index) = self.rooms.iter().position(|room| room.room.name == name.0) else {
            return;
        };
        let shared = Arc::clone(self.shared());
        let membership = &mut self.rooms[index];
        let room = Arc::clone(&membership.room);
        let epoch = message.epoch.as_ref().map_or("", |epoch| &*epoch.0);
        let offset = message.offset.unwrap_or(0);
        let recovered = message.recovered == Some(true);
        if let Some(key) = membership.key {
            // the answer to a join that was sent again: everything since then comes again
            if recovered {
                room.ledger.lock().again(key, offset);
            }
            return;
        }
        let from = match &membership.asked {
            Some((_, from)) if recovered => {
                shared.stats.recovered(offset.saturating_sub(*from));
                *from
            }
            Some(_) => {
                let reason = message.reason.as_ref().map_or("no reason", |reason| &*reason.0);
                shared.stats.not_recovered.add(reason);
                offset
            }
            None => offset,
        };
        let mut ledger = room.ledger.lock();
        if let Some((before, _)) = membership.asked.as_ref().filter(|_| recovered) {
            ledger.goes_on(before, epoch, offset);
        }
        let (key, coverage) = ledger.join(epoch, from, now);
        for (early, identity) in std::mem::take(&mut membership.early) {
            if early > offset {
                ledger.deliver(key, early, identity, now);
            }
        }
        drop(ledger);
        membership.key = Some(key);
        self.client
            .handover(index, &room, |handover| handover.joined(key, coverage));
        if self.rooms.iter().all(|room| room.key.is_some()) {
            self.all_joined(now);
        }
    }

    fn error(&self, message: &Incoming<'_>, now: Duration) {
        let code = message
            .code
            .as_ref()
            .map_or("error without a code", |code| &*code.0);
        let (shared, stats) = (self.shared(), &self.shared().stats);
        let publish = message
            .sequence()
            .and_then(|sequence| self.socket.answered(sequence));
        let Some(publish) = publish else {
            return stats.errors.add(code);
        };
        stats.publish_errors.add(code);
        if message.temporary != Some(true) || !shared.retries.is_on() {
            return stats.refused_publishes.add(code);
        }
        let retry = Retry {
            client: self.client.index,
            publish: InFlight {
                refusals: publish.refusals.saturating_add(1),
                ..publish
            },
            at: now + again_after(publish.refusals, &mut rand::rng()),
            refused: Some(code.into()),
        };
        shared.retries.keep(retry, now, stats);
    }

    fn end(&mut self, code: u16, initiator: Initiator, now: Duration) {
        // an echo of our own close may carry another code: ours is what was asked for
        let code = if initiator == Initiator::Client {
            self.close_sent.unwrap_or(code)
        } else {
            code
        };
        self.ended = Some(code);
        self.shared().stats.closes.add(code, initiator, now);
    }

    /// The connection ended without a close frame from the server.
    pub(super) fn cut(&mut self) {
        let now = self.shared().now();
        match self.close_sent {
            Some(code) => self.end(code, Initiator::Client, now),
            None => self.end(1006, Initiator::None, now),
        }
    }

    pub(super) fn shared(&self) -> &Arc<super::Shared> {
        &self.client.shared
    }
}
