//! The Kubernetes objects that a fleet is made of, one file each; pure functions of the resource.

mod broker;
pub mod budgets;
pub mod overlay;
pub mod pod;
pub mod secret;
pub mod service;
pub mod template;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Serialize;
use sha2::{Digest, Sha256};
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::WebSocketCluster;

/// Metadata that every owned object has: name, namespace, labels, and the resource as its controller, so that the
/// garbage collector removes it with the resource.
pub(crate) fn owned_meta(cluster: &WebSocketCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: cluster.metadata.namespace.clone(),
        labels: Some(owned_labels(cluster)),
        owner_references: cluster.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn owned_labels(cluster: &WebSocketCluster) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_VALUE.to_owned()),
        (labels::CLUSTER.to_owned(), cluster_name(cluster).to_owned()),
    ])
}

/// Name of the resource; every object that came from the API server has one.
pub(crate) fn cluster_name(cluster: &WebSocketCluster) -> &str {
    cluster.metadata.name.as_deref().unwrap_or_default()
}

/// Hash for the annotation [`labels::APPLIED_HASH`]: equal objects have equal hashes in all versions of the operator
/// that write the same object.
pub(crate) fn applied_hash<T: Serialize>(object: &T) -> String {
    let json = serde_json::to_value(object)
        .map(|value| canonical(&value))
        .unwrap_or_default();
    short_hash(json.as_bytes(), 10)
}

/// A hash of `length` characters that are allowed in names and cannot form words (the alphabet of Kubernetes'
/// `SafeEncodeString`).
pub(crate) fn short_hash(bytes: &[u8], length: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .take(length)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// JSON with sorted keys, whatever features `serde_json` was built with.
pub(crate) fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let members: Vec<_> = sorted
                .iter()
                .map(|(key, value)| format!("{}:{}", Value::String((*key).clone()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}
