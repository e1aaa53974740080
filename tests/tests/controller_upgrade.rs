//! An operator of another build takes over a fleet that lives, and leaves it as it is.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use serde_json::json;
use wsfleet_tests::fleet::{ANONYMOUS, Fleet, SOON, manifest};
use wsfleet_tests::operator::{Operator, Settings};

/// What pods of another build have and those of this one don't.
const VARIABLE: &str = "WSFLEET_OF_ANOTHER_BUILD";

async fn revisions(fleet: &Fleet) -> Result<Vec<ControllerRevision>> {
    let api = fleet.namespace.api::<ControllerRevision>();
    Ok(api.list(&ListParams::default()).await?.items)
}

/// Puts a revision in place of the only one, as another build of the operator would have made it: its probes and variables
/// are others.
async fn freeze_as_another_build(fleet: &Fleet) -> Result<()> {
    let api = fleet.namespace.api::<ControllerRevision>();
    let mut revision = revisions(fleet).await?.pop().context("no revision")?;
    api.delete(&revision.name_any(), &DeleteParams::default()).await?;
    let gateway = revision
        .data
        .as_mut()
        .and_then(|data| data.0.pointer_mut("/template/spec/containers/0"))
        .context("a revision without a container")?;
    gateway["readinessProbe"]["periodSeconds"] = json!(7);
    gateway["env"]
        .as_array_mut()
        .context("no variables")?
        .push(json!({"name": VARIABLE, "value": "yes"}));
    revision.metadata = ObjectMeta {
        uid: None,
        resource_version: None,
        ..revision.metadata
    };
    api.create(&PostParams::default(), &revision).await?;
    Ok(())
}

/// Deletes the first of these pods, and waits for the one that is made for it.
async fn replaced(fleet: &Fleet, pods: &[Pod]) -> Result<Pod> {
    let api = fleet.namespace.api::<Pod>();
    let first = pods.first().context("no pod")?;
    api.delete(&first.name_any(), &DeleteParams::default()).await?;
    let known: Vec<_> = pods.iter().map(ResourceExt::uid).collect();
    let made = fleet.namespace.until("another pod for it", SOON, async || {
        let pods = fleet.pods("chat").await?;
        let made = pods.into_iter().find(|pod| !known.contains(&pod.uid()));
        made.context("not yet")
    });
    Ok(made.await?)
}

#[tokio::test]
async fn an_operator_with_another_image_and_other_settings_of_its_own_restarts_no_pod_and_makes_no_revision()
-> Result<()> {
    let fleet = Fleet::new("upgrade").await?;
    let old = Operator::start(&fleet.namespace, "old").await?;
    old.until_leading(SOON).await?;
    fleet.apply(&manifest("chat", 3, ANONYMOUS)).await?;
    let pods = fleet.until_pods("chat", 3).await?;
    old.terminate().await?;
    freeze_as_another_build(&fleet).await?;
    let frozen = revisions(&fleet).await?;

    let image = fleet.namespace.cluster().image("gateway:dev2");
    let new = Operator::start_as(Settings::of(&fleet.namespace, "new").gateway_image(image)).await?;
    new.until_leading(SOON).await?;
    // a change that is not of the template: when the status names it, the fleet was planned by the new one
    let drain = format!("  drain: {{settleSeconds: 3}}\n{ANONYMOUS}");
    fleet.apply(&manifest("chat", 3, &drain)).await?;
    fleet
        .namespace
        .until("the change is observed", SOON, async || {
            let chat = fleet.get("chat").await?;
            let observed = chat.status.unwrap_or_default().observed_generation;
            ensure!(observed == chat.metadata.generation, "{observed:?}");
            anyhow::Ok(())
        })
        .await?;
    let after = fleet.pods("chat").await?;
    ensure!(
        after
            .iter()
            .map(ResourceExt::uid)
            .eq(pods.iter().map(ResourceExt::uid)),
        "pods were replaced"
    );
    ensure!(revisions(&fleet).await? == frozen, "revisions were changed");

    // what it makes itself is of the same kind as the others
    let made = replaced(&fleet, &pods).await?;
    let spec = made.spec.context("a pod without spec")?;
    let gateway = spec.containers.first().context("no container")?;
    let has_variable = gateway.env.iter().flatten().any(|one| one.name == VARIABLE);
    ensure!(
        has_variable && gateway.image == Some(fleet.namespace.cluster().image("pause:1")),
        "made anew: {gateway:?}"
    );
    Ok(())
}
