//! The WebSocketCluster of the demo: read its status, change its template, tell its events.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use wsfleet_crds::v1alpha1::WebSocketCluster;

use crate::args::Args;

/// Access to the resource and to what belongs to it.
#[derive(Clone)]
pub(crate) struct Resource {
    client: Client,
    namespace: String,
    name: String,
}

impl Resource {
    /// The resource that the flags name.
    pub(crate) fn new(client: Client, args: &Args) -> Self {
        Self {
            client,
            namespace: args.namespace.clone(),
            name: args.name.clone(),
        }
    }

    fn api(&self) -> Api<WebSocketCluster> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The resource as it is now.
    pub(crate) async fn get(&self) -> Result<WebSocketCluster> {
        self.api().get(&self.name).await.with_context(|| {
            format!(
                "reading WebSocketCluster {}/{}: apply examples/chat.yaml first",
                self.namespace, self.name
            )
        })
    }

    /// Rolls out a new revision: another image, or, when none is given, an annotation of the pod template.
    /// Returns the command that would have done the same.
    pub(crate) async fn roll_out(&self, image: Option<&str>) -> Result<String> {
        let patch = if let Some(image) = image {
            json!({"spec": {"gateway": {"image": image}}})
        } else {
            let now = jiff::Timestamp::now().to_string();
            json!({"spec": {"template": {"metadata": {"annotations": {"wsfleet.dev/restarted-at": now}}}}})
        };
        self.api()
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context("patching spec")?;
        Ok(format!(
            "kubectl -n {} patch wsc {} --type merge -p '{patch}'",
            self.namespace, self.name
        ))
    }

    /// The port of every node at which the managed Service is reached; `None` when it has none.
    pub(crate) async fn node_port(&self) -> Result<Option<u16>> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        let service = services
            .get(&self.name)
            .await
            .context("reading the managed Service")?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        Ok(ports
            .first()
            .and_then(|port| port.node_port)
            .and_then(|port| u16::try_from(port).ok()))
    }

    /// The key that signs the clients' tokens, from the Secret that the resource names.
    pub(crate) async fn jwt_key(&self, secret: &str, key: &str) -> Result<Vec<u8>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = secrets
            .get(secret)
            .await
            .with_context(|| format!("reading Secret {secret}"))?;
        let value = found.data.and_then(|mut data| data.remove(key));
        Ok(value
            .with_context(|| format!("Secret {secret} has no key {key}"))?
            .0)
    }

    /// Events about the resource that `told` does not hold yet, oldest first, as lines.
    pub(crate) async fn news(&self, told: &mut BTreeSet<String>) -> Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut list = events
            .list(&ListParams::default())
            .await
            .context("listing events")?
            .items;
        list.retain(|event| {
            event.regarding.as_ref().is_some_and(|about| {
                about.kind.as_deref() == Some("WebSocketCluster") && about.name.as_deref() == Some(&self.name)
            })
        });
        list.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        let fresh = list.into_iter().filter(|event| told.insert(event.name_any()));
        Ok(fresh
            .map(|event| {
                let reason = event.reason.unwrap_or_default();
                format!("  {reason}: {}", event.note.unwrap_or_default())
            })
            .collect())
    }
}
