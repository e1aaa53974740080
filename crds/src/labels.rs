//! Every label, annotation, finalizer and field manager that wsfleet writes on a Kubernetes object.
//!
//! The drain state of a pod lives on the pod: a marker is written *before* the side effect that it announces, so that
//! an operator that crashes at any point resumes from what it reads.

/// Prefix of all keys below; also the API group of the resource.
pub const GROUP: &str = "wsfleet.dev";

/// Field manager of the operator's server-side apply.
pub const FIELD_MANAGER: &str = "wsfleet-operator";

/// Standard label: always [`MANAGED_BY_VALUE`]; the operator's watches select on it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const MANAGED_BY_VALUE: &str = "wsfleet-operator";
/// Standard label: always [`APP_NAME_VALUE`] on gateway pods.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Value of [`APP_NAME`].
pub const APP_NAME_VALUE: &str = "wsfleet-gateway";

/// Label: name of the `WebSocketCluster` that owns the object.
pub const CLUSTER: &str = "wsfleet.dev/cluster";
/// Label of pods and revisions: hash of the user-visible template.
pub const REVISION: &str = "wsfleet.dev/revision";
/// Label of pods: the slot number, which with cluster and revision makes the pod's name.
pub const SLOT: &str = "wsfleet.dev/slot";
/// Label of pods: `pending`, `active` or `draining`, see [`PodPhase`].
pub const PHASE: &str = "wsfleet.dev/phase";
/// Label of pods: `true` while the managed Service may send new sockets to the pod, else `false`.
pub const ACCEPTING: &str = "wsfleet.dev/accepting";

/// Annotation of pods: RFC 3339 time at which the pod stopped accepting.
pub const CORDONED_AT: &str = "wsfleet.dev/cordoned-at";
/// Annotation of pods: why, see [`DrainReason`].
pub const DRAIN_REASON: &str = "wsfleet.dev/drain-reason";
/// Annotation of pods: identifies one drain of one pod; the gateway's `drainId`.
pub const DRAIN_ID: &str = "wsfleet.dev/drain-id";
/// Annotation of pods: RFC 3339 time at which the drain ends whatever is left.
pub const DRAIN_DEADLINE: &str = "wsfleet.dev/drain-deadline";
/// Annotation of pods: sockets held when the drain began, for the time a drain took and for events.
pub const DRAIN_INITIAL: &str = "wsfleet.dev/drain-initial";
/// Annotation of pods: RFC 3339 time at which no socket was left.
pub const DRAINED_AT: &str = "wsfleet.dev/drained-at";
/// Annotation of pods: RFC 3339 time since which the node is known to be drained.
pub const NODE_DRAIN_SINCE: &str = "wsfleet.dev/node-drain-since";
/// Annotation of pods that hold many more sockets than the others: RFC 3339 time at which it was decided to close some.
pub const SHEDDING_SINCE: &str = "wsfleet.dev/shedding-since";
/// Annotation of such pods: how many sockets they keep at least, the average of then.
pub const SHED_TO: &str = "wsfleet.dev/shed-to";
/// Annotation of ControllerRevisions: RFC 3339 time at which the rollout to the revision began.
pub const ROLLOUT_STARTED_AT: &str = "wsfleet.dev/rollout-started-at";
/// Annotation of ControllerRevisions: RFC 3339 time from which on the whole canary was available.
pub const BAKING_SINCE: &str = "wsfleet.dev/baking-since";
/// Annotation of ControllerRevisions: RFC 3339 time at which the canary had passed; the waves follow.
pub const CANARY_PASSED_AT: &str = "wsfleet.dev/canary-passed-at";
/// Annotation of ControllerRevisions: why the revision failed, `Reason: text`. Removing it tries the revision again.
pub const ROLLOUT_FAILED: &str = "wsfleet.dev/rollout-failed";
/// Annotation of owned objects: hash of what was last applied; an equal hash saves the write.
pub const APPLIED_HASH: &str = "wsfleet.dev/applied-hash";
/// Annotation of the resource: ring of the autoscaler's last recommendations, so that a new leader keeps the window.
pub const RECOMMENDATIONS: &str = "wsfleet.dev/autoscaler-recommendations";
/// Finalizer of a resource whose `deletionPolicy` is Drain: it goes when its gateways hold no socket any more.
pub const DRAIN_FINALIZER: &str = "wsfleet.dev/drain";

/// The phase label of a gateway pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PodPhase {
    /// Created, not yet Ready for `minReadySeconds`.
    Pending,
    /// Serves; counted by the active PodDisruptionBudget.
    Active,
    /// Being drained; held by the guard PodDisruptionBudget, which allows no eviction.
    Draining,
}

impl PodPhase {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }

    /// The phase that a label's value names; `None` when it names none.
    pub fn parse(value: &str) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Draining]
            .into_iter()
            .find(|phase| phase.as_str() == value)
    }
}

/// Why a pod was cordoned; also a bounded label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DrainReason {
    /// The pod's revision is not the wanted one.
    Rollout,
    /// The fleet is larger than wanted.
    ScaleIn,
    /// The pod's node is cordoned or tainted.
    NodeDrain,
    /// The pod never became Ready, or failed.
    Replace,
    /// The pod holds many more sockets than the others; it stays.
    Rebalance,
}

impl DrainReason {
    /// The annotation's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::ScaleIn => "scale-in",
            Self::NodeDrain => "node-drain",
            Self::Replace => "replace",
            Self::Rebalance => "rebalance",
        }
    }

    /// The reason that an annotation's value names; `None` when it names none.
    pub fn parse(value: &str) -> Option<Self> {
        [
            Self::Rollout,
            Self::ScaleIn,
            Self::NodeDrain,
            Self::Replace,
            Self::Rebalance,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_and_reasons_survive_a_round_trip_through_their_labels() {
        for phase in [PodPhase::Pending, PodPhase::Active, PodPhase::Draining] {
            assert_eq!(PodPhase::parse(phase.as_str()), Some(phase));
        }
        for reason in [
            DrainReason::Rollout,
            DrainReason::ScaleIn,
            DrainReason::NodeDrain,
            DrainReason::Replace,
            DrainReason::Rebalance,
        ] {
            assert_eq!(DrainReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(
            PodPhase::parse("Active"),
            None,
            "values are case-sensitive, as label selectors are"
        );
        assert_eq!(DrainReason::parse(""), None);
    }
}
