//! Pods: dry run, create, mark, delete.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use wsfleet_crds::labels::FIELD_MANAGER;

use super::{ApplyError, CallError, Pass, patch_params};
use crate::observe::model::DryRun;

impl Pass<'_> {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.applier.client.clone(), &self.id.namespace)
    }

    /// Remembers the API server's verdict. "Exists already" is none on the template: it was created once.
    pub(super) async fn dry_run(&self, hash: String, pod: &Pod) -> Result<(), ApplyError> {
        let params = PostParams {
            dry_run: true,
            field_manager: Some(FIELD_MANAGER.to_owned()),
        };
        let verdict = match self
            .call("dry run of a pod", self.pods().create(&params, pod))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is(kube::core::Status::is_already_exists) => Ok(()),
            Err(CallError::Refused(_, status)) if is_verdict(status.code) => Err(status.message.clone()),
            Err(error) => return Err(error.into()),
        };
        let dry_run = DryRun {
            hash,
            at: Timestamp::now(),
            verdict,
        };
        self.applier
            .observer
            .memory
            .update(&self.id.uid, |remembered| remembered.dry_run = Some(dry_run));
        Ok(())
    }

    pub(super) async fn create_pod(&self, pod: &Pod) -> Result<(), ApplyError> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.call("create pod", self.pods().create(&params, pod)).await {
            Ok(pod) => {
                self.applier.observer.written_pods.created(pod);
                Ok(())
            }
            Err(error) if error.is(kube::core::Status::is_already_exists) => {
                self.same_pod(&pod.name_any()).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A pod of that name exists: ours is the repeated create of a stale cache; any other stands in the way, be it the
    /// last pod of a resource of the same name that was just deleted.
    async fn same_pod(&self, name: &str) -> Result<(), ApplyError> {
        match self.call("get pod", self.pods().get_opt(name)).await? {
            Some(pod) if self.id.owns(&pod) => {
                self.applier.observer.written_pods.created(pod);
                Ok(())
            }
            Some(_) => Err(ApplyError::Foreign {
                kind: "Pod".into(),
                name: name.to_owned(),
            }),
            None => Err(ApplyError::Stale("create pod")),
        }
    }

    pub(super) async fn mark_pod(
        &self,
        name: &str,
        uid: &str,
        labels: &BTreeMap<String, Option<String>>,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ApplyError> {
        let patch = json!({"metadata": {"uid": uid, "labels": labels, "annotations": annotations}});
        let params = patch_params();
        match self
            .call(
                "mark pod",
                self.pods().patch(name, &params, &Patch::Merge(&patch)),
            )
            .await
        {
            Ok(pod) => {
                self.applier.observer.written_pods.changed(pod);
                Ok(())
            }
            Err(error) if error.is(|status| status.is_not_found() || status.is_conflict()) => {
                Err(ApplyError::Stale("mark pod"))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn delete_pod(
        &self,
        name: &str,
        preconditions: Preconditions,
        grace_period_seconds: Option<u32>,
        connections: Option<u64>,
    ) -> Result<(), ApplyError> {
        let uid = preconditions.uid.clone().unwrap_or_default();
        let params = DeleteParams {
            grace_period_seconds,
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match self.call("delete pod", self.pods().delete(name, &params)).await {
            Ok(answer) => match answer.left() {
                Some(pod) => self.applier.observer.written_pods.changed(pod),
                None => self.applier.observer.written_pods.deleted(&uid),
            },
            Err(error) if error.is(|status| status.is_not_found() || status.is_conflict()) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.count_deletion(name, connections);
        Ok(())
    }

    fn count_deletion(&self, name: &str, connections: Option<u64>) {
        let metrics = &self.applier.metrics;
        if connections.is_some_and(|count| count > 0) {
            metrics.deleted_with_connections(&self.id.namespace, &self.id.name);
        }
        let pod = self.observed.pods.iter().find(|pod| pod.name == name);
        if let Some(drain) = pod.and_then(|pod| pod.drain.as_ref()) {
            let took = Timestamp::now().duration_since(drain.cordoned_at);
            metrics.drained(drain.reason, Duration::try_from(took).unwrap_or_default());
        }
    }
}

/// Whether a refusal is about the pod: bad request, forbidden by an admission policy or quota, invalid.
const fn is_verdict(code: u16) -> bool {
    matches!(code, 400 | 403 | 422)
}
