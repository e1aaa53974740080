//! The broker of a gateway that runs alone: the semantics of the shared ones, inside one process.
//!
//! A stream costs nothing until its first message. Offsets are assigned under the stream's own lock; delivery happens
//! outside of it: whoever publishes while nobody delivers becomes the deliverer and goes on until the outbox is empty,
//! so concurrent publishers keep one order, and what piles up while a large room is written to goes out as one batch.
//!
//! What bounds it: a shard that holds [`STREAMS_PER_SHARD`] streams forgets those that were silent for
//! [`KEEP_SILENT`]; a forgotten stream begins anew, with a new epoch. While the members of a room do not keep up its outbox
//! fills; it holds [`OUTBOX`] deliveries with [`OUTBOX_BYTES`] of payload, and what is published beyond is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Broker, BrokerError, Crowded, Delivery, Event, Health, Position, Publish, Sink, StreamKey};

/// Shards of the table of streams; a power of two.
const SHARDS: usize = 16;
/// Streams with messages that a shard keeps before it forgets silent ones.
const STREAMS_PER_SHARD: usize = 8_192;
/// How long a stream without messages is safe from being forgotten.
const KEEP_SILENT: Duration = Duration::from_hours(1);
/// Deliveries that may wait for one stream's deliverer; more are refused as overload.
const OUTBOX: usize = 16_384;
/// Bytes of payload that may wait there; more are refused as overload.
const OUTBOX_BYTES: usize = 4 << 20;
/// Rounds after which a deliverer hands over to a task of its own, so that one session is not held for ever.
const ROUNDS: usize = 8;

/// Broker within one process.
pub struct MemoryBroker {
    sink: Arc<dyn Sink>,
    hasher: ahash::RandomState,
    shards: Box<[Mutex<Shard>]>,
}

struct Shard {
    /// Epoch of the streams created from now on; new whenever a stream was forgotten.
    epoch: Arc<str>,
    streams: HashMap<StreamKey, Arc<Stream>, ahash::RandomState>,
}

struct Stream(Mutex<StreamState>);

struct StreamState {
    epoch: Arc<str>,
    offset: u64,
    last_message: Instant,
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

impl std::fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

/// Random text for a stream's life.
fn new_epoch() -> Arc<str> {
    format!("{:016x}", rand::random::<u64>()).into()
}

impl MemoryBroker {
    /// A broker that delivers to `sink`.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        let shard = || {
            Mutex::new(Shard {
                epoch: new_epoch(),
                streams: HashMap::default(),
            })
        };
        Self {
            sink,
            hasher: ahash::RandomState::new(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }

    fn shard(&self, key: &StreamKey) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn stream(&self, key: &StreamKey, now: Instant) -> Arc<Stream> {
        let mut shard = self.shard(key).lock();
        if let Some(stream) = shard.streams.get(key) {
            return Arc::clone(stream);
        }
        if shard.streams.len() >= STREAMS_PER_SHARD {
            forget_silent(&mut shard, now);
        }
        let stream = Arc::new(Stream(Mutex::new(StreamState {
            epoch: Arc::clone(&shard.epoch),
            offset: 0,
            last_message: now,
            outbox: Vec::new(),
            outbox_bytes: 0,
            delivering: false,
        })));
        shard.streams.insert(key.clone(), Arc::clone(&stream));
        stream
    }
}

/// Drops the streams that were silent for long, and begins a new epoch for those created after.
fn forget_silent(shard: &mut Shard, now: Instant) {
    let before = shard.streams.len();
    shard.streams.retain(|_, stream| {
        let state = stream.0.lock();
        state.delivering || now.saturating_duration_since(state.last_message) < KEEP_SILENT
    });
    if shard.streams.len() < before {
        shard.epoch = new_epoch();
    }
}

impl Stream {
    /// Gives the message its place and puts it into the outbox.
    fn accept(&self, publish: Publish, now: Instant) {
        let Publish { stream, event, reply } = publish;
        let outcome = {
            let mut state = self.0.lock();
            if state.outbox.len() >= OUTBOX || state.outbox_bytes >= OUTBOX_BYTES {
                Err(BrokerError::Overloaded)
            } else {
                state.outbox_bytes += payload_bytes(&event);
                state.offset += 1;
                state.last_message = now;
                let position = Position {
                    epoch: Arc::clone(&state.epoch),
                    offset: state.offset,
                };
                let event = Arc::new(event);
                state.outbox.push(Delivery {
                    stream,
                    position: Some(position.clone()),
                    event,
                });
                Ok(position)
            }
        };
        if let Some(reply) = reply {
            reply(outcome);
        }
    }

    /// Becomes the deliverer if there is something to deliver and nobody does.
    fn deliver(self: Arc<Self>, sink: Arc<dyn Sink>) {
        {
            let mut state = self.0.lock();
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
            let mut state = self.0.lock();
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

fn payload_bytes(event: &Event) -> usize {
    match event {
        Event::RoomMessage { payload, .. } | Event::DirectMessage { payload, .. } => payload.get().len(),
        Event::UserJoined { .. } | Event::UserLeft { .. } => 0,
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, batch: Vec<Publish>) {
        let now = Instant::now();
        let mut touched: SmallVec<[Arc<Stream>; 4]> = SmallVec::new();
        let mut announcements = Vec::new();
        let mut last: Option<(StreamKey, Arc<Stream>)> = None;
        for publish in batch {
            if !publish.event.is_sequenced() {
                let Publish { stream, event, reply } = publish;
                announcements.push(Delivery {
                    stream,
                    position: None,
                    event: Arc::new(event),
                });
                if let Some(reply) = reply {
                    reply(Ok(Position {
                        epoch: Arc::from(""),
                        offset: 0,
                    }));
                }
                continue;
            }
            let stream = match &last {
                Some((key, stream)) if *key == publish.stream => Arc::clone(stream),
                _ => {
                    let stream = self.stream(&publish.stream, now);
                    last = Some((publish.stream.clone(), Arc::clone(&stream)));
                    stream
                }
            };
            stream.accept(publish, now);
            if !touched.iter().any(|known| Arc::ptr_eq(known, &stream)) {
                touched.push(stream);
            }
        }
        for stream in touched {
            stream.deliver(Arc::clone(&self.sink));
        }
        if !announcements.is_empty() {
            // not waited for: rooms drop announcements before they are crowded
            let _crowded = self.sink.deliver(announcements);
        }
    }

    fn subscribe(&self, stream: StreamKey) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let shard = self.shard(&stream).lock();
        let position = match shard.streams.get(&stream) {
            Some(stream) => {
                let state = stream.0.lock();
                Position {
                    epoch: Arc::clone(&state.epoch),
                    offset: state.offset,
                }
            }
            None => Position {
                epoch: Arc::clone(&shard.epoch),
                offset: 0,
            },
        };
        ready(Ok(position)).boxed()
    }

    /// Nothing to do: the sink drops what it has no members for.
    fn unsubscribe(&self, _stream: &StreamKey) {}

    fn health(&self) -> Health {
        Health {
            up: true,
            degraded: false,
        }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
