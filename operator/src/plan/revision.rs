//! Revisions: what a gateway pod is made from, frozen when the template was first seen.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the operator brings along and the specification may leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Image of the gateway when `spec.gateway.image` is not set (`--gateway-image`).
    pub gateway_image: String,
}

/// Data of a ControllerRevision: all that pods of the revision have in common. Everything that the operator adds is in
/// it, so that an operator of another version makes the same pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionData {
    /// The part of the specification that the hash covers.
    pub user: Value,
    /// The image, resolved.
    pub image: String,
    /// The pod without name, slot and drain times.
    pub template: PodTemplateSpec,
}
