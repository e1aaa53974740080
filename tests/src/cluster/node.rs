//! Nodes: cordon and drain, as an administrator does it with kubectl.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::{Cluster, ClusterError};

/// A node that takes no new pods; it takes them again when this is dropped.
#[derive(Debug)]
pub struct Cordon {
    cluster: Cluster,
    node: String,
}

impl Cluster {
    /// Names of the nodes, sorted.
    pub async fn nodes(&self) -> Result<Vec<String>, ClusterError> {
        let nodes = Api::<Node>::all(self.client())
            .list(&ListParams::default())
            .await?;
        let mut names: Vec<_> = nodes.items.iter().map(ResourceExt::name_any).collect();
        names.sort();
        Ok(names)
    }

    /// Keeps new pods off a node.
    pub async fn cordon(&self, node: &str) -> Result<Cordon, ClusterError> {
        self.kubectl(&["cordon", node]).await?;
        Ok(Cordon {
            cluster: self.clone(),
            node: node.to_owned(),
        })
    }
}

impl Cordon {
    /// The node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Evicts what matches the label selector (all pods for `""`), respecting PodDisruptionBudgets, and waits until it is
    /// gone. What kubectl printed is in the answer or in the error.
    pub async fn drain(&self, selector: &str, within: Duration) -> Result<String, ClusterError> {
        let timeout = format!("--timeout={}s", within.as_secs());
        let selector = format!("--pod-selector={selector}");
        let mut args = vec![
            "drain",
            &self.node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            &timeout,
        ];
        if selector != "--pod-selector=" {
            args.push(&selector);
        }
        Ok(self.cluster.kubectl(&args).await?)
    }
}

impl Drop for Cordon {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.tool_blocking("kubectl", &["uncordon", &self.node]) {
            tracing::warn!(node = self.node, %error, "node is still cordoned");
        }
    }
}
