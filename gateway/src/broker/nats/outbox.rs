//! Messages that wait to be stored in JetStream, in order, where no offset is to be assigned.
//!
//! They are sent a batch at a time, and the next one when JetStream has answered for all of the last: what comes meanwhile is
//! the next batch. Each is told of when JetStream says that it is stored, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep};

use super::core::Core;
use super::jetstream::{Appended, appended};
use super::link::{Answers, Link};
use crate::broker::BrokerError;

/// Messages that may wait; more are refused as overload.
const WAITING: usize = 65_536;
/// Bytes that may wait.
const WAITING_BYTES: usize = 32 << 20;
/// Messages in one batch: far below what JetStream lets wait for one stream (`max_buffered_msgs`, 10,000).
const BATCH: usize = 512;
/// Bytes in one batch, about.
const BATCH_BYTES: usize = 1 << 20;
/// Pause before a message is sent again while the servers agree on one with the same id.
const PAUSE: Duration = Duration::from_millis(20);

/// A message that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    /// Its number in its JetStream stream.
    pub(super) sequence: u64,
    /// One with its id was there; this one is not stored.
    pub(super) duplicate: bool,
}

/// Told what came of a message; must not block.
pub(super) type OnStored = Box<dyn FnOnce(Result<Receipt, BrokerError>) + Send>;

/// A message to be stored.
pub(super) struct Letter {
    pub(super) subject: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// One on its way; without a letter only what was before it is awaited.
struct Job {
    letter: Option<Letter>,
    told: Option<OnStored>,
}

impl Job {
    fn size(&self) -> usize {
        self.letter
            .as_ref()
            .map_or(0, |letter| letter.subject.len() + letter.body.len())
    }

    fn tell(mut self, outcome: Result<Receipt, BrokerError>) {
        if let Some(told) = self.told.take() {
            told(outcome);
        }
    }
}

impl Drop for Job {
    /// The broker ends; the message may have been sent.
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(Err(BrokerError::Unconfirmed));
        }
    }
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Job>,
    bytes: usize,
    /// A task is at work.
    busy: bool,
}

/// Messages that wait.
#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
}

/// Which one of the broker's.
pub(super) type Which = fn(&Core) -> &Outbox;

impl Outbox {
    /// Puts messages behind those that wait.
    pub(super) fn submit(
        core: &Arc<Core>,
        which: Which,
        letters: impl IntoIterator<Item = (Letter, OnStored)>,
    ) {
        for (letter, told) in letters {
            which(core).put(Job {
                letter: Some(letter),
                told: Some(told),
            });
        }
        Self::start(core, which);
    }

    /// Calls back when it is known of everything that was put before what became of it.
    fn after(core: &Arc<Core>, which: Which, told: OnStored) {
        which(core).put(Job {
            letter: None,
            told: Some(told),
        });
        Self::start(core, which);
    }

    /// Awaits that everything that was put before is stored, or is not.
    pub(super) async fn flush(core: &Arc<Core>, which: Which) -> Result<(), BrokerError> {
        let (tell, told) = oneshot::channel();
        // nobody waits any more
        Self::after(core, which, Box::new(move |outcome| drop(tell.send(outcome))));
        told.await.map_err(|_| BrokerError::Unconfirmed)?.map(|_| ())
    }

    fn start(core: &Arc<Core>, which: Which) {
        let starts = {
            let mut inner = which(core).inner.lock();
            !inner.waiting.is_empty() && !std::mem::replace(&mut inner.busy, true)
        };
        if starts {
            let work = drive(Arc::clone(core), which);
            core.tasks
                .spawn(core.cancelled.clone().run_until_cancelled_owned(work));
        }
    }

    fn put(&self, job: Job) {
        let mut inner = self.inner.lock();
        if inner.waiting.len() >= WAITING || inner.bytes >= WAITING_BYTES {
            drop(inner);
            job.tell(Err(BrokerError::Overloaded));
            return;
        }
        inner.bytes += job.size();
        inner.waiting.push_back(job);
    }

    /// What is sent next; nobody is at work when there is nothing.
    fn take(&self) -> Vec<Job> {
        let mut inner = self.inner.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH
            && bytes < BATCH_BYTES
            && let Some(job) = inner.waiting.pop_front()
        {
            bytes += job.size();
            batch.push(job);
        }
        inner.bytes -= bytes;
        inner.busy = !batch.is_empty();
        batch
    }

    /// The broker has ended: whoever waits is told.
    pub(super) fn end(&self) {
        let waiting = std::mem::take(&mut self.inner.lock().waiting);
        drop(waiting);
    }
}

/// Sends until nothing waits.
async fn drive(core: Arc<Core>, which: Which) {
    loop {
        let batch = which(&core).take();
        if batch.is_empty() {
            return;
        }
        match core.link() {
            Ok(link) => send(&core, &link, batch).await,
            Err(error) => batch.into_iter().for_each(|job| job.tell(Err(error.clone()))),
        }
    }
}

/// Sends a batch, and tells what came of each.
async fn send(core: &Core, link: &Link, batch: Vec<Job>) {
    let deadline = Instant::now() + core.config.timing.answer;
    let sent = batch.into_iter().map(|job| {
        let asked = job.letter.as_ref().map(|letter| ask(link, letter));
        (job, asked)
    });
    // all are sent before the first answer is awaited
    let sent: Vec<_> = sent.collect();
    for (job, asked) in sent {
        let outcome = match (&job.letter, asked) {
            (Some(letter), Some(Ok(answers))) => outcome(link, letter, answers, deadline).await,
            (_, Some(Err(error))) => Err(error),
            (_, None) | (None, _) => Ok(Receipt {
                sequence: 0,
                duplicate: false,
            }),
        };
        job.tell(outcome);
    }
}

fn ask(link: &Link, letter: &Letter) -> Result<Answers, BrokerError> {
    let headers: Vec<_> = letter
        .headers
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    link.ask(&letter.subject, &headers, &letter.body)
}

async fn outcome(
    link: &Link,
    letter: &Letter,
    mut answers: Answers,
    deadline: Instant,
) -> Result<Receipt, BrokerError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match appended(&answers.next(left).await?)? {
            Appended::At(sequence) => {
                return Ok(Receipt {
                    sequence,
                    duplicate: false,
                });
            }
            Appended::Duplicate(sequence) => {
                return Ok(Receipt {
                    sequence,
                    duplicate: true,
                });
            }
            Appended::Conflict if Instant::now() >= deadline => return Err(BrokerError::Unconfirmed),
            Appended::Conflict => {
                sleep(PAUSE).await;
                answers = ask(link, letter)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(count: usize, bytes: usize, told: &Arc<Mutex<Vec<BrokerError>>>) -> Outbox {
        let outbox = Outbox::default();
        for _ in 0..count {
            let told = Arc::clone(told);
            outbox.put(Job {
                letter: Some(Letter {
                    subject: String::new(),
                    headers: Vec::new(),
                    body: vec![0; bytes],
                }),
                told: Some(Box::new(move |outcome| told.lock().extend(outcome.err()))),
            });
        }
        outbox
    }

    #[test]
    fn batches_are_bounded_in_messages_and_in_bytes() {
        let sizes = |outbox: &Outbox| -> Vec<usize> {
            std::iter::from_fn(|| Some(outbox.take().len()).filter(|&length| length > 0)).collect()
        };
        let told = Arc::default();
        assert_eq!(sizes(&outbox(0, 1, &told)), [0; 0]);
        assert_eq!(sizes(&outbox(BATCH + 1, 1, &told)), [BATCH, 1]);
        assert_eq!(sizes(&outbox(3, BATCH_BYTES / 2, &told)), [2, 1]);
        let large = outbox(1, BATCH_BYTES * 2, &told);
        assert_eq!(sizes(&large), [1], "one in any case");
        let inner = large.inner.lock();
        assert_eq!((inner.bytes, inner.busy), (0, false));
    }

    #[test]
    fn more_than_may_wait_is_overload_and_what_waits_at_the_end_is_unconfirmed() {
        let told = Arc::default();
        let outbox = outbox(WAITING + 2, 1, &told);
        assert_eq!(*told.lock(), [BrokerError::Overloaded, BrokerError::Overloaded]);
        told.lock().clear();
        outbox.end();
        assert_eq!(*told.lock(), vec![BrokerError::Unconfirmed; WAITING]);
    }
}
