//! The issuer's keys, cached: fetched when the gateway starts, every ten minutes, and when a token names a key that is
//! not known, but never twice within ten seconds. A fetch that fails changes nothing for the keys that are known.
//!
//! All fetching happens in one task ([`Jwks::run`]). Times are tokio's, so that tests run in virtual time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::fetch::FetchError;
use super::keys::KeySet;

/// Time between two fetches, at least.
pub const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// Time between two fetches that nobody asks for, about.
const REFRESH: Duration = Duration::from_mins(10);
/// Handshakes that wait for a fetch at a time: tokens with invented keys must not take every place there is.
const WAITERS: usize = 64;

/// The cache.
#[derive(Debug)]
pub struct Jwks {
    state: Mutex<State>,
    wanted: Notify,
    /// Fetches that have ended.
    ended: watch::Sender<u64>,
    waiters: Semaphore,
    fetches: IntCounter,
    failures: IntCounter,
    known: IntGauge,
}

#[derive(Debug, Default)]
struct State {
    keys: Arc<KeySet>,
    /// When the last fetch began.
    began: Option<Instant>,
    running: bool,
    failed: bool,
}

/// What came of asking for newer keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newer {
    /// They are here: what they do not have is not there.
    Fetched,
    /// They could not be had now: the last fetch failed, or was too short a time ago, or too many are waiting. The
    /// next fetch is on its way; try again later.
    NotNow,
}

impl Jwks {
    /// No keys yet. Fails only by a mistake in the metrics' names.
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
            waiters: Semaphore::new(WAITERS),
            fetches: IntCounter::new("ws_jwks_fetches_total", "Fetches of the key set")?,
            failures: IntCounter::new(
                "ws_jwks_fetch_failures_total",
                "Fetches of the key set that failed",
            )?,
            known: IntGauge::new("ws_jwks_keys", "Keys of the key set that are known")?,
        })
    }

    /// For the registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.fetches.clone()),
            Box::new(self.failures.clone()),
            Box::new(self.known.clone()),
        ]
    }

    /// The keys that are known.
    pub fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.state.lock().keys)
    }

    /// Asks for newer keys without waiting for them. True when a fetch is running, or begins now.
    pub fn ask(&self) -> bool {
        let state = self.state.lock();
        // the one that is running, or with which everything begins, is the one that is wanted
        let Some(began) = state.began.filter(|_| !state.running) else {
            return true;
        };
        self.wanted.notify_one();
        began.elapsed() >= FETCH_PAUSE
    }

    /// Asks for newer keys, and waits for them if a fetch is running or may begin now. Cancel-safe: the fetch goes on.
    pub async fn newer(&self) -> Newer {
        let Ok(_place) = self.waiters.try_acquire() else {
            self.ask();
            return Newer::NotNow;
        };
        let mut ended = self.ended.subscribe();
        if !self.ask() || ended.changed().await.is_err() || self.state.lock().failed {
            return Newer::NotNow;
        }
        Newer::Fetched
    }

    /// Fetches with `fetch` until dropped.
    pub async fn run<F, W>(&self, fetch: F)
    where
        F: Fn() -> W,
        W: Future<Output = Result<KeySet, FetchError>>,
    {
        loop {
            let began = self.begin();
            let fetched = fetch().await;
            let failed = fetched.is_err();
            self.end(fetched);
            let allowed = began + FETCH_PAUSE;
            // not all gateways of a fleet at one moment
            let regular = began + REFRESH.mul_f64(rand::random_range(0.9..1.1));
            let next = if failed { allowed } else { regular };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.wanted.notified() => sleep_until(allowed).await,
            }
        }
    }

    fn begin(&self) -> Instant {
        self.fetches.inc();
        let now = Instant::now();
        let mut state = self.state.lock();
        state.began = Some(now);
        state.running = true;
        now
    }

    fn end(&self, fetched: Result<KeySet, FetchError>) {
        self.state.lock().running = false;
        self.replace(fetched);
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Takes what was fetched for what is known; what failed changes nothing but the next answer of [`Jwks::newer`].
    pub(super) fn replace(&self, fetched: Result<KeySet, FetchError>) {
        let mut state = self.state.lock();
        let failed_before = std::mem::replace(&mut state.failed, fetched.is_err());
        match fetched {
            Ok(keys) => {
                self.known.set(keys.len() as i64);
                state.keys = Arc::new(keys);
            }
            Err(error) => {
                self.failures.inc();
                // once per outage, not once per attempt
                if !failed_before {
                    let known = state.keys.len();
                    tracing::warn!(%error, known, "cannot fetch the key set; trying again, known keys stay");
                }
            }
        }
    }
}
