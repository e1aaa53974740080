//! The way of a batch to the members of a room: one write each.
//!
//! In most rooms all members are one [`Fanout::chunk`], written to by whoever delivers, at once. In larger ones tasks take
//! the next chunk in turns, so that the workers share them: one task fewer than there are workers goes on to the end, and
//! every [`TURN`] lets everything else run that is ready; one more, which is as quick to begin as the one that delivers,
//! ends after the first [`SHARED_CHUNKS`], or the first quarter of all, and lets others run every [`SHARED_TURN`]; it is left
//! out when there is much to write to each member. So a small message to a thousand members has all workers for the few
//! milliseconds that it takes, while one worker is free for whoever else is served for most of a message to ten thousand. A
//! batch is written when its last chunk is; only then the room's next one is begun, so each member gets all in order.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::batch::{Batch, Shares};
use super::local::Room;
use super::members::Members;
use crate::clock::{Clock, Tick};
use crate::config::SlowPolicy;
use crate::session::{Conn, Env};

/// Members of a chunk, when messages are small: enough that to hand it over costs little beside it.
const CHUNK: usize = 256;
/// Fewest members of a chunk, however large the messages are.
const SMALLEST_CHUNK: usize = 8;
/// So many chunks are written by all workers at least; those behind them leave one free.
const SHARED_CHUNKS: usize = 4;
/// That part of a large room's chunks is, too: whoever reads for many members (a proxy, a load balancer) then has more before
/// it than it reads at once, does not fall asleep between two, and need not be woken by each write. With one half, the end of a
/// message waits for it.
const SHARED_PART: usize = 4;
/// Larger batches are not: what they take is the copying of bytes, and whoever is to read them needs a processor too.
const SHARED_BYTES: usize = 4 << 10;
/// Members whose memory is fetched at once, before they are written to one after the other: the system calls between them
/// leave nothing of it in the nearer caches.
const AHEAD: usize = 16;
/// Bytes that a chunk writes, about.
const CHUNK_BYTES: usize = 1 << 20;
/// How long a task writes before it lets others run. Each time wakes another worker, which looks for work, finds none, and
/// disturbs whoever has the core: after each chunk would be too often.
const TURN: Duration = Duration::from_millis(10);
/// The same for the task without which a worker would be free: while all are busy, none is woken by it.
const SHARED_TURN: Duration = Duration::from_millis(2);

/// One batch on its way to the members of its room.
pub(super) struct Fanout {
    env: Arc<Env>,
    batch: Batch,
    /// Those at the time when it was begun.
    members: Members,
    policy: SlowPolicy,
    now: Tick,
    /// The first member that nobody writes to yet.
    next: AtomicUsize,
    /// Tasks that are not done yet.
    writers: AtomicUsize,
}

impl Fanout {
    pub(super) fn new(env: &Arc<Env>, batch: Batch, members: Members, policy: SlowPolicy) -> Self {
        Self {
            now: env.clock.tick(),
            env: Arc::clone(env),
            batch,
            members,
            policy,
            next: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
        }
    }

    /// Members that are written to at one go.
    fn chunk(&self) -> usize {
        (CHUNK_BYTES / self.batch.size().max(1)).clamp(SMALLEST_CHUNK, CHUNK)
    }

    /// The runtime to spread it over, when that is worth it.
    pub(super) fn spreads(&self) -> Option<Handle> {
        let large = self.members.len() > self.chunk();
        large.then(Handle::try_current)?.ok()
    }

    /// Writes to all members.
    pub(super) fn run(&self) {
        self.write(self.members.as_slice());
        self.finish();
    }

    /// Has all members written to by tasks, the last of which goes on with the room.
    pub(super) fn spread(self, room: &Arc<Room>, runtime: &Handle) {
        let chunks = self.members.len().div_ceil(self.chunk());
        let long = runtime.metrics().num_workers().saturating_sub(1);
        let long = long.clamp(1, chunks);
        let all = self.batch.size() <= SHARED_BYTES;
        self.writers.store(long + usize::from(all), Relaxed);
        let shared = Arc::new(self);
        for _ in 0..long {
            runtime.spawn(Arc::clone(&shared).write_chunks(Arc::clone(room), usize::MAX, TURN));
        }
        // the last one that a worker makes is its own next one; those before it go to workers that have nothing to do
        if all {
            let first = (chunks / SHARED_PART).max(SHARED_CHUNKS);
            runtime.spawn(shared.write_chunks(Arc::clone(room), first, SHARED_TURN));
        }
    }

    /// Writes chunks while there are any, none behind the first so many of all; every `turn` others run.
    async fn write_chunks(self: Arc<Self>, room: Arc<Room>, first: usize, turn: Duration) {
        let chunk = self.chunk();
        let until = first.saturating_mul(chunk);
        let mut since = Instant::now();
        while self.next.load(Relaxed) < until
            && let Some(chunk) = self.take(chunk)
        {
            self.write(chunk);
            if since.elapsed() >= turn {
                tokio::task::yield_now().await;
                since = Instant::now();
            }
        }
        if self.writers.fetch_sub(1, AcqRel) == 1 {
            self.finish();
            room.written(&self.env);
        }
    }

    /// The next members, up to `most`, that nobody writes to.
    fn take(&self, most: usize) -> Option<&[Arc<Conn>]> {
        let members = self.members.as_slice();
        let from = self.next.fetch_add(most, Relaxed);
        let to = members.len().min(from.saturating_add(most));
        members.get(from..to).filter(|taken| !taken.is_empty())
    }

    fn write(&self, members: &[Arc<Conn>]) {
        let mut sent = 0;
        let mut shares = self.batch.shares();
        for group in members.chunks(AHEAD) {
            for member in group {
                if shares.of(member.id, member.format).1 > 0 {
                    member.about_to_send(self.now);
                }
            }
            sent += group
                .iter()
                .map(|member| self.send(member, &mut shares))
                .sum::<u64>();
        }
        self.env.metrics.sent(sent);
    }

    /// Gives a member its share: so many messages, unless it is not to get them.
    fn send(&self, member: &Arc<Conn>, shares: &mut Shares<'_>) -> u64 {
        let &(ref bytes, messages) = shares.of(member.id, member.format);
        let accepted = match self.policy {
            _ if messages == 0 => false,
            SlowPolicy::Disconnect => member.write(bytes, messages, None),
            policy @ (SlowPolicy::DropOldest | SlowPolicy::KeepLatest) => {
                let each = || self.batch.each(member.id, member.format, policy);
                member.write(bytes, messages, Some(&each))
            }
        };
        if accepted { u64::from(messages) } else { 0 }
    }

    /// Counts what was written to everybody.
    fn finish(&self) {
        let metrics = &self.env.metrics;
        for size in self.batch.sizes() {
            metrics.message_bytes_out.observe(size as f64);
        }
        if let Some(oldest) = self.batch.oldest() {
            let took = Clock::unix_millis().saturating_sub(oldest);
            metrics.message_latency.observe(took as f64);
        }
    }
}

#[cfg(test)]
#[path = "fanout_tests.rs"]
mod tests;
