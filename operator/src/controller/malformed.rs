//! A resource that does not parse: stored under another schema, or let through by a looser one.
//!
//! Its pods go on serving, and nothing of it is touched. It is reported once per text of the error: a Warning event, a
//! log line and the condition Ready=False, so that whoever wrote it finds out; other resources never notice.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Resource};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{error, warn};
use wsfleet_crds::condition::ConditionType;
use wsfleet_crds::labels::FIELD_MANAGER;
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::Context;
use crate::apply::CALL_TIMEOUT;
use crate::observe::Identity;
use crate::observe::stores::Root;
use crate::plan::action::EventDraft;

/// Reason of the condition and of the event.
const REASON: &str = "Malformed";

/// Reports the object, unless this very error was reported already.
pub(super) async fn report(context: &Context, id: &Identity, root: &Root, invalid: &InvalidObject) {
    let text = format!(
        "the resource cannot be read, and is left as it is: {}",
        invalid.error
    );
    let generation = invalid.metadata.generation.unwrap_or_default();
    let told = format!("{generation} {text}");
    let known = context.observer().memory.update(&id.uid, |remembered| {
        remembered.malformed.replace(told.clone()).as_ref() == Some(&told)
    });
    if known {
        return;
    }
    error!(
        namespace = id.namespace,
        cluster = id.name,
        error = invalid.error,
        "malformed resource"
    );
    let draft = EventDraft {
        warning: true,
        reason: REASON,
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

/// Writes the one condition; as untyped JSON, for the object does not fit the type.
async fn mark(context: &Context, id: &Identity, generation: i64, text: &str) -> Result<(), String> {
    let resource = kube::api::ApiResource::erase::<WebSocketCluster>(&());
    let api: Api<kube::api::DynamicObject> =
        Api::namespaced_with(context.client.clone(), &id.namespace, &resource);
    let patch = condition(id, generation, text);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&patch);
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
                "reason": REASON,
                "message": text.chars().take(1024).collect::<String>(),
                "observedGeneration": generation,
                "lastTransitionTime": Timestamp::now().to_string(),
            }],
        },
    })
}
