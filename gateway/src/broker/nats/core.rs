//! What the tasks of a broker share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::NatsConfig;
use super::lanes::Lanes;
use super::link::Link;
use super::outbox::Outbox;
use super::presence::Views;
use crate::broker::stats::Stats;
use crate::broker::table::Table;
use crate::broker::{BrokerError, Sink};
use crate::config::Histories;

/// Shared by all tasks.
pub(super) struct Core {
    pub(super) config: NatsConfig,
    pub(super) histories: Arc<Histories>,
    /// Unique among all gateways.
    pub(super) instance: String,
    pub(super) table: Table,
    pub(super) lanes: Lanes,
    /// Clients' events that wait to be stored.
    pub(super) events: Outbox,
    /// What is to be stored of users' connections.
    pub(super) seats: Outbox,
    /// What is to be stored of rooms' members.
    pub(super) presence: Outbox,
    /// Who is in the rooms that have members here.
    pub(super) views: Views,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) stats: Stats,
    /// The connection, while there is one on which everything is subscribed and compared.
    pub(super) current: Mutex<Option<Arc<Link>>>,
    /// Whether there is one; told whenever that changes.
    pub(super) up: watch::Sender<bool>,
    /// Whether it is proven: subscribed to everything, and heard from lately.
    pub(super) proven: AtomicBool,
    pub(super) cancelled: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Core {
    /// The connection.
    pub(super) fn link(&self) -> Result<Arc<Link>, BrokerError> {
        self.current.lock().clone().ok_or(BrokerError::Unavailable)
    }

    /// Whether everything is subscribed, and was heard from lately.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}
