//! One client: a user that keeps coming back. At most two of its sockets are open at a time, the old and the new one
//! while it changes over.

mod connect;
mod inbox;
mod session;
mod socket;
mod sources;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::LoadConfig;
use crate::ledger::{Handover, Ledger, Room, Seam};
use crate::policy::{Decision, Event, Policy, PolicySettings, StopReason};
use crate::retry::Retries;
use crate::stats::Stats;
use crate::target::Target;
use crate::token::Tokens;

use connect::Refusal;
pub(crate) use socket::{InFlight, Socket};
pub use sources::Sources;

/// What all clients of a run share.
pub(crate) struct Shared {
    pub(crate) config: LoadConfig,
    /// Where sockets go; `config.targets` is what they were at first.
    pub(crate) targets: RwLock<Vec<Target>>,
    pub(crate) retries: Retries,
    pub(crate) tokens: Tokens,
    pub(crate) sources: Sources,
    pub(crate) stats: Stats,
    pub(crate) ledger: Ledger,
    pub(crate) tasks: TaskTracker,
    pub(crate) started: Instant,
    /// Marks this run's messages.
    pub(crate) run: u32,
}

impl Shared {
    /// Time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    const fn policy(&self) -> PolicySettings {
        PolicySettings {
            reconnect: self.config.reconnect,
            window: self.config.reconnect_window,
        }
    }
}

/// One client. Its tasks hold it; so does the engine, for publishing and for the report.
pub(crate) struct Client {
    pub(crate) index: u32,
    pub(crate) shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cancel: CancellationToken,
    /// The socket to publish on: the latest one that is joined to all rooms.
    active: Option<Arc<Socket>>,
    /// Where the latest attempt went to.
    target: Option<Target>,
    joined_sockets: u32,
    offline_since: Option<Duration>,
    ever_joined: bool,
    reconnects: u32,
    handovers: Vec<Handover>,
}

impl Client {
    pub(crate) fn new(index: u32, shared: Arc<Shared>) -> Arc<Self> {
        let handovers = (0..shared.config.rooms_per_connection)
            .map(|_| Handover::default())
            .collect();
        let state = State {
            handovers,
            ..State::default()
        };
        Arc::new(Self {
            index,
            shared,
            state: Mutex::new(state),
        })
    }

    /// Opens its first socket; `opened` is dropped when that has been tried.
    pub(crate) fn start<P: Send + 'static>(self: &Arc<Self>, opened: P) {
        let cancel = CancellationToken::new();
        let mut state = self.state.lock();
        state.cancel = cancel.clone();
        // a client that was stopped begins anew: that is no reconnect
        (state.ever_joined, state.offline_since) = (false, None);
        state.handovers.fill_with(Handover::default);
        drop(state);
        let client = Arc::clone(self);
        self.shared.tasks.spawn(async move {
            // the first attempt waits for nothing; the permit goes when the policy takes over
            let first = client.connect(&client.first_target()).await;
            drop(opened);
            client.keep_connected(first, None, cancel).await;
        });
    }

    /// Closes its sockets with 1000 and does not come back.
    pub(crate) fn stop(&self) {
        self.state.lock().cancel.cancel();
    }

    /// The socket to publish on.
    pub(crate) fn active(&self) -> Option<Arc<Socket>> {
        self.state.lock().active.clone()
    }

    /// Times it came back, if it was ever there.
    pub(crate) fn reconnects(&self) -> Option<u32> {
        let state = self.state.lock();
        state.ever_joined.then_some(state.reconnects)
    }

    /// The next socket beside the old one, which is told to go as soon as the new one has joined.
    fn start_beside(self: &Arc<Self>, old: Arc<Socket>, cancel: CancellationToken) -> BoxFuture<'static, ()> {
        let client = Arc::clone(self);
        Box::pin(async move {
            let first = client.connect(&client.another_target()).await;
            client.keep_connected(first, Some(old), cancel).await;
        })
    }

    /// Goes on until a socket hands over to a successor, the policy says stop, or the engine does.
    async fn keep_connected(
        self: &Arc<Self>,
        mut attempt: Result<connect::Upgraded, Refusal>,
        mut old: Option<Arc<Socket>>,
        cancel: CancellationToken,
    ) {
        let mut policy = Policy::new(self.shared.policy());
        loop {
            let event = match attempt {
                Ok(upgraded) => match session::run(self, upgraded, &mut old, &mut policy, &cancel).await {
                    session::End::HandedOver => return,
                    session::End::Closed(code) => Event::Closed { code },
                },
                Err(refusal) => {
                    self.shared.stats.refused.add(&refusal.label());
                    refusal.event()
                }
            };
            if cancel.is_cancelled() {
                return;
            }
            let at = match policy.decide(&event, self.shared.now(), &mut rand::rng()) {
                Decision::Reconnect { at } => at,
                Decision::Stay | Decision::OpenBeside { .. } => self.shared.now(),
                Decision::Stop(reason) => return self.stopped(reason),
            };
            let wait = tokio::time::sleep(at.saturating_sub(self.shared.now()));
            if cancel.run_until_cancelled(wait).await.is_none() {
                return;
            }
            attempt = self.connect(&self.another_target()).await;
        }
    }

    fn stopped(&self, reason: StopReason) {
        let label = match reason {
            StopReason::Closed(code) => format!("closed {code}"),
            StopReason::Refused(status) => format!("refused {status}"),
        };
        self.shared.stats.stopped.add(&label);
    }

    async fn connect(&self, target: &Target) -> Result<connect::Upgraded, Refusal> {
        connect::connect(&self.shared, self.index, target).await
    }

    fn first_target(&self) -> Target {
        let first = &self.shared.config.first_targets;
        let own = self.index as usize % first.len().max(1);
        first.get(own).cloned().unwrap_or_else(|| self.another_target())
    }

    /// At random, but not the one that was left or that refused just now: it may be on its way out.
    fn another_target(&self) -> Target {
        let (targets, mut state, mut rng) = (self.shared.targets.read(), self.state.lock(), rand::rng());
        let last = state.target.take();
        let last = last.and_then(|last| targets.iter().position(|target| target.is(&last)));
        let next = match last {
            Some(last) if targets.len() > 1 => (last + rng.random_range(1..targets.len())) % targets.len(),
            _ => rng.random_range(0..targets.len()),
        };
        state.target.insert(targets[next].clone()).clone()
    }

    /// A socket is joined to all rooms.
    fn socket_joined(&self, socket: &Arc<Socket>) {
        let (now, stats) = (self.shared.now(), &self.shared.stats);
        let mut mine = self.state.lock();
        mine.active = Some(Arc::clone(socket));
        mine.joined_sockets += 1;
        if mine.joined_sockets == 1 {
            stats.joined.add(1);
        }
        if let Some(since) = mine.offline_since.take() {
            stats.offline.record(now.saturating_sub(since));
        } else if mine.ever_joined {
            stats.offline.record(Duration::ZERO);
        }
        if mine.ever_joined {
            mine.reconnects += 1;
            stats.reconnects.add(1);
        }
        mine.ever_joined = true;
    }

    /// A socket that was joined to all rooms ended.
    fn socket_ended(&self, socket: &Arc<Socket>) {
        let mut mine = self.state.lock();
        if mine
            .active
            .as_ref()
            .is_some_and(|active| Arc::ptr_eq(active, socket))
        {
            mine.active = None;
        }
        mine.joined_sockets -= 1;
        if mine.joined_sockets == 0 {
            self.shared.stats.joined.sub(1);
            if !mine.cancel.is_cancelled() {
                mine.offline_since = Some(self.shared.now());
            }
        }
    }

    /// Tells what changing sockets cost in one of its rooms.
    fn handover(&self, nth: usize, room: &Room, step: impl FnOnce(&mut Handover) -> Option<Seam>) {
        let seam = self.state.lock().handovers.get_mut(nth).and_then(step);
        if let Some(seam) = seam {
            let (cost, stats) = (room.ledger.lock().cost(seam), &self.shared.stats);
            stats.missed_offline.add(cost.missed);
            stats.overlapped.add(cost.overlapped);
            stats.taken_back_offline.add(cost.taken_back);
        }
    }

    /// Where it is in one of its rooms, to come back there; `None` when it was never there, or does not resume.
    fn position(&self, nth: usize, room: &Room) -> Option<(Arc<str>, u64)> {
        if !self.shared.config.resume {
            return None;
        }
        let (state, ledger) = (self.state.lock(), room.ledger.lock());
        let at = state.handovers.get(nth)?.position(&ledger)?;
        let epoch = ledger.epoch(at).filter(|epoch| !epoch.is_empty())?;
        Some((epoch, at.offset))
    }
}
