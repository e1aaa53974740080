//! `status`: what the operator saw and decided last.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Entries of [`DrainStatus::pods`] at most, so that the status of a large fleet stays small.
pub const MAX_DRAINING_PODS: usize = 20;

/// What the operator saw and decided last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketClusterStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Gateways wanted: spec.replicas, or what the built-in autoscaler chose.
    #[serde(default)]
    pub desired_replicas: u32,
    /// Gateways that an external autoscaler shall count: without surge, without pods that are leaving.
    #[serde(default)]
    pub scale_replicas: u32,
    /// Pods that exist, those that are being deleted excepted.
    #[serde(default)]
    pub replicas: u32,
    /// Pods that are Ready.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Pods that are Ready and accept new sockets.
    #[serde(default)]
    pub accepting_replicas: u32,
    /// Pods of the update revision.
    #[serde(default)]
    pub updated_replicas: u32,
    /// Pods that no longer accept and whose sockets may leave by themselves.
    #[serde(default)]
    pub cordoned_replicas: u32,
    /// Pods whose sockets are being closed.
    #[serde(default)]
    pub draining_replicas: u32,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Hash of the revision that the fleet last ran completely; one that is asked for while the fleet is of no pods is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// Hash of the revision that the specification asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
    /// Open sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionsStatus>,
    /// Drains under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// Where the rollout is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// What the built-in autoscaler thinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// Ready, Available, Progressing, Draining, TemplateValid, ReferencesResolved, HeadroomSufficient,
    /// MetricsAvailable, ScalingActive, ScalingLimited, RolloutHealthy, Paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Open sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionsStatus {
    /// On all pods.
    pub total: u64,
    /// On the fullest pod.
    pub max: u64,
    /// On average.
    pub mean: u64,
    /// How far the fullest pod is above the average, in per cent of the average.
    pub skew_percent: u32,
    /// The average in per cent of gateway.capacity.maxConnections.
    pub utilization_percent: u32,
    /// Pods whose number is fresh.
    pub fresh_pods: u32,
}

/// Drains under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// Sockets that the draining pods held when their drains began.
    pub initial: u64,
    /// Sockets that they still hold.
    pub remaining: u64,
    /// Sockets per second that are closed at most, by all drains together.
    pub rate_per_second: u64,
    /// Sockets that these drains have closed.
    #[serde(default)]
    pub forced_total: u64,
    /// Sockets that their clients closed meanwhile.
    #[serde(default)]
    pub natural_total: u64,
    /// Seconds until the last of the remaining sockets is closed at that rate, rounded up; sooner when clients leave by
    /// themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Names of the draining pods, 20 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
}

/// Where the rollout is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Idle, Validating, Canary, Baking, Progressing, Finalising, RollingBack, Paused or Blocked.
    pub phase: RolloutPhase,
    /// When the rollout to the wanted revision began, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Why it does not go on by itself, when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<String>,
    /// Hash of the wanted revision, when it has failed; it is not tried again until the template changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_revision: Option<String>,
    /// What it waits for, when it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Sockets that the drains of the rollout under way, or of the last one, have closed per client of the fleet: a
    /// decimal number, 1.00 when each client was moved once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnects_per_client: Option<String>,
}

impl RolloutStatus {
    /// `disconnectsPerClient` as a number.
    pub fn per_client(&self) -> Option<f64> {
        self.disconnects_per_client.as_deref()?.parse().ok()
    }
}

/// Phase of the rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    Idle,
    #[allow(missing_docs, reason = "as above")]
    Validating,
    #[allow(missing_docs, reason = "as above")]
    Canary,
    #[allow(missing_docs, reason = "as above")]
    Baking,
    #[allow(missing_docs, reason = "as above")]
    Progressing,
    #[allow(missing_docs, reason = "as above")]
    Finalising,
    #[allow(missing_docs, reason = "as above")]
    RollingBack,
    #[allow(missing_docs, reason = "as above")]
    Blocked,
    #[allow(missing_docs, reason = "as above")]
    Paused,
}

/// What the built-in autoscaler thinks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Gateways that the sockets ask for, before limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<u32>,
    /// Largest number asked for within the stabilisation window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_maximum: Option<u32>,
    /// What keeps the fleet from that size, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
    /// When the size was last changed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<String>,
}
