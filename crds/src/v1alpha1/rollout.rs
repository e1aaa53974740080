//! `spec.rollout`: how a new revision replaces the old one.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::IntOrPercent;
use super::default::{count, int, percent};

/// How a new revision replaces the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("(self.maxSurge != 0 && self.maxSurge != '0%') || (self.maxUnavailable != 0 && self.maxUnavailable != '0%')", "maxSurge and maxUnavailable cannot both be 0, nothing could move: set rollout.maxSurge to 1 or more, or rollout.maxUnavailable to 1 or more"),
    validation = ("self.progressDeadlineSeconds > self.minReadySeconds", "progressDeadlineSeconds must be greater than minReadySeconds: raise rollout.progressDeadlineSeconds or lower rollout.minReadySeconds")
)]
pub struct RolloutSpec {
    /// Pods above the wanted number that may exist while pods are replaced; a count, or a share rounded up. Default
    /// "25%". More is faster and needs more room on the nodes.
    #[serde(default = "percent::<25>")]
    pub max_surge: IntOrPercent,
    /// Pods below the wanted number that are tolerated while pods are replaced; a count, or a share rounded down.
    /// Default 0: a pod goes only when its replacement is available. Set it, with maxSurge 0, where the nodes have no
    /// room for another pod.
    #[serde(default = "count::<0>")]
    pub max_unavailable: IntOrPercent,
    /// Seconds that a pod must have been Ready before it counts as available. Default 10. 0 in tests.
    #[serde(default = "int::<10>")]
    #[schemars(range(max = 3600))]
    pub min_ready_seconds: u32,
    /// Seconds that a new pod may take to become available before condition Progressing turns False; waiting for drains
    /// does not count. Default 600. Old pods stay as long as new ones do not become available.
    #[serde(default = "int::<600>")]
    #[schemars(range(min = 1, max = 86400))]
    pub progress_deadline_seconds: u32,
    /// Revisions without pods that are kept. Default 10.
    #[serde(default = "int::<10>")]
    #[schemars(range(max = 50))]
    pub revision_history_limit: u32,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            max_surge: IntOrPercent::Percent(25),
            max_unavailable: IntOrPercent::Count(0),
            min_ready_seconds: 10,
            progress_deadline_seconds: 600,
            revision_history_limit: 10,
        }
    }
}
