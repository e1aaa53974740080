//! A model of a cluster in virtual time: kubelets that start pods, gateways that close at the granted rate, clients that
//! come back. The planner runs against it once a second, to a fixed point; each action is checked as it is carried out.

mod apply;
mod rates;

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};
use wsfleet_crds::admin::{GatewayHealth, GatewayPhase, GatewayState};
use wsfleet_crds::v1alpha1::{WebSocketCluster, WebSocketClusterSpec};

use crate::observe::model::{Lease, MissingReference, NodeView, Observed, PodView};
use crate::observe::samples::keep_health;
use crate::plan::pace::Pace;
use crate::plan::time::after;
use crate::plan::{Action, Defaults, EventDraft, plan};

/// A pod and the gateway in it.
#[derive(Clone, Debug)]
pub(super) struct SimPod {
    pub(super) view: PodView,
    pub(super) sockets: u64,
    image: String,
    gateway: GatewayPhase,
    drain_id: Option<String>,
    epoch: u64,
    lease: Option<Lease>,
    keep: u64,
    credit: u64,
    /// What it counts.
    pub(super) health: GatewayHealth,
}

impl SimPod {
    /// Its image cannot be had any more.
    pub(super) fn break_image(&mut self) {
        "bad:broken".clone_into(&mut self.image);
    }

    /// The image it runs.
    pub(super) fn image(&self) -> &str {
        &self.image
    }
}

/// The cluster.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) cluster: WebSocketCluster,
    pub(super) pods: Vec<SimPod>,
    pub(super) observed: Observed,
    pub(super) now: Timestamp,
    /// Seconds until a pod with a good image is Ready.
    pub(super) start_seconds: u32,
    /// Clients that look for a gateway.
    pub(super) homeless: u64,
    /// Handshakes that each gateway tells of, per second.
    pub(super) handshakes: f64,
    /// Sockets closed by drains.
    pub(super) forced: u64,
    /// Most sockets closed in a second.
    pub(super) busiest: u64,
    /// Seconds between two numbers of a gateway that stays; one that leaves is asked each second.
    pub(super) sampled_every: i64,
    /// Whether gateways and metrics answer.
    pub(super) answers: bool,
    /// Gateways of this image refuse the admin token.
    pub(super) refusing: Option<&'static str>,
    /// Whether the metrics source answers.
    pub(super) counts: bool,
    pub(super) events: Vec<EventDraft>,
    pub(super) deleted: Vec<(String, u64)>,
    pub(super) writes: u64,
    /// Ports that gateways were called at.
    pub(super) called: Vec<u16>,
    nodes: BTreeMap<String, NodeView>,
    serial: u64,
    /// Clients in each of the last seconds, as long as a lease lasts.
    recent: VecDeque<u64>,
}

pub(super) fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl World {
    /// A fleet with `spec` laid over a specification whose waits are short.
    pub(super) fn new(spec: &Value) -> Self {
        let mut base = json!({
            "broker": {"redis": {"url": "redis://redis:6379"}},
            "auth": {"anonymous": {}},
            "gateway": {"image": "good:1", "capacity": {"maxConnections": 1000}},
            "rollout": {"minReadySeconds": 1, "progressDeadlineSeconds": 60, "canary": {"bakeSeconds": 5}},
            "drain": {"settleSeconds": 2, "passiveSeconds": {"scaleDown": 5}},
        });
        crate::plan::resources::overlay::merge(base.as_object_mut().unwrap(), spec.as_object().unwrap());
        let spec: WebSocketClusterSpec = serde_json::from_value(base).unwrap();
        let mut cluster = WebSocketCluster::new("chat", spec);
        cluster.metadata.namespace = Some("default".to_owned());
        cluster.metadata.uid = Some("cluster-uid".to_owned());
        cluster.metadata.generation = Some(1);
        cluster.validate_cel().unwrap();
        let observed = Observed {
            epoch: 1,
            leader_since: start(),
            ..Observed::default()
        };
        let node = |name: &str| NodeView {
            name: name.to_owned(),
            not_ready_since: None,
            draining: false,
        };
        Self {
            cluster,
            pods: Vec::new(),
            observed,
            now: start(),
            start_seconds: 3,
            homeless: 0,
            handshakes: 0.0,
            forced: 0,
            busiest: 0,
            sampled_every: 1,
            answers: true,
            refusing: None,
            counts: true,
            events: Vec::new(),
            deleted: Vec::new(),
            writes: 0,
            called: Vec::new(),
            nodes: ["a", "b", "c"].map(|name| (name.to_owned(), node(name))).into(),
            serial: 0,
            recent: VecDeque::new(),
        }
    }

    /// A converged fleet with `sockets` on it.
    pub(super) fn settled(spec: &Value, sockets: u64) -> Self {
        let mut world = Self::new(spec);
        world.run(20);
        world.homeless = sockets;
        world.run(10);
        assert!(world.is_complete(), "{:?}", world.cluster.status);
        assert_eq!(world.sockets(), sockets);
        world.events.clear();
        world
    }

    /// Changes the specification.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut WebSocketClusterSpec)) {
        change(&mut self.cluster.spec);
        *self.cluster.metadata.generation.as_mut().unwrap() += 1;
    }

    pub(super) fn roll_to(&mut self, image: &str) {
        let image = image.to_owned();
        self.edit(|spec| spec.gateway.image = Some(image));
    }

    pub(super) fn node(&mut self, name: &str) -> &mut NodeView {
        self.nodes.get_mut(name).unwrap()
    }

    pub(super) fn sockets(&self) -> u64 {
        self.pods.iter().map(|pod| pod.sockets).sum()
    }

    pub(super) fn condition(&self, kind: &str) -> (String, String, String) {
        let status = self.cluster.status.as_ref().unwrap();
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .unwrap();
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.cluster.status.is_some() && self.condition("Ready").0 == "True"
    }

    pub(super) fn told(&self, reason: &str) -> usize {
        self.events.iter().filter(|event| event.reason == reason).count()
    }

    /// Lets `seconds` pass.
    pub(super) fn run(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now = after(self.now, 1);
            self.live();
            self.observe();
            self.settle();
        }
    }

    /// Runs until `done`, `limit` seconds at most; returns how many it took.
    pub(super) fn run_until(&mut self, limit: u32, done: impl Fn(&Self) -> bool) -> u32 {
        for second in 0..limit {
            if done(self) {
                return second;
            }
            self.run(1);
        }
        panic!("not within {limit} s: {:#?}", self.cluster.status);
    }

    /// Plans and applies until nothing is left to do at this instant.
    fn settle(&mut self) {
        // a round moves each pod by one marker at most, and where one may go at a time, one pod
        let limit = 12 + 4 * self.pods.len();
        for round in 0..=limit {
            let defaults = Defaults {
                gateway_image: "good:default".to_owned(),
            };
            let made = plan(&self.cluster, &self.observed, &defaults, self.now);
            self.cluster.status = Some(made.status);
            self.observed.crowded = made.crowded;
            self.observed.pace = made.pace;
            self.events.extend(made.events);
            let unheard = |action: &Action| matches!(action, Action::Drain { name, .. } if !self.hears(name));
            if made.actions.iter().all(unheard) {
                return;
            }
            assert!(round < limit, "does not come to rest: {:#?}", made.actions);
            for action in made.actions {
                self.apply(action);
            }
            self.observe();
        }
    }

    /// Whether the gateway in the pod can be told something.
    fn hears(&self, name: &str) -> bool {
        let refuses = |pod: &SimPod| pod.view.name == name && self.refusing == Some(pod.image.as_str());
        self.answers && !self.pods.iter().any(refuses)
    }

    /// Kubelets, gateways and clients for one second.
    fn live(&mut self) {
        let now = self.now;
        let mut closed = 0;
        for pod in &mut self.pods {
            pod.view.node = (pod.view.node.as_ref()).map(|node| self.nodes[&node.name].clone());
            let dead = pod.view.finished;
            if !dead && pod.image.starts_with("good") {
                if pod.view.ready_since.is_none() && after(pod.view.created_at, self.start_seconds) <= now {
                    pod.view.ready_since = Some(now);
                    pod.view.ip = Some("10.0.0.1".to_owned());
                }
            } else if !dead {
                pod.view.waiting = Some("ImagePullBackOff: cannot pull".to_owned());
            }
            let rate = match (pod.view.deleting_since, pod.lease) {
                (Some(_), _) => u64::MAX / 2,
                (None, Some(lease)) if lease.until > now && pod.gateway == GatewayPhase::Draining => {
                    lease.rate_millis
                }
                _ => 0,
            };
            if pod.view.deleting_since.is_some() {
                closed += pod.sockets;
                pod.sockets = 0;
            } else {
                pod.credit = (pod.credit + rate).min(rate.max(1000));
                let some = (pod.credit / 1000).min(pod.sockets.saturating_sub(pod.keep));
                pod.credit -= some * 1000;
                pod.sockets -= some;
                closed += some;
                self.forced += some;
                self.busiest = self.busiest.max(some);
            }
        }
        self.pods.retain(|pod| pod.view.deleting_since.is_none());
        self.homeless += closed;
        self.place();
        self.check_rates();
    }

    /// Homeless clients find a gateway.
    fn place(&mut self) {
        let mut open: Vec<_> = self
            .pods
            .iter_mut()
            .filter(|pod| {
                pod.view.accepting && pod.view.ready_since.is_some() && pod.gateway == GatewayPhase::Serving
            })
            .collect();
        let mut left = self.homeless;
        while left > 0 && !open.is_empty() {
            let share = (left / open.len() as u64).max(1);
            for pod in &mut open {
                let some = share.min(left);
                pod.sockets += some;
                left -= some;
            }
        }
        self.homeless = left;
    }

    /// Refreshes what the planner sees.
    fn observe(&mut self) {
        let now = self.now;
        for pod in &mut self.pods {
            let is_due = pod.view.drain.is_some() || now.as_second() % self.sampled_every == 0;
            if pod.view.ready_since.is_none() || (self.answers && !is_due) {
                continue;
            }
            if self.answers && self.refusing == Some(pod.image.as_str()) {
                pod.view.unreachable_since = None;
                pod.view.silent_since.get_or_insert(now);
            } else if self.answers {
                pod.view.unreachable_since = None;
                pod.view.silent_since = None;
                let mut state = state_of(pod);
                state.handshakes_per_second = self.handshakes;
                let before = pod.view.gateway.replace((now, state));
                if let Some((at, state)) = before.filter(|(at, _)| *at < now) {
                    pod.view.counted_before = Some((at, state.health));
                }
                let every = jiff::SignedDuration::from_secs(5);
                keep_health(&mut pod.view.health, now, pod.health, every);
                if self.counts {
                    self.observed
                        .metrics
                        .connections
                        .insert(pod.view.name.clone(), (now, pod.sockets));
                }
            } else {
                pod.view.unreachable_since.get_or_insert(now);
                pod.view.silent_since.get_or_insert(now);
            }
        }
        self.observed.pods = self.pods.iter().map(|pod| pod.view.clone()).collect();
        self.observed.leases.retain(|_, lease| lease.until > now);
    }

    /// Somebody else deletes the pod.
    pub(super) fn delete_behind_its_back(&mut self, index: usize) {
        if let Some(pod) = self.pods.get_mut(index) {
            pod.view.deleting_since.get_or_insert(self.now);
        }
    }

    /// Another process becomes leader: what this one remembered is lost.
    pub(super) fn change_leader(&mut self) {
        self.observed.epoch += 1;
        self.observed.leader_since = self.now;
        self.observed.leases.clear();
        self.observed.dry_run = None;
        self.observed.crowded.clear();
        self.observed.pace = Pace::default();
        for pod in &mut self.pods {
            pod.view.health.clear();
        }
    }

    pub(super) fn miss_secret(&mut self, missing: bool) {
        let reference = MissingReference {
            field: "spec.auth.jwt.secretRef".to_owned(),
            secret: "chat-jwt".to_owned(),
            key: "secret".to_owned(),
        };
        self.observed.missing_references = if missing { vec![reference] } else { Vec::new() };
    }

    /// A share of the clients leaves.
    pub(super) fn lose_clients(&mut self, percent: u64) {
        for pod in &mut self.pods {
            pod.sockets -= pod.sockets * percent / 100;
        }
    }
}

fn state_of(pod: &SimPod) -> GatewayState {
    GatewayState {
        server_id: pod.view.name.clone(),
        phase: pod.gateway,
        accepting: pod.gateway == GatewayPhase::Serving,
        connections: pod.sockets,
        idle: 0,
        handshakes_per_second: 0.0,
        forced_closed: 0,
        natural_closed: 0,
        capacity: 1000,
        revision: pod.view.revision.clone(),
        epoch: pod.epoch,
        drain_id: pod.drain_id.clone(),
        broker_degraded: false,
        health: pod.health,
    }
}
