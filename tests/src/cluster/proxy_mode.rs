//! How kube-proxy leads connections to pods: with iptables, or with nftables.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Cluster;
use super::tool::{ToolError, finish};

const SCRIPT: &str = "tests/cluster/proxy-mode.sh";

/// kube-proxy works with nftables; with iptables again when this is dropped.
#[derive(Debug)]
pub struct ProxyMode {
    cluster: Cluster,
}

impl ProxyMode {
    /// Restarts kube-proxy of the local cluster. Connections that exist stay.
    pub async fn nftables(cluster: &Cluster) -> Result<Self, ToolError> {
        // made first: what a failed switch leaves is put back as well
        let mode = Self {
            cluster: cluster.clone(),
        };
        let command = mode.command("nftables");
        let output = tokio::process::Command::from(command).output().await;
        finish(SCRIPT, &["nftables"], output)?;
        Ok(mode)
    }

    fn command(&self, mode: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut command = Command::new(root.join(SCRIPT));
        command
            .arg(mode)
            .env("CLUSTER_DIR", self.cluster.folder())
            .env("CLUSTER", &self.cluster.mode)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for ProxyMode {
    fn drop(&mut self) {
        let output = self.command("iptables").output();
        if let Err(error) = finish(SCRIPT, &["iptables"], output) {
            tracing::warn!(%error, "kube-proxy still works with nftables");
        }
    }
}
