//! One stream: its position, what it keeps, and what is on its way to its subscribers.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::log::{Budget, Log, name};
use crate::broker::{Accepted, BrokerError, Crowded, Delivery, Page, Position, Publish, Reading, Sink};
use crate::config::Retention;

/// Deliveries that may wait for one stream's deliverer; more are refused as overload.
const OUTBOX: usize = 16_384;
/// Bytes of payload that may wait there; more are refused as overload.
const OUTBOX_BYTES: usize = 4 << 20;
/// Rounds after which a deliverer hands over to a task of its own, so that one session is not held for ever.
const ROUNDS: usize = 8;

pub(super) struct Stream {
    retention: Retention,
    state: Mutex<State>,
}

struct State {
    epoch: Arc<str>,
    offset: u64,
    last_message: Instant,
    log: Option<Box<Log>>,
    outbox: Vec<Delivery>,
    /// Payload in the outbox.
    outbox_bytes: usize,
    delivering: bool,
}

/// What came of a round.
enum Round {
    /// Nothing is left, and nobody delivers any more.
    Done,
    /// There may be more.
    Again,
    /// There may be more, after this.
    After(Crowded),
}

impl Stream {
    pub(super) fn new(epoch: Arc<str>, retention: Retention, now: Instant) -> Self {
        Self {
            retention,
            state: Mutex::new(State {
                epoch,
                offset: 0,
                last_message: now,
                log: None,
                outbox: Vec::new(),
                outbox_bytes: 0,
                delivering: false,
            }),
        }
    }

    pub(super) fn position(&self) -> Position {
        self.state.lock().position()
    }

    /// Drops what it has kept for too long.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.state.lock();
        if state
            .log
            .as_mut()
            .is_some_and(|log| log.expire(self.retention.age(), now))
        {
            state.log = None;
        }
    }

    /// Whether it has had no message since `then`, and nobody delivers.
    pub(super) fn is_silent_since(&self, then: Instant) -> bool {
        let state = self.state.lock();
        !state.delivering && state.last_message < then
    }

    /// Gives the message its place, keeps it, and puts it into the outbox.
    pub(super) fn accept(&self, publish: Publish, budget: &Arc<Budget>, now: Instant) {
        let Publish {
            stream,
            event,
            msg_id,
            reply,
        } = publish;
        let ephemeral = self.retention == Retention::Ephemeral;
        let msg_id = msg_id.filter(|_| !ephemeral).map(|id| name(id.parts(&event)));
        let outcome = {
            let mut state = self.state.lock();
            if let Some(first) = state.known(msg_id.as_deref(), now) {
                Ok(first)
            } else if state.outbox.len() >= OUTBOX || state.outbox_bytes >= OUTBOX_BYTES {
                Err(BrokerError::Overloaded)
            } else {
                state.outbox_bytes += event.payload().map_or(0, |payload| payload.get().len());
                state.last_message = now;
                let mut delivery = Delivery {
                    stream,
                    position: None,
                    event: Arc::new(event),
                };
                if !ephemeral {
                    state.offset += 1;
                    delivery.position = Some(state.position());
                    state.keep(&delivery, self.retention, msg_id, budget, now);
                }
                let position = delivery.position.clone();
                state.outbox.push(delivery);
                Ok(position.unwrap_or_else(Position::none).into())
            }
        };
        if let Some(reply) = reply {
            reply(outcome);
        }
    }

    pub(super) fn read(&self, reading: &Reading, now: Instant) -> Page {
        let Reading {
            span,
            messages,
            bytes,
            ..
        } = *reading;
        let state = self.state.lock();
        let read = |log: &Log| log.read(span, messages, bytes, self.retention.age(), now);
        let (messages, more) = state.log.as_deref().map(read).unwrap_or_default();
        Page {
            position: state.position(),
            messages,
            more,
        }
    }

    /// Becomes the deliverer if there is something to deliver and nobody does.
    pub(super) fn deliver(self: Arc<Self>, sink: Arc<dyn Sink>) {
        {
            let mut state = self.state.lock();
            if state.delivering || state.outbox.is_empty() {
                return;
            }
            state.delivering = true;
        }
        let mut crowded = None;
        for _ in 0..ROUNDS {
            match self.deliver_round(&*sink) {
                Round::Done => return,
                Round::Again => {}
                Round::After(wait) => {
                    crowded = Some(wait);
                    break;
                }
            }
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.deliver_on(sink, crowded));
        } else {
            while !matches!(self.deliver_round(&*sink), Round::Done) {}
        }
    }

    /// Delivers until the outbox is empty, as fast as members take it.
    async fn deliver_on(self: Arc<Self>, sink: Arc<dyn Sink>, mut crowded: Option<Crowded>) {
        loop {
            match crowded.take() {
                Some(wait) => wait.await,
                None => tokio::task::yield_now().await,
            }
            match self.deliver_round(&*sink) {
                Round::Done => return,
                Round::Again => {}
                Round::After(wait) => crowded = Some(wait),
            }
        }
    }

    /// Delivers what is in the outbox.
    fn deliver_round(&self, sink: &dyn Sink) -> Round {
        let batch = {
            let mut state = self.state.lock();
            if state.outbox.is_empty() {
                state.delivering = false;
                return Round::Done;
            }
            state.outbox_bytes = 0;
            std::mem::take(&mut state.outbox)
        };
        sink.deliver(batch).map_or(Round::Again, Round::After)
    }
}

impl State {
    fn position(&self) -> Position {
        Position {
            epoch: Arc::clone(&self.epoch),
            offset: self.offset,
        }
    }

    /// What was answered to the first message with this `msgId`.
    fn known(&mut self, msg_id: Option<&str>, now: Instant) -> Option<Accepted> {
        let offset = self.log.as_mut()?.find(msg_id?, now)?;
        Some(Accepted {
            position: Position {
                epoch: Arc::clone(&self.epoch),
                offset,
            },
            duplicate: true,
        })
    }

    fn keep(
        &mut self,
        delivery: &Delivery,
        retention: Retention,
        msg_id: Option<Arc<str>>,
        budget: &Arc<Budget>,
        now: Instant,
    ) {
        let most = match retention {
            Retention::Keep { messages, .. } => messages as usize,
            Retention::Off | Retention::Ephemeral => 0,
        };
        if most == 0 && msg_id.is_none() {
            return;
        }
        let offset = self.offset;
        let log = self
            .log
            .get_or_insert_with(|| Box::new(Log::new(Arc::clone(budget))));
        if let Some(msg_id) = msg_id {
            log.remember(msg_id, offset, now);
        }
        if most > 0 {
            log.append(offset, Arc::clone(&delivery.event), most, now);
        }
    }
}
