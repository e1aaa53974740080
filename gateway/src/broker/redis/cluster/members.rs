//! The nodes that a gateway has links to, and the slots that they have.

use std::sync::Arc;

use super::super::command::Birth;
use super::super::config::{RedisConfig, Server};
use super::super::naming;
use super::super::queue::Commands;
use super::super::shard::{Common, Shard};
use super::Alert;
use super::slot::{self, SLOTS};
use super::topology::Topology;

/// Probe channels that are looked at until one has a slot of the node. Of a node with a single slot one in 16,384 has.
const PROBES: u32 = 1 << 20;

struct Node {
    server: Server,
    shard: Shard,
}

/// Nodes with slots, and who has which.
#[derive(Default)]
pub(in super::super) struct Nodes {
    nodes: Vec<Arc<Node>>,
    /// By slot; empty as long as nothing is known.
    owners: Vec<Option<Arc<Node>>>,
}

/// What new shards are made of.
pub(super) struct Maker<'a> {
    pub(super) config: &'a RedisConfig,
    pub(super) common: &'a Common,
    pub(super) alert: &'a Arc<Alert>,
}

impl Nodes {
    /// All shards.
    pub(in super::super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.nodes.iter().map(|node| &node.shard)
    }

    /// All nodes, with the queues of their command links.
    pub(super) fn links(&self) -> Vec<(Server, Arc<Commands>)> {
        let link = |node: &Arc<Node>| (node.server.clone(), Arc::clone(&node.shard.commands));
        self.nodes.iter().map(link).collect()
    }

    /// The shard that has this name.
    pub(in super::super) fn of(&self, name: &[u8]) -> Option<&Shard> {
        self.at(slot::of(name)).map(|node| &node.shard)
    }

    fn at(&self, slot: usize) -> Option<&Arc<Node>> {
        self.owners.get(slot)?.as_ref()
    }

    /// Whether each slot has a node whose command link is up.
    pub(super) fn is_up(&self) -> bool {
        !self.owners.is_empty()
            && self.owners.iter().all(Option::is_some)
            && self.shards().all(|shard| shard.commands.is_up())
    }

    /// Takes what is known now: makes links to new nodes, moves subscriptions to where their slots are, and ends the links
    /// to nodes that have none any more. Tells what changed. A slot that nobody claims stays where it was.
    pub(super) fn follow(&mut self, topology: &Topology, maker: &Maker<'_>) -> Changed {
        let mut changed = Changed::default();
        let before = std::mem::take(&mut self.owners);
        let mut owners = Vec::with_capacity(SLOTS);
        for slot in 0..SLOTS {
            let old = before.get(slot).and_then(Option::as_ref);
            let owner = match topology.owner(slot) {
                None => old.cloned(),
                Some(server) if old.is_some_and(|old| old.server == *server) => old.cloned(),
                Some(server) => {
                    changed.slots += 1;
                    let succeeds = old.is_some_and(|old| !topology.serves(&old.server));
                    Some(self.node(server, slot, succeeds, maker))
                }
            };
            owners.push(owner);
        }
        self.owners = owners;
        if changed.slots > 0 {
            changed.streams = self.rehome();
            let owners = &self.owners;
            self.nodes
                .retain(|node| owners.iter().flatten().any(|owner| Arc::ptr_eq(owner, node)));
            self.choose_probes(maker);
        }
        changed
    }

    /// The node at this address, with links since now if it had none.
    fn node(&mut self, server: &Server, slot: usize, succeeds: bool, maker: &Maker<'_>) -> Arc<Node> {
        if let Some(node) = self.nodes.iter().find(|node| node.server == *server) {
            return Arc::clone(node);
        }
        let birth = if succeeds { Birth::Succeeding } else { Birth::Fresh };
        let node = Arc::new(Node {
            server: server.clone(),
            shard: Shard::start(
                maker.config.node(server.clone()),
                Commands::of_node(Arc::clone(maker.alert)),
                probe_in(maker, |probe| probe == slot),
                birth,
                maker.common,
            ),
        });
        self.nodes.push(Arc::clone(&node));
        node
    }

    /// Moves subscriptions to the shards that have their slots; tells how many.
    fn rehome(&self) -> usize {
        let mut moved = 0;
        for node in &self.nodes {
            let leaving = node.shard.table.part(|channel| {
                let owner = self.at(slot::of(channel));
                owner.is_some_and(|owner| !Arc::ptr_eq(owner, node))
            });
            moved += leaving.len();
            for entry in leaving {
                if let Some(owner) = self.at(slot::of(entry.channel())) {
                    owner.shard.table.adopt(entry);
                }
            }
        }
        moved
    }

    /// Gives each shard a probe channel in one of its slots, if the one that it has is in another's.
    fn choose_probes(&self, maker: &Maker<'_>) {
        for node in &self.nodes {
            let own = |slot| self.at(slot).is_some_and(|owner| Arc::ptr_eq(owner, node));
            let mut channel = node.shard.probe_channel.lock();
            if !own(slot::of(&channel)) {
                *channel = probe_in(maker, own);
            }
        }
    }
}

/// What [`Nodes::follow`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) slots: usize,
    pub(super) streams: usize,
}

/// A probe channel in one of these slots.
fn probe_in(maker: &Maker<'_>, wanted: impl Fn(usize) -> bool) -> Arc<[u8]> {
    let (database, instance) = (maker.config.database(), &maker.common.instance);
    let channels = (0..PROBES).map(|number| naming::probe(database, &format!("{instance}.{number}")));
    // that none fits does not happen; then the link would not be proven, and say so
    let mut fitting = channels.filter(|channel| wanted(slot::of(channel)));
    fitting
        .next()
        .unwrap_or_else(|| naming::probe(database, instance))
}
