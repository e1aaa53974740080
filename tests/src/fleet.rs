//! What controller tests look at: a resource in a namespace of its own, and what the operator made of it.

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use wsfleet_crds::condition::ConditionType;
use wsfleet_crds::v1alpha1::{WebSocketCluster, crd_yaml};

use crate::cluster::{Cluster, Namespace};
pub use crate::wait::SOON;

/// A namespace with the resource `chat` in it.
#[derive(Debug)]
pub struct Fleet {
    /// The namespace; removed with all that is in it.
    pub namespace: Namespace,
}

/// A resource whose pods are never scheduled: the API server and the operator are what is tested, and nothing else has
/// a reason to write. `spec` is indented by two spaces.
pub fn manifest(name: &str, replicas: u32, spec: &str) -> String {
    format!(
        "apiVersion: wsfleet.dev/v1alpha1
kind: WebSocketCluster
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  broker: {{redis: {{url: 'redis://redis:6379'}}}}
  template: {{spec: {{nodeSelector: {{wsfleet.test/nowhere: 'true'}}}}}}
{spec}
"
    )
}

/// The authentication that needs nothing.
pub const ANONYMOUS: &str = "  auth: {anonymous: {}}";

impl Fleet {
    /// Makes the namespace, and sees to it that the API server knows the resource.
    pub async fn new(prefix: &str) -> Result<Self> {
        let cluster = Cluster::connect().await?;
        cluster.apply(&crd_yaml()?).await?;
        Ok(Self {
            namespace: cluster.namespace(prefix).await?,
        })
    }

    /// Applies a resource.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        self.namespace.apply(manifest).await?;
        Ok(())
    }

    /// The resource.
    pub async fn get(&self, name: &str) -> Result<WebSocketCluster> {
        Ok(self.namespace.api::<WebSocketCluster>().get(name).await?)
    }

    /// Its pods that are not being deleted, by name.
    pub async fn pods(&self, name: &str) -> Result<Vec<Pod>> {
        let selector = format!("{}={name}", wsfleet_crds::labels::CLUSTER);
        let mut pods = self
            .namespace
            .api::<Pod>()
            .list(&ListParams::default().labels(&selector))
            .await?
            .items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// Waits until it has exactly so many pods, and returns them.
    pub async fn until_pods(&self, name: &str, count: usize) -> Result<Vec<Pod>> {
        let what = format!("{count} pods of {name}");
        let pods = self.namespace.until(&what, SOON, async || {
            let pods = self.pods(name).await?;
            ensure!(pods.len() == count, "{} pods", pods.len());
            anyhow::Ok(pods)
        });
        Ok(pods.await?)
    }

    /// Type, status, reason and message of its conditions, also of a resource that does not parse.
    async fn conditions(&self, name: &str) -> Result<Vec<[String; 4]>> {
        let resource = ApiResource::erase::<WebSocketCluster>(&());
        let client = self.namespace.cluster().client();
        let api: Api<DynamicObject> = Api::namespaced_with(client, self.namespace.name(), &resource);
        let object = api.get(name).await?;
        let conditions = object.data["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let text =
            |condition: &serde_json::Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        let keys = ["type", "status", "reason", "message"];
        Ok(conditions
            .iter()
            .map(|condition| keys.map(|key| text(condition, key)))
            .collect())
    }

    /// Waits until a condition has that status, and returns its reason and message.
    pub async fn until_condition(
        &self,
        name: &str,
        kind: ConditionType,
        status: &str,
    ) -> Result<(String, String)> {
        let what = format!("{kind}={status} on {name}");
        let found = self.namespace.until(&what, SOON, async || {
            let conditions = self.conditions(name).await?;
            let there = conditions
                .iter()
                .find(|condition| condition[0] == kind.as_str() && condition[1] == status);
            there
                .map(|condition| (condition[2].clone(), condition[3].clone()))
                .ok_or_else(|| anyhow!("{conditions:?}"))
        });
        Ok(found.await?)
    }

    /// The note of an event about the resource, if there is one.
    pub async fn event(&self, name: &str, reason: &str) -> Result<String> {
        let api = self.namespace.api::<k8s_openapi::api::events::v1::Event>();
        let events = api.list(&ListParams::default()).await?.items;
        let about = |event: &&k8s_openapi::api::events::v1::Event| {
            event.reason.as_deref() == Some(reason)
                && event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name)
        };
        let event = events.iter().find(about).context("no such event")?;
        Ok(event.note.clone().unwrap_or_default())
    }

    /// Waits for an event about the resource, and returns its note.
    pub async fn until_event(&self, name: &str, reason: &str) -> Result<String> {
        let what = format!("event {reason} about {name}");
        let found = self
            .namespace
            .until(&what, SOON, async || self.event(name, reason).await);
        Ok(found.await?)
    }

    /// Makes a Secret with one key.
    pub async fn secret(&self, name: &str, key: &str, value: &str) -> Result<()> {
        let secret = Secret {
            metadata: kube::api::ObjectMeta {
                name: Some(name.to_owned()),
                ..Default::default()
            },
            string_data: Some([(key.to_owned(), value.to_owned())].into()),
            ..Secret::default()
        };
        self.namespace
            .api()
            .create(&PostParams::default(), &secret)
            .await?;
        Ok(())
    }
}

/// Checks that an object is controlled by the resource, so that it goes with it.
pub fn assert_controlled<K: Resource>(object: &K, cluster: &WebSocketCluster) -> Result<()> {
    let owners = object.owner_references();
    ensure!(
        owners.len() == 1
            && owners[0].controller == Some(true)
            && owners[0].kind == "WebSocketCluster"
            && Some(&owners[0].uid) == cluster.metadata.uid.as_ref(),
        "{} is owned by {owners:?}",
        object.name_any()
    );
    Ok(())
}
