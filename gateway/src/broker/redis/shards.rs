//! Which shard has which stream: one has all of them, or each node of a cluster has those of its slots.

use std::sync::Arc;

use futures::future::join_all;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::super::{BrokerError, Health, Page, StreamKey};
use super::answer::Answer;
use super::cluster::{Alert, Nodes};
use super::history::Read;
use super::queue::{Commands, Item, OnAnswer};
use super::script::Request;
use super::shard::Shard;
use crate::broker::table::Waiter;

/// The shards. Every method may be called from any thread.
pub(super) enum Shards {
    /// The only one.
    One(Box<Shard>),
    /// Those of a cluster, as it is known now. While subscriptions are changed they stay where they are.
    Many { nodes: RwLock<Nodes>, alert: Arc<Alert> },
}

impl Shards {
    /// Nothing is known of the cluster yet.
    pub(super) fn of_cluster() -> Self {
        Self::Many {
            nodes: RwLock::new(Nodes::default()),
            alert: Arc::new(Alert::new()),
        }
    }

    /// Every shard that there is now.
    fn all(&self) -> Vec<Arc<Commands>> {
        match self {
            Self::One(shard) => vec![Arc::clone(&shard.commands)],
            Self::Many { nodes, .. } => {
                let nodes = nodes.read();
                nodes.shards().map(|shard| Arc::clone(&shard.commands)).collect()
            }
        }
    }

    /// The queue of what is about this name.
    fn commands(&self, name: &[u8]) -> Option<Arc<Commands>> {
        match self {
            Self::One(shard) => Some(Arc::clone(&shard.commands)),
            Self::Many { nodes, .. } => nodes.read().of(name).map(|shard| Arc::clone(&shard.commands)),
        }
    }

    /// Puts requests; those about one name are done in order. Those that find no place are answered at once.
    pub(super) fn submit(&self, items: Vec<Item>) {
        if let Self::One(shard) = self {
            shard.commands.submit(items);
            return;
        }
        let mut parts: Vec<(Option<Arc<Commands>>, Vec<Item>)> = Vec::new();
        for item in items {
            let commands = item.request.name().and_then(|name| self.commands(name));
            let same = |known: &Option<Arc<Commands>>| match (known, &commands) {
                (Some(known), Some(commands)) => Arc::ptr_eq(known, commands),
                (None, None) => true,
                _ => false,
            };
            match parts.iter_mut().find(|(known, _)| same(known)) {
                Some((_, items)) => items.push(item),
                None => parts.push((commands, vec![item])),
            }
        }
        // no lock is held: an answer given at once may come back here
        for (commands, items) in parts {
            match commands {
                Some(commands) => commands.submit(items),
                None => {
                    for item in items {
                        item.fail(BrokerError::Unavailable);
                    }
                }
            }
        }
    }

    /// Puts a request of the broker's own that must not be done later than what comes next: when it is not done at all, all of
    /// its kind is done anew under another lease.
    pub(super) fn submit_leased(self: &Arc<Self>, request: Request) {
        let shards = Arc::clone(self);
        let on_answer: OnAnswer = Box::new(move |answer| {
            if answer == Err(BrokerError::Unavailable) {
                shards.missed();
            }
        });
        self.submit_own(Item {
            request,
            on_answer: Some(on_answer),
        });
    }

    /// The same with two, the second of which is to find the first one done. In a cluster they may be for two nodes, so that
    /// it might be there earlier: there it is put once more when the first one is done.
    pub(super) fn submit_leased_pair(self: &Arc<Self>, first: Request, second: Request) {
        if matches!(**self, Self::One(_)) {
            self.submit_leased(first);
        } else {
            let (shards, again) = (Arc::clone(self), second.clone());
            let on_answer: OnAnswer = Box::new(move |answer| match answer {
                Err(BrokerError::Unavailable) => shards.missed(),
                _ => shards.submit_leased(again),
            });
            self.submit_own(Item {
                request: first,
                on_answer: Some(on_answer),
            });
        }
        self.submit_leased(second);
    }

    fn submit_own(&self, item: Item) {
        match item.request.name().and_then(|name| self.commands(name)) {
            Some(commands) => commands.submit_own(item),
            None => item.fail(BrokerError::Unavailable),
        }
    }

    /// Puts one request of the broker's own and awaits its answer. Cancel-safe: the request stays on its way.
    pub(super) async fn ask(&self, request: Request) -> Result<Answer, BrokerError> {
        match request.name().and_then(|name| self.commands(name)) {
            Some(commands) => commands.ask(request).await,
            None => Err(BrokerError::Unavailable),
        }
    }

    /// Asks for what a client wants to read.
    pub(super) async fn ask_for_client(&self, request: Request) -> Result<Answer, BrokerError> {
        match request.name().and_then(|name| self.commands(name)) {
            Some(commands) => commands.ask_for_client(request).await,
            None => Err(BrokerError::Unavailable),
        }
    }

    /// Awaits that all that was put is answered.
    pub(super) async fn ping(&self) -> Result<(), BrokerError> {
        let pings = self
            .all()
            .into_iter()
            .map(|commands| async move { commands.ask(Request::Ping).await });
        join_all(pings)
            .await
            .into_iter()
            .try_for_each(|answer| answer.map(|_| ()))
    }

    /// Reads messages that are kept.
    pub(super) async fn read(&self, read: Read) -> Result<Page, BrokerError> {
        match self.commands(&read.stream) {
            Some(commands) => commands.read(read).await,
            None => Err(BrokerError::Unavailable),
        }
    }

    /// Adds a subscription; `waiter` is told the position, or why there is none.
    pub(super) fn subscribe(&self, channel: Arc<[u8]>, stream: StreamKey, waiter: Waiter) {
        match self {
            Self::One(shard) => shard.table.subscribe(channel, stream, waiter),
            Self::Many { nodes, .. } => {
                // held while it is added: it must not be added where its slot was a moment ago
                let nodes = nodes.read();
                if let Some(shard) = nodes.of(&channel) {
                    shard.table.subscribe(channel, stream, waiter);
                }
                // else the waiter is dropped, which tells that there is no broker
            }
        }
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, channel: &Arc<[u8]>) {
        match self {
            Self::One(shard) => shard.table.unsubscribe(channel),
            Self::Many { nodes, .. } => {
                let nodes = nodes.read();
                if let Some(shard) = nodes.of(channel) {
                    shard.table.unsubscribe(channel);
                }
            }
        }
    }

    /// Whether every command link answers.
    pub(super) fn is_up(&self) -> bool {
        match self {
            Self::One(shard) => shard.commands.is_up(),
            Self::Many { alert, .. } => alert.is_up(),
        }
    }

    /// Changes of [`Shards::is_up`]; also one that went back at once.
    pub(super) fn watch_up(&self) -> watch::Receiver<bool> {
        match self {
            Self::One(shard) => shard.commands.watch_up(),
            Self::Many { alert, .. } => alert.watch_up(),
        }
    }

    /// A request that others must not overtake was not done: to whoever watches [`Shards::watch_up`] that is as a lost link.
    fn missed(&self) {
        if let Self::Many { alert, .. } = self {
            alert.missed();
        }
    }

    /// How well they can be relied on.
    pub(super) fn health(&self) -> Health {
        let up = self.is_up();
        let works = |shard: &Shard| shard.is_proven() && !shard.commands.regroups();
        let proven = match self {
            Self::One(shard) => works(shard),
            Self::Many { nodes, .. } => nodes.read().shards().all(works),
        };
        Health {
            up,
            degraded: !(up && proven),
        }
    }
}
