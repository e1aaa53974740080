//! One namespace per scenario, removed with all that is in it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{self as core, Node, Service};
use kube::Resource;
use kube::api::{Api, DynamicObject, ObjectMeta, PostParams};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::Value;

use super::wait::until;
use super::{ApplyError, Cluster, ClusterError, Deadline};

/// A namespace with a name of its own, deleted when dropped, unless `WSFLEET_KEEP` is set (to look at what is left).
#[derive(Debug)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
}

impl Cluster {
    /// Makes a namespace whose name starts with the prefix.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace, ClusterError> {
        let suffix = Alphanumeric.sample_string(&mut rand::rng(), 6).to_lowercase();
        let metadata = ObjectMeta {
            name: Some(format!("{prefix}-{suffix}")),
            ..ObjectMeta::default()
        };
        let name = metadata.name.clone().unwrap_or_default();
        let namespace = core::Namespace {
            metadata,
            ..core::Namespace::default()
        };
        Api::all(self.client())
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(Namespace {
            cluster: self.clone(),
            name,
        })
    }
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster it is in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The objects of a kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    /// Applies every document of a YAML text; objects that name no namespace go to this one.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>, ApplyError> {
        self.cluster.apply_in(&self.name, yaml).await
    }

    /// Creates a `WebSocketCluster` without storing it, as strictly as kubectl asks for; the server's message when it is
    /// refused.
    pub async fn dry_run(&self, object: &Value) -> Result<Result<Value, String>, kube::Error> {
        let path = format!(
            "/apis/wsfleet.dev/v1alpha1/namespaces/{}/websocketclusters?dryRun=All&fieldValidation=Strict",
            self.name
        );
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        match self.cluster.client().request::<Value>(request).await {
            Ok(stored) => Ok(Ok(stored)),
            Err(kube::Error::Api(refusal)) if (400..500).contains(&refusal.code) => {
                Ok(Err(refusal.message.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// Like [`until`]; a deadline's message has the namespace's pods, events and logs, and the operator's.
    pub async fn until<T, E, F, Fut>(&self, what: &str, within: Duration, look: F) -> Result<T, Deadline>
    where
        E: std::fmt::Display,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        match until(what, within, look).await {
            Err(mut deadline) => {
                deadline.report = format!("\n{}", self.cluster.report(&self.name).await);
                Err(deadline)
            }
            done => done,
        }
    }

    /// Waits until every Deployment named is available in full.
    pub async fn until_deployed(&self, deployments: &[&str], within: Duration) -> Result<(), Deadline> {
        let api = &self.api::<k8s_openapi::api::apps::v1::Deployment>();
        self.until(
            &format!("deployments {deployments:?} available"),
            within,
            || async move {
                for name in deployments {
                    let found = api.get(name).await.map_err(|e| e.to_string())?;
                    let wanted = found.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                    let status = found.status.unwrap_or_default();
                    let current = status.observed_generation == found.metadata.generation;
                    let (updated, available) = (
                        status.updated_replicas.unwrap_or(0),
                        status.available_replicas.unwrap_or(0),
                    );
                    let all = status.replicas.unwrap_or(0);
                    if !current || updated != wanted || available != wanted || all != wanted {
                        return Err(format!(
                            "{name}: {available} of {wanted} available, {updated} updated, {all} in all"
                        ));
                    }
                }
                Ok(())
            },
        )
        .await
    }

    /// Where a NodePort service is reached from this machine: its first port.
    pub async fn node_port(&self, service: &str) -> Result<SocketAddr, ClusterError> {
        let found = self.api::<Service>().get(service).await?;
        let ports = found.spec.and_then(|s| s.ports).unwrap_or_default();
        let port = ports.first().and_then(|p| p.node_port).unwrap_or(0);
        Ok(SocketAddr::new(self.cluster.node_address().await?, port as u16))
    }

    /// Deletes the namespace and waits until it is gone; pods get one second.
    pub async fn delete(self, within: Duration) -> Result<(), ClusterError> {
        self.cluster.remove_namespace(&self.name)?;
        let api: Api<core::Namespace> = Api::all(self.cluster.client());
        self.until("namespace gone", within, async || {
            match api.get_opt(&self.name).await {
                Ok(None) => Ok(()),
                Ok(Some(found)) => Err(format!("{:?}", found.status)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::env::var_os("WSFLEET_KEEP").is_some() {
            return;
        }
        if let Err(error) = self.cluster.remove_namespace(&self.name) {
            tracing::warn!(namespace = self.name, %error, "namespace was not removed");
        }
    }
}

impl Cluster {
    /// Where NodePorts are reached: 127.0.0.1 of the local cluster, else a node's address.
    async fn node_address(&self) -> Result<IpAddr, ClusterError> {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if self.mode == "local" {
            return Ok(local);
        }
        let nodes = Api::<Node>::all(self.client())
            .list(&kube::api::ListParams::default())
            .await?;
        let addresses = nodes
            .items
            .into_iter()
            .filter_map(|n| n.status?.addresses)
            .flatten();
        Ok(addresses
            .filter(|a| a.type_ == "InternalIP")
            .find_map(|a| a.address.parse().ok())
            .unwrap_or(local))
    }

    fn remove_namespace(&self, name: &str) -> Result<(), super::ToolError> {
        let ignore = ["--ignore-not-found", "--wait=false"];
        self.tool_blocking("kubectl", &[&["delete", "namespace", name][..], &ignore].concat())?;
        // a gateway's grace period is made for its clients: nobody waits for this one
        let pods = ["delete", "pods", "--all", "--grace-period=1", "-n", name];
        self.tool_blocking("kubectl", &[&pods[..], &ignore].concat())?;
        Ok(())
    }
}
