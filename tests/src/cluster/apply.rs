//! Server-side apply of manifests of any kind, as `kubectl apply --server-side` does it.

use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{Scope, pinned_kind};
use serde::Deserialize;
use serde_json::Value;

use super::wait::until;
use super::{Cluster, Deadline, IMAGE_PREFIX};

/// Field manager of everything that scenarios apply.
const MANAGER: &str = "wsfleet-tests";

/// How long a kind may be unknown: its CRD may just have been applied.
const KIND_KNOWN: Duration = Duration::from_secs(20);

/// Why a manifest was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is no YAML.
    #[error("manifest: {0}")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// It has no `apiVersion`, `kind` or `metadata.name`.
    #[error("manifest without apiVersion, kind or metadata.name: {0}")]
    Incomplete(String),
    /// The API server does not know its kind.
    #[error(transparent)]
    UnknownKind(#[from] Deadline),
    /// The API server refused it; the message is the server's.
    #[error("{kind} {name}: {source}")]
    Refused {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// The server's answer.
        source: Box<kube::Error>,
    },
}

impl Cluster {
    /// Applies every document of a YAML text, in its order. Objects that name no namespace go to `default`.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>, ApplyError> {
        self.apply_in("default", yaml).await
    }

    /// Applies every document of a YAML text, in its order. Objects that name no namespace go to `namespace`.
    pub async fn apply_in(&self, namespace: &str, yaml: &str) -> Result<Vec<DynamicObject>, ApplyError> {
        let yaml = yaml.replace(&format!("{IMAGE_PREFIX}/"), &format!("{}/", self.image_prefix()));
        let mut applied = Vec::new();
        for document in serde_yaml_ng::Deserializer::from_str(&yaml) {
            let object = Value::deserialize(document)?;
            if !object.is_null() {
                applied.push(self.apply_object(namespace, &object).await?);
            }
        }
        Ok(applied)
    }

    /// Applies one object.
    pub async fn apply_object(&self, namespace: &str, object: &Value) -> Result<DynamicObject, ApplyError> {
        let incomplete = || ApplyError::Incomplete(object.to_string());
        let types = TypeMeta {
            api_version: object["apiVersion"].as_str().ok_or_else(incomplete)?.to_owned(),
            kind: object["kind"].as_str().ok_or_else(incomplete)?.to_owned(),
        };
        let name = object["metadata"]["name"].as_str().ok_or_else(incomplete)?;
        let gvk = GroupVersionKind::try_from(&types).map_err(|_| incomplete())?;
        let client = self.client();
        let (resource, capabilities) = until(&format!("the kind {}", gvk.kind), KIND_KNOWN, || {
            pinned_kind(&client, &gvk)
        })
        .await?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client, &resource),
            Scope::Namespaced => Api::namespaced_with(client, namespace, &resource),
        };
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object))
            .await
            .map_err(|source| ApplyError::Refused {
                kind: gvk.kind.clone(),
                name: name.to_owned(),
                source: Box::new(source),
            })
    }
}
