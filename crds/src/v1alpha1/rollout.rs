//! `spec.rollout`: how a new revision replaces the old one.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IntOrPercent;
use super::analysis::{AnalysisSpec, built_ins};
use super::default::{count, int, percent};

/// How a new revision replaces the old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("(self.maxSurge != 0 && self.maxSurge != '0%') || (self.maxUnavailable != 0 && self.maxUnavailable != '0%')", "maxSurge and maxUnavailable cannot both be 0, nothing could move: set rollout.maxSurge to 1 or more, or rollout.maxUnavailable to 1 or more"),
    validation = ("self.progressDeadlineSeconds > self.minReadySeconds", "progressDeadlineSeconds must be greater than minReadySeconds: raise rollout.progressDeadlineSeconds or lower rollout.minReadySeconds")
)]
pub struct RolloutSpec {
    /// Steered (default): a canary first, then waves within maxSurge. BlueGreen: a whole second fleet is made beside the
    /// old one, which is drained only when all of it is available. OnDelete: a pod is of the new revision when somebody
    /// deleted the one before it; no canary, no waves.
    #[serde(default)]
    pub strategy: RolloutStrategy,
    /// Pods that stay on the revision before, a count or a share rounded up, until it is lowered. Default 0.
    #[serde(default = "count::<0>")]
    pub partition: IntOrPercent,
    /// The first pods of a new revision, which must prove themselves before the others follow.
    #[serde(default)]
    pub canary: CanarySpec,
    /// What a new revision is judged by, from its canary on; measures of it beside those of the revision before. Default: the
    /// four built-in analyses. A list given here takes their place; an empty one switches them off.
    #[serde(default = "built_ins")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = ("self.all(one, self.exists_one(other, other.name == one.name))", "each name may occur once in rollout.analysis: rename one of the two"))]
    pub analysis: Vec<AnalysisSpec>,
    /// What is done with a revision that fails: Rollback (default) gives the fleet back to the revision before, Pause
    /// leaves everything as it is. Either way it is not tried again until the template changes.
    #[serde(default)]
    pub on_failure: OnFailure,
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
    /// Seconds that a new pod may take to become available before the revision has failed, see onFailure; waiting for
    /// drains does not count. Default 600. Old pods stay as long as new ones do not become available.
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
            strategy: RolloutStrategy::Steered,
            partition: IntOrPercent::Count(0),
            canary: CanarySpec::default(),
            analysis: built_ins(),
            on_failure: OnFailure::Rollback,
            max_surge: IntOrPercent::Percent(25),
            max_unavailable: IntOrPercent::Count(0),
            min_ready_seconds: 10,
            progress_deadline_seconds: 600,
            revision_history_limit: 10,
        }
    }
}

/// How pods are replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategy {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    Steered,
    #[allow(missing_docs, reason = "as above")]
    BlueGreen,
    #[allow(missing_docs, reason = "as above")]
    OnDelete,
}

/// What is done with a revision that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    Pause,
    #[allow(missing_docs, reason = "as above")]
    #[default]
    Rollback,
}

/// The first pods of a new revision. They take new sockets beside the old pods, which keep theirs: until the canary has
/// passed no socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanarySpec {
    /// Pods of the canary, a count, or a share of the wanted pods rounded up; never more than the surge. Default "5%". 0:
    /// no canary. With maxSurge 0 it takes the places of old pods, which are drained.
    #[serde(default = "percent::<5>")]
    #[x_kube(validation = ("string(self).matches('^([0-9]+|([0-9]|[1-4][0-9]|50)%)$')", "canary.weight must not exceed 50%: the canary is the smaller part; write for example rollout.canary.weight: 10%"))]
    pub weight: IntOrPercent,
    /// Seconds that the canary must hold out after all of its pods are available. Default 120.
    #[serde(default = "int::<120>")]
    #[schemars(range(max = 86400))]
    pub bake_seconds: u32,
}

impl Default for CanarySpec {
    fn default() -> Self {
        Self {
            weight: IntOrPercent::Percent(5),
            bake_seconds: 120,
        }
    }
}
