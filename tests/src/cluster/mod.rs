//! A real cluster for scenarios: the one that `make cluster-up` left in `CLUSTER_DIR` (default `.cluster`).
//!
//! ```no_run
//! # async fn scenario() -> Result<(), Box<dyn std::error::Error>> {
//! use wsfleet_tests::cluster::Cluster;
//! let cluster = Cluster::connect().await?;
//! let namespace = cluster.namespace("rollout").await?;
//! namespace.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}").await?;
//! # Ok(()) }
//! ```
//!
//! What a scenario makes is removed when its handle is dropped, also by a panic: a [`Namespace`], a [`Cordon`], a
//! [`Release`]. Every wait has a deadline, and what it says when that passes includes the pods, events and logs.

mod apply;
mod audit;
mod helm;
mod namespace;
mod node;
mod proxy_mode;
mod report;
mod tool;
mod wait;

use std::path::{Path, PathBuf};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use apply::ApplyError;
pub use audit::{AuditError, AuditLog, Write, tally};
pub use helm::Release;
pub use namespace::Namespace;
pub use node::Cordon;
pub use proxy_mode::ProxyMode;
pub use tool::ToolError;
pub use wait::{Deadline, Seen, has_condition, until};

/// Registry prefix in manifests, replaced by [`Cluster::image_prefix`] when they are applied.
pub const IMAGE_PREFIX: &str = "wsfleet.test";

/// Why there is no cluster to work with, or it refused something.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nothing was started in the folder: run `make cluster-up`.
    #[error("no cluster in {folder}: run `make cluster-up`, or set CLUSTER_DIR to where one is")]
    NotUp {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The kubeconfig can't be used: start the cluster anew.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server refused or did not answer: see its message.
    #[error("API server: {0}")]
    Api(#[from] kube::Error),
    /// A manifest was not taken: see its message.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// kubectl or helm failed: see what it printed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Something did not happen in time: see what was seen instead.
    #[error(transparent)]
    Deadline(#[from] Deadline),
    /// The audit log can't be read: only the local cluster has one.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// A cluster that is up. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    folder: PathBuf,
    mode: String,
    image_prefix: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("folder", &self.folder)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects to the cluster of `CLUSTER_DIR`, by default the checkout's `.cluster`.
    pub async fn connect() -> Result<Self, ClusterError> {
        let folder = std::env::var_os("CLUSTER_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cluster"),
            PathBuf::from,
        );
        let folder = folder.canonicalize().map_err(|_| ClusterError::NotUp {
            folder: folder.clone(),
        })?;
        let kubeconfig = folder.join("kubeconfig");
        let settings = std::fs::read_to_string(folder.join("env")).unwrap_or_default();
        if settings.is_empty() || !kubeconfig.is_file() {
            return Err(ClusterError::NotUp { folder });
        }
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        client.apiserver_version().await?;
        let setting = |name: &str, default: &str| {
            let value = settings
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or(default).to_owned()
        };
        Ok(Self {
            client,
            mode: setting("CLUSTER", "local"),
            image_prefix: setting("IMAGE_PREFIX", IMAGE_PREFIX),
            folder,
        })
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The folder of the cluster's state: `kubeconfig`, `bin`, `logs`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of a kubeconfig with all rights, for programs that run outside of the cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// What the cluster's nodes pull: `image("gateway:dev")` is `wsfleet.test/gateway:dev` where images are imported.
    pub fn image(&self, name_and_tag: &str) -> String {
        format!("{}/{name_and_tag}", self.image_prefix)
    }

    /// Registry prefix of the images, see [`Cluster::image`].
    pub fn image_prefix(&self) -> &str {
        &self.image_prefix
    }

    /// The API server's audit log: who wrote what. Only the local cluster has one.
    pub fn audit_log(&self) -> Result<AuditLog, ClusterError> {
        Ok(AuditLog::open(&self.folder.join("logs"))?)
    }
}
