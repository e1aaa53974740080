//! `spec.autoscaling`: how many gateways there are.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IntOrPercent;
use super::default::{count, int, percent};

/// How many gateways there are. The built-in autoscaler never writes the specification: its result is
/// status.desiredReplicas, so that re-applying a manifest changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas: lower autoscaling.minReplicas or raise autoscaling.maxReplicas"),
    validation = ("self.targetUtilization < self.maxUtilization", "targetUtilization must be below maxUtilization: for example autoscaling.targetUtilization 70 and autoscaling.maxUtilization 85")
)]
pub struct AutoscalingSpec {
    /// Disabled (default): spec.replicas is the size. Builtin: the operator chooses between minReplicas and maxReplicas
    /// by the sockets. External: an HPA or KEDA writes spec.replicas through the scale subresource; the fields of the
    /// built-in autoscaler below are not used.
    #[serde(default)]
    pub mode: AutoscalingMode,
    /// Gateways at least. Default 2.
    #[serde(default = "int::<2>")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: u32,
    /// Gateways at most. Default 20.
    #[serde(default = "int::<20>")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// Where the socket counts come from.
    #[serde(default)]
    pub metrics: MetricsSpec,
    /// Per cent of gateway.capacity.maxConnections that a gateway holds on average. Default 70. Lower it when load grows
    /// faster than pods start.
    #[serde(default = "int::<70>")]
    #[schemars(range(min = 10, max = 95))]
    pub target_utilization: u32,
    /// Per cent of gateway.capacity.maxConnections that is never planned beyond, also when a pod is drained onto the
    /// others. Default 85.
    #[serde(default = "int::<85>")]
    #[schemars(range(min = 11, max = 100))]
    pub max_utilization: u32,
    /// Gateways, or share of the needed ones, kept beyond what maxUtilization needs, to survive the loss of that many.
    /// Default 1.
    #[serde(default = "count::<1>")]
    pub reserve: IntOrPercent,
    /// How fast the fleet grows.
    #[serde(default)]
    pub scale_up: ScaleUpSpec,
    /// How fast the fleet shrinks.
    #[serde(default)]
    pub scale_down: ScaleDownSpec,
}

impl Default for AutoscalingSpec {
    fn default() -> Self {
        Self {
            mode: AutoscalingMode::Disabled,
            min_replicas: 2,
            max_replicas: 20,
            metrics: MetricsSpec::default(),
            target_utilization: 70,
            max_utilization: 85,
            reserve: IntOrPercent::Count(1),
            scale_up: ScaleUpSpec::default(),
            scale_down: ScaleDownSpec::default(),
        }
    }
}

/// Who chooses the size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutoscalingMode {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    Disabled,
    #[allow(missing_docs, reason = "as above")]
    Builtin,
    #[allow(missing_docs, reason = "as above")]
    External,
}

/// Where the socket counts come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.source != 'Prometheus' || has(self.prometheus)", "source Prometheus needs autoscaling.metrics.prometheus.endpoint, for example http://prometheus.monitoring:9090"),
    validation = ("self.source != 'Pods' || !has(self.prometheus)", "autoscaling.metrics.prometheus is used only with source Prometheus: set autoscaling.metrics.source: Prometheus, or remove it"),
    validation = ("self.staleSeconds >= 2 * self.intervalSeconds", "staleSeconds must be at least twice intervalSeconds: raise autoscaling.metrics.staleSeconds or lower autoscaling.metrics.intervalSeconds")
)]
pub struct MetricsSpec {
    /// Pods (default): the operator asks each gateway. Prometheus: it asks a Prometheus server.
    #[serde(default)]
    pub source: MetricsSource,
    /// Seconds between two looks. Default 5.
    #[serde(default = "int::<5>")]
    #[schemars(range(min = 1, max = 300))]
    pub interval_seconds: u32,
    /// Seconds after which a number is stale. Default 15. Stale numbers are kept for a while and never taken for zero;
    /// with too few fresh ones the fleet does not shrink.
    #[serde(default = "int::<15>")]
    #[schemars(range(min = 2, max = 3600))]
    pub stale_seconds: u32,
    /// The Prometheus server; needed by source Prometheus, not allowed with source Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSpec>,
}

impl Default for MetricsSpec {
    fn default() -> Self {
        Self {
            source: MetricsSource::Pods,
            interval_seconds: 5,
            stale_seconds: 15,
            prometheus: None,
        }
    }
}

/// Where the socket counts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetricsSource {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    Pods,
    #[allow(missing_docs, reason = "as above")]
    Prometheus,
}

/// A Prometheus server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusSpec {
    /// Address of the server, for example `http://prometheus.monitoring:9090`; `/api/v1/query` is added. A host without a
    /// dot is a Service in the resource's namespace.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^https?://[^/ ]')", "write the address as http://host:port or https://host:port, for example http://prometheus.monitoring:9090"))]
    pub endpoint: String,
    /// PromQL query that yields one series per pod, with label `pod`. `$namespace` and `$name` are replaced. Default:
    /// `max by (pod) (ws_active_connections{namespace="$namespace", wsfleet_cluster="$name"})`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub query: Option<String>,
}

/// How fast the fleet grows: the larger of the two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleUpSpec {
    /// Per cent of the fleet that may be added in a period. Default 100.
    #[serde(default = "int::<100>")]
    #[schemars(range(max = 1000))]
    pub max_percent: u32,
    /// Gateways that may be added in a period. Default 4.
    #[serde(default = "int::<4>")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_pods: u32,
    /// Length of the period in seconds. Default 15.
    #[serde(default = "int::<15>")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: u32,
}

impl Default for ScaleUpSpec {
    fn default() -> Self {
        Self {
            max_percent: 100,
            max_pods: 4,
            period_seconds: 15,
        }
    }
}

/// How fast the fleet shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDownSpec {
    /// Seconds for which the smaller size must have been enough. Default 600. 0 in tests.
    #[serde(default = "int::<600>")]
    #[schemars(range(max = 7200))]
    pub stabilization_seconds: u32,
    /// Gateways, or share of the fleet rounded up, that may be taken away in a period. Default "10%".
    #[serde(default = "percent::<10>")]
    #[x_kube(validation = ("self != 0 && self != '0%'", "scaleDown.maxPods must be at least 1, or 1%: to keep the fleet from shrinking raise autoscaling.minReplicas"))]
    pub max_pods: IntOrPercent,
    /// Length of the period in seconds. Default 600.
    #[serde(default = "int::<600>")]
    #[schemars(range(min = 1, max = 86400))]
    pub period_seconds: u32,
}

impl Default for ScaleDownSpec {
    fn default() -> Self {
        Self {
            stabilization_seconds: 600,
            max_pods: IntOrPercent::Percent(10),
            period_seconds: 600,
        }
    }
}
