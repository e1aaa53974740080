//! Revisions: what a gateway pod is made from, frozen when the template was first seen.
//!
//! The hash covers only what the user writes; what the operator adds is frozen beside it. So an operator of another
//! version, with another default image or other probes, neither restarts a gateway nor mixes two kinds of pods in one
//! revision. Limits are arguments of the gateway and therefore part of the hash; drain times and spreading are not, they
//! apply to pods made after a change.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::action::Action;
use super::resources::{canonical, cluster_name, overlay, owned_meta, short_hash, template};
use super::rollout::{Course, RolloutMarkers};
use crate::observe::model::RevisionView;

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

impl RevisionData {
    /// Port of the admin API in pods of this revision, which need not be the one that the specification asks for now.
    pub fn admin_port(&self) -> Option<u16> {
        let spec = self.template.spec.as_ref()?;
        let gateway = spec
            .containers
            .iter()
            .find(|container| container.name == template::CONTAINER)?;
        let port = gateway
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some("admin"))?;
        u16::try_from(port.container_port).ok()
    }
}

/// Why no pod can be made of a specification.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The overlay does not fit a pod: the user corrects `spec.template`.
    #[error("spec.template does not fit a pod: {0}")]
    Malformed(String),
    /// The overlay has fields that a pod does not have: the user corrects their names.
    #[error("spec.template has fields that a pod does not have: {0}; correct or remove them")]
    UnknownFields(String),
}

/// Why a ControllerRevision is not one of ours.
#[derive(Debug, Error)]
pub enum RevisionError {
    /// It has no name or no hash label: leave it alone.
    #[error("ControllerRevision without name or label {}", labels::REVISION)]
    Foreign,
    /// Its data is not [`RevisionData`]: somebody edited it, or a later operator wrote it. Leave it alone.
    #[error("data of ControllerRevision {name}: {source}")]
    Data {
        /// Object name.
        name: String,
        /// What does not fit.
        source: serde_json::Error,
    },
}

impl TryFrom<&ControllerRevision> for RevisionView {
    type Error = RevisionError;

    fn try_from(object: &ControllerRevision) -> Result<Self, RevisionError> {
        let hash = object
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(labels::REVISION));
        let (Some(name), Some(hash)) = (&object.metadata.name, hash) else {
            return Err(RevisionError::Foreign);
        };
        let data = object.data.as_ref().map_or(Value::Null, |data| data.0.clone());
        let data = serde_json::from_value(data).map_err(|source| RevisionError::Data {
            name: name.clone(),
            source,
        })?;
        Ok(Self {
            name: name.clone(),
            hash: hash.clone(),
            number: object.revision,
            data,
            rollout: markers(&object.metadata),
        })
    }
}

/// What the annotations of a revision say of the rollout to it; a time that is none counts as not written.
pub(crate) fn markers(meta: &ObjectMeta) -> RolloutMarkers {
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
    let time = |key: &str| annotation(key).and_then(|text| text.parse().ok());
    RolloutMarkers {
        started_at: time(labels::ROLLOUT_STARTED_AT),
        baking_since: time(labels::BAKING_SINCE),
        canary_passed_at: time(labels::CANARY_PASSED_AT),
        failed: annotation(labels::ROLLOUT_FAILED).cloned(),
    }
}

/// The revision that the specification asks for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its hash.
    pub(crate) hash: String,
    /// What its pods are made from, or why none can be made.
    pub(crate) data: Result<RevisionData, TemplateError>,
}

/// The revision that `cluster` asks for; an existing one keeps what it froze.
pub(crate) fn target(cluster: &WebSocketCluster, revisions: &[RevisionView], defaults: &Defaults) -> Target {
    let user = user_part(cluster);
    let hash = short_hash(canonical(&user).as_bytes(), 8);
    let data = match revisions.iter().find(|revision| revision.hash == hash) {
        Some(revision) => Ok(revision.data.clone()),
        None => freeze(cluster, user, defaults),
    };
    Target { hash, data }
}

/// What the hash covers. A field added later must be left out of the JSON at its default, or every fleet would roll
/// when the operator is upgraded.
fn user_part(cluster: &WebSocketCluster) -> Value {
    let spec = &cluster.spec;
    let mut user = json!({
        "gateway": spec.gateway, "template": spec.template, "broker": spec.broker,
        "auth": spec.auth, "limits": spec.limits,
    });
    if let Some(tls) = &spec.tls {
        // the Secret's name, not what is in it: gateways read that again when it changes
        user["tls"] = json!(tls);
    }
    user
}

fn freeze(
    cluster: &WebSocketCluster,
    user: Value,
    defaults: &Defaults,
) -> Result<RevisionData, TemplateError> {
    let image = cluster
        .spec
        .gateway
        .image
        .clone()
        .unwrap_or_else(|| defaults.gateway_image.clone());
    let mut merged = template::base(cluster, &image);
    let overlay = json!({"metadata": cluster.spec.template.metadata, "spec": cluster.spec.template.spec});
    if let (Some(base), Some(above)) = (merged.as_object_mut(), overlay.as_object()) {
        overlay::merge(base, above);
    }
    let template: PodTemplateSpec = serde_json::from_value(merged.clone())
        .map_err(|error| TemplateError::Malformed(error.to_string()))?;
    let read_back =
        serde_json::to_value(&template).map_err(|error| TemplateError::Malformed(error.to_string()))?;
    let mut unknown = Vec::new();
    overlay::unknown_fields(&merged, &read_back, "spec.template", &mut unknown);
    if unknown.is_empty() {
        Ok(RevisionData {
            user,
            image,
            template,
        })
    } else {
        Err(TemplateError::UnknownFields(unknown.join(", ")))
    }
}

/// Creates the wanted ControllerRevision, or gives it the highest number when the template was reverted to it, and
/// deletes what is beyond the history limit. `in_use` are the hashes that pods have.
pub(crate) fn keep_history(
    cluster: &WebSocketCluster,
    revisions: &[RevisionView],
    course: &Course,
    in_use: &BTreeSet<&str>,
) -> Vec<Action> {
    let target = &course.wanted;
    let mut actions = Vec::new();
    let highest = revisions
        .iter()
        .map(|revision| revision.number)
        .max()
        .unwrap_or(0);
    match (
        revisions.iter().find(|revision| revision.hash == target.hash),
        &target.data,
    ) {
        (None, Ok(data)) => {
            actions.push(Action::CreateRevision(Box::new(object(
                cluster,
                &target.hash,
                data,
                highest + 1,
            ))));
        }
        (Some(existing), _) if existing.number < highest => {
            actions.push(Action::RenumberRevision {
                name: existing.name.clone(),
                number: highest + 1,
            });
        }
        _ => {}
    }
    let beyond = beyond_history(cluster, revisions, course, in_use);
    actions.extend(beyond.into_iter().map(|revision| Action::DeleteRevision {
        name: revision.name.clone(),
    }));
    actions
}

/// The revisions that no pod has and that are past the history limit. The one that the fleet can go back to is kept.
pub(crate) fn beyond_history<'a>(
    cluster: &WebSocketCluster,
    revisions: &'a [RevisionView],
    course: &Course,
    in_use: &BTreeSet<&str>,
) -> Vec<&'a RevisionView> {
    let is_stable = |hash: &str| course.stable.as_ref().is_some_and(|stable| stable.hash == hash);
    let mut unused: Vec<_> = revisions
        .iter()
        .filter(|revision| revision.hash != course.wanted.hash && !in_use.contains(revision.hash.as_str()))
        .collect();
    unused.sort_by_key(|revision| std::cmp::Reverse(revision.number));
    unused
        .into_iter()
        .skip(cluster.spec.rollout.revision_history_limit as usize)
        .filter(|revision| !is_stable(&revision.hash))
        .collect()
}

fn object(cluster: &WebSocketCluster, hash: &str, data: &RevisionData, number: i64) -> ControllerRevision {
    let mut metadata = owned_meta(cluster, format!("{}-{hash}", cluster_name(cluster)));
    metadata
        .labels
        .get_or_insert_default()
        .insert(labels::REVISION.to_owned(), hash.to_owned());
    let data = serde_json::to_value(data).ok().map(RawExtension);
    ControllerRevision {
        metadata,
        data,
        revision: number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(spec: Value) -> String {
        let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
        let defaults = Defaults {
            gateway_image: "image".to_owned(),
        };
        target(&cluster, &[], &defaults).hash
    }

    #[test]
    fn another_secret_with_a_certificate_is_another_revision_and_none_is_the_one_of_before() {
        let auth = json!({"anonymous": {}});
        let without = hash_of(json!({"auth": auth}));
        let one = hash_of(json!({"auth": auth, "tls": {"secretName": "one"}}));
        let two = hash_of(json!({"auth": auth, "tls": {"secretName": "two"}}));
        assert!(one != two && one != without);
        let cluster = WebSocketCluster::new("chat", serde_json::from_value(json!({"auth": auth})).unwrap());
        // an operator that knows the field must not roll a fleet that does not use it
        assert!(user_part(&cluster).get("tls").is_none());
    }

    #[test]
    fn references_that_came_later_change_a_revision_only_where_they_are_made() {
        let plain = json!({"auth": {"anonymous": {}}, "broker": {"redis": {"url": "rediss://redis"}}});
        let cluster = WebSocketCluster::new("chat", serde_json::from_value(plain.clone()).unwrap());
        let user = user_part(&cluster);
        assert_eq!(user["broker"], json!({"redis": {"url": "rediss://redis"}}));
        assert!(user["gateway"].get("routingKeySecretRef").is_none());
        let reference = json!({"name": "s", "key": "k"});
        let mut trusting = plain.clone();
        trusting["broker"]["redis"]["caSecretRef"] = reference.clone();
        let mut routed = plain.clone();
        routed["gateway"] = json!({"routingKeySecretRef": reference});
        assert_ne!(hash_of(plain.clone()), hash_of(trusting));
        assert_ne!(hash_of(plain), hash_of(routed));
    }
}
