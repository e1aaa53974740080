//! Bad revisions on the real cluster: the fleet goes back by itself, and no socket that was there before is closed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::time::Duration;

use serde_json::{Value, json};
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::{RolloutPhase, WebSocketClusterStatus};
use wsfleet_load::{Load, LoadConfig, Report};
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::scenario::{Failure, Fleet, label, merge};
use wsfleet_tests::steps::condition;
use wsfleet_tests::verdict::nothing_was_cut;
use wsfleet_tests::witness::{Stories, Witness};

/// Sockets that are there before the bad revision comes.
const SOCKETS: u32 = 400;
const CHANGE: Duration = Duration::from_mins(3);

/// Four gateways; a new revision has some seconds to come up, and then `bake` to prove itself.
fn four_pods(bake: u32) -> Value {
    json!({
        "replicas": 4,
        "rollout": {"maxSurge": 4, "progressDeadlineSeconds": 15, "canary": {"bakeSeconds": bake}},
        "drain": {"minDisconnectsPerSecond": 40},
    })
}

async fn until_baking(fleet: &Fleet) -> Result<(), Failure> {
    fleet
        .until_status("the canary bakes", CHANGE, |status| {
            let rollout = status.rollout.clone().unwrap_or_default();
            rollout.phase == RolloutPhase::Baking
        })
        .await?;
    Ok(())
}

/// Clients that come while a canary bakes.
async fn newcomers(fleet: &Fleet, count: u32) -> Result<LoadConfig, Failure> {
    let mut config = fleet.load(count).await?;
    "new-".clone_into(&mut config.user_prefix);
    "new-".clone_into(&mut config.room_prefix);
    Ok(config)
}

async fn settled(cluster: &Cluster, prefix: &str, spec: Value) -> Result<(Fleet, Load, Witness), Failure> {
    let fleet = Fleet::start(cluster, prefix, spec).await?;
    let load = fleet.start_load(fleet.load(SOCKETS).await?).await?;
    let witness = Witness::start(&fleet);
    Ok((fleet, load, witness))
}

/// Waits until the wanted revision has failed and the fleet runs the one before again.
async fn until_rolled_back(fleet: &Fleet, stable: &str) -> Result<WebSocketClusterStatus, Failure> {
    let status = fleet
        .until_status("the fleet was rolled back", CHANGE, |status| {
            let rollout = status.rollout.clone().unwrap_or_default();
            rollout.failed_revision.is_some()
                && rollout.failed_revision == status.update_revision
                && rollout.phase == RolloutPhase::Idle
                && status.accepting_replicas == 4
        })
        .await?;
    assert_eq!(status.current_revision.as_deref(), Some(stable));
    assert_eq!(
        condition(&status, "RolloutHealthy").map(|(is, _)| is),
        Some("False")
    );
    assert_eq!(condition(&status, "Available").map(|(is, _)| is), Some("True"));
    let pods = fleet.pods().await?;
    let of_stable = pods.iter().filter(|pod| label(pod, labels::REVISION) == stable);
    assert_eq!(
        of_stable.count(),
        4,
        "{:?}",
        pods.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>()
    );
    Ok(status)
}

/// The clients that were there before noticed nothing, and their pods were not even cordoned.
fn assert_nobody_noticed(report: &Report, stories: &Stories, stable: &str) -> Result<(), Failure> {
    nothing_was_cut(report, stories)?;
    assert_eq!(report.reconnects.total, 0, "{:?}", report.closes.by_code);
    let old: Vec<_> = stories
        .values()
        .filter(|story| story.revision == stable)
        .collect();
    assert_eq!(old.len(), 4, "{stories:?}");
    for story in old {
        assert!(
            story.cordoned_at.is_none() && story.deleted_at.is_none(),
            "{story:?}"
        );
    }
    Ok(())
}

async fn stable_revision(fleet: &Fleet) -> Result<String, Failure> {
    Ok(fleet
        .status()
        .await?
        .current_revision
        .ok_or("no revision runs everywhere")?)
}

/// Newcomers beside the 400: a fifth of their handshakes goes to the canary.
const NEWCOMERS: u32 = 300;

#[tokio::test]
async fn revisions_that_never_come_up_refuse_handshakes_or_are_killed_are_rolled_back_and_close_no_old_socket()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let mut spec = four_pods(90);
    let measure = |name: &str, builtin: &str| json!({"name": name, "builtin": builtin, "intervalSeconds": 5, "failureLimit": 1});
    let analyses = [
        measure("handshake-errors", "handshakeErrorRatio"),
        measure("restarts", "restarts"),
    ];
    merge(&mut spec, json!({"rollout": {"analysis": analyses}}));
    let (fleet, load, witness) = settled(&cluster, "rollback", spec).await?;
    let stable = stable_revision(&fleet).await?;

    println!("{}", never_ready(&fleet, &cluster, &stable).await?);
    println!("{}", refuses(&fleet, &stable).await?);
    println!("{}", killed(&fleet, &stable).await?);

    let report = load.stop().await;
    assert_nobody_noticed(&report, &witness.stories(), &stable)?;
    println!(
        "three bad revisions: {} of {SOCKETS} old sockets closed",
        report.reconnects.total
    );
    Ok(())
}

/// An image that nobody has.
async fn never_ready(fleet: &Fleet, cluster: &Cluster, stable: &str) -> Result<String, Failure> {
    let image = cluster.image("no-such-image:dev");
    fleet
        .patch(json!({"spec": {"gateway": {"image": image}}}))
        .await?;
    let status = until_rolled_back(fleet, stable).await?;
    let (_, message) = condition(&status, "RolloutHealthy").ok_or("no condition")?;
    assert!(message.contains("no-such-image"), "{message}");
    Ok(format!("never Ready: rolled back with {message:?}"))
}

/// Ready, and full with the first client.
async fn refuses(fleet: &Fleet, stable: &str) -> Result<String, Failure> {
    let full = json!({"containers": [{"name": "gateway", "env": [{"name": "WSFLEET_MAX_CONNECTIONS", "value": "1"}]}]});
    fleet
        .patch(json!({"spec": {"gateway": {"image": null}, "template": {"spec": full}}}))
        .await?;
    until_baking(fleet).await?;
    let began = std::time::Instant::now();
    let newcomers = Load::start(newcomers(fleet, NEWCOMERS).await?)?;
    let status = until_rolled_back(fleet, stable).await?;
    let took = began.elapsed();
    let (_, message) = condition(&status, "RolloutHealthy").ok_or("no condition")?;
    assert!(message.contains("handshake-errors"), "{message}");
    fleet.until_joined(&newcomers, CHANGE).await?;
    let later = newcomers.stop().await;
    Ok(format!(
        "refused handshakes: rolled back after {took:?} with {message:?}; all of {} newcomers let in",
        later.sockets.joined
    ))
}

/// Its gateway is killed, as the kernel does when memory runs out.
async fn killed(fleet: &Fleet, stable: &str) -> Result<String, Failure> {
    let template = json!({"spec": null, "metadata": {"annotations": {"example.com/build": "2"}}});
    fleet.patch(json!({"spec": {"template": template}})).await?;
    until_baking(fleet).await?;
    let pods = fleet.pods().await?;
    let canary = pods.iter().find(|pod| label(pod, labels::REVISION) != stable);
    fleet.kill_process_of(canary.ok_or("no canary")?)?;
    let status = until_rolled_back(fleet, stable).await?;
    let (_, message) = condition(&status, "RolloutHealthy").ok_or("no condition")?;
    assert!(message.contains("restarts"), "{message}");
    Ok(format!("killed in its trial: rolled back with {message:?}"))
}

#[tokio::test]
async fn a_canary_takes_new_sockets_only_and_is_kept_by_another_leader() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let mut spec = four_pods(25);
    merge(&mut spec, json!({"rollout": {"progressDeadlineSeconds": 60}}));
    let (fleet, load, witness) = settled(&cluster, "canary", spec).await?;
    let stable = stable_revision(&fleet).await?;

    fleet.revise(2).await?;
    until_baking(&fleet).await?;
    let newcomers = fleet.start_load(newcomers(&fleet, 100).await?).await?;
    for pod in fleet.operator_pods().await? {
        fleet.kill_process_of(&pod)?;
    }
    fleet
        .until_status("another leader goes on to the waves", CHANGE, |status| {
            status
                .rollout
                .as_ref()
                .is_some_and(|rollout| rollout.phase == RolloutPhase::Progressing)
        })
        .await?;
    let stories = witness.stories();
    let canary: Vec<_> = stories
        .values()
        .filter(|story| story.revision != stable)
        .collect();
    println!(
        "canary: {} of 100 new sockets, beside 4 old gateways",
        canary.iter().map(|story| story.most_connections).sum::<u64>()
    );
    assert!(
        canary.iter().any(|story| story.most_connections > 0),
        "{stories:?}"
    );
    fleet.until_ready(CHANGE).await?;
    for report in [newcomers.stop().await, load.stop().await] {
        nothing_was_cut(&report, &witness.stories())?;
    }
    Ok(())
}
