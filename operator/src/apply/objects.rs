//! The objects around the pods: Service, budgets, the token's Secret, revisions, and the resource's own annotation.

use std::collections::BTreeMap;
use std::fmt::Debug;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::info;
use wsfleet_crds::labels::{self, FIELD_MANAGER};
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::{ApplyError, Pass, patch_params};
use crate::observe::model::{Applied, OwnedKind, OwnedView};
use crate::plan::drift;
use crate::plan::resources::secret::TOKEN_KEY;

/// Random bytes of an admin token.
const TOKEN_BYTES: usize = 32;

impl Pass<'_> {
    pub(super) async fn apply_service(&self, service: Service) -> Result<(), ApplyError> {
        let apply = || self.apply_whole(&service, OwnedKind::Service, "apply Service");
        match apply().await {
            // two ports of one name: somebody gave ours another number, and an apply takes no port of others away
            Err(error) if error.is_invalid() && self.clear_ports(&service).await? => apply().await,
            result => result,
        }
    }

    /// Takes the ports away that are in the way of ours; false when there are none.
    async fn clear_ports(&self, wanted: &Service) -> Result<bool, ApplyError> {
        const ACTION: &str = "clear ports of the Service";
        let name = wanted.name_any();
        let api: Api<Service> = Api::namespaced(self.applier.client.clone(), &self.id.namespace);
        let Some(live) = self.call(ACTION, api.get_opt(&name)).await? else {
            return Ok(false);
        };
        let (wanted, object) = (OwnedView::of(wanted).object, OwnedView::of(&live).object);
        let ports = drift::ports_beside(&wanted, &object);
        if object["spec"]["ports"].as_array() == Some(&ports) {
            return Ok(false);
        }
        let version = live.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"ports": ports}});
        let (params, patch) = (patch_params(), Patch::Merge(&patch));
        self.call(ACTION, api.patch(&name, &params, &patch)).await?;
        Ok(true)
    }

    pub(super) async fn apply_budget(&self, budget: PodDisruptionBudget) -> Result<(), ApplyError> {
        self.apply_whole(
            &budget,
            OwnedKind::PodDisruptionBudget,
            "apply PodDisruptionBudget",
        )
        .await
    }

    /// Server-side apply, forced: the fields in it are the operator's. An object that was not there before must not be
    /// somebody else's, which a forced apply would not mind.
    async fn apply_whole<K>(
        &self,
        object: &K,
        kind: OwnedKind,
        action: &'static str,
    ) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let name = object.name_any();
        let wanted = OwnedView::of(object);
        let api: Api<K> = Api::namespaced(self.applier.client.clone(), &self.id.namespace);
        let known = self.observed.owned.contains_key(&(kind, name.clone()));
        if !known && let Some(existing) = self.call(action, api.get_opt(&name)).await? {
            if !self.id.owns(&existing) {
                return Err(ApplyError::Foreign {
                    kind: K::kind(&()).into_owned(),
                    name,
                });
            }
            // the cache is behind: this very object was applied in the pass before, and nobody has edited it since
            if drift::covers(&wanted.object, &OwnedView::of(&existing).object) {
                return Ok(());
            }
        }
        info!(cluster = self.id.name, kind = %K::kind(&()), name, "apply");
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let answer = self
            .call(action, api.patch(&name, &params, &Patch::Apply(object)))
            .await?;
        let answer = OwnedView::of(&answer).object;
        // an admission policy may have made something else of it
        let left = (!drift::covers(&wanted.object, &answer)).then(|| drift::digest(&answer));
        let applied = Applied {
            at: Timestamp::now(),
            left,
        };
        self.applier.observer.memory.update(&self.id.uid, |remembered| {
            remembered.applied.insert((kind, name), applied);
        });
        Ok(())
    }

    /// Fills in a random token. An existing Secret keeps the token that it has: gateways know it. One that goes with
    /// another resource, as that of a deleted one of the same name, is waited out: no pod may be made to mount it.
    pub(super) async fn create_admin_token(&self, mut secret: Secret) -> Result<(), ApplyError> {
        let name = secret.name_any();
        let mut bytes = [0_u8; TOKEN_BYTES];
        OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| ApplyError::NoEntropy(error.to_string()))?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        secret.string_data = Some([(TOKEN_KEY.to_owned(), token)].into());
        let api: Api<Secret> = Api::namespaced(self.applier.client.clone(), &self.id.namespace);
        let created = self
            .call("create Secret", api.create(&post_params(), &secret))
            .await;
        self.applier.observer.secrets.forget(&self.id.namespace, &name);
        match created {
            Ok(_) => {
                info!(cluster = self.id.name, name, "admin token made");
                Ok(())
            }
            Err(error) if error.is(kube::core::Status::is_already_exists) => {
                match self
                    .applier
                    .observer
                    .admin_token_exists(self.id, self.cluster)
                    .await
                {
                    Ok(false) => Err(ApplyError::Foreign {
                        kind: "Secret".to_owned(),
                        name,
                    }),
                    // when it cannot be read now, the next pass looks again before anything relies on it
                    Ok(true) | Err(_) => Ok(()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn revisions(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.applier.client.clone(), &self.id.namespace)
    }

    pub(super) async fn create_revision(&self, revision: ControllerRevision) -> Result<(), ApplyError> {
        let api = self.revisions();
        match self
            .call("create ControllerRevision", api.create(&post_params(), &revision))
            .await
        {
            Ok(revision) => {
                self.applier.observer.written_revisions.created(revision);
                Ok(())
            }
            Err(error) if error.is(kube::core::Status::is_already_exists) => {
                let name = revision.name_any();
                match self.call("get ControllerRevision", api.get_opt(&name)).await? {
                    Some(existing) if self.id.owns(&existing) => {
                        self.applier.observer.written_revisions.created(existing);
                        Ok(())
                    }
                    Some(_) => Err(ApplyError::Foreign {
                        kind: "ControllerRevision".into(),
                        name,
                    }),
                    None => Err(ApplyError::Stale("create ControllerRevision")),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn renumber_revision(&self, name: &str, number: i64) -> Result<(), ApplyError> {
        let patch = json!({"revision": number});
        self.patch_revision("renumber ControllerRevision", name, &patch)
            .await
    }

    pub(super) async fn mark_revision(
        &self,
        name: &str,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ApplyError> {
        let patch = json!({"metadata": {"annotations": annotations}});
        self.patch_revision("mark ControllerRevision", name, &patch).await
    }

    /// The next pass sees it, whatever the cache has by then.
    async fn patch_revision(
        &self,
        action: &'static str,
        name: &str,
        patch: &Value,
    ) -> Result<(), ApplyError> {
        let (params, patch) = (patch_params(), Patch::Merge(patch));
        let api = self.revisions();
        let revision = self.call(action, api.patch(name, &params, &patch)).await?;
        self.applier.observer.written_revisions.changed(revision);
        Ok(())
    }

    pub(super) async fn delete_revision(&self, name: &str) -> Result<(), ApplyError> {
        let params = DeleteParams::background();
        match self
            .call(
                "delete ControllerRevision",
                self.revisions().delete(name, &params),
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is(kube::core::Status::is_not_found) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the autoscaler's ring onto the resource, and nothing else of it.
    pub(super) async fn record_recommendations(&self, text: &str) -> Result<(), ApplyError> {
        let patch = json!({
            "metadata": {"uid": self.id.uid, "annotations": {labels::RECOMMENDATIONS: text}}
        });
        let api: Api<WebSocketCluster> = Api::namespaced(self.applier.client.clone(), &self.id.namespace);
        let params = patch_params();
        let patch = Patch::Merge(&patch);
        let call = api.patch(&self.id.name, &params, &patch);
        let cluster = self.call("annotate WebSocketCluster", call).await?;
        self.applier.observer.written_clusters.changed(cluster);
        Ok(())
    }

    pub(super) async fn set_finalizers(
        &self,
        finalizers: &[String],
        version: Option<&str>,
    ) -> Result<(), ApplyError> {
        const ACTION: &str = "set finalizers of WebSocketCluster";
        // a list is replaced as a whole: what somebody else has added meanwhile must not go
        let patch = json!({
            "metadata": {"uid": self.id.uid, "resourceVersion": version, "finalizers": finalizers}
        });
        let api: Api<WebSocketCluster> = Api::namespaced(self.applier.client.clone(), &self.id.namespace);
        let params = patch_params();
        let patch = Patch::Merge(&patch);
        match self.call(ACTION, api.patch(&self.id.name, &params, &patch)).await {
            Ok(cluster) => self.applier.observer.written_clusters.changed(cluster),
            Err(error) if error.is(kube::core::Status::is_conflict) => return Err(ApplyError::Stale(ACTION)),
            // it was the last one
            Err(error) if error.is(kube::core::Status::is_not_found) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}
