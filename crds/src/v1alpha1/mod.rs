//! `wsfleet.dev/v1alpha1`: the `WebSocketCluster` resource.
//!
//! The schema does as much as it can: defaults are filled in by the API server, ranges and rules (CEL) are checked
//! there, and each rule's message says what to write instead. [`WebSocketCluster::validate_cel`] checks the rules
//! without a server. Counts that may be shares are int-or-string, rates are integer thousandths, durations are integer
//! seconds: no floats.

// KubeSchema copies each struct, `pub` included, into a function body
#![allow(unreachable_pub)]

mod analysis;
mod auth;
mod autoscaling;
mod broker;
mod crd;
mod default;
mod disruption;
mod drain;
mod gateway;
mod history;
mod int_or_percent;
mod limits;
mod rebalance;
mod reference;
mod rollout;
mod service;
mod status;
mod template;
#[cfg(test)]
mod tests;
mod tls;
mod topology;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use analysis::{AnalysisSpec, BuiltinAnalysis};
pub use auth::{AnonymousAuth, AuthSpec, InsecureTokenAuth, JwtAuth, RoomsClaim};
pub use autoscaling::{
    AutoscalingMode, AutoscalingSpec, MetricsSource, MetricsSpec, PrometheusSpec, ScaleDownSpec, ScaleUpSpec,
};
pub use broker::{BrokerSpec, Durability, Events, MemoryBroker, NatsBroker, NatsEvents, RedisBroker};
pub use crd::{crd, crd_yaml};
pub use disruption::{DisruptionMode, DisruptionSpec};
pub use drain::{DrainSpec, OnTimeout, PassiveSpec, ReconnectSpec};
pub use gateway::{API_PORT, CapacitySpec, GatewaySpec, SlowConsumerPolicy, SlowConsumerRule};
pub use history::{DirectHistory, DirectHistoryPolicy, HistoryPolicy, HistoryRule};
pub use int_or_percent::{IntOrPercent, ParseIntOrPercentError};
pub use limits::LimitsSpec;
pub use rebalance::RebalanceSpec;
pub use reference::SecretKeyRef;
pub use rollout::{CanarySpec, OnFailure, RolloutSpec, RolloutStrategy};
pub use service::{ExternalTrafficPolicy, ServiceSpec, ServiceType};
pub use status::{
    AutoscalingStatus, ConnectionsStatus, DrainStatus, MAX_DRAINING_PODS, RolloutPhase, RolloutStatus,
    WebSocketClusterStatus,
};
pub use template::TemplateOverlay;
pub use tls::TlsSpec;
pub use topology::{Spread, TopologySpec};

use default::int;

/// What a fleet of WebSocket gateways shall be.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "wsfleet.dev",
    version = "v1alpha1",
    kind = "WebSocketCluster",
    plural = "websocketclusters",
    singular = "websocketcluster",
    shortname = "wsc",
    category = "all",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "WebSocketClusterStatus",
    doc = "A fleet of WebSocket gateways: it scales on its sockets, and drains a pod before it deletes it.",
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,46}[a-z0-9])?$')", "metadata.name must be at most 48 characters of a-z, 0-9 and '-', begin with a letter and not end with '-': pods and the Service are named after it"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.scaleReplicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "DESIRED", type_ = "integer", json_path = ".status.desiredReplicas", description = "gateways wanted"),
    printcolumn(name = "READY", type_ = "integer", json_path = ".status.readyReplicas", description = "pods that are Ready"),
    printcolumn(name = "UPDATED", type_ = "integer", json_path = ".status.updatedReplicas", description = "pods of the newest revision"),
    printcolumn(name = "DRAINING", type_ = "integer", json_path = ".status.drainingReplicas", description = "pods whose sockets are being closed"),
    printcolumn(name = "CONNS", type_ = "integer", json_path = ".status.connections.total", description = "open sockets"),
    printcolumn(name = "UTIL%", type_ = "integer", json_path = ".status.connections.utilizationPercent", description = "average share of maxConnections"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.rollout.phase", description = "phase of the rollout"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "SKEW%", type_ = "integer", json_path = ".status.connections.skewPercent", priority = 1),
    printcolumn(name = "REVISION", type_ = "string", json_path = ".status.updateRevision", priority = 1),
    printcolumn(name = "RATE", type_ = "integer", json_path = ".status.drain.ratePerSecond", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(self.broker.memory) || (self.replicas <= 1 && self.autoscaling.mode == 'Disabled')", "the memory broker is for one gateway: set spec.broker.redis.url, for example redis://redis:6379, or spec.replicas: 1 with autoscaling.mode: Disabled"),
    validation = ("self.rebalance.maxDisconnectPermille <= 2 || self.rebalance.maxDisconnectPermille <= self.drain.maxDisconnectPermille", "rebalance.maxDisconnectPermille must not exceed drain.maxDisconnectPermille: evening out is never more urgent than a drain; lower it or raise drain.maxDisconnectPermille")
)]
pub struct WebSocketClusterSpec {
    /// Gateways wanted when autoscaling is off, and to begin with when it is on. Default 3.
    #[serde(default = "int::<3>")]
    #[schemars(range(max = 1000))]
    pub replicas: u32,
    /// Keep everything as it is: nothing is created, closed or deleted; the status stays fresh. Default false. Forced
    /// closes of a drain under way stop within 30 seconds.
    #[serde(default)]
    pub paused: bool,
    /// The gateway process.
    #[serde(default)]
    pub gateway: GatewaySpec,
    /// Laid over the pods that the operator makes: resources, node selectors, sidecars. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub template: TemplateOverlay,
    /// What carries messages between gateways. Default: memory, which allows a single gateway only.
    #[serde(default)]
    pub broker: BrokerSpec,
    /// Who may open a socket; required.
    pub auth: AuthSpec,
    /// Clients connect by TLS (`wss://`), which the gateways end. Default: no TLS, or one that ends before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// What one client may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitsSpec,
    /// The address that clients reach.
    #[serde(default)]
    pub service: ServiceSpec,
    /// How a new revision replaces the old one.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// How a pod is emptied before it goes.
    #[serde(default)]
    pub drain: DrainSpec,
    /// What happens when a node is drained or a pod evicted.
    #[serde(default)]
    pub disruption: DisruptionSpec,
    /// How many gateways there are.
    #[serde(default)]
    pub autoscaling: AutoscalingSpec,
    /// What is done when some gateways hold many more sockets than others.
    #[serde(default)]
    pub rebalance: RebalanceSpec,
    /// Where the pods go.
    #[serde(default)]
    pub topology: TopologySpec,
    /// What happens to open sockets when the resource is deleted. Graceful (default): the pods are deleted together and each
    /// closes its sockets over drain.timeoutSeconds. Drain: a finalizer keeps the resource until all its sockets were closed
    /// at the fleet's rate; an operator must run for that.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What happens to open sockets when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    Graceful,
    #[allow(missing_docs, reason = "as above")]
    Drain,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
