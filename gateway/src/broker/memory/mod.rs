//! The broker of a gateway that runs alone: the semantics of the shared ones, inside one process.
//!
//! A stream costs nothing until its first message. Offsets are assigned under the stream's own lock, where the message
//! is kept, too; delivery happens outside of it: whoever publishes while nobody delivers becomes the deliverer and goes
//! on until the outbox is empty, so concurrent publishers keep one order, and what piles up while a large room is written
//! to goes out as one batch.
//!
//! What bounds it: a shard that holds [`STREAMS_PER_SHARD`] streams forgets those that were silent for
//! [`KEEP_SILENT`]; a forgotten stream begins anew, with a new epoch. What streams keep has a budget ([`log`]), and what
//! is too old is swept out. While the members of a room do not keep up its outbox fills, which has an end, and what is
//! published beyond is refused.

mod log;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Broker, BrokerError, Delivery, Health, Page, Position, Publish, Reading, Sink, StreamKey};
use crate::config::{Histories, Retention};
use log::Budget;
use stream::Stream;

/// Shards of the table of streams; a power of two.
const SHARDS: usize = 16;
/// Streams with messages that a shard keeps before it forgets silent ones.
const STREAMS_PER_SHARD: usize = 8_192;
/// How long a stream without messages is safe from being forgotten.
const KEEP_SILENT: Duration = Duration::from_hours(1);
/// Time between two sweeps of a shard.
const SWEEP: Duration = Duration::from_secs(30);

/// Broker within one process.
pub struct MemoryBroker {
    sink: Arc<dyn Sink>,
    histories: Histories,
    budget: Arc<Budget>,
    hasher: ahash::RandomState,
    shards: Box<[Mutex<Shard>]>,
}

struct Shard {
    /// Epoch of the streams created from now on; new whenever a stream was forgotten.
    epoch: Arc<str>,
    streams: HashMap<StreamKey, Arc<Stream>, ahash::RandomState>,
    swept: Instant,
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
    /// A broker that delivers to `sink` and keeps what `histories` says.
    pub fn new(histories: Histories, sink: Arc<dyn Sink>) -> Self {
        let shard = || {
            Mutex::new(Shard {
                epoch: new_epoch(),
                streams: HashMap::default(),
                swept: Instant::now(),
            })
        };
        Self {
            sink,
            histories,
            budget: Arc::default(),
            hasher: ahash::RandomState::new(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }

    fn shard(&self, key: &StreamKey) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn stream(&self, key: &StreamKey, now: Instant) -> Arc<Stream> {
        let mut shard = self.shard(key).lock();
        shard.sweep(now);
        if let Some(stream) = shard.streams.get(key) {
            return Arc::clone(stream);
        }
        if shard.streams.len() >= STREAMS_PER_SHARD {
            shard.forget_silent(now);
        }
        let stream = Stream::new(Arc::clone(&shard.epoch), self.histories.of(key), now);
        let stream = Arc::new(stream);
        shard.streams.insert(key.clone(), Arc::clone(&stream));
        stream
    }

    /// Where a stream stands; one without a message is not made for that.
    fn position(&self, key: &StreamKey) -> Position {
        let retention = self.histories.of(key);
        if retention == Retention::Ephemeral {
            return Position::none();
        }
        let shard = self.shard(key).lock();
        shard.streams.get(key).map_or_else(
            || Position {
                epoch: Arc::clone(&shard.epoch),
                offset: 0,
            },
            |stream| stream.position(),
        )
    }
}

impl Shard {
    /// Drops what its streams have kept for too long, every now and then.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP {
            self.swept = now;
            for stream in self.streams.values() {
                stream.expire(now);
            }
        }
    }

    /// Drops the streams that were silent for long, and begins a new epoch for those created after.
    fn forget_silent(&mut self, now: Instant) {
        let before = self.streams.len();
        if let Some(then) = now.checked_sub(KEEP_SILENT) {
            self.streams.retain(|_, stream| !stream.is_silent_since(then));
        }
        if self.streams.len() < before {
            self.epoch = new_epoch();
        }
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, batch: Vec<Publish>) {
        let now = Instant::now();
        let mut touched: SmallVec<[Arc<Stream>; 4]> = SmallVec::new();
        let mut announcements = Vec::new();
        let mut last: Option<(StreamKey, Arc<Stream>)> = None;
        for publish in batch {
            if !publish.event.is_message() {
                let Publish {
                    stream, event, reply, ..
                } = publish;
                announcements.push(Delivery {
                    stream,
                    position: None,
                    event: Arc::new(event),
                });
                if let Some(reply) = reply {
                    reply(Ok(Position::none().into()));
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
            stream.accept(publish, &self.budget, now);
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
        ready(Ok(self.position(&stream))).boxed()
    }

    fn history(&self, reading: Reading) -> BoxFuture<'static, Result<Page, BrokerError>> {
        let known = self
            .shard(&reading.stream)
            .lock()
            .streams
            .get(&reading.stream)
            .cloned();
        let ephemeral = self.histories.of(&reading.stream) == Retention::Ephemeral;
        let page = match known {
            Some(stream) if !ephemeral => stream.read(&reading, Instant::now()),
            _ => Page {
                position: self.position(&reading.stream),
                messages: Vec::new(),
                more: false,
            },
        };
        ready(Ok(page)).boxed()
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
mod tests;
