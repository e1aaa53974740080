//! The model of a cluster with a fleet in it: an event queue in virtual time, the processes of the operator, kubelets,
//! gateways and clients. Nothing here reads a clock, and what is left to chance follows from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wsfleet_crds::v1alpha1::{WebSocketCluster, WebSocketClusterSpec};

use super::api::Api;
use super::checks::Checks;
use super::clients::Clients;
use super::gateway::Gateway;
use super::leader::Leader;
use super::record::Record;
use super::settings::Settings;
use super::time::{Millis, SECOND};
use crate::observe::model::NodeView;
use crate::plan::Defaults;

/// Gateways and clients live in steps of this length.
pub(crate) const TICK: Millis = 200;

/// What happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Gateways and clients live on.
    Tick,
    /// The process of a gateway is Ready.
    Ready(usize),
    /// The record of a gateway's pod goes.
    Gone(usize),
    /// The grace period of a gateway's pod is over.
    Kill(usize),
    /// A process of the operator begins to lead.
    Lead,
}

/// The cluster.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) cluster: WebSocketCluster,
    pub(crate) settings: Settings,
    pub(crate) now: Millis,
    pub(crate) api: Api,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) nodes: BTreeMap<String, NodeView>,
    pub(crate) clients: Clients,
    pub(crate) leaders: Vec<Leader>,
    pub(crate) epoch: u64,
    pub(crate) random: StdRng,
    pub(crate) checks: Checks,
    pub(crate) record: Record,
    pub(crate) defaults: Defaults,
    queue: BTreeMap<(Millis, u64), Event>,
    serial: u64,
}

impl World {
    /// An empty cluster with the resource in it, and an operator.
    pub(crate) fn new(mut cluster: WebSocketCluster, settings: Settings) -> Self {
        cluster.metadata.uid = Some("cluster-uid".to_owned());
        cluster.metadata.generation = Some(1);
        cluster
            .metadata
            .namespace
            .get_or_insert_with(|| "default".to_owned());
        cluster.status = None;
        let node = |index| {
            let name = format!("node-{index}");
            let view = NodeView {
                name: name.clone(),
                not_ready_since: None,
                draining: false,
            };
            (name, view)
        };
        let mut world = Self {
            cluster,
            settings,
            now: 0,
            api: Api::default(),
            gateways: Vec::new(),
            nodes: (0..settings.nodes.max(1)).map(node).collect(),
            clients: Clients::default(),
            leaders: Vec::new(),
            epoch: 0,
            random: StdRng::seed_from_u64(settings.seed),
            checks: Checks::default(),
            record: Record::default(),
            defaults: Defaults {
                gateway_image: "wsfleet-gateway".to_owned(),
            },
            queue: BTreeMap::new(),
            serial: 0,
        };
        world.at(0, Event::Lead);
        world.at(TICK, Event::Tick);
        world
    }

    /// `event` happens at `at`.
    pub(crate) fn at(&mut self, at: Millis, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), event);
    }

    /// Lets `span` pass.
    pub(crate) fn run(&mut self, span: Millis) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done` holds at a full second; false when that is not so within `limit`.
    pub(crate) fn run_until(&mut self, limit: Millis, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end {
            if done(self) {
                return true;
            }
            self.run(SECOND);
        }
        done(self)
    }

    /// The next thing that happens, if it does by `end`.
    fn step(&mut self, end: Millis) -> bool {
        let now = self.now;
        self.leaders.retain(|leader| leader.leads(now));
        let due = |leader: &Leader| leader.turn_at.min(leader.sample_at).min(leader.sample_leaving_at);
        let turn = self
            .leaders
            .iter()
            .enumerate()
            .map(|(index, leader)| (due(leader), index))
            .min();
        let event = self.queue.first_key_value().map(|(key, _)| *key);
        match (event, turn) {
            (Some(key), turn) if turn.is_none_or(|(at, _)| key.0 <= at) => {
                if key.0 > end {
                    return false;
                }
                self.now = key.0;
                if let Some(event) = self.queue.remove(&key) {
                    self.happen(event);
                }
                true
            }
            (_, Some((at, index))) if at <= end => {
                self.now = self.now.max(at);
                self.act(index);
                true
            }
            _ => false,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.tick();
                self.at(self.now + TICK, Event::Tick);
            }
            Event::Ready(gateway) => self.become_ready(gateway),
            Event::Gone(gateway) => self.remove(gateway),
            Event::Kill(gateway) => self.kill(gateway),
            // one is enough, but for one that does not know yet that its term is over
            Event::Lead if self.leaders.iter().any(|leader| leader.until.is_none()) => {}
            Event::Lead => {
                self.epoch += 1;
                let lag = self.settings.chaos.lag;
                self.leaders
                    .push(Leader::new(self.epoch, &self.api, lag, self.now));
            }
        }
    }

    /// Whatever leads hears of a change.
    pub(crate) fn notify(&mut self) {
        for leader in &mut self.leaders {
            leader.plan_at = leader.plan_at.min(self.now + leader.lag + super::turn::ECHO);
            if leader.pending.is_empty() {
                leader.turn_at = leader.turn_at.min(leader.plan_at);
            }
        }
    }

    /// Changes the specification.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut WebSocketClusterSpec)) {
        change(&mut self.cluster.spec);
        let generation = self.cluster.metadata.generation.get_or_insert(0);
        *generation += 1;
        self.notify();
    }

    /// Sockets of the fleet, and clients that look for a gateway.
    pub(crate) fn connected(&self) -> u64 {
        self.gateways
            .iter()
            .map(|gateway| gateway.sockets.len() as u64)
            .sum()
    }

    /// Whether the resource says that the fleet is as specified, and means the specification of now.
    pub(crate) fn is_complete(&self) -> bool {
        let Some(status) = &self.cluster.status else {
            return false;
        };
        let ready = status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        ready && status.observed_generation == self.cluster.metadata.generation
    }

    /// Whether no gateway holds too many sockets for the operator's taste.
    pub(crate) fn is_even(&self) -> bool {
        let crowded = self.leaders.iter().any(|leader| !leader.crowded.is_empty());
        !crowded && self.api.pods.values().all(|object| object.view.drain.is_none())
    }

    /// Sockets of the fullest gateway per sockets of one on average.
    pub(crate) fn skew(&self) -> f64 {
        let running: Vec<_> = self.gateways.iter().filter(|gateway| gateway.alive).collect();
        let most = running.iter().map(|gateway| gateway.sockets.len()).max();
        let mean = self.connected() as f64 / running.len().max(1) as f64;
        most.unwrap_or(0) as f64 / mean.max(1.0)
    }

    /// Whether, besides, no pod is left over and nobody looks for a gateway.
    pub(crate) fn is_settled(&self) -> bool {
        let wanted = self
            .cluster
            .status
            .as_ref()
            .map_or(0, |status| status.desired_replicas as usize);
        self.is_complete() && self.api.pods.len() == wanted && self.clients.homeless == 0
    }
}

/// A span of the planner as virtual time, at least a millisecond.
pub(crate) fn millis(span: Duration) -> Millis {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4).max(1)
}
