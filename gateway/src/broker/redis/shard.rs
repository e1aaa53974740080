//! One server of Redis with its two links: all there is of a standalone Redis, one part of a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::super::Sink;
use super::command::{self, Birth};
use super::config::RedisConfig;
use super::naming;
use super::queue::Commands;
use super::subscribe::{self, Subscriber};
use crate::broker::stats::Stats;
use crate::broker::table::Table;
use crate::config::Histories;

/// What all shards of a broker have in common.
#[derive(Clone)]
pub(super) struct Common {
    /// Unique among all gateways.
    pub(super) instance: Arc<str>,
    pub(super) histories: Arc<Histories>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) stats: Arc<Stats>,
    pub(super) cancelled: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// A server with its links. Dropping it ends its tasks.
pub(super) struct Shard {
    pub(super) commands: Arc<Commands>,
    pub(super) table: Arc<Table>,
    /// The channel on which its subscription link is proven.
    pub(super) probe_channel: Arc<Mutex<Arc<[u8]>>>,
    proven: Arc<AtomicBool>,
    _ends: DropGuard,
}

impl Shard {
    /// Starts the two links in the background.
    pub(super) fn start(
        config: RedisConfig,
        commands: Commands,
        probe_channel: Arc<[u8]>,
        birth: Birth,
        common: &Common,
    ) -> Self {
        let cancelled = common.cancelled.child_token();
        let shard = Self {
            commands: Arc::new(commands),
            table: Arc::new(Table::new(Arc::clone(&common.histories))),
            probe_channel: Arc::new(Mutex::new(probe_channel)),
            proven: Arc::new(AtomicBool::new(false)),
            _ends: cancelled.clone().drop_guard(),
        };
        let subscriber = Subscriber {
            config: config.clone(),
            commands: Arc::clone(&shard.commands),
            table: Arc::clone(&shard.table),
            sink: Arc::clone(&common.sink),
            stats: Arc::clone(&common.stats),
            proven: Arc::clone(&shard.proven),
            probe_channel: Arc::clone(&shard.probe_channel),
            counted: AtomicI64::new(0),
        };
        let (commands, stats) = (Arc::clone(&shard.commands), Arc::clone(&common.stats));
        let run = command::run(commands, config, stats, birth, cancelled.clone());
        common.tasks.spawn(run);
        common.tasks.spawn(subscribe::run(subscriber, cancelled));
        shard
    }

    /// The only one of a standalone Redis.
    pub(super) fn standalone(config: &RedisConfig, common: &Common) -> Self {
        let probe_channel = naming::probe(config.database(), &common.instance);
        Self::start(
            config.clone(),
            Commands::new(),
            probe_channel,
            Birth::Fresh,
            common,
        )
    }

    /// Whether everything is subscribed, and was heard from lately.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}
