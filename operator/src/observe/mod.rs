//! Everything that the planner is told, read once per pass: from caches that watches fill, from the samples of the
//! gateways, and, rarely, from a Secret. In the steady state a pass asks the API server nothing.

pub mod memory;
pub mod model;
pub mod pods;
pub mod sampler;
pub mod samples;
pub mod secrets;
pub mod stores;
pub mod written;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use thiserror::Error;
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::{AutoscalingMode, MetricsSource, SecretKeyRef, WebSocketCluster};

use crate::leader::Term;
use crate::plan::resources::secret::admin_token_ref;
use crate::plan::revision::markers;
use memory::Memory;
use model::{MetricsView, MissingReference, Observed, OwnedKind, OwnedView, PodView, RevisionView};
use samples::Samples;
use secrets::{Secrets, Token};
use stores::{NodeStore, Stores};
use written::Written;

/// Why a resource could not be observed; the pass is tried again.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// The API server refused or could not be reached.
    #[error("reading a Secret: {0}")]
    Api(#[from] Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("reading a Secret: no answer in time")]
    Timeout,
    /// The object has no namespace or no UID: it did not come from an API server.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
}

impl From<kube::Error> for ObserveError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Name and identity of a resource, as everything else needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl Identity {
    /// Of any object that an API server gave out.
    pub fn of<K: Resource>(object: &K) -> Result<Self, ObserveError> {
        let meta = object.meta();
        Ok(Self {
            namespace: meta
                .namespace
                .clone()
                .ok_or(ObserveError::Incomplete("namespace"))?,
            name: meta.name.clone().ok_or(ObserveError::Incomplete("name"))?,
            uid: meta.uid.clone().ok_or(ObserveError::Incomplete("UID"))?,
        })
    }

    /// Whether the resource controls the object.
    pub fn owns<K: Resource>(&self, object: &K) -> bool {
        object.meta().namespace.as_deref() == Some(&self.namespace)
            && object
                .owner_references()
                .iter()
                .any(|owner| owner.controller == Some(true) && owner.uid == self.uid)
    }
}

/// Reads one scope.
#[derive(Debug)]
pub struct Observer {
    /// Caches of the scope.
    pub stores: Stores,
    /// Nodes.
    pub nodes: NodeStore,
    /// What gateways and Prometheus said.
    pub samples: Samples,
    /// Secrets that resources name.
    pub secrets: Secrets,
    /// Own writes to pods that the cache does not show yet.
    pub written_pods: Written<Pod>,
    /// Own writes to resources (status, annotation) that the cache does not show yet.
    pub written_clusters: Written<WebSocketCluster>,
    /// Own writes to revisions that the cache does not show yet.
    pub written_revisions: Written<ControllerRevision>,
    /// What is remembered between passes.
    pub memory: Memory,
}

impl Observer {
    /// Everything known about one resource at `now`.
    pub async fn observe(
        &self,
        cluster: &WebSocketCluster,
        term: Term,
        now: Timestamp,
    ) -> Result<Observed, ObserveError> {
        let id = Identity::of(cluster)?;
        let missing_references = self.missing_references(&id, cluster).await?;
        let pods: Vec<PodView> = self
            .pods(&id)
            .iter()
            .filter_map(|pod| self.pod_view(pod, cluster, now))
            .collect();
        let remembered = self.memory.update(&id.uid, |remembered| {
            if let Some(status) = &cluster.status {
                remembered.cost.restore(status);
            }
            remembered.clone()
        });
        Ok(Observed {
            revisions: self.revisions(&id),
            owned: self.owned(&id),
            applied: remembered.applied,
            admin_token: self.admin_token_exists(&id, cluster).await?,
            missing_references,
            dry_run: remembered.dry_run,
            metrics: self.metrics(&id, cluster, &pods),
            leases: remembered.leases,
            crowded: remembered.crowded,
            pace: remembered.pace,
            cost: remembered.cost,
            analyses: self.samples.analyses(&id.uid),
            leader_since: term.since,
            epoch: term.epoch,
            pods,
        })
    }

    /// The resource's pods, own writes included.
    pub fn pods(&self, id: &Identity) -> Vec<Arc<Pod>> {
        let cached = self.stores.pods.state_filter(|pod| id.owns(pod));
        self.written_pods.over(cached, |pod| id.owns(pod))
    }

    /// One pod of the resource by name.
    pub fn pod(&self, id: &Identity, name: &str) -> Option<Arc<Pod>> {
        self.pods(id)
            .into_iter()
            .find(|pod| pod.metadata.name.as_deref() == Some(name))
    }

    /// The bearer token of the resource's gateways, if there is one.
    pub async fn token(
        &self,
        id: &Identity,
        cluster: &WebSocketCluster,
    ) -> Result<Option<Token>, ObserveError> {
        let SecretKeyRef { name, key } = admin_token_ref(cluster);
        self.secrets.token(&id.namespace, &name, &key).await
    }

    fn pod_view(&self, pod: &Pod, cluster: &WebSocketCluster, now: Timestamp) -> Option<PodView> {
        let taints = &cluster.spec.disruption.drain_taints;
        let node = pods::node_name(pod).map(|name| pods::node_view(name, &self.nodes.get(name, now), taints));
        let sample = pod.metadata.uid.as_deref().and_then(|uid| self.samples.get(uid));
        pods::view(pod, node, sample)
    }

    fn revisions(&self, id: &Identity) -> Vec<RevisionView> {
        let cached = self.stores.revisions.state_filter(|revision| id.owns(revision));
        let all = self.written_revisions.over(cached, |revision| id.owns(revision));
        all.iter()
            .filter_map(|revision| revision_view(revision))
            .collect()
    }

    fn owned(&self, id: &Identity) -> BTreeMap<(OwnedKind, String), OwnedView> {
        let mut owned = BTreeMap::new();
        collect(&mut owned, &self.stores.services, OwnedKind::Service, id);
        collect(
            &mut owned,
            &self.stores.budgets,
            OwnedKind::PodDisruptionBudget,
            id,
        );
        owned
    }

    fn metrics(&self, id: &Identity, cluster: &WebSocketCluster, pods: &[PodView]) -> MetricsView {
        if asks_prometheus(cluster) {
            let names: HashSet<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
            self.samples.queried(&id.uid, &names)
        } else {
            samples::told(pods.iter())
        }
    }

    /// Whether the Secret with the admin token is there to stay.
    pub(crate) async fn admin_token_exists(
        &self,
        id: &Identity,
        cluster: &WebSocketCluster,
    ) -> Result<bool, ObserveError> {
        let SecretKeyRef { name, key } = admin_token_ref(cluster);
        if cluster.spec.gateway.admin_token_secret_ref.is_some() {
            return self.secrets.has(&id.namespace, &name, &key).await;
        }
        self.secrets
            .has_its_own(&id.namespace, &name, &key, &id.uid)
            .await
    }

    async fn missing_references(
        &self,
        id: &Identity,
        cluster: &WebSocketCluster,
    ) -> Result<Vec<MissingReference>, ObserveError> {
        let mut missing = Vec::new();
        for (field, name, key) in references(cluster) {
            if !self.secrets.has(&id.namespace, name, key).await? {
                missing.push(MissingReference {
                    field: field.to_owned(),
                    secret: name.to_owned(),
                    key: key.to_owned(),
                });
            }
        }
        Ok(missing)
    }
}

/// Whether the resource's socket counts come from Prometheus.
pub fn asks_prometheus(cluster: &WebSocketCluster) -> bool {
    let autoscaling = &cluster.spec.autoscaling;
    autoscaling.mode == AutoscalingMode::Builtin && autoscaling.metrics.source == MetricsSource::Prometheus
}

/// Every Secret and key that the specification names, behind the path of the field.
fn references(cluster: &WebSocketCluster) -> Vec<(&'static str, &str, &str)> {
    let spec = &cluster.spec;
    let jwt = spec.auth.jwt.as_ref().and_then(|jwt| jwt.secret_ref.as_ref());
    let jwt = jwt.map(|reference| ("spec.auth.jwt.secretRef", reference));
    let redis = spec.broker.redis.as_ref();
    let url = redis.and_then(|redis| redis.secret_ref.as_ref());
    let url = url.map(|reference| ("spec.broker.redis.secretRef", reference));
    let ca = redis.and_then(|redis| redis.ca_secret_ref.as_ref());
    let ca = ca.map(|reference| ("spec.broker.redis.caSecretRef", reference));
    let nats = spec.broker.nats.as_ref();
    let nats_ca = nats.and_then(|nats| nats.ca_secret_ref.as_ref());
    let nats_ca = nats_ca.map(|reference| ("spec.broker.nats.caSecretRef", reference));
    let nats = nats.and_then(|nats| nats.secret_ref.as_ref());
    let nats = nats.map(|reference| ("spec.broker.nats.secretRef", reference));
    let token = spec.gateway.admin_token_secret_ref.as_ref();
    let token = token.map(|reference| ("spec.gateway.adminTokenSecretRef", reference));
    let routing = spec.gateway.routing_key_secret_ref.as_ref();
    let routing = routing.map(|reference| ("spec.gateway.routingKeySecretRef", reference));
    let keys = [jwt, url, ca, nats, nats_ca, token, routing]
        .into_iter()
        .flatten()
        .map(|(field, reference)| (field, reference.name.as_str(), reference.key.as_str()));
    let tls = spec.tls.iter().flat_map(|tls| {
        ["tls.crt", "tls.key"].map(|key| ("spec.tls.secretName", tls.secret_name.as_str(), key))
    });
    keys.chain(tls).collect()
}

fn collect<K>(
    owned: &mut BTreeMap<(OwnedKind, String), OwnedView>,
    store: &Store<K>,
    kind: OwnedKind,
    id: &Identity,
) where
    K: Resource<DynamicType = ()> + Clone + Serialize + 'static,
{
    for object in store.state_filter(|object| id.owns(object)) {
        // deleted by somebody, and kept for a moment by a finalizer: not there
        if object.meta().deletion_timestamp.is_some() {
            continue;
        }
        owned.insert((kind, object.name_any()), OwnedView::of(&*object));
    }
}

fn revision_view(revision: &ControllerRevision) -> Option<RevisionView> {
    if revision.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let data = revision.data.as_ref().map(|data| data.0.clone())?;
    Some(RevisionView {
        name: revision.metadata.name.clone()?,
        hash: revision.labels().get(labels::REVISION)?.clone(),
        number: revision.revision,
        // one that does not parse was not made by this operator; the planner makes a new one
        data: serde_json::from_value(data).ok()?,
        rollout: markers(&revision.metadata),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_secret_that_is_named_is_looked_for_and_both_keys_of_a_certificate() {
        let spec = json!({
            "gateway": {
                "adminTokenSecretRef": {"name": "admin", "key": "token"},
                "routingKeySecretRef": {"name": "routing", "key": "key"},
            },
            "broker": {"redis": {
                "secretRef": {"name": "redis", "key": "url"}, "caSecretRef": {"name": "redis-ca", "key": "ca.crt"},
            }},
            "auth": {"jwt": {"secretRef": {"name": "jwt", "key": "secret"}}},
            "tls": {"secretName": "chat-tls"},
        });
        let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
        let expected = [
            ("spec.auth.jwt.secretRef", "jwt", "secret"),
            ("spec.broker.redis.secretRef", "redis", "url"),
            ("spec.broker.redis.caSecretRef", "redis-ca", "ca.crt"),
            ("spec.gateway.adminTokenSecretRef", "admin", "token"),
            ("spec.gateway.routingKeySecretRef", "routing", "key"),
            ("spec.tls.secretName", "chat-tls", "tls.crt"),
            ("spec.tls.secretName", "chat-tls", "tls.key"),
        ];
        assert_eq!(references(&cluster), expected);
        let spec = json!({
            "auth": {"anonymous": {}},
            "broker": {"nats": {
                "secretRef": {"name": "nats", "key": "url"},
                "caSecretRef": {"name": "nats-ca", "key": "ca.crt"},
            }},
        });
        let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
        assert_eq!(
            references(&cluster),
            [
                ("spec.broker.nats.secretRef", "nats", "url"),
                ("spec.broker.nats.caSecretRef", "nats-ca", "ca.crt"),
            ]
        );
    }
}
