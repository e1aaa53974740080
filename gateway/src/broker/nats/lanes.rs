//! The way of messages into streams: one lane for each stream that is published to.
//!
//! A lane has at most one append on its way, whose frame takes what has come meanwhile, so that a busy stream costs few
//! round trips and this gateway is never in its own way. Another gateway may be: then NATS stores nothing, the lane looks
//! where the stream stands now, and appends there. A message with a `msgId` has a frame to itself, because NATS remembers
//! ids by message.

mod append;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::core::Core;
use super::jetstream::{JetStream, Stored};
use crate::broker::{BrokerError, Reply};
use crate::config::Retention;

/// Messages that may wait in all lanes together; more are refused as overload.
const WAITING: usize = 65_536;
/// Bytes that may wait there.
const WAITING_BYTES: usize = 32 << 20;
/// Lanes whose last frame is remembered while nothing is published.
const REMEMBERED: usize = 16_384;
/// Pause between two looks for streams that have been silent.
const SWEEP: Duration = Duration::from_secs(15);
/// Streams that are swept at a time.
const SWEPT: usize = 64;

/// A message on its way.
pub(super) struct Job {
    pub(super) event: Bytes,
    /// What its `msgId` is called in NATS.
    pub(super) id: Option<String>,
    pub(super) reply: Option<Reply>,
}

impl Drop for Job {
    /// The broker ends; the message may have been sent.
    fn drop(&mut self) {
        tell(self.reply.take(), Err(BrokerError::Unconfirmed));
    }
}

struct Lane {
    retention: Retention,
    waiting: VecDeque<Job>,
    /// A task is at work.
    busy: bool,
    /// The last frame, as far as this gateway knows.
    head: Option<Stored>,
    /// The last frame that was heard of as a subscriber.
    heard: Option<Stored>,
    /// When this gateway appended last; what is before that is too old some time later.
    appended: Option<Instant>,
}

#[derive(Default)]
struct Inner {
    lanes: HashMap<Arc<[u8]>, Lane, ahash::RandomState>,
    waiting: usize,
    bytes: usize,
}

/// All lanes.
#[derive(Default)]
pub(super) struct Lanes {
    inner: Mutex<Inner>,
}

impl Lanes {
    /// Puts messages into their lane, in order.
    pub(super) fn submit(core: &Arc<Core>, channel: Arc<[u8]>, retention: Retention, mut job: Job) {
        let mut inner = core.lanes.inner.lock();
        if inner.waiting >= WAITING || inner.bytes >= WAITING_BYTES {
            drop(inner);
            tell(job.reply.take(), Err(BrokerError::Overloaded));
            return;
        }
        inner.waiting += 1;
        inner.bytes += job.event.len();
        if inner.lanes.len() >= REMEMBERED {
            // what is forgotten is read again when it is needed
            inner.lanes.retain(|_, lane| lane.busy);
        }
        let lane = inner.lanes.entry(Arc::clone(&channel)).or_insert_with(|| Lane {
            retention,
            waiting: VecDeque::new(),
            busy: false,
            head: None,
            heard: None,
            appended: None,
        });
        lane.waiting.push_back(job);
        if !std::mem::replace(&mut lane.busy, true) {
            drop(inner);
            let work = drive(Arc::clone(core), channel, retention);
            core.tasks
                .spawn(core.cancelled.clone().run_until_cancelled_owned(work));
        }
    }

    /// What goes into the next frame, and the last one that is known; the lane is idle when there is nothing.
    fn take(&self, channel: &[u8]) -> Option<(Vec<Job>, Option<Stored>)> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let lane = inner.lanes.get_mut(channel)?;
        let jobs = append::next_frame(&mut lane.waiting);
        if jobs.is_empty() {
            lane.busy = false;
            return None;
        }
        inner.waiting -= jobs.len();
        inner.bytes -= jobs.iter().map(|job| job.event.len()).sum::<usize>();
        let known = lane.head.take();
        let behind = |heard: &Stored| known.as_ref().is_none_or(|known| known.sequence < heard.sequence);
        let head = lane.heard.clone().filter(behind);
        Some((jobs, head.or(known)))
    }

    /// A frame was heard: who appends next need not look where the stream stands.
    pub(super) fn hear(&self, channel: &[u8], heard: Stored) {
        if let Some(lane) = self.inner.lock().lanes.get_mut(channel)
            && lane
                .heard
                .as_ref()
                .is_none_or(|known| known.sequence < heard.sequence)
        {
            lane.heard = Some(heard);
        }
    }

    /// The last frame that was heard of, if it is behind this one.
    fn heard_behind(&self, channel: &[u8], last: &Stored) -> Option<Stored> {
        let heard = self.inner.lock().lanes.get(channel)?.heard.clone();
        heard.filter(|heard| heard.sequence > last.sequence)
    }

    /// The connection is another one, and NATS may have gone back: nothing that is remembered counts any more.
    pub(super) fn look_again(&self) {
        let mut inner = self.inner.lock();
        inner.lanes.retain(|_, lane| lane.busy);
        for lane in inner.lanes.values_mut() {
            (lane.head, lane.heard) = (None, None);
        }
    }

    fn put_back(&self, channel: &[u8], head: Option<Stored>) {
        if let Some(lane) = self.inner.lock().lanes.get_mut(channel) {
            lane.appended = head.is_some().then(Instant::now);
            lane.head = head;
        }
    }

    /// The broker has ended: whoever waits is told.
    pub(super) fn end(&self) {
        let lanes = std::mem::take(&mut self.inner.lock().lanes);
        drop(lanes);
    }

    /// Streams whose last message, which was this gateway's, is older than anything that is kept; they are forgotten here.
    fn silent(&self) -> Vec<(Arc<[u8]>, u64)> {
        let mut inner = self.inner.lock();
        let is_silent = |_: &Arc<[u8]>, lane: &mut Lane| {
            !lane.busy && lane.appended.is_none_or(|at| at.elapsed() > lane.retention.age())
        };
        let silent = inner.lanes.extract_if(is_silent).take(SWEPT * 16);
        silent
            .filter(|(_, lane)| matches!(lane.retention, Retention::Keep { .. }))
            .filter_map(|(channel, lane)| Some((channel, lane.head?.sequence)))
            .collect()
    }
}

/// Appends until nothing waits in the lane.
async fn drive(core: Arc<Core>, channel: Arc<[u8]>, retention: Retention) {
    while let Some((jobs, head)) = core.lanes.take(&channel) {
        let head = append::append(&core, &channel, retention, jobs, head).await;
        core.lanes.put_back(&channel, head);
    }
}

/// Removes what has become too old of streams in which nothing happens, until cancelled. Readers leave it out anyhow: this
/// only saves space.
pub(super) async fn sweep(core: Arc<Core>) {
    use futures::StreamExt as _;
    loop {
        sleep(SWEEP).await;
        let Ok(link) = core.link() else { continue };
        let streams = JetStream {
            config: &core.config,
            link: &link,
        };
        futures::stream::iter(core.lanes.silent())
            .for_each_concurrent(SWEPT, |(channel, last)| async move {
                if let Err(error) = streams.purge(&channel, last).await {
                    tracing::debug!(%error, "old messages stay where they are");
                }
            })
            .await;
    }
}

fn tell<T>(reply: Option<Box<dyn FnOnce(T) + Send>>, outcome: T) {
    if let Some(reply) = reply {
        reply(outcome);
    }
}
