//! `spec.service`: the address that clients reach.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::short;

/// The Service that the operator keeps, named as the WebSocketCluster. It selects the pods that accept new sockets;
/// sockets that are open outlive their pod's removal from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(self.nodePort) || self.type != 'ClusterIP'", "service.nodePort needs service.type NodePort or LoadBalancer: set the type, or remove nodePort"),
    validation = ("!has(self.externalTrafficPolicy) || self.type != 'ClusterIP'", "service.externalTrafficPolicy needs service.type NodePort or LoadBalancer: set the type, or remove externalTrafficPolicy")
)]
pub struct ServiceSpec {
    /// ClusterIP (default), NodePort or LoadBalancer, as in a Service.
    #[serde(rename = "type", default)]
    pub service_type: ServiceType,
    /// Port of the Service; it leads to gateway.port. Default 80.
    #[serde(default = "short::<80>")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Port on the nodes, for type NodePort or LoadBalancer. Default: Kubernetes chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<u16>,
    /// Annotations of the Service, for example those that a cloud's load balancer reads. Set its idle timeout above 60
    /// seconds: the gateway pings every 30.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Cluster (Kubernetes' default) or Local, as in a Service. Local keeps the clients' addresses, which the limits by
    /// address need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            service_type: ServiceType::ClusterIP,
            port: 80,
            node_port: None,
            annotations: BTreeMap::new(),
            external_traffic_policy: None,
        }
    }
}

/// Type of the Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    ClusterIP,
    #[allow(missing_docs, reason = "as above")]
    NodePort,
    #[allow(missing_docs, reason = "as above")]
    LoadBalancer,
}

impl ServiceType {
    /// The value as a Service has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Where a node sends what arrives from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExternalTrafficPolicy {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    Cluster,
    #[allow(missing_docs, reason = "as above")]
    Local,
}

impl ExternalTrafficPolicy {
    /// The value as a Service has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}
