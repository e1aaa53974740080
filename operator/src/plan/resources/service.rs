//! The Service that clients reach: it selects the pods that accept new sockets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::{applied_hash, cluster_name, owned_meta};

/// The Service of `cluster`, named as it is, with its hash in the annotation.
pub(crate) fn service(cluster: &WebSocketCluster) -> Service {
    let wanted = &cluster.spec.service;
    let mut service = Service {
        metadata: owned_meta(cluster, cluster_name(cluster).to_owned()),
        spec: Some(ServiceSpec {
            type_: Some(wanted.service_type.as_str().to_owned()),
            selector: Some(BTreeMap::from([
                (labels::CLUSTER.to_owned(), cluster_name(cluster).to_owned()),
                (labels::ACCEPTING.to_owned(), "true".to_owned()),
            ])),
            ports: Some(vec![ServicePort {
                name: Some("ws".to_owned()),
                port: i32::from(wanted.port),
                target_port: Some(IntOrString::String("ws".to_owned())),
                node_port: wanted.node_port.map(i32::from),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            external_traffic_policy: wanted
                .external_traffic_policy
                .map(|policy| policy.as_str().to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let mut annotations = wanted.annotations.clone();
    service.metadata.annotations = Some(annotations.clone());
    annotations.insert(labels::APPLIED_HASH.to_owned(), applied_hash(&service));
    service.metadata.annotations = Some(annotations);
    service
}
