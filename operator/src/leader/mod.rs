//! Leader election on a `coordination.k8s.io/v1` Lease: all replicas watch, one writes.
//!
//! [`Elector::run`] is the task; [`Leadership`] is what everybody else sees. A leader stops writing one margin before
//! its lease can be taken by another, so a call that was started in time is over in time. The API server's optimistic
//! concurrency decides every race for the Lease; the epoch fences what goes to the gateways, which it cannot see.
//! Steady state: one write per renewal period by the leader, one watch by each follower.

pub mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_lease};
use kube::{Api, Client};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use lease::{Sighting, acquired, epoch_of, is_held_by, released, renewed};
pub use lease::{Term, Timing};

/// How long to wait before a failed call for the Lease is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a step of the election failed; the task retries all of them.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// The API server refused or could not be reached.
    #[error("lease: {0}")]
    Api(#[from] Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("lease: no answer within {0:?}")]
    Timeout(Duration),
    /// Another process wrote first.
    #[error("lease: another process wrote first")]
    Conflict,
}

/// Whether this process leads; cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: watch::Receiver<Option<Term>>,
    margin: Duration,
    wanted_epoch: Arc<AtomicU64>,
    nudge: Arc<Notify>,
}

impl Leadership {
    /// The term in which a write may be *started* now; `None` when this process does not lead or nearly does not.
    pub fn term(&self) -> Option<Term> {
        let term = *self.term.borrow();
        term.filter(|term| Instant::now() + self.margin < term.until)
    }

    /// Whether the Lease is held, be it in its last seconds.
    pub fn is_leader(&self) -> bool {
        self.term.borrow().is_some_and(|term| Instant::now() < term.until)
    }

    /// A gateway has seen the epoch `seen`. When ours is lower, it must be raised above it, which only the holder of
    /// the Lease can. Happens when somebody deleted the Lease; a deposed leader asks in vain, for its next write to the
    /// Lease fails.
    pub fn outbid(&self, seen: u64) {
        if self.term.borrow().is_some_and(|term| term.epoch < seen) {
            self.wanted_epoch
                .fetch_max(seen.saturating_add(1), Ordering::Relaxed);
            self.nudge.notify_one();
        }
    }

    /// Yields each time at which this process begins a term. Ends with the election.
    pub fn beginnings(&self) -> impl Stream<Item = ()> + Send + use<> {
        let start = (self.term.clone(), None::<u64>);
        futures::stream::unfold(start, |(mut term, mut last)| async move {
            loop {
                let now = term.borrow_and_update().map(|term| term.epoch);
                if now.is_some() && now != last {
                    return Some(((), (term, now)));
                }
                last = now;
                term.changed().await.ok()?;
            }
        })
    }
}

/// Takes part in the election.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    term: watch::Sender<Option<Term>>,
    wanted_epoch: Arc<AtomicU64>,
    nudge: Arc<Notify>,
}

/// Creates both sides of an election for the Lease `namespace`/`name`.
pub fn election(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
    timing: Timing,
) -> (Elector, Leadership) {
    let (sender, receiver) = watch::channel(None);
    let wanted_epoch = Arc::new(AtomicU64::new(0));
    let nudge = Arc::new(Notify::new());
    let leadership = Leadership {
        term: receiver,
        margin: timing.margin,
        wanted_epoch: Arc::clone(&wanted_epoch),
        nudge: Arc::clone(&nudge),
    };
    let elector = Elector {
        api: Api::namespaced(client, namespace),
        name: name.to_owned(),
        identity: identity.to_owned(),
        timing,
        term: sender,
        wanted_epoch,
        nudge,
    };
    (elector, leadership)
}

impl Elector {
    /// Runs until `stop`, and then gives the Lease back if it is held. `stop` must come after the last write.
    pub async fn run(self, stop: CancellationToken) {
        while let Some(held) = tokio::select! {
            () = stop.cancelled() => None,
            lease = self.follow() => Some(lease),
        } {
            info!(identity = self.identity, epoch = epoch_of(&held), "leading");
            self.lead(held, &stop).await;
            self.term.send_replace(None);
            info!(identity = self.identity, "no longer leading");
        }
    }

    /// Waits until the Lease is free, and takes it. Cancel safe: a Lease acquired by a call that was cancelled in
    /// flight runs out like that of a crashed process.
    async fn follow(&self) -> Lease {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = std::pin::pin!(watch_lease(self.api.clone(), config).default_backoff());
        let mut sighting: Option<Sighting> = None;
        let mut known = false;
        // without an answer from the watch, a call tells more than waiting
        let patience = Instant::now() + self.timing.renew;
        let mut retry_at = Instant::now();
        loop {
            let free_at = match &sighting {
                _ if !known => patience,
                Some(seen) => seen.free_at(),
                None => retry_at,
            };
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(lease) | Event::InitApply(lease))) => {
                        sighting = Some(Sighting::of(lease, sighting.as_ref(), Instant::now()));
                        known = true;
                    }
                    Some(Ok(Event::Delete(_))) => sighting = None,
                    Some(Ok(Event::InitDone)) => known = true,
                    Some(Ok(Event::Init)) => {}
                    Some(Err(error)) => debug!(%error, "watch of the lease interrupted"),
                    None => sleep(RETRY).await,
                },
                () = sleep_until(free_at.max(retry_at)) => {
                    // looked at once more: a watch that is behind or forbidden must not cost a write that fails
                    match self.bounded(self.api.get_opt(&self.name)).await {
                        Ok(found) => {
                            let now = Instant::now();
                            sighting = found.map(|lease| Sighting::of(lease, sighting.as_ref(), now));
                            known = true;
                            if sighting.as_ref().is_some_and(|seen| seen.free_at() > now) {
                                continue;
                            }
                        }
                        Err(error) => {
                            debug!(%error, "lease not read");
                            retry_at = Instant::now() + RETRY;
                            continue;
                        }
                    }
                    match self.acquire(sighting.as_ref()).await {
                        Ok(lease) => return lease,
                        Err(error) => debug!(%error, "lease not acquired"),
                    }
                    retry_at = Instant::now() + RETRY;
                }
            }
        }
    }

    async fn acquire(&self, sighting: Option<&Sighting>) -> Result<Lease, LeaseError> {
        let asked_at = Instant::now();
        let old = sighting.map(Sighting::lease);
        let wanted = acquired(&self.name, old, &self.identity, self.timing, Timestamp::now());
        let params = PostParams::default();
        let lease = if old.is_some() {
            self.bounded(self.api.replace(&self.name, &params, &wanted))
                .await?
        } else {
            self.bounded(self.api.create(&params, &wanted)).await?
        };
        self.announce(&lease, asked_at);
        Ok(lease)
    }

    /// Renews until the Lease is lost or `stop`.
    async fn lead(&self, mut held: Lease, stop: &CancellationToken) {
        let mut next = Instant::now() + self.timing.renew;
        loop {
            let end = self.term.borrow().map_or_else(Instant::now, |term| term.until);
            tokio::select! {
                () = stop.cancelled() => return self.release(&held).await,
                () = sleep_until(next.min(end)) => {}
                () = self.nudge.notified() => {}
            }
            let asked_at = Instant::now();
            if asked_at >= end {
                warn!("the lease ran out before it could be renewed");
                return;
            }
            let wanted = renewed(&held, self.wanted_epoch.load(Ordering::Relaxed), Timestamp::now());
            match self
                .bounded(self.api.replace(&self.name, &PostParams::default(), &wanted))
                .await
            {
                Ok(lease) => {
                    self.announce(&lease, asked_at);
                    held = lease;
                    next = asked_at + self.timing.renew;
                }
                Err(LeaseError::Conflict) => match self.bounded(self.api.get(&self.name)).await {
                    Ok(lease)
                        if is_held_by(&lease, &self.identity) && epoch_of(&lease) >= epoch_of(&held) =>
                    {
                        held = lease;
                        next = Instant::now();
                    }
                    Ok(_) => return warn!("the lease was taken by another process"),
                    Err(error) => {
                        warn!(%error, "lease not renewed");
                        next = Instant::now() + RETRY;
                    }
                },
                Err(error) => {
                    warn!(%error, "lease not renewed");
                    next = Instant::now() + RETRY;
                    if matches!(&error, LeaseError::Api(api) if is_not_found(api)) {
                        return;
                    }
                }
            }
        }
    }

    async fn release(&self, held: &Lease) {
        self.term.send_replace(None);
        let free = released(held, Timestamp::now());
        match self
            .bounded(self.api.replace(&self.name, &PostParams::default(), &free))
            .await
        {
            Ok(_) => info!("lease given back"),
            Err(error) => warn!(%error, "lease not given back; it runs out by itself"),
        }
    }

    fn announce(&self, lease: &Lease, asked_at: Instant) {
        let until = asked_at + self.timing.duration;
        self.term.send_modify(|term| {
            let since = term.map_or_else(Timestamp::now, |term| term.since);
            *term = Some(Term {
                epoch: epoch_of(lease),
                since,
                until,
            });
        });
    }

    /// One call, given up before it can outlast the lease.
    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
        match timeout(self.timing.margin, call).await {
            Err(_) => Err(LeaseError::Timeout(self.timing.margin)),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
                Err(LeaseError::Conflict)
            }
            Ok(Err(error)) => Err(Box::new(error).into()),
        }
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
