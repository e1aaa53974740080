//! What the operator makes of a resource on a real API server, and that it mends what others break.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use wsfleet_crds::labels;
use wsfleet_tests::fleet::{ANONYMOUS, Fleet, SOON, assert_controlled, manifest};
use wsfleet_tests::operator::Operator;

#[tokio::test]
async fn a_resource_becomes_pods_service_budgets_token_and_revision_which_go_with_it() -> Result<()> {
    let fleet = Fleet::new("objects").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    fleet.apply(&manifest("chat", 3, ANONYMOUS)).await?;
    let pods = fleet.until_pods("chat", 3).await?;
    let cluster = fleet.get("chat").await?;

    let namespace = &fleet.namespace;
    let revisions = namespace
        .api::<ControllerRevision>()
        .list(&ListParams::default())
        .await?
        .items;
    ensure!(revisions.len() == 1, "{} revisions", revisions.len());
    assert_controlled(&revisions[0], &cluster)?;
    let hash = revisions[0]
        .labels()
        .get(labels::REVISION)
        .context("a revision without hash")?;
    for (slot, pod) in pods.iter().enumerate() {
        assert_controlled(pod, &cluster)?;
        ensure!(
            pod.name_any() == format!("chat-{hash}-{slot}"),
            "{}",
            pod.name_any()
        );
        ensure!(
            pod.labels().get(labels::ACCEPTING).is_some(),
            "{:?}",
            pod.labels()
        );
        ensure!(pod.labels().get(labels::MANAGED_BY).map(String::as_str) == Some(labels::MANAGED_BY_VALUE));
    }

    let service = namespace.api::<Service>().get("chat").await?;
    assert_controlled(&service, &cluster)?;
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    ensure!(
        selector.get(labels::ACCEPTING).map(String::as_str) == Some("true"),
        "{selector:?}"
    );
    for name in ["chat-active", "chat-draining"] {
        assert_controlled(&namespace.api::<PodDisruptionBudget>().get(name).await?, &cluster)?;
    }
    let token = namespace.api::<Secret>().get("chat-admin-token").await?;
    assert_controlled(&token, &cluster)?;
    let token = token
        .data
        .unwrap_or_default()
        .remove("token")
        .context("no token")?
        .0;
    let random = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token)?;
    ensure!(random.len() >= 32, "{} random bytes", random.len());

    namespace
        .api::<wsfleet_crds::v1alpha1::WebSocketCluster>()
        .delete("chat", &DeleteParams::default())
        .await?;
    fleet.until_pods("chat", 0).await?;
    let gone = namespace.until("everything gone", SOON, async || {
        let left = [
            namespace.api::<Service>().get_opt("chat").await?.is_some(),
            namespace
                .api::<Secret>()
                .get_opt("chat-admin-token")
                .await?
                .is_some(),
            namespace
                .api::<PodDisruptionBudget>()
                .get_opt("chat-active")
                .await?
                .is_some(),
            namespace
                .api::<ControllerRevision>()
                .get_opt(&revisions[0].name_any())
                .await?
                .is_some(),
        ];
        ensure!(left == [false; 4], "{left:?}");
        anyhow::Ok(())
    });
    gone.await?;
    Ok(())
}

#[tokio::test]
async fn a_resource_that_follows_a_deleted_one_of_its_name_gets_a_token_of_its_own() -> Result<()> {
    let fleet = Fleet::new("objects").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    let namespace = &fleet.namespace;
    fleet.apply(&manifest("chat", 1, ANONYMOUS)).await?;
    fleet.until_pods("chat", 1).await?;

    let resources = namespace.api::<wsfleet_crds::v1alpha1::WebSocketCluster>();
    // at once: what the deleted one owned is still there, and is collected behind the new one's back
    resources.delete("chat", &DeleteParams::background()).await?;
    let again = manifest("chat", 1, ANONYMOUS);
    let applied = namespace.until("applied again", SOON, || fleet.apply(&again));
    applied.await?;
    let cluster = fleet.get("chat").await?;

    let own = namespace.until("a token of its own", SOON, async || {
        let secrets = namespace.api::<Secret>();
        let secret = secrets.get_opt("chat-admin-token").await?.context("no Secret")?;
        assert_controlled(&secret, &cluster)
    });
    own.await?;
    Ok(())
}

#[tokio::test]
async fn what_somebody_deletes_is_made_again() -> Result<()> {
    let fleet = Fleet::new("objects").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    fleet.apply(&manifest("chat", 3, ANONYMOUS)).await?;
    let before = fleet.until_pods("chat", 3).await?;
    let namespace = &fleet.namespace;

    let service = namespace.api::<Service>().get("chat").await?;
    namespace
        .api::<Service>()
        .delete("chat", &DeleteParams::default())
        .await?;
    namespace
        .api::<PodDisruptionBudget>()
        .delete("chat-active", &DeleteParams::default())
        .await?;
    let victim = before[1].name_any();
    namespace
        .api::<Pod>()
        .delete(&victim, &DeleteParams::default())
        .await?;

    let replaced = namespace.until("three pods without the deleted one", SOON, async || {
        let pods = fleet.pods("chat").await?;
        let old = pods.iter().any(|pod| pod.uid() == before[1].uid());
        ensure!(
            pods.len() == 3 && !old,
            "{} pods, the deleted one among them: {old}",
            pods.len()
        );
        let again = namespace.api::<Service>().get("chat").await?;
        ensure!(again.uid() != service.uid(), "the old Service");
        namespace.api::<PodDisruptionBudget>().get("chat-active").await?;
        anyhow::Ok(pods)
    });
    let after = replaced.await?;
    for kept in [&before[0], &before[2]] {
        ensure!(
            after.iter().any(|pod| pod.uid() == kept.uid()),
            "{} was touched",
            kept.name_any()
        );
    }
    Ok(())
}

/// What was edited, in each of the ways that an apply alone would mend or not, is as it was, and then nothing is written.
#[tokio::test]
async fn what_somebody_edits_is_mended_and_then_left_alone() -> Result<()> {
    let fleet = Fleet::new("objects").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    fleet.apply(&manifest("chat", 1, ANONYMOUS)).await?;
    fleet.until_pods("chat", 1).await?;
    let services = fleet.namespace.api::<Service>();
    let budgets = fleet.namespace.api::<PodDisruptionBudget>();
    let service = services.get("chat").await?;
    let spec = service.spec.clone().context("no spec")?;

    for (what, edit) in [
        (
            "selector, type, and where its port leads",
            json!({"spec": {"selector": {labels::ACCEPTING: "false", "track": "stable"}, "type": "NodePort",
                "ports": [{"name": "ws", "port": 80, "targetPort": 81}]}}),
        ),
        (
            "its port",
            json!({"spec": {"ports": [{"name": "ws", "port": 81, "targetPort": "ws"}]}}),
        ),
        (
            "its label",
            json!({"metadata": {"labels": {labels::MANAGED_BY: null}}}),
        ),
    ] {
        services
            .patch("chat", &PatchParams::default(), &Patch::Merge(&edit))
            .await?;
        let mended = fleet.namespace.until(what, SOON, async || {
            let now = services.get("chat").await?;
            ensure!(
                now.labels().contains_key(labels::MANAGED_BY),
                "{:?}",
                now.labels()
            );
            let now = now.spec.context("no spec")?;
            ensure!(
                now.selector == spec.selector && now.ports == spec.ports && now.type_ == spec.type_,
                "{now:?}"
            );
            anyhow::Ok(())
        });
        mended.await?;
    }
    ensure!(
        services.get("chat").await?.uid() == service.uid(),
        "the Service was made anew"
    );
    let edit = json!({"spec": {"minAvailable": 0, "selector": {"matchLabels": {"app": "none"}}}});
    budgets
        .patch("chat-draining", &PatchParams::default(), &Patch::Merge(&edit))
        .await?;
    let mended = fleet.namespace.until("the guard", SOON, async || {
        let now = budgets.get("chat-draining").await?.spec.context("no spec")?;
        let labels = now
            .selector
            .and_then(|selector| selector.match_labels)
            .unwrap_or_default();
        let is_ours = labels.len() == 2 && labels.contains_key(labels::PHASE);
        ensure!(
            now.min_available == Some(IntOrString::Int(1_000_000)) && is_ours,
            "{labels:?}"
        );
        anyhow::Ok(())
    });
    mended.await?;

    // longer than an apply that is followed by a difference would be put off
    // the status of a guard is written by Kubernetes, and has a part in its version
    let versions = async || -> Result<_> {
        let service = services.get("chat").await?.resource_version();
        Ok((service, budgets.get("chat-draining").await?.metadata.generation))
    };
    let patches = async || -> Result<_> {
        let of = async |kind: &str| {
            let labels = ["verb=\"patch\"", kind];
            operator.metric("wsc_api_requests_total", &labels).await
        };
        Ok([
            of("kind=\"services\"").await?,
            of("kind=\"poddisruptionbudgets\"").await?,
        ])
    };
    let passes = async || operator.metric("wsc_reconcile_seconds_count", &[]).await;
    let (before, made, began) = (versions().await?, patches().await?, passes().await?);
    let later = Instant::now() + Duration::from_secs(7);
    let watched = fleet.namespace.until("passes of seven seconds", SOON, async || {
        ensure!(
            passes().await? >= began + 2.0 && Instant::now() > later,
            "too soon"
        );
        anyhow::Ok(())
    });
    watched.await?;
    let after = (versions().await?, patches().await?);
    ensure!(
        after == (before.clone(), made),
        "written again without a reason: {:?} became {after:?}",
        (before, made)
    );
    println!("{made:?} patches of the Service and the budgets mended 3 edits and 1, none followed");
    Ok(())
}

#[tokio::test]
async fn the_first_pod_is_created_within_a_second_of_the_change_that_asks_for_it() -> Result<()> {
    let fleet = Fleet::new("objects").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    fleet.apply(&manifest("chat", 1, ANONYMOUS)).await?;
    fleet.until_pods("chat", 1).await?;
    let mut waits = Vec::new();
    // the machine may pause in one of them; who looks only now and then is late in nearly all
    for replicas in 2..=6 {
        let changed = jiff::Timestamp::now();
        fleet.apply(&manifest("chat", replicas, ANONYMOUS)).await?;
        let pods = fleet.until_pods("chat", replicas as usize).await?;
        let newest = pods
            .iter()
            .filter_map(|pod| Some(pod.metadata.creation_timestamp.as_ref()?.0))
            .max();
        let waited = newest.context("no creation time")?.duration_since(changed);
        waits.push(waited.as_secs());
    }
    // creation times are whole seconds, rounded down
    let late = waits.iter().filter(|seconds| **seconds > 1).count();
    ensure!(late <= 2, "seconds waited: {waits:?}");
    Ok(())
}
