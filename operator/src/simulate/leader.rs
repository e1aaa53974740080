//! One process of the operator: its cache, its memory, and the plan that it is carrying out. It asks the real planner.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use wsfleet_crds::admin::{DrainMode, DrainRequest, GatewayHealth, GatewayState};
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::api::Api;
use super::time::{Millis, stamp};
use crate::observe::memory::RolloutCost;
use crate::observe::model::{DryRun, Lease, MetricsView, NodeView, Observed, PodView};
use crate::observe::sampler::measured_every;
use crate::observe::samples::{Analyses, keep_health};
use crate::plan::pace::Pace;
use crate::plan::{Action, budget};

/// What a gateway said last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) state: Option<(Timestamp, GatewayState)>,
    pub(crate) unreachable_since: Option<Timestamp>,
    counted_before: Option<(Timestamp, GatewayHealth)>,
    /// What it had counted at some times of the rollout.
    health: Vec<(Timestamp, GatewayHealth)>,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// Actions that are carried out before.
    pub(crate) actions: u32,
    /// The one after those has its effect, too, and nobody hears of it.
    pub(crate) with_effect: bool,
}

/// A process that leads, or takes itself for the leader.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    pub(crate) epoch: u64,
    pub(crate) since: Millis,
    /// When its term is over, if that is known already.
    pub(crate) until: Option<Millis>,
    /// How much later than it happened it hears of a change.
    pub(crate) lag: Millis,
    cache: BTreeMap<String, (u64, PodView)>,
    cursor: usize,
    pub(crate) samples: BTreeMap<String, Sample>,
    pub(crate) leases: BTreeMap<String, Lease>,
    pub(crate) dry_run: Option<DryRun>,
    /// Pods that hold too many sockets, by UID, and since when.
    pub(crate) crowded: BTreeMap<String, Timestamp>,
    pub(crate) pace: Pace,
    /// What is left of the plan.
    pub(crate) pending: VecDeque<Action>,
    /// When it does something next.
    pub(crate) turn_at: Millis,
    /// When it plans again, once the plan is carried out.
    pub(crate) plan_at: Millis,
    /// When its process ends.
    pub(crate) crash_in: Option<Crash>,
    pub(crate) sample_at: Millis,
    pub(crate) sample_leaving_at: Millis,
}

impl Leader {
    /// A process that begins to lead: its cache is filled, its memory is empty.
    pub(crate) fn new(epoch: u64, api: &Api, lag: Millis, now: Millis) -> Self {
        let cache = api
            .pods
            .iter()
            .map(|(name, object)| (name.clone(), (object.version, object.view.clone())));
        Self {
            epoch,
            since: now,
            until: None,
            lag,
            cache: cache.collect(),
            cursor: api.journal.len(),
            samples: BTreeMap::new(),
            leases: BTreeMap::new(),
            dry_run: None,
            crowded: BTreeMap::new(),
            pace: Pace::default(),
            pending: VecDeque::new(),
            turn_at: now,
            plan_at: now,
            crash_in: None,
            sample_at: now,
            sample_leaving_at: now,
        }
    }

    /// Whether it still acts.
    pub(crate) fn leads(&self, now: Millis) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Takes over what its watches have told by now.
    fn hear(&mut self, api: &Api, now: Millis) {
        while let Some(change) = api.journal.get(self.cursor) {
            if change.at + self.lag > now {
                return;
            }
            self.cursor += 1;
            // what it wrote itself may be newer
            let known = self.cache.get(&change.name).map_or(0, |(version, _)| *version);
            if change.version < known {
                continue;
            }
            match &change.view {
                Some(view) => self
                    .cache
                    .insert(change.name.clone(), (change.version, view.clone())),
                None => self.cache.remove(&change.name),
            };
        }
    }

    /// What it wrote itself is in its cache at once.
    pub(crate) fn wrote(&mut self, api: &Api, name: &str) {
        match api.pods.get(name) {
            Some(object) => self
                .cache
                .insert(name.to_owned(), (object.version, object.view.clone())),
            None => self.cache.remove(name),
        };
    }

    /// The pods as it believes them to be.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &PodView> {
        self.cache.values().map(|(_, view)| view)
    }

    /// What it knows.
    pub(crate) fn observe(&mut self, api: &Api, nodes: &BTreeMap<String, NodeView>, now: Millis) -> Observed {
        self.hear(api, now);
        let at = stamp(now);
        self.leases.retain(|_, lease| lease.until > at);
        let mut metrics = MetricsView::default();
        let look = |(_, view): &(u64, PodView)| {
            let sample = self.samples.get(&view.uid).cloned().unwrap_or_default();
            if let Some((at, state)) = &sample.state {
                metrics
                    .connections
                    .insert(view.name.clone(), (*at, state.connections));
            }
            let node = api
                .pods
                .get(&view.name)
                .and_then(|object| nodes.get(&object.node));
            PodView {
                node: node.cloned(),
                gateway: sample.state,
                health: sample.health,
                counted_before: sample.counted_before,
                unreachable_since: sample.unreachable_since,
                silent_since: sample.unreachable_since,
                ..view.clone()
            }
        };
        let pods = self.cache.values().map(look).collect();
        Observed {
            pods,
            revisions: api.revisions.clone(),
            owned: api.owned.clone(),
            applied: BTreeMap::new(),
            admin_token: api.admin_token,
            missing_references: Vec::new(),
            dry_run: self.dry_run.clone(),
            metrics,
            leases: self.leases.clone(),
            crowded: self.crowded.clone(),
            pace: self.pace,
            cost: RolloutCost::default(),
            analyses: Analyses::new(),
            leader_since: stamp(self.since),
            epoch: self.epoch,
        }
    }

    /// Keeps an answer, or that there was none. True when it is news.
    pub(crate) fn heard(&mut self, uid: &str, answer: Option<GatewayState>, now: Millis) -> bool {
        let at = stamp(now);
        let sample = self.samples.entry(uid.to_owned()).or_default();
        let Some(state) = answer else {
            let news = sample.unreachable_since.is_none();
            sample.unreachable_since.get_or_insert(at);
            return news;
        };
        let same = sample.unreachable_since.is_none()
            && sample.state.as_ref().is_some_and(|(_, old)| {
                let old = (old.connections, old.phase, old.epoch, &old.drain_id);
                old == (state.connections, state.phase, state.epoch, &state.drain_id)
            });
        sample.counted_before = sample.state.take().map(|(at, state)| (at, state.health));
        sample.state = Some((at, state));
        sample.unreachable_since = None;
        !same
    }

    /// Keeps what a gateway that answered now has counted, while a rollout is under way.
    pub(crate) fn measure(&mut self, uid: &str, cluster: &WebSocketCluster, now: Millis) {
        let at = stamp(now);
        let Some(sample) = self.samples.get_mut(uid) else {
            return;
        };
        match (measured_every(cluster), &sample.state) {
            (None, _) => sample.health.clear(),
            (Some(every), Some((seen, state))) if *seen == at => {
                keep_health(&mut sample.health, at, state.health, every);
            }
            _ => {}
        }
    }

    /// Remembers what `request` grants before it is sent, and returns what was granted before.
    pub(crate) fn lend(&mut self, pod: &str, request: &DrainRequest, now: Millis) -> Option<Lease> {
        let rate = request.rate_per_second.unwrap_or(0.0);
        let time = request.lease_seconds.unwrap_or(30);
        let granted = (request.mode == DrainMode::Drain).then(|| budget::lease(rate, time, stamp(now)));
        self.put_lease(pod, granted)
    }

    /// Sets or removes a lease.
    pub(crate) fn put_lease(&mut self, pod: &str, lease: Option<Lease>) -> Option<Lease> {
        match lease {
            Some(lease) => self.leases.insert(pod.to_owned(), lease),
            None => self.leases.remove(pod),
        }
    }
}
