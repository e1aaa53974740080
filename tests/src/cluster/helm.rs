//! Charts, installed with the real Helm.

use std::path::Path;

use super::{Cluster, ClusterError};

/// An installed release; uninstalled when dropped, unless kept.
#[derive(Debug)]
pub struct Release {
    cluster: Cluster,
    name: String,
    namespace: String,
    installed: bool,
}

impl Cluster {
    /// Installs a chart into a namespace (made when missing) with `--set` values, or upgrades it, and waits up to two
    /// minutes until everything in it is ready.
    pub async fn install(
        &self,
        name: &str,
        namespace: &str,
        chart: &Path,
        values: &[(&str, &str)],
    ) -> Result<Release, ClusterError> {
        // made first: what a failed install leaves is uninstalled as well
        let release = Release {
            cluster: self.clone(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            installed: true,
        };
        release.upgrade(chart, values).await?;
        Ok(release)
    }
}

impl Release {
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Installs or upgrades to the chart with these values, and waits until everything in it is ready.
    pub async fn upgrade(&self, chart: &Path, values: &[(&str, &str)]) -> Result<String, ClusterError> {
        let chart = chart.to_string_lossy();
        let mut args = vec![
            "upgrade",
            "--install",
            &self.name,
            &chart,
            "--namespace",
            &self.namespace,
        ];
        // the CustomResourceDefinition outlives every release: the next one takes it over
        args.extend(["--create-namespace", "--take-ownership", "--force-conflicts"]);
        args.extend(["--wait", "--timeout", "120s"]);
        let values: Vec<_> = values
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        for value in &values {
            args.extend(["--set", value]);
        }
        Ok(self.cluster.helm(&args).await?)
    }

    /// Runs the chart's test pods.
    pub async fn test(&self) -> Result<String, ClusterError> {
        Ok(self
            .cluster
            .helm(&["test", &self.name, "--namespace", &self.namespace])
            .await?)
    }

    /// Uninstalls it and waits until its objects are gone.
    pub async fn uninstall(mut self) -> Result<String, ClusterError> {
        self.installed = false;
        let args = [
            "uninstall",
            &self.name,
            "--namespace",
            &self.namespace,
            "--wait",
            "--timeout",
            "120s",
        ];
        Ok(self.cluster.helm(&args).await?)
    }

    /// Leaves it installed.
    pub fn keep(mut self) {
        self.installed = false;
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if !self.installed || std::env::var_os("WSFLEET_KEEP").is_some() {
            return;
        }
        let args = [
            "uninstall",
            &self.name,
            "--namespace",
            &self.namespace,
            "--ignore-not-found",
        ];
        if let Err(error) = self.cluster.tool_blocking("helm", &args) {
            tracing::warn!(release = self.name, %error, "release was not uninstalled");
        }
    }
}
