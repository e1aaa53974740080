//! A Redis Cluster: which node has which slot, found out again and again.
//!
//! Each primary that has slots is a [`Shard`](super::shard::Shard) of its own, with a command link and a subscription
//! link. Who has which slot is asked of all nodes to which there are links, over these; a slot belongs to the one that claims
//! it with the highest epoch, as among the nodes themselves. That is done when a link is lost or made, when a node says
//! that a slot is not its, when it takes a subscription back, and every few seconds: a primary that was demoted and
//! does not know it is found that way. Streams whose slot moved go to the other node's shard, where they are subscribed
//! anew and compared, as after a reconnect.
//!
//! Nothing that a node refused because of its slot is sent again: requests that were put later could overtake it, and a
//! message that went to a slot on its way would miss the subscribers, who are where the slot still is.

mod alert;
mod members;
mod slot;
mod topology;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(super) use self::alert::Alert;
use self::members::Maker;
pub(super) use self::members::Nodes;
use self::topology::{Address, Topology, View};
use super::answer::Answer;
use super::config::{RedisConfig, Server};
use super::link;
use super::queue::Commands;
use super::script::Request;
use super::shard::Common;
use super::shards::Shards;
use crate::broker::timing::Backoff;

/// How long a node may take to say what it knows; others know it, too.
const PATIENCE: Duration = Duration::from_secs(1);
/// At least so long between two looks, however often nodes refuse.
const PAUSE: Duration = Duration::from_millis(20);

/// What follows the cluster.
pub(super) struct Watcher {
    pub(super) config: RedisConfig,
    pub(super) seeds: Vec<Server>,
    pub(super) common: Common,
    pub(super) shards: Arc<Shards>,
}

impl Watcher {
    /// Follows the cluster until cancelled.
    pub(super) async fn run(self, cancelled: CancellationToken) {
        cancelled.run_until_cancelled(self.follow()).await;
        // the shards end with the broker's token
        if let Shards::Many { alert, .. } = &*self.shards {
            alert.set_up(false);
        }
    }

    async fn follow(&self) {
        let Shards::Many { nodes, alert } = &*self.shards else {
            return;
        };
        let maker = Maker {
            config: &self.config,
            common: &self.common,
            alert,
        };
        let mut known = BTreeSet::new();
        let mut backoff = Backoff::new(self.config.timing);
        let mut complaint = String::new();
        loop {
            let links = nodes.read().links();
            let views = self.ask(links, &known, &mut complaint).await;
            let topology = Topology::merge(&views);
            if !topology.known.is_empty() {
                known.clone_from(&topology.known);
            }
            let (changed, up) = {
                let mut nodes = nodes.write();
                let changed = nodes.follow(&topology, &maker);
                (changed, nodes.is_up())
            };
            if changed.slots > 0 {
                tracing::info!(
                    slots = changed.slots,
                    streams = changed.streams,
                    "slots of the cluster are elsewhere"
                );
            }
            alert.set_up(up);
            let wait = if up && topology.is_whole() {
                backoff.reset();
                self.config.timing.silence
            } else {
                backoff.step(rand::random())
            };
            tokio::select! {
                () = alert.wakes() => sleep(PAUSE).await,
                () = sleep(wait) => {}
            }
        }
    }

    /// What the nodes say: those with links all at once, or else the first one of all others that answers.
    async fn ask(
        &self,
        links: Vec<(Server, Arc<Commands>)>,
        known: &BTreeSet<Server>,
        complaint: &mut String,
    ) -> Vec<View> {
        let by = if self.config.speaks_tls() {
            Address::Name
        } else {
            Address::Ip
        };
        let asked = links.into_iter().map(|(server, commands)| async move {
            match timeout(PATIENCE, commands.ask(Request::Nodes)).await {
                Ok(Ok(Answer::Text(text))) => Some(View::parse(&text, &server, by)),
                _ => None,
            }
        });
        let views: Vec<View> = join_all(asked).await.into_iter().flatten().collect();
        if !views.is_empty() {
            return views;
        }
        for server in self.seeds.iter().chain(known) {
            match link::nodes(&self.config, server).await {
                Ok(text) => return vec![View::parse(&text, server, by)],
                Err(error) => {
                    // once per kind of trouble, not once per attempt
                    let error = error.to_string();
                    if error != *complaint {
                        tracing::warn!(redis = %server, error, "a node of the cluster cannot be asked for the others; trying the next");
                        *complaint = error;
                    }
                }
            }
        }
        Vec::new()
    }
}
