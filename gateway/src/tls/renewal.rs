//! The certificate that is served with, and its replacement when the files change.
//!
//! A Kubernetes Secret is replaced by a symbolic link that is pointed elsewhere, other tools write one file after the
//! other: so contents are compared, and what is new is taken only when two looks have found the same. What cannot be
//! served with changes nothing, and is told once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge};
use rustls::ServerConfig;

use super::files::{Content, LoadError, Loaded, TlsFiles};
use crate::clock::Clock;

/// Time between two looks at the files.
const POLL: Duration = Duration::from_secs(1);

type Found = Result<Content, LoadError>;

/// The certificate that new connections get.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: Mutex<Arc<ServerConfig>>,
    expiry: IntGauge,
    failures: IntCounter,
    looks: Mutex<Looks>,
}

/// What was found in the files.
#[derive(Debug)]
struct Looks {
    /// What was acted upon.
    settled: Found,
    /// At the last look.
    last: Option<Found>,
}

impl Tls {
    /// Loads the files.
    pub fn start(files: TlsFiles) -> Result<Self, StartError> {
        let content = files.read()?;
        let loaded = files.load(&content)?;
        let tls = Self {
            current: Mutex::new(Arc::clone(&loaded.config)),
            expiry: IntGauge::new(
                "ws_tls_certificate_expiry_seconds",
                "When the certificate that is served with ends, in seconds since 1970-01-01 UTC.",
            )?,
            failures: IntCounter::new(
                "ws_tls_reload_failures_total",
                "Changes of the certificate's files that could not be served with; the old certificate stayed.",
            )?,
            looks: Mutex::new(Looks {
                settled: Ok(content),
                last: None,
            }),
            files,
        };
        tls.tell(&loaded);
        Ok(tls)
    }

    /// What a new connection is served with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock())
    }

    /// What is counted.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.expiry.clone()), Box::new(self.failures.clone())]
    }

    /// Looks at the files until dropped.
    pub async fn run(&self) {
        let mut interval = tokio::time::interval(POLL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let files = self.files.clone();
            if let Ok(found) = tokio::task::spawn_blocking(move || files.read()).await {
                self.look(found);
            }
        }
    }

    /// Acts upon what is in the files.
    pub(super) fn look(&self, found: Found) {
        let mut looks = self.looks.lock();
        if found == looks.settled {
            looks.last = None;
            return;
        }
        if looks.last.as_ref() != Some(&found) {
            looks.last = Some(found);
            return;
        }
        looks.last = None;
        let loaded = match &found {
            Ok(content) => self.files.load(content),
            Err(error) => Err(error.clone()),
        };
        looks.settled = found;
        match loaded {
            Ok(loaded) => {
                *self.current.lock() = Arc::clone(&loaded.config);
                self.tell(&loaded);
            }
            Err(error) => {
                self.failures.inc();
                tracing::error!(
                    %error,
                    "the changed certificate cannot be served with: the one before stays in use until the files are right"
                );
            }
        }
    }

    fn tell(&self, loaded: &Loaded) {
        self.expiry.set(loaded.expires as i64);
        let left = loaded.expires.saturating_sub(Clock::unix_seconds());
        if left == 0 {
            tracing::warn!(cert = %self.files.cert.display(), "the certificate has expired: clients will refuse it; renew it");
        } else {
            let days = left / 86_400;
            tracing::info!(cert = %self.files.cert.display(), days_left = days, "serving with this certificate");
        }
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files cannot be served with; give ones that fit together, as the text says.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Two metrics with one name: a mistake in the program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
