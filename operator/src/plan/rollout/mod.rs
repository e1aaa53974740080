//! Where a rollout stands: which revision the fleet goes to, which one it may go back to, and how far it may go now.
//!
//! Nothing is remembered here. What a rollout has achieved is written on the ControllerRevision that it goes to, before
//! anything is done because of it: when it began, since when the canary bakes, when the canary had passed, why it
//! failed. Those markers go when another revision is wanted, so that a revision that is wanted again begins again.
//!
//! ```text
//! Validating -> Canary -> Baking -> Waves -> (complete)
//!                  \________\________\____ failed -> RollingBack, or Halted
//! ```

mod advance;
mod analysis;
mod split;

use jiff::Timestamp;
use wsfleet_crds::v1alpha1::{IntOrPercent, OnFailure, RolloutStrategy, WebSocketCluster};

use super::fleet::Fleet;
use super::gate::Gate;
use super::revision::Target;
use crate::observe::model::{Observed, RevisionView};
pub(crate) use advance::{advance, deadline, late};
pub(crate) use analysis::{Verdict, judge};
pub(crate) use split::{Split, hold, surge};

/// What the markers of a revision say of the rollout to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutMarkers {
    /// When the rollout began.
    pub started_at: Option<Timestamp>,
    /// Since when the whole canary is available.
    pub baking_since: Option<Timestamp>,
    /// When the canary had passed.
    pub canary_passed_at: Option<Timestamp>,
    /// Why the revision failed: a reason in CamelCase, a colon, a text.
    pub failed: Option<String>,
}

impl RolloutMarkers {
    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Which revisions the fleet is between.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// The revision that the specification asks for.
    pub(crate) wanted: Target,
    /// The revision before it that the fleet can go back to; none when the fleet has run no other.
    pub(crate) stable: Option<Target>,
    /// Markers of the wanted revision.
    pub(crate) markers: RolloutMarkers,
    /// The wanted revision failed, and the fleet goes back to the stable one.
    pub(crate) back: bool,
}

/// How far the rollout may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No pod of the wanted revision may be made yet; the old ones are kept as many as wanted.
    Validating,
    /// The canary is made.
    Canary,
    /// The canary must hold out.
    Baking,
    /// Pods are replaced, as far as the partition allows.
    Waves,
    /// The wanted revision failed, and nothing goes on.
    Halted,
    /// The wanted revision failed, and its pods go.
    RollingBack,
    /// A pod is replaced when somebody deleted it.
    OnDelete,
}

impl Stage {
    /// Whether the new revision is still on trial.
    pub(crate) fn on_trial(self) -> bool {
        matches!(
            self,
            Self::Validating | Self::Canary | Self::Baking | Self::Halted
        )
    }
}

impl Course {
    /// Finds out where the fleet comes from and where it goes.
    pub(crate) fn new(cluster: &WebSocketCluster, observed: &Observed, wanted: Target) -> Self {
        let markers = observed
            .revisions
            .iter()
            .find(|revision| revision.hash == wanted.hash)
            .map(|revision| revision.rollout.clone())
            .unwrap_or_default();
        let stable = stable(cluster, observed, &wanted.hash);
        let back = markers.failed.is_some()
            && stable.is_some()
            && cluster.spec.rollout.on_failure == OnFailure::Rollback;
        Self {
            wanted,
            stable,
            markers,
            back,
        }
    }

    /// The revision that pods are made of in the end, as things are now.
    pub(crate) fn target(&self) -> &Target {
        match &self.stable {
            Some(stable) if self.back => stable,
            _ => &self.wanted,
        }
    }

    /// How far the rollout may go.
    pub(crate) fn stage(&self, cluster: &WebSocketCluster, fleet: &Fleet<'_>, gate: &Gate) -> Stage {
        let rollout = &cluster.spec.rollout;
        let others = fleet.count(|member| member.is_live() && member.pod.revision != self.wanted.hash);
        let has_canary = !matches!(
            rollout.canary.weight,
            IntOrPercent::Count(0) | IntOrPercent::Percent(0)
        );
        if self.back {
            Stage::RollingBack
        } else if self.stable.is_none() {
            // nothing to go back to
            Stage::Waves
        } else if self.markers.failed.is_some() && rollout.strategy != RolloutStrategy::OnDelete {
            Stage::Halted
        } else if others == 0 {
            // nobody has sockets to lose
            Stage::Waves
        } else if !gate.is_open() {
            Stage::Validating
        } else if rollout.strategy == RolloutStrategy::OnDelete {
            Stage::OnDelete
        } else if self.markers.canary_passed_at.is_some()
            || !has_canary
            // two gateways without a broker between them would be two fleets
            || cluster.spec.broker.memory.is_some()
        {
            Stage::Waves
        } else if self.markers.baking_since.is_some() {
            Stage::Baking
        } else {
            Stage::Canary
        }
    }
}

/// The revision that the fleet last ran completely. Should the status be lost, or older than the fleet, since no pod of
/// that revision is left: the one that most pods are of.
fn stable(cluster: &WebSocketCluster, observed: &Observed, wanted: &str) -> Option<Target> {
    let complete = cluster
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_deref());
    if complete == Some(wanted) {
        return None;
    }
    let pods_of = |revision: &RevisionView| {
        let pods = observed.pods.iter();
        pods.filter(|pod| pod.revision == revision.hash && pod.ready_since.is_some())
            .count()
    };
    let is_left = |revision: &RevisionView| {
        let mut pods = observed.pods.iter().filter(|pod| pod.revision == revision.hash);
        pods.any(|pod| pod.deleting_since.is_none() && !pod.finished)
    };
    let others = || observed.revisions.iter().filter(|it| it.hash != wanted);
    let last = others().find(|revision| Some(revision.hash.as_str()) == complete);
    let largest = || {
        let serving = others().filter(|revision| pods_of(revision) > 0 && revision.rollout.failed.is_none());
        serving.max_by_key(|revision| (pods_of(revision), revision.number))
    };
    last.filter(|last| is_left(last))
        .or_else(largest)
        .or(last)
        .map(|revision| Target {
            hash: revision.hash.clone(),
            data: Ok(revision.data.clone()),
        })
}
