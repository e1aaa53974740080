//! Requests that wait for the command link: a queue bounded in requests and bytes, emptied in batches.
//!
//! A request that finds the link down is `Unavailable` at once. When Redis comes back as another process, every gateway's
//! subscriptions are gone. Whoever is back first could publish what the others then miss, with a true acknowledgement:
//! publishes are therefore `Unavailable` until the others have had the time to come back
//! ([`RedisConfig::regroup`](super::config::RedisConfig::regroup)).

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::super::{Accepted, BrokerError, Page, Position};
use super::answer::Answer;
use super::cluster::Alert;
use super::history::Read;
use super::script::Request;

/// Requests that may wait; more are `Overloaded`.
const QUEUE_REQUESTS: usize = 65_536;
/// Bytes that may wait; more are `Overloaded`.
const QUEUE_BYTES: usize = 64 << 20;
/// Requests in one batch, at most.
const BATCH_REQUESTS: usize = 512;
/// Bytes in one batch, about.
const BATCH_BYTES: usize = 1 << 20;

/// Reads that are asked for at a time: their answers are large, and a crowd that comes back asks all at once.
const READS: usize = 64;

/// Told of an answer; must not block.
pub(super) type OnAnswer = Box<dyn FnOnce(Result<Answer, BrokerError>) + Send>;

/// A request on its way.
pub(super) struct Item {
    pub(super) request: Request,
    pub(super) on_answer: Option<OnAnswer>,
}

impl Item {
    pub(super) fn fail(self, error: BrokerError) {
        if let Some(on_answer) = self.on_answer {
            on_answer(Err(error));
        }
    }
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    up: bool,
    /// Until when publishes are refused.
    regroups_until: Option<Instant>,
}

impl Queue {
    fn regroups(&mut self) -> bool {
        self.regroups_until = self.regroups_until.filter(|until| Instant::now() < *until);
        self.regroups_until.is_some()
    }
}

/// The command link's queue. Requests may be put from any thread.
pub(super) struct Commands {
    queue: Mutex<Queue>,
    /// Told when there is something to take.
    pub(super) wake: Notify,
    up: watch::Sender<bool>,
    /// Told when the link ends at another process of Redis than before.
    moved: Notify,
    reads: Semaphore,
    /// Of the cluster that the link's server is a node of.
    pub(super) alert: Option<Arc<Alert>>,
}

impl Commands {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            up: watch::Sender::new(false),
            moved: Notify::new(),
            reads: Semaphore::new(READS),
            alert: None,
        }
    }

    /// Those of a cluster's node.
    pub(super) fn of_node(alert: Arc<Alert>) -> Self {
        Self {
            alert: Some(alert),
            ..Self::new()
        }
    }

    /// Whether the link answers.
    pub(super) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Whether publishes are refused because other gateways may not be back yet.
    pub(super) fn regroups(&self) -> bool {
        self.queue.lock().regroups()
    }

    /// Changes of [`Commands::is_up`].
    pub(super) fn watch_up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Ready when the link has been made to another process of Redis since this was called: what was read before is not
    /// what that one has.
    pub(super) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Puts requests, in order; those that find no place are answered at once.
    pub(super) fn submit(&self, items: impl IntoIterator<Item = Item>) {
        self.put(items, QUEUE_REQUESTS, QUEUE_BYTES);
    }

    /// Puts a request of the broker's own. There are few of them at a time, and a flood of publishes must not keep the
    /// links from being repaired, so the queue's bounds do not hold for them.
    pub(super) fn submit_own(&self, item: Item) {
        self.put([item], usize::MAX, usize::MAX);
    }

    fn put(&self, items: impl IntoIterator<Item = Item>, most: usize, most_bytes: usize) {
        let mut refused = Vec::new();
        let mut queued = false;
        {
            let mut queue = self.queue.lock();
            let regroups = queue.regroups();
            for item in items {
                let size = item.request.size();
                let early = regroups && item.request.is_message();
                if !queue.up || early {
                    refused.push((item, BrokerError::Unavailable));
                } else if queue.items.len() >= most || queue.bytes + size > most_bytes {
                    refused.push((item, BrokerError::Overloaded));
                } else {
                    queue.bytes += size;
                    queue.items.push_back(item);
                    queued = true;
                }
            }
        }
        if queued {
            self.wake.notify_one();
        }
        for (item, error) in refused {
            item.fail(error);
        }
    }

    /// Puts one request of the broker's own and awaits its answer. Cancel-safe: the request stays on its way.
    pub(super) async fn ask(&self, request: Request) -> Result<Answer, BrokerError> {
        let (tell, answer) = oneshot::channel();
        let on_answer: OnAnswer = Box::new(move |result| {
            // nobody waits any more: the answer is of no use to anybody
            let _ = tell.send(result);
        });
        self.submit_own(Item {
            request,
            on_answer: Some(on_answer),
        });
        answer.await.unwrap_or(Err(BrokerError::Unconfirmed))
    }

    /// Like [`Commands::ask`], for requests that are answered with a place.
    pub(super) async fn place(&self, request: Request) -> Result<Position, BrokerError> {
        place(self.ask(request).await)
    }

    /// Reads messages that are kept.
    pub(super) async fn read(&self, read: Read) -> Result<Page, BrokerError> {
        let span = read.span;
        match self.ask_for_client(Request::Read(Box::new(read))).await? {
            Answer::Pages(pages) => pages.page(span),
            _ => Err(BrokerError::Refused("an answer without messages".into())),
        }
    }

    /// Asks for what a client wants to read: the queue's bounds hold for it, and others may have to be answered before.
    pub(super) async fn ask_for_client(&self, request: Request) -> Result<Answer, BrokerError> {
        let _turn = self.reads.acquire().await.map_err(|_| BrokerError::Unavailable)?;
        let (tell, answer) = oneshot::channel();
        let on_answer: OnAnswer = Box::new(move |result| {
            // nobody waits any more: the answer is of no use to anybody
            let _ = tell.send(result);
        });
        self.submit([Item {
            request,
            on_answer: Some(on_answer),
        }]);
        answer.await.unwrap_or(Err(BrokerError::Unconfirmed))
    }

    /// Takes what may go next as one batch.
    pub(super) fn take_batch(&self) -> Vec<Item> {
        let mut queue = self.queue.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_REQUESTS && bytes < BATCH_BYTES {
            let Some(item) = queue.items.pop_front() else {
                break;
            };
            bytes += item.request.size();
            batch.push(item);
        }
        queue.bytes -= bytes;
        batch
    }

    /// The link is up; it ends at another process than before when publishes wait until `regroups_until`.
    pub(super) fn set_up(&self, regroups_until: Option<Instant>) {
        let mut queue = self.queue.lock();
        queue.up = true;
        queue.regroups_until = regroups_until;
        drop(queue);
        if regroups_until.is_some() {
            self.moved.notify_waiters();
        }
        self.up.send_replace(true);
        if let Some(alert) = &self.alert {
            alert.look();
        }
    }

    /// The link is lost: nothing that waits is sent.
    pub(super) fn set_down(&self) {
        let items = {
            let mut queue = self.queue.lock();
            queue.up = false;
            queue.bytes = 0;
            std::mem::take(&mut queue.items)
        };
        self.up.send_replace(false);
        if let Some(alert) = &self.alert {
            alert.lost();
        }
        for item in items {
            item.fail(BrokerError::Unavailable);
        }
    }
}

/// The place in an answer. A success without one is not taken for a success.
pub(super) fn place(answer: Result<Answer, BrokerError>) -> Result<Position, BrokerError> {
    match answer? {
        Answer::At(position) => Ok(position),
        Answer::Accepted(_)
        | Answer::Pages(_)
        | Answer::Text(_)
        | Answer::List(..)
        | Answer::Nothing
        | Answer::Done => Err(BrokerError::Refused("an answer without a place".into())),
    }
}

/// What became of a message.
pub(super) fn accepted(answer: Result<Answer, BrokerError>) -> Result<Accepted, BrokerError> {
    match answer {
        Ok(Answer::Accepted(accepted)) => Ok(accepted),
        other => place(other).map(Accepted::from),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn counted(outcomes: &Arc<Mutex<Vec<BrokerError>>>) -> Item {
        let outcomes = Arc::clone(outcomes);
        let on_answer: OnAnswer = Box::new(move |result| outcomes.lock().push(result.unwrap_err()));
        Item {
            request: Request::Ping,
            on_answer: Some(on_answer),
        }
    }

    #[test]
    fn a_request_that_finds_the_link_down_is_unavailable_at_once() {
        let outcomes = Arc::default();
        Commands::new().submit([counted(&outcomes)]);
        assert_eq!(*outcomes.lock(), [BrokerError::Unavailable]);
    }

    #[test]
    fn a_full_queue_is_overloaded_and_what_was_never_sent_is_unavailable() {
        let outcomes = Arc::default();
        let commands = Commands::new();
        commands.set_up(None);
        commands.submit((0..QUEUE_REQUESTS + 2).map(|_| counted(&outcomes)));
        assert_eq!(
            *outcomes.lock(),
            [BrokerError::Overloaded, BrokerError::Overloaded]
        );
        outcomes.lock().clear();
        commands.set_down();
        assert_eq!(outcomes.lock().len(), QUEUE_REQUESTS);
        assert!(outcomes.lock().iter().all(|e| *e == BrokerError::Unavailable));
    }

    #[test]
    fn batches_are_bounded_in_requests_and_in_bytes() {
        let commands = Commands::new();
        commands.set_up(None);
        commands.submit((0..=BATCH_REQUESTS).map(|_| Item {
            request: Request::Ping,
            on_answer: None,
        }));
        assert_eq!(commands.take_batch().len(), BATCH_REQUESTS);
        assert_eq!(commands.take_batch().len(), 1);
        assert!(commands.take_batch().is_empty());
        let large = |_| Item {
            request: Request::Publish {
                stream: Arc::from(&b"s"[..]),
                event: vec![0; BATCH_BYTES / 2].into(),
            },
            on_answer: None,
        };
        commands.submit((0..5).map(large));
        assert_eq!(commands.take_batch().len(), 2);
        assert_eq!(commands.queue.lock().items.len(), 3);
    }
}
