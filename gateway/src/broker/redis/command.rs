//! The command link's task: sends what is queued in pipelined batches.
//!
//! Whatever waits when the link can take more goes out as one batch, so an idle link adds no latency and a busy one
//! sends large batches. Answers are given in the order of the requests. A request that had not been sent when the link
//! was lost is `Unavailable`; one that had been sent is `Unconfirmed`.
//!
//! Where a replica is to have what is acknowledged, a batch with messages ends in one `WAIT`, and is alone on its way: Redis
//! takes nothing more from a connection that waits.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use redis::{Pipeline, RedisError, Value};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::BrokerError;
use super::answer::{self, Answer, Failure};
use super::cluster::Alert;
use super::config::RedisConfig;
use super::link::{self, CommandLink};
use super::queue::{Commands, Item, OnAnswer};
use super::role;
use super::script::{Request, Scripts};
use crate::broker::stats::Stats;
use crate::broker::timing::Backoff;

/// Batches sent and not yet answered, at most.
const BATCHES_IN_FLIGHT: usize = 16;

/// Whether another server had before what this one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Birth {
    /// It has what it had.
    Fresh,
    /// It took over from one that failed: what that one had told last may be lost, as after a restart.
    Succeeding,
}

/// Keeps the command link up until cancelled.
pub(super) async fn run(
    commands: Arc<Commands>,
    config: RedisConfig,
    stats: Arc<Stats>,
    birth: Birth,
    cancelled: CancellationToken,
) {
    let work = async {
        let mut backoff = Backoff::new(config.timing);
        let mut complaint = String::new();
        let mut process = (birth == Birth::Succeeding).then_some(None);
        loop {
            match CommandLink::connect(&config).await {
                Ok(link) => {
                    let before = process.replace(link.process.clone());
                    let same = before.is_none_or(|before| before.is_some() && before == link.process);
                    let regroups_until = (!same).then(|| Instant::now() + config.regroup());
                    commands.set_up(regroups_until);
                    tracing::info!(redis = %link.server, same, "command link is up");
                    backoff.reset();
                    complaint.clear();
                    stats.command_links.inc();
                    let server = link.server.clone();
                    let reason = serve(&commands, link, &config, &stats).await;
                    tracing::warn!(redis = %server, reason, "command link is lost");
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
async fn serve(commands: &Commands, link: CommandLink, config: &RedisConfig, stats: &Stats) -> &'static str {
    let timing = config.timing;
    // declared first, dropped last: what was sent is answered before what was not, so outcomes keep their order
    let _down = Down(commands);
    let mut in_flight = InFlight {
        batches: FuturesOrdered::new(),
        waiting: VecDeque::new(),
    };
    let mut heard = Instant::now();
    let replicas = config.replicas_deadline();
    let most = if replicas.is_some() { 1 } else { BATCHES_IN_FLIGHT };
    let mut given_up = pin!(role::given_up(config, &link.server, link.connection.clone()));
    loop {
        while in_flight.batches.len() < most {
            let batch = commands.take_batch();
            if batch.is_empty() {
                break;
            }
            let (requests, waiting) = batch.into_iter().map(|i| (i.request, i.on_answer)).unzip();
            in_flight.waiting.push_back(waiting);
            in_flight
                .batches
                .push_back(send(link.clone(), requests, replicas));
        }
        tokio::select! {
            () = link.gone.notified() => return "closed by Redis or the network",
            reason = &mut given_up => return reason,
            () = commands.wake.notified() => {}
            Some(answers) = in_flight.batches.next() => {
                let Ok(answers) = answers else { return "no answer in time, or closed" };
                heard = Instant::now();
                let waiting = in_flight.waiting.pop_front().unwrap_or_default();
                let unreplicated = answers.iter().filter(|a| **a == Err(Failure::Unreplicated)).count();
                stats.unreplicated.inc_by(unreplicated as u64);
                if let Some(reason) = give(answers, waiting, commands.alert.as_deref()) {
                    return reason;
                }
            }
            () = sleep_until(heard + timing.silence), if in_flight.batches.is_empty() => {
                commands.submit_own(Item { request: Request::Ping, on_answer: None });
            }
        }
    }
}

/// Gives the answers of a batch; tells why the link is to be given up, when the server says that it cannot serve.
fn give(
    answers: Vec<Result<Answer, Failure>>,
    waiting: Vec<Option<OnAnswer>>,
    alert: Option<&Alert>,
) -> Option<&'static str> {
    let mut unfit = None;
    for (answer, on_answer) in answers.into_iter().zip(waiting) {
        match (&answer, alert) {
            (Err(Failure::WrongServer(_)), _) => unfit = Some("the server cannot take writes"),
            (Err(Failure::Moved(_)), Some(alert)) => alert.look(),
            (Err(Failure::Moved(_)), None) => {
                unfit = Some("it is a node of a cluster: give redis-cluster://");
            }
            _ => {}
        }
        if let Some(on_answer) = on_answer {
            on_answer(answer.map_err(BrokerError::from));
        }
    }
    unfit
}

/// Sends one batch; what failed for a script that Redis has forgotten is asked again after loading it.
async fn send(
    mut link: CommandLink,
    requests: Vec<Request>,
    replicas: Option<Duration>,
) -> Result<Vec<Result<Answer, Failure>>, RedisError> {
    let mut answers = ask(&mut link, &requests, replicas).await?;
    let forgotten: Vec<usize> = (0..answers.len())
        .filter(|&i| answers[i] == Err(Failure::NoScript))
        .collect();
    if !forgotten.is_empty() {
        link::all(&mut link.connection, &link.scripts.reload()).await?;
        let again: Vec<Request> = forgotten.iter().map(|&i| requests[i].clone()).collect();
        let second = ask(&mut link, &again, replicas).await?;
        for (index, answer) in forgotten.into_iter().zip(second) {
            answers[index] = answer;
        }
    }
    Ok(answers)
}

/// Sends requests as one pipeline. With a time for replicas, a message that none has by then is a failure.
async fn ask(
    link: &mut CommandLink,
    requests: &[Request],
    replicas: Option<Duration>,
) -> Result<Vec<Result<Answer, Failure>>, RedisError> {
    let mut pipeline = pipeline(requests, &link.scripts);
    let replicas = replicas.filter(|_| requests.iter().any(Request::is_placed));
    if let Some(limit) = replicas {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        // 0 would be for ever
        pipeline.cmd("WAIT").arg(1).arg(millis.max(1));
    }
    let mut values = link::all(&mut link.connection, &pipeline).await?;
    let had = replicas.map(|_| values.pop());
    let mut answers = read(&values);
    if had.is_some_and(|had| !matches!(had, Some(Value::Int(1..)))) {
        for (answer, request) in answers.iter_mut().zip(requests) {
            if answer.is_ok() && request.is_placed() {
                *answer = Err(Failure::Unreplicated);
            }
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
    values.iter().map(answer::answer).collect()
}
