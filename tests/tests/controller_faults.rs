//! What stands in the operator's way, and that it says so, survives it, and leaves alone what is not its own.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use wsfleet_crds::condition::ConditionType;
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::WebSocketCluster;
use wsfleet_tests::api_proxy::ApiProxy;
use wsfleet_tests::fleet::{ANONYMOUS, Fleet, SOON, manifest};
use wsfleet_tests::operator::{Operator, Settings};
use wsfleet_tests::roll_call::RollCall;

#[tokio::test]
async fn a_missing_secret_is_a_condition_that_names_it_and_pods_come_when_it_does() -> Result<()> {
    let fleet = Fleet::new("faults").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    fleet
        .apply(&manifest(
            "chat",
            1,
            "  auth: {jwt: {secretRef: {name: chat-jwt, key: secret}}}",
        ))
        .await?;
    let (_, message) = fleet
        .until_condition("chat", ConditionType::ReferencesResolved, "False")
        .await?;
    ensure!(
        message.contains("spec.auth.jwt.secretRef") && message.contains("chat-jwt"),
        "{message}"
    );
    ensure!(fleet.pods("chat").await?.is_empty(), "pods that cannot start");

    fleet.secret("chat-jwt", "other", "x").await?;
    let (_, message) = fleet
        .until_condition("chat", ConditionType::ReferencesResolved, "False")
        .await?;
    ensure!(message.contains("secret"), "the key is missing still: {message}");
    let key = json!({"stringData": {"secret": "0123456789abcdef0123456789abcdef"}});
    let secrets = fleet.namespace.api::<k8s_openapi::api::core::v1::Secret>();
    secrets
        .patch("chat-jwt", &PatchParams::default(), &Patch::Merge(&key))
        .await?;
    fleet
        .until_condition("chat", ConditionType::ReferencesResolved, "True")
        .await?;
    fleet.until_pods("chat", 1).await?;
    Ok(())
}

#[tokio::test]
async fn a_resource_that_does_not_parse_is_reported_and_left_alone_while_others_are_served() -> Result<()> {
    let fleet = Fleet::new("faults").await?;
    let mut operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    fleet.apply(&manifest("broken", 2, ANONYMOUS)).await?;
    let pods = fleet.until_pods("broken", 2).await?;
    fleet
        .until_condition("broken", ConditionType::TemplateValid, "True")
        .await?;

    // the schema takes any integer there, the operator's type does not
    let api = fleet.namespace.api::<WebSocketCluster>();
    let api: Api<kube::api::DynamicObject> = Api::namespaced_with(
        api.into_client(),
        fleet.namespace.name(),
        &kube::api::ApiResource::erase::<WebSocketCluster>(&()),
    );
    let absurd = json!({"status": {"cordonedReplicas": 5_000_000_000_u64}});
    // a status that the operator was about to write replaces it, unread: hence until it was seen
    let seen = fleet
        .namespace
        .until("event Malformed about broken", SOON, async || {
            api.patch_status("broken", &PatchParams::default(), &Patch::Merge(&absurd))
                .await?;
            fleet.event("broken", "Malformed").await
        });
    let note = seen.await?;
    ensure!(note.contains("cannot be read"), "{note}");
    let (reason, _) = fleet
        .until_condition("broken", ConditionType::Ready, "False")
        .await?;
    ensure!(reason == "Malformed", "{reason}");

    fleet.apply(&manifest("fine", 1, ANONYMOUS)).await?;
    fleet.until_pods("fine", 1).await?;
    ensure!(operator.is_running()?, "{}", operator.log());
    let left = fleet.pods("broken").await?;
    ensure!(
        left.iter()
            .map(ResourceExt::uid)
            .eq(pods.iter().map(ResourceExt::uid)),
        "its pods were touched"
    );

    let mended = json!({"status": {"cordonedReplicas": 0}});
    api.patch_status("broken", &PatchParams::default(), &Patch::Merge(&mended))
        .await?;
    fleet
        .until_condition("broken", ConditionType::TemplateValid, "True")
        .await?;
    fleet.apply(&manifest("broken", 3, ANONYMOUS)).await?;
    fleet.until_pods("broken", 3).await?;
    Ok(())
}

#[tokio::test]
async fn a_template_that_the_api_server_refuses_is_a_condition_with_its_words_and_makes_no_pod() -> Result<()>
{
    let fleet = Fleet::new("faults").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    let invalid =
        manifest("chat", 2, ANONYMOUS).replace("nodeSelector:", "restartPolicy: Sometimes, nodeSelector:");
    fleet.apply(&invalid).await?;
    let (_, message) = fleet
        .until_condition("chat", ConditionType::TemplateValid, "False")
        .await?;
    ensure!(message.contains("Sometimes"), "{message}");
    ensure!(fleet.pods("chat").await?.is_empty(), "pods of a refused template");
    fleet.apply(&manifest("chat", 2, ANONYMOUS)).await?;
    fleet.until_pods("chat", 2).await?;
    Ok(())
}

#[tokio::test]
async fn a_service_of_somebody_else_is_left_as_it_is_and_named_in_an_event() -> Result<()> {
    let fleet = Fleet::new("faults").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    fleet
        .apply("apiVersion: v1\nkind: Service\nmetadata: {name: chat}\nspec: {selector: {app: theirs}, ports: [{port: 1}]}")
        .await?;
    fleet.apply(&manifest("chat", 1, ANONYMOUS)).await?;
    let note = fleet.until_event("chat", "ApplyFailed").await?;
    ensure!(note.contains("Service chat exists"), "{note}");
    let service = fleet.namespace.api::<Service>().get("chat").await?;
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    ensure!(
        selector.len() == 1 && selector.contains_key("app"),
        "{selector:?}"
    );
    Ok(())
}

#[tokio::test]
async fn two_leaders_at_once_make_no_pod_twice() -> Result<()> {
    let fleet = Fleet::new("faults").await?;
    // two Leases: each of them believes that it is alone
    let first = Operator::start_as(Settings::of(&fleet.namespace, "first").lease("one")).await?;
    let second = Operator::start_as(Settings::of(&fleet.namespace, "second").lease("two")).await?;
    first.until_leading(SOON).await?;
    second.until_leading(SOON).await?;
    for replicas in [8_u32, 12, 20] {
        fleet.apply(&manifest("chat", replicas, ANONYMOUS)).await?;
        let pods = fleet.until_pods("chat", replicas as usize).await?;
        let slots: BTreeSet<String> = pods.iter().map(ResourceExt::name_any).collect();
        ensure!(slots.len() == replicas as usize, "{slots:?}");
    }
    let refused = first
        .metric(
            "wsc_api_requests_total",
            &["verb=\"create\"", "kind=\"pods\"", "code=\"409\""],
        )
        .await?
        + second
            .metric(
                "wsc_api_requests_total",
                &["verb=\"create\"", "kind=\"pods\"", "code=\"409\""],
            )
            .await?;
    ensure!(refused > 0.0, "the two never met: nothing was shown");
    let all = fleet
        .namespace
        .api::<Pod>()
        .list(&kube::api::ListParams::default())
        .await?
        .items;
    ensure!(all.len() == 20, "{} pods", all.len());
    Ok(())
}

/// A seed from the environment, to see a failed run again as far as the order of calls is the same.
fn seed() -> Result<u64> {
    Ok(match std::env::var("FAULT_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => rand::random(),
    })
}

/// Waits until so many pods are there, all of the revision of now.
async fn until_settled(fleet: &Fleet, count: usize) -> Result<()> {
    let what = format!("{count} pods, all of the revision of now");
    // passes that fail in a row are up to a minute apart
    let settled = fleet.namespace.until(&what, SOON * 5, async || {
        let chat = fleet.get("chat").await?;
        let status = chat.status.unwrap_or_default();
        ensure!(
            status.observed_generation == chat.metadata.generation,
            "{status:?}"
        );
        let pods = fleet.pods("chat").await?;
        let revisions: BTreeSet<_> = pods
            .iter()
            .map(|pod| pod.labels().get(labels::REVISION).cloned())
            .collect();
        ensure!(
            pods.len() == count && revisions == [status.update_revision].into(),
            "{} pods of {revisions:?}",
            pods.len()
        );
        anyhow::Ok(())
    });
    Ok(settled.await?)
}

#[tokio::test]
async fn a_tenth_of_all_calls_failing_and_watches_that_break_make_no_pod_twice_and_none_above_the_surge()
-> Result<()> {
    let seed = seed()?;
    println!("FAULT_SEED={seed}");
    let fleet = Fleet::new("failing").await?;
    let proxy = ApiProxy::failing(fleet.namespace.cluster(), seed).await?;
    let operator =
        Operator::start_as(Settings::of(&fleet.namespace, "operator").kubeconfig(proxy.kubeconfig())).await?;
    operator.until_leading(SOON).await?;
    let roll_call = RollCall::start(&fleet.namespace, "chat");

    let spec = |limit: usize| {
        format!("  rollout: {{maxSurge: 25%}}\n{ANONYMOUS}\n  limits: {{connectionsPerIp: {limit}}}")
    };
    // a rollout takes some dozens of calls; as many of them as it takes for much to have failed
    let mut revisions = 0;
    while revisions < 2 || !proxy.harm().is_much() {
        revisions += 1;
        fleet.apply(&manifest("chat", 4, &spec(revisions))).await?;
        until_settled(&fleet, 4).await?;
        let book = roll_call.book();
        ensure!(
            book.ever.len() == 4 * revisions,
            "{revisions} revisions: {book:?}"
        );
    }
    fleet.apply(&manifest("chat", 2, &spec(revisions))).await?;
    until_settled(&fleet, 2).await?;
    let (book, harm) = (roll_call.book(), proxy.harm());
    ensure!(book.ever.len() == 4 * revisions, "a pod too many: {book:?}");
    ensure!(
        book.most <= 5,
        "{} at once, 4 and a surge of 1 are allowed",
        book.most
    );
    println!(
        "{} pods made, {} at once at most: {harm:?}",
        book.ever.len(),
        book.most
    );
    Ok(())
}
