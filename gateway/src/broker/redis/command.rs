//! The command link: a bounded queue, and the task that sends it in pipelined batches.
//!
//! Whatever waits when the link can take more goes out as one batch, so an idle link adds no latency and a busy one
//! sends large batches. Answers are given in the order of the requests. A request that finds the link down, or that
//! had not been sent when it was lost, is `Unavailable`; one that had been sent is `Unconfirmed`.
//!
//! When Redis comes back as another process, every gateway's subscriptions are gone. Whoever is back first could publish
//! what the others then miss, with a true acknowledgement: publishes are therefore `Unavailable` until the others have
//! had the time to come back ([`Timing::regroup`](super::config::Timing::regroup)).

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use parking_lot::Mutex;
use redis::{Pipeline, RedisError, Value};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::{BrokerError, Position};
use super::config::{Backoff, RedisConfig};
use super::link::{self, CommandLink};
use super::script::{self, Answer, Failure, Request, Scripts};
use super::stats::Stats;

/// Requests that may wait; more are `Overloaded`.
const QUEUE_REQUESTS: usize = 65_536;
/// Bytes that may wait; more are `Overloaded`.
const QUEUE_BYTES: usize = 64 << 20;
/// Requests in one batch, at most.
const BATCH_REQUESTS: usize = 512;
/// Bytes in one batch, about.
const BATCH_BYTES: usize = 1 << 20;
/// Batches sent and not yet answered, at most.
const BATCHES_IN_FLIGHT: usize = 16;

/// Told of an answer; must not block.
pub(super) type OnAnswer = Box<dyn FnOnce(Result<Answer, BrokerError>) + Send>;

/// A request on its way.
pub(super) struct Item {
    pub(super) request: Request,
    pub(super) on_answer: Option<OnAnswer>,
}

impl Item {
    fn fail(self, error: BrokerError) {
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
    wake: Notify,
    up: watch::Sender<bool>,
}

impl Commands {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            up: watch::Sender::new(false),
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
                let early = regroups && matches!(item.request, Request::Publish { .. });
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

    fn take_batch(&self) -> Vec<Item> {
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

    /// The link is up; publishes wait until `regroups_until`.
    fn set_up(&self, regroups_until: Option<Instant>) {
        let mut queue = self.queue.lock();
        queue.up = true;
        queue.regroups_until = regroups_until;
        drop(queue);
        self.up.send_replace(true);
    }

    fn set_down(&self) {
        let items = {
            let mut queue = self.queue.lock();
            queue.up = false;
            queue.bytes = 0;
            std::mem::take(&mut queue.items)
        };
        self.up.send_replace(false);
        for item in items {
            item.fail(BrokerError::Unavailable);
        }
    }
}

/// The place in an answer. A success without one is not taken for a success.
pub(super) fn place(answer: Result<Answer, BrokerError>) -> Result<Position, BrokerError> {
    match answer? {
        Answer::At(position) => Ok(position),
        Answer::Done => Err(BrokerError::Refused("an answer without a place".into())),
    }
}

/// Keeps the command link up until cancelled.
pub(super) async fn run(
    commands: Arc<Commands>,
    config: RedisConfig,
    stats: Arc<Stats>,
    cancelled: CancellationToken,
) {
    let work = async {
        let mut backoff = Backoff::new(config.timing);
        let mut complaint = String::new();
        let mut process = None;
        loop {
            match CommandLink::connect(&config).await {
                Ok(link) => {
                    let before = process.replace(link.process.clone());
                    let same = before.is_none_or(|before| before.is_some() && before == link.process);
                    let regroups_until = (!same).then(|| Instant::now() + config.timing.regroup());
                    commands.set_up(regroups_until);
                    tracing::info!(redis = config.address(), same, "command link is up");
                    backoff.reset();
                    complaint.clear();
                    stats.command_links.inc();
                    let reason = serve(&commands, link, &config).await;
                    tracing::warn!(redis = config.address(), reason, "command link is lost");
                }
                Err(error) => {
                    // once per kind of trouble, not once per attempt
                    let error = error.to_string();
                    if error != complaint {
                        tracing::warn!(
                            redis = config.address(),
                            error,
                            "Redis cannot be reached; trying again"
                        );
                        complaint = error;
                    }
                }
            }
            sleep(backoff.step(rand::random())).await;
        }
    };
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = work => {}
    }
    commands.set_down();
}

/// Batches that were sent; dropped with answers open, it says `Unconfirmed`.
struct InFlight<F: Future> {
    batches: FuturesOrdered<F>,
    waiting: VecDeque<Vec<Option<OnAnswer>>>,
}

impl<F: Future> Drop for InFlight<F> {
    fn drop(&mut self) {
        for on_answer in self.waiting.drain(..).flatten().flatten() {
            on_answer(Err(BrokerError::Unconfirmed));
        }
    }
}

/// Takes the queue down when the link's task ends, however it ends.
struct Down<'a>(&'a Commands);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        self.0.set_down();
    }
}

/// Serves the queue with one link until that is lost; tells why it was.
async fn serve(commands: &Commands, link: CommandLink, config: &RedisConfig) -> &'static str {
    let timing = config.timing;
    // declared first, dropped last: what was sent is answered before what was not, so outcomes keep their order
    let _down = Down(commands);
    let mut in_flight = InFlight {
        batches: FuturesOrdered::new(),
        waiting: VecDeque::new(),
    };
    let mut heard = Instant::now();
    loop {
        while in_flight.batches.len() < BATCHES_IN_FLIGHT {
            let batch = commands.take_batch();
            if batch.is_empty() {
                break;
            }
            let (requests, waiting) = batch.into_iter().map(|i| (i.request, i.on_answer)).unzip();
            in_flight.waiting.push_back(waiting);
            in_flight.batches.push_back(send(link.clone(), requests));
        }
        tokio::select! {
            () = link.gone.notified() => return "closed by Redis or the network",
            () = commands.wake.notified() => {}
            Some(answers) = in_flight.batches.next() => {
                let Ok(answers) = answers else { return "no answer in time, or closed" };
                heard = Instant::now();
                let waiting = in_flight.waiting.pop_front().unwrap_or_default();
                if !give(answers, waiting) {
                    return "the server cannot take writes";
                }
            }
            () = sleep_until(heard + timing.silence), if in_flight.batches.is_empty() => {
                commands.submit_own(Item { request: Request::Ping, on_answer: None });
            }
        }
    }
}

/// Gives the answers of a batch; false when the server says that it is not one that can serve.
fn give(answers: Vec<Result<Answer, Failure>>, waiting: Vec<Option<OnAnswer>>) -> bool {
    let mut fit = true;
    for (answer, on_answer) in answers.into_iter().zip(waiting) {
        fit &= !matches!(answer, Err(Failure::WrongServer(_)));
        if let Some(on_answer) = on_answer {
            on_answer(answer.map_err(BrokerError::from));
        }
    }
    fit
}

/// Sends one batch; what failed for a script that Redis has forgotten is asked again after loading it.
async fn send(
    mut link: CommandLink,
    requests: Vec<Request>,
) -> Result<Vec<Result<Answer, Failure>>, RedisError> {
    let mut answers = read(&link::all(&mut link.connection, &pipeline(&requests, &link.scripts)).await?);
    let forgotten: Vec<usize> = (0..answers.len())
        .filter(|&i| answers[i] == Err(Failure::NoScript))
        .collect();
    if !forgotten.is_empty() {
        link::all(&mut link.connection, &Scripts::load()).await?;
        let again: Vec<Request> = forgotten.iter().map(|&i| requests[i].clone()).collect();
        let second = read(&link::all(&mut link.connection, &pipeline(&again, &link.scripts)).await?);
        for (index, answer) in forgotten.into_iter().zip(second) {
            answers[index] = answer;
        }
    }
    Ok(answers)
}

fn pipeline(requests: &[Request], scripts: &Scripts) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(requests.len());
    for request in requests {
        pipeline.add_command(request.command(scripts));
    }
    pipeline
}

fn read(values: &[Value]) -> Vec<Result<Answer, Failure>> {
    values.iter().map(script::answer).collect()
}

#[cfg(test)]
mod tests {
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
