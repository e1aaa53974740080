//! A resource that does not parse: stored under another schema, or let through by a looser one.
//!
//! Its pods go on serving, and nothing of it is touched but the finalizer when somebody deletes it. It is reported once per
//! text of the error: a Warning event, a log line and the condition Ready=False, so that whoever wrote it finds out; other
//! resources never notice.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, Patch};
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Resource};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{error, warn};
use wsfleet_crds::condition::{self, ConditionType};
use wsfleet_crds::event;
use wsfleet_crds::labels::DRAIN_FINALIZER;
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::Context;
use crate::apply::{CALL_TIMEOUT, patch_params};
use crate::observe::Identity;
use crate::observe::stores::Root;
use crate::plan::action::EventDraft;

/// When to try again to let a deleted object go.
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// Reports the object, unless this very error was reported already.
pub(super) async fn report(context: &Context, id: &Identity, root: &Root, invalid: &InvalidObject) {
    let generation = invalid.metadata.generation.unwrap_or_default();
    let told = format!("{generation} {}", invalid.error);
    let known = context.observer().memory.update(&id.uid, |remembered| {
        remembered.malformed.replace(told.clone()).as_ref() == Some(&told)
    });
    if known {
        return;
    }
    // the watch's own error does not say where
    let reason = located(context, id)
        .await
        .unwrap_or_else(|| invalid.error.clone());
    error!(
        namespace = id.namespace,
        cluster = id.name,
        error = reason,
        "malformed resource"
    );
    let text = format!("the resource cannot be read, and is left as it is: {reason}");
    let draft = EventDraft {
        warning: true,
        reason: event::MALFORMED,
        action: "Read",
        note: text.clone(),
    };
    let regarding: ObjectReference = root.object_ref(&());
    context.events.publish(draft, &regarding).await;
    if let Err(error) = mark(context, id, generation, &text).await {
        warn!(
            cluster = id.name,
            error, "condition of the malformed resource not written"
        );
        // next time
        context
            .observer()
            .memory
            .update(&id.uid, |remembered| remembered.malformed = None);
    }
}

/// Lets a deleted object go. How it is to be drained cannot be read, and it must not stay for ever because of that: its pods
/// go with it, and each drains by itself. False when that has to be tried again.
pub(super) async fn release(context: &Context, id: &Identity, invalid: &InvalidObject) -> bool {
    let metadata = &invalid.metadata;
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    if metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|it| it == DRAIN_FINALIZER) {
        return true;
    }
    let others: Vec<_> = finalizers.iter().filter(|it| *it != DRAIN_FINALIZER).collect();
    let patch = json!({"metadata": {
        "uid": id.uid, "resourceVersion": metadata.resource_version, "finalizers": others,
    }});
    let api = untyped(context, id);
    let (params, patch) = (patch_params(), Patch::Merge(&patch));
    match timeout(CALL_TIMEOUT, api.patch(&id.name, &params, &patch)).await {
        Ok(Ok(_)) => {
            warn!(
                namespace = id.namespace,
                cluster = id.name,
                "a malformed resource was deleted and is let go, its gateways drain by themselves"
            );
            true
        }
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => true,
        Ok(Err(error)) => {
            warn!(cluster = id.name, %error, "the malformed resource is not let go");
            false
        }
        Err(_) => false,
    }
}

/// Untyped, for the object does not fit the type.
fn untyped(context: &Context, id: &Identity) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<WebSocketCluster>(&());
    Api::namespaced_with(context.client.clone(), &id.namespace, &resource)
}

/// What is wrong with the object, and at which field; `None` when it can't be had, or has been mended since.
async fn located(context: &Context, id: &Identity) -> Option<String> {
    let api = untyped(context, id);
    let object = timeout(CALL_TIMEOUT, api.get(&id.name)).await.ok()?.ok()?;
    let error = serde_path_to_error::deserialize::<_, WebSocketCluster>(serde_json::to_value(object).ok()?);
    error.err().map(|error| error.to_string())
}

/// Writes the one condition. Not by server-side apply: the API server types the whole object for it, and this one does
/// not fit its type.
async fn mark(context: &Context, id: &Identity, generation: i64, text: &str) -> Result<(), String> {
    let api = untyped(context, id);
    let patch = condition(id, generation, text);
    let (params, patch) = (patch_params(), Patch::Merge(&patch));
    let call = api.patch_status(&id.name, &params, &patch);
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn condition(id: &Identity, generation: i64, text: &str) -> Value {
    json!({
        "apiVersion": WebSocketCluster::api_version(&()),
        "kind": WebSocketCluster::kind(&()),
        "metadata": {"name": id.name, "uid": id.uid},
        "status": {
            "observedGeneration": generation,
            "conditions": [{
                "type": ConditionType::Ready.as_str(),
                "status": "False",
                "reason": condition::reason::MALFORMED,
                "message": text.chars().take(1024).collect::<String>(),
                "observedGeneration": generation,
                "lastTransitionTime": Timestamp::now().to_string(),
            }],
        },
    })
}
