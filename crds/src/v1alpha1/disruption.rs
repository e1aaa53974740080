//! `spec.disruption`: what nodes and people may do to the fleet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::int;

/// What happens when a node is drained or a pod evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionSpec {
    /// Cooperative (default): a gateway may be evicted, maxUnavailable at a time, and closes its sockets one by one within
    /// its grace period. Strict: none is ever evicted; the cordon or taint of its node drains it as a rollout would, and
    /// `kubectl drain` waits until it is gone.
    #[serde(default)]
    pub mode: DisruptionMode,
    /// Pods that may be evicted at the same time while the mode is Cooperative; it becomes the minAvailable of the
    /// PodDisruptionBudget. Default 1. A node's drain may leave so many fewer than wanted in either mode.
    #[serde(default = "int::<1>")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_unavailable: u32,
    /// Taint keys that announce the end of a node: gateways on such a node are replaced and drained. Default: a cordoned
    /// node, the Cluster Autoscaler's taint and Karpenter's.
    #[serde(default = "default_drain_taints")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub drain_taints: Vec<String>,
    /// Seconds from the cordon or taint of a node until the gateways on it are gone, whatever room the others have. Default
    /// 900. Those that still wait for room begin to drain drain.timeoutSeconds and drain.settleSeconds before that; what is
    /// left at the end is deleted, and closes its sockets within its grace period.
    #[serde(default = "int::<900>")]
    #[schemars(range(min = 1, max = 86400))]
    pub node_drain_timeout_seconds: u32,
}

/// What an eviction may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DisruptionMode {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    Cooperative,
    #[allow(missing_docs, reason = "as above")]
    Strict,
}

fn default_drain_taints() -> Vec<String> {
    [
        "node.kubernetes.io/unschedulable",
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
    ]
    .map(str::to_owned)
    .to_vec()
}

impl Default for DisruptionSpec {
    fn default() -> Self {
        Self {
            mode: DisruptionMode::default(),
            max_unavailable: 1,
            drain_taints: default_drain_taints(),
            node_drain_timeout_seconds: 900,
        }
    }
}
