//! `spec.template`: what is laid over the pod that the operator makes.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Overlay of the gateways' pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateOverlay {
    /// Labels and annotations added to the pods, as in a pod's `metadata`. Keys below `wsfleet.dev/` are the
    /// operator's own.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "anything")]
    pub metadata: Map<String, Value>,
    /// Laid over the pod's `spec` as a strategic merge: containers, environment variables, volumes and ports are merged
    /// by name, tolerations are added, everything else replaces. The gateway's container is named `gateway`. Resources,
    /// node selectors, affinity, tolerations, sidecars and priority classes belong here.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "anything")]
    pub spec: Map<String, Value>,
}

/// An object that the API server neither checks nor prunes: a pod's schema alone would be ten times the size of the
/// rest, and a server-side dry run checks the result anyway.
fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
