//! Runs a load: ramps clients up and down, publishes, judges, and ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rand::Rng as _;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Client, InFlight, Shared, Socket, Sources};
use crate::config::{ConfigError, LoadConfig};
use crate::ledger::Ledger;
use crate::retry::Retries;
use crate::stats::{Report, Stats};
use crate::target::Target;
use crate::token::Tokens;
use crate::wire::message::{self, Payload};

/// Descriptors kept for everything that is not a client's socket.
const DESCRIPTOR_RESERVE: u64 = 100;
/// Pause between two turns of the ramp and of the publisher.
const TICK: Duration = Duration::from_millis(10);
/// Pause before a message is tried again whose client is not joined.
const AGAIN: Duration = Duration::from_millis(200);
/// How long sockets may take to close at the end.
const CLOSE_MOST: Duration = Duration::from_secs(10);

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A setting cannot work: correct it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The descriptor limit could not be raised: check the process's rights.
    #[error("the limit of descriptors could not be raised: {0}")]
    Descriptors(std::io::Error),
    /// A fault of this program.
    #[error("the histograms' bounds are wrong")]
    Histogram,
}

/// A run under way. Dropping it leaves the clients running; end it with [`Load::stop`].
#[derive(Clone)]
pub struct Load(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    clients: RwLock<Vec<Arc<Client>>>,
    target: AtomicU32,
    /// Wakes the ramp.
    steer: Notify,
    /// Bits of an `f64`.
    publish_rate: AtomicU64,
    /// Ends the ramp, the publisher and the judge.
    end: CancellationToken,
    sequence: AtomicU64,
    /// When publishing ended, for the mean of deliveries.
    measured: Mutex<Option<Duration>>,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load")
            .field("config", &self.0.shared.config)
            .finish_non_exhaustive()
    }
}

impl Load {
    /// Begins a run on the current tokio runtime. The soft limit of descriptors is raised to the hard one.
    pub fn start(config: LoadConfig) -> Result<Self, LoadError> {
        config.validate()?;
        raise_descriptors(config.connections)?;
        let (target, publish_rate) = (config.connections, config.publish_rate);
        let shared = Arc::new(Shared {
            tokens: Tokens::new(&config.token),
            sources: Sources::new(&config.sources),
            stats: Stats::new().ok_or(LoadError::Histogram)?,
            ledger: Ledger::new(&config.room_prefix, config.grace),
            tasks: TaskTracker::new(),
            targets: RwLock::new(config.targets.clone()),
            retries: Retries::new(config.retry),
            started: Instant::now(),
            run: rand::rng().random(),
            config,
        });
        let inner = Arc::new(Inner {
            shared,
            clients: RwLock::default(),
            target: AtomicU32::new(target),
            steer: Notify::new(),
            publish_rate: AtomicU64::new(publish_rate.to_bits()),
            end: CancellationToken::new(),
            sequence: AtomicU64::new(0),
            measured: Mutex::new(None),
        });
        let end = &inner.end;
        tokio::spawn(end.clone().run_until_cancelled_owned(ramp(Arc::clone(&inner))));
        tokio::spawn(end.clone().run_until_cancelled_owned(publish(Arc::clone(&inner))));
        tokio::spawn(end.clone().run_until_cancelled_owned(judge(Arc::clone(&inner))));
        Ok(Self(inner))
    }

    /// Changes the number of clients: more are opened at the rate, the latest ones are closed with 1000.
    /// Refused when the process may not open that many sockets.
    pub fn set_target(&self, clients: u32) -> Result<(), LoadError> {
        raise_descriptors(clients)?;
        self.0.target.store(clients, Relaxed);
        self.0.steer.notify_one();
        Ok(())
    }

    /// Changes the number of messages published per second; 0 stops publishing.
    pub fn set_publish_rate(&self, per_second: f64) {
        let rate = if per_second.is_finite() {
            per_second.max(0.0)
        } else {
            0.0
        };
        self.0.publish_rate.store(rate.to_bits(), Relaxed);
    }

    /// Changes where sockets go that are opened from now on, as a Service does when its pods change. Refused when empty.
    pub fn set_targets(&self, targets: Vec<Target>) -> Result<(), LoadError> {
        if targets.is_empty() {
            return Err(ConfigError::NoTarget.into());
        }
        *self.0.shared.targets.write() = targets;
        Ok(())
    }

    /// Messages that were sent and are neither acknowledged nor given up, without the cost of a snapshot.
    pub fn outstanding(&self) -> u64 {
        self.0.shared.stats.outstanding()
    }

    /// Clients that are wanted.
    pub fn target(&self) -> u32 {
        self.0.target.load(Relaxed)
    }

    /// Open sockets, without the cost of a snapshot.
    pub fn connected(&self) -> u64 {
        self.0.shared.stats.open.get()
    }

    /// Clients joined to all of their rooms, without the cost of a snapshot.
    pub fn joined(&self) -> u64 {
        self.0.shared.stats.joined.get()
    }

    /// The numbers so far.
    pub fn snapshot(&self) -> Report {
        let inner = &self.0;
        let clients = inner.clients.read();
        let reconnects = clients.iter().filter_map(|client| client.reconnects());
        let now = inner.shared.now();
        let measured = inner.measured.lock().unwrap_or(now);
        Report::gather(
            &inner.shared.stats,
            &inner.shared.ledger,
            self.target(),
            now,
            measured,
            reconnects,
        )
    }

    /// Ends the run: stops publishing, waits until everything is acknowledged (the grace period at most), gives what is under
    /// way the grace period, judges, closes every socket with 1000, and reports. Not cancel-safe: sockets may stay open.
    pub async fn stop(&self) -> Report {
        let inner = &self.0;
        self.set_publish_rate(0.0);
        *inner.measured.lock() = Some(inner.shared.now());
        let settle = async {
            while self.outstanding() > 0 {
                sleep(TICK).await;
            }
        };
        // what is not acknowledged by then is reported as that
        let _ = timeout(inner.shared.config.grace, settle).await;
        // half a second on top: acknowledgements are judged by the tenth, and the judge looks twice a second
        if inner.sequence.load(Relaxed) > 0 {
            sleep(inner.shared.config.grace + TICK * 50).await;
        }
        inner.end.cancel();
        inner.shared.ledger.sweep(inner.shared.now());
        let sockets = self.snapshot().sockets;
        for client in inner.clients.read().iter() {
            client.stop();
        }
        inner.shared.tasks.close();
        // what does not close in time is counted as it is
        let _ = timeout(CLOSE_MOST, inner.shared.tasks.wait()).await;
        inner.shared.retries.end(&inner.shared.stats);
        Report {
            sockets,
            ..self.snapshot()
        }
    }
}

/// Makes room for `clients` sockets, half as many again while they change over (at most the limit).
fn raise_descriptors(clients: u32) -> Result<(), LoadError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let needed = u64::from(clients) + DESCRIPTOR_RESERVE;
    if needed > hard {
        return Err(ConfigError::Descriptors {
            wanted: clients,
            needed,
            limit: hard,
        }
        .into());
    }
    if limit.current == limit.maximum {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| LoadError::Descriptors(error.into()))
}

/// Opens clients at the rate until there are as many as wanted, closes the latest when there are more.
async fn ramp(inner: Arc<Inner>) {
    let config = &inner.shared.config;
    let permits = Arc::new(Semaphore::new(config.connect_concurrency as usize));
    let mut running = 0u32;
    let mut owed = 0.0;
    let mut last = inner.shared.now();
    loop {
        let target = inner.target.load(Relaxed);
        if running > target {
            for client in &inner.clients.read()[target as usize..running as usize] {
                client.stop();
            }
            running = target;
        }
        if running == target {
            inner.steer.notified().await;
            (owed, last) = (0.0, inner.shared.now());
            continue;
        }
        let now = inner.shared.now();
        // after a stall, what was missed in the last second at most is made up
        owed = (owed + now.saturating_sub(last).as_secs_f64() * config.rate).min(config.rate.max(1.0));
        last = now;
        while owed >= 1.0 && running < target {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            inner.client(running).start(permit);
            running += 1;
            owed -= 1.0;
        }
        sleep(TICK).await;
    }
}

impl Inner {
    fn client(self: &Arc<Self>, index: u32) -> Arc<Client> {
        let mut clients = self.clients.write();
        if let Some(client) = clients.get(index as usize) {
            return Arc::clone(client);
        }
        let client = Client::new(index, Arc::clone(&self.shared));
        clients.push(Arc::clone(&client));
        client
    }

    /// One message from a random joined client to one of its rooms.
    fn publish_one(&self, filler: &mut String) {
        const TRIES: usize = 16;
        let shared = &self.shared;
        let (config, stats) = (&shared.config, &shared.stats);
        let clients = self.clients.read();
        let most = (self.target.load(Relaxed) as usize).min(clients.len());
        let pick = || (most > 0).then(|| &clients[rand::rng().random_range(0..most)]);
        let found = (0..TRIES).find_map(|_| {
            let client = pick()?;
            Some((client, client.active()?))
        });
        let Some((client, socket)) = found else {
            return stats.skipped.add(1);
        };
        let publish = InFlight {
            sequence: self.sequence.fetch_add(1, Relaxed),
            room: rand::rng().random_range(0..config.rooms_per_connection),
            sent: shared.now(),
            refusals: 0,
        };
        // counted first: the answer may be quicker
        stats.published.add(1);
        if self.write(client, &socket, publish, filler).is_none() {
            stats.published.sub(1);
            stats.skipped.add(1);
        }
    }

    /// Writes a message, for the first time or again; `None` when the socket does not take it.
    fn write(&self, client: &Client, socket: &Socket, publish: InFlight, filler: &mut String) -> Option<()> {
        let shared = &self.shared;
        let config = &shared.config;
        let room = config
            .rooms
            .room(client.index, publish.room, config.rooms_per_connection);
        let room = shared.ledger.room(room);
        let mut payload = Payload {
            run: shared.run,
            publisher: client.index,
            sequence: publish.sequence,
            sent: publish.sent.as_micros() as u64,
            filler: "",
        };
        let length = message::filler(&payload, config.payload_bytes).ok()?;
        while filler.len() < length {
            filler.push('x');
        }
        payload.filler = &filler[..length];
        let text = message::room_message(&room.name, &payload, shared.retries.is_on()).ok()?;
        socket.publish(publish, &text).ok()
    }

    /// Sends again what was not acknowledged, as far as its clients are joined.
    fn publish_again(&self, filler: &mut String) {
        let (shared, now) = (&self.shared, self.shared.now());
        for mut retry in shared.retries.take_due(now) {
            let client = self.clients.read().get(retry.client as usize).cloned();
            let sent = client.and_then(|client| {
                let socket = client.active()?;
                self.write(&client, &socket, retry.publish, filler)
            });
            if sent.is_some() {
                shared.stats.sent_again.add(1);
            } else {
                retry.at = now + AGAIN;
                shared.retries.keep(retry, now, &shared.stats);
            }
        }
    }
}

/// Publishes at the rate.
async fn publish(inner: Arc<Inner>) {
    if inner.shared.config.rooms_per_connection == 0 {
        return;
    }
    let mut filler = String::new();
    let mut owed = 0.0;
    let mut last = inner.shared.now();
    loop {
        sleep(TICK).await;
        let now = inner.shared.now();
        let rate = f64::from_bits(inner.publish_rate.load(Relaxed));
        owed = (owed + now.saturating_sub(last).as_secs_f64() * rate).min(rate.max(1.0));
        last = now;
        inner.publish_again(&mut filler);
        while owed >= 1.0 {
            inner.publish_one(&mut filler);
            owed -= 1.0;
        }
    }
}

/// Sweeps the ledger twice a second and takes the rates each second.
async fn judge(inner: Arc<Inner>) {
    let stats = &inner.shared.stats;
    let mut ticks = interval(Duration::from_millis(500));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut at, mut deliveries, mut publishes) = (inner.shared.now(), 0, 0);
    loop {
        ticks.tick().await;
        let now = inner.shared.now();
        inner.shared.ledger.sweep(now);
        let seconds = now.saturating_sub(at).as_secs_f64();
        if seconds < 0.99 {
            continue;
        }
        let (d, p) = (stats.deliveries.get(), stats.published.get());
        let mut last = stats.last_second.lock();
        last.deliveries = (d - deliveries) as f64 / seconds;
        last.publishes = (p - publishes) as f64 / seconds;
        last.busiest_deliveries = last.busiest_deliveries.max(last.deliveries);
        drop(last);
        (at, deliveries, publishes) = (now, d, p);
    }
}
