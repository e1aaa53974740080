//! One state of a small fleet, in a form in which equal states are equal: all times are told from now, which never
//! moves, and those long past are all equally long past.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use wsfleet_crds::v1alpha1::WebSocketCluster;

use crate::observe::model::{DryRun, Lease, MetricsView, Observed, PodView};
use crate::plan::{Action, Defaults, RolloutMarkers};
use crate::simulate::gateway::Gateway;
use crate::simulate::time::{Millis, SECOND, stamp};

/// The moment at which every state is told.
pub(super) const NOW: Millis = 1_000 * SECOND;
/// Longer ago than that is the same for every decision.
const LONG_AGO: Millis = 70 * SECOND;

/// What never changes.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) cluster: WebSocketCluster,
    pub(super) observed: Observed,
    pub(super) defaults: Defaults,
    /// Pods at the beginning.
    pub(super) started: u32,
    /// The revision that the specification asks for.
    pub(super) wanted: String,
}

/// A pod, and the process in it.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) view: PodView,
    pub(super) gateway: Gateway,
}

/// A process of the operator.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) epoch: u64,
    pub(super) since: Timestamp,
    /// Spans that it has left, if another leads already.
    pub(super) spans_left: Option<u8>,
    /// The pods as it knows them, with what their gateways said.
    pub(super) cache: BTreeMap<String, PodView>,
    pub(super) leases: BTreeMap<String, Lease>,
    /// Pods that hold too many sockets, and since when.
    pub(super) crowded: BTreeMap<String, Timestamp>,
    /// The markers of the wanted revision as it knows them.
    pub(super) rollout: RolloutMarkers,
    pub(super) pending: Vec<Action>,
}

/// Everything that decides what can come next.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) base: Arc<Base>,
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) leaders: Vec<Leader>,
    pub(super) epoch: u64,
    /// Pods that were made, as far as UIDs need it.
    pub(super) born: u8,
    /// The markers of the wanted revision.
    pub(super) rollout: RolloutMarkers,
    /// Pods may be lost, leaders may crash, and another may lead beside them so many times more.
    pub(super) faults: [u8; 3],
}

impl State {
    /// Lets the leader hear and ask everything.
    pub(super) fn refresh(&mut self, leader: usize) {
        let heard = self.pods.iter().map(|(name, pod)| {
            let mut view = pod.view.clone();
            if pod.gateway.alive {
                view.gateway = Some((stamp(NOW), pod.gateway.state(1_000)));
            }
            (name.clone(), view)
        });
        self.leaders[leader].cache = heard.collect();
        self.leaders[leader].rollout = self.rollout.clone();
    }

    /// What the planner is given.
    pub(super) fn observed(&self, leader: usize) -> Observed {
        let leader = &self.leaders[leader];
        let pods: Vec<_> = leader.cache.values().cloned().collect();
        let counted = pods.iter().filter_map(|pod| {
            let (at, state) = pod.gateway.as_ref()?;
            Some((pod.name.clone(), (*at, state.connections)))
        });
        let mut revisions = self.base.observed.revisions.clone();
        for revision in revisions.iter_mut().filter(|it| it.hash == self.base.wanted) {
            revision.rollout = leader.rollout.clone();
        }
        Observed {
            revisions,
            metrics: MetricsView {
                connections: counted.collect(),
                error: None,
            },
            leases: leader.leases.clone(),
            crowded: leader.crowded.clone(),
            leader_since: leader.since,
            epoch: leader.epoch,
            pods,
            ..self.base.observed.clone()
        }
    }

    /// A process that begins to lead and knows everything.
    pub(super) fn lead(&mut self) {
        self.epoch += 1;
        self.leaders.push(Leader {
            epoch: self.epoch,
            since: stamp(NOW),
            spans_left: None,
            cache: BTreeMap::new(),
            leases: BTreeMap::new(),
            crowded: BTreeMap::new(),
            rollout: RolloutMarkers::default(),
            pending: Vec::new(),
        });
        self.refresh(self.leaders.len() - 1);
    }

    /// Lets `span` pass.
    pub(super) fn pass_time(&mut self, span: Millis) {
        age_markers(&mut self.rollout, span);
        for pod in self.pods.values_mut() {
            age(&mut pod.view, span);
            pod.gateway.age(span);
        }
        for leader in &mut self.leaders {
            older(&mut leader.since, span);
            age_markers(&mut leader.rollout, span);
            leader.cache.values_mut().for_each(|view| age(view, span));
            for lease in leader.leases.values_mut() {
                older(&mut lease.granted_at, span);
                older(&mut lease.until, span);
            }
            leader.crowded.values_mut().for_each(|since| older(since, span));
            leader.leases.retain(|_, lease| lease.until > stamp(NOW));
            leader.spans_left = leader.spans_left.map(|left| left.saturating_sub(1));
        }
        self.leaders.retain(|leader| leader.spans_left != Some(0));
    }

    /// A number that equal states share.
    pub(super) fn digest(&self) -> u64 {
        let mut hash = Hash(DefaultHasher::new());
        let _ = write!(
            hash,
            "{}.{}{:?}{:?}",
            self.epoch, self.born, self.faults, self.rollout
        );
        for pod in self.pods.values() {
            let gateway = &pod.gateway;
            let told = (
                gateway.sockets.len(),
                gateway.alive,
                gateway.lease(NOW),
                gateway.keep,
            );
            let _ = write!(
                hash,
                "{:?}{told:?}{:?}{:?}",
                pod.view, gateway.phase, gateway.drain_id
            );
            let _ = write!(hash, "{:?}", gateway.epoch);
        }
        for leader in &self.leaders {
            let _ = write!(
                hash,
                "{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
                leader.crowded,
                leader.epoch,
                leader.since,
                leader.spans_left,
                leader.cache,
                leader.leases,
                leader.rollout
            );
            leader.pending.iter().for_each(|action| tell(action, &mut hash));
        }
        hash.0.finish()
    }
}

/// Writes what matters of an action that waits.
fn tell(action: &Action, hash: &mut Hash) {
    let _ = match action {
        Action::CreatePod(pod) => write!(hash, "create {:?}", pod.metadata.name),
        Action::DryRunPod { hash: revision, .. } => write!(hash, "try {revision}"),
        Action::MarkRevision { .. }
        | Action::MarkPod { .. }
        | Action::DeletePod { .. }
        | Action::Drain { .. } => {
            write!(hash, "{action:?}")
        }
        other => write!(hash, "{:?}", std::mem::discriminant(other)),
    };
}

struct Hash(DefaultHasher);

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn older(at: &mut Timestamp, span: Millis) {
    let back = SignedDuration::from_millis(span as i64);
    *at = at
        .saturating_sub(back)
        .unwrap_or(Timestamp::MIN)
        .max(stamp(NOW - LONG_AGO));
}

fn age_markers(rollout: &mut RolloutMarkers, span: Millis) {
    for at in [
        &mut rollout.started_at,
        &mut rollout.baking_since,
        &mut rollout.canary_passed_at,
    ] {
        for at in at.iter_mut() {
            older(at, span);
        }
    }
}

fn age(view: &mut PodView, span: Millis) {
    older(&mut view.created_at, span);
    for at in [
        &mut view.deleting_since,
        &mut view.ready_since,
        &mut view.unreachable_since,
    ] {
        for at in at.iter_mut() {
            older(at, span);
        }
    }
    if let Some(drain) = &mut view.drain {
        older(&mut drain.cordoned_at, span);
        if let Some(shedding) = &mut drain.shedding {
            older(&mut shedding.since, span);
        }
        for at in [&mut drain.deadline, &mut drain.drained_at] {
            for at in at.iter_mut() {
                older(at, span);
            }
        }
    }
    if let Some((at, _)) = &mut view.gateway {
        older(at, span);
    }
}

/// An answer of the API server to the question about a template: yes.
pub(super) fn accepted(hash: &str) -> DryRun {
    DryRun {
        hash: hash.to_owned(),
        at: stamp(NOW),
        verdict: Ok(()),
    }
}
