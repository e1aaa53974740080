//! What the operator knows of one `WebSocketCluster` at one moment: plain data, read once, handed to the planner.
//!
//! "Unknown" is a value here, never a zero: a gateway that did not answer has no sample, and a sample carries the time
//! at which it was taken so that the planner decides what is fresh.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::Resource;
use serde::Serialize;
use serde_json::Value;
use wsfleet_crds::admin::{GatewayHealth, GatewayState};
use wsfleet_crds::labels::{self, DrainReason, PodPhase};

use super::memory::RolloutCost;
use crate::plan::RolloutMarkers;
use crate::plan::pace::Pace;
use crate::plan::revision::RevisionData;

/// Everything read about one cluster.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The gateway pods that the resource owns, terminating ones included.
    pub pods: Vec<PodView>,
    /// The resource's ControllerRevisions.
    pub revisions: Vec<RevisionView>,
    /// Each owned object that exists, by kind and name (Service, PodDisruptionBudget).
    pub owned: BTreeMap<(OwnedKind, String), OwnedView>,
    /// What came of the last apply of an owned object in this process.
    pub applied: BTreeMap<(OwnedKind, String), Applied>,
    /// Whether the Secret with the gateways' admin token exists.
    pub admin_token: bool,
    /// Secrets that the specification refers to and that are missing, as `name/key`, with the field's path.
    pub missing_references: Vec<MissingReference>,
    /// Answer of the server-side dry run for the revision that `hash` names; `None` when none was made yet.
    pub dry_run: Option<DryRun>,
    /// Socket counts from the source that the specification names.
    pub metrics: MetricsView,
    /// Leases that this process granted and that may still be in force, by pod name.
    pub leases: BTreeMap<String, Lease>,
    /// What Prometheus said of the analyses of the rollout, by their names.
    pub analyses: super::samples::Analyses,
    /// Pods that hold too many sockets, by UID, and since when, as the last plan said. Lost with the process, which only
    /// makes them wait anew.
    pub crowded: BTreeMap<String, Timestamp>,
    /// How much of the budget drains may use, as the last plan said. Lost with the process: all of it then.
    pub pace: Pace,
    /// What the rollout under way, or the last one, has cost so far.
    pub cost: RolloutCost,
    /// When this process became leader: leases of the leader before it may be in force for a while longer.
    pub leader_since: Timestamp,
    /// Lease transitions when this process became leader: the fencing epoch of every call.
    pub epoch: u64,
}

/// The kinds of owned objects that are applied whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnedKind {
    /// The Service that clients reach.
    Service,
    /// One of the two budgets.
    PodDisruptionBudget,
}

/// An owned object as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedView {
    /// Its annotation with the hash of what was last applied; empty when it has none.
    pub hash: String,
    /// All of it but its status.
    pub object: Arc<Value>,
}

impl OwnedView {
    /// What there is of `object`.
    pub fn of<K: Resource + Serialize>(object: &K) -> Self {
        let annotations = object.meta().annotations.as_ref();
        let hash = annotations.and_then(|annotations| annotations.get(labels::APPLIED_HASH));
        Self {
            hash: hash.cloned().unwrap_or_default(),
            // an object that came from an API server, or was made to go there, is JSON
            object: Arc::new(serde_json::to_value(object).unwrap_or_default()),
        }
    }
}

/// What came of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// When.
    pub at: Timestamp,
    /// Digest of what the API server made of it, where that is not what was wanted: applying it again changes nothing.
    pub left: Option<String>,
}

/// A Secret key that the specification names and that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingReference {
    /// Path in the specification, for example `spec.auth.jwt.secretRef`.
    pub field: String,
    /// Name of the Secret.
    pub secret: String,
    /// Key in it.
    pub key: String,
}

/// What the API server said of a pod made from a new template, without creating it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// Revision hash that was tried.
    pub hash: String,
    /// When.
    pub at: Timestamp,
    /// `Err` holds the API server's message.
    pub verdict: Result<(), String>,
}

/// One gateway pod.
#[derive(Clone, Debug)]
pub struct PodView {
    /// `metadata.name`: cluster-revision-slot.
    pub name: String,
    /// `metadata.uid`: the precondition of every delete.
    pub uid: String,
    /// `metadata.resourceVersion`: the precondition of deleting a pod that has not served yet.
    pub version: Option<String>,
    /// Slot label.
    pub slot: u32,
    /// Revision label.
    pub revision: String,
    /// Phase label.
    pub phase: PodPhase,
    /// Accepting label.
    pub accepting: bool,
    /// `metadata.creationTimestamp`.
    pub created_at: Timestamp,
    /// `metadata.deletionTimestamp`, when somebody deleted it.
    pub deleting_since: Option<Timestamp>,
    /// Since when the Ready condition is true.
    pub ready_since: Option<Timestamp>,
    /// `status.phase` is Failed or Succeeded: its processes are gone.
    pub finished: bool,
    /// Restarts of the gateway container.
    pub restarts: u32,
    /// When it was last restarted.
    pub restarted_at: Option<Timestamp>,
    /// Why the gateway container is not running (image cannot be pulled, crash loop), when the kubelet says so.
    pub waiting: Option<String>,
    /// The node it runs on, once scheduled.
    pub node: Option<NodeView>,
    /// `status.podIP`.
    pub ip: Option<String>,
    /// Since when its node is known to be drained.
    pub node_drain_since: Option<Timestamp>,
    /// Drain markers, present from the cordon on.
    pub drain: Option<DrainMarkers>,
    /// What the gateway itself said last, and when.
    pub gateway: Option<(Timestamp, GatewayState)>,
    /// What it had counted at some times of the rollout, the oldest first.
    pub health: Vec<(Timestamp, GatewayHealth)>,
    /// What it had counted when it answered the last time but one, and when that was.
    pub counted_before: Option<(Timestamp, GatewayHealth)>,
    /// Since when calls to the gateway fail without a success in between.
    pub unreachable_since: Option<Timestamp>,
    /// Since when the gateway has not told its state, whether it does not answer or refuses to: nothing can be asked of it.
    pub silent_since: Option<Timestamp>,
}

/// What the planner needs of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Since when it is not Ready; `None` while it is.
    pub not_ready_since: Option<Timestamp>,
    /// It is cordoned, carries a taint of `disruption.drainTaints`, or is gone.
    pub draining: bool,
}

/// Drain annotations of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainMarkers {
    /// When it stopped accepting.
    pub cordoned_at: Timestamp,
    /// Why.
    pub reason: DrainReason,
    /// Identifies the drain.
    pub drain_id: String,
    /// When forced closes end with deletion; set when the pod goes from cordoned to draining.
    pub deadline: Option<Timestamp>,
    /// Sockets when draining began.
    pub initial: Option<u64>,
    /// When no socket was left.
    pub drained_at: Option<Timestamp>,
    /// It stays, and closes what it has too many; with reason `rebalance` only.
    pub shedding: Option<Shedding>,
}

/// Annotations of a pod that gives some of its sockets away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shedding {
    /// When that was decided.
    pub since: Timestamp,
    /// So many it keeps at least.
    pub keep: u64,
}

/// One ControllerRevision.
#[derive(Clone, Debug)]
pub struct RevisionView {
    /// Object name.
    pub name: String,
    /// Hash label.
    pub hash: String,
    /// `.revision`: grows with each new or reverted template.
    pub number: i64,
    /// What the revision froze.
    pub data: RevisionData,
    /// How far the rollout to it is.
    pub rollout: RolloutMarkers,
}

/// Socket counts by pod, from the source in force.
#[derive(Clone, Debug, Default)]
pub struct MetricsView {
    /// Pod name -> (when it was measured, open sockets). With source `Pods`, the same as the gateways' states.
    pub connections: BTreeMap<String, (Timestamp, u64)>,
    /// What the source answered last, when that was not numbers.
    pub error: Option<String>,
}

/// A rate that was granted to a gateway.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lease {
    /// Closes per second, in thousandths.
    pub rate_millis: u64,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// Until when it lasts.
    pub until: Timestamp,
}
