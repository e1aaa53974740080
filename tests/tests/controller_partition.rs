//! The operator cannot reach gateways in the middle of their drains, while it reaches the API server: they close nobody once
//! their leases have run out. One that it reaches again in time goes on, one that it does not is given up and drains by itself.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::Instant;
use wsfleet_crds::labels;
use wsfleet_load::{Load, Reconnect};
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::partition::Partition;
use wsfleet_tests::scenario::{Failure, Fleet, label};
use wsfleet_tests::verdict::nothing_was_cut;
use wsfleet_tests::witness::{Stories, Story, Witness};

const CHANGE: Duration = Duration::from_mins(3);
const SOCKETS: u32 = 300;
/// Without a close for so long: there would be a dozen.
const QUIET: Duration = Duration::from_secs(4);

/// Two gateways that close three sockets a second together, so that their leases run out long before they are empty.
fn spec() -> serde_json::Value {
    json!({
        "replicas": 2,
        "rollout": {"maxSurge": "100%"},
        "drain": {
            "minDisconnectsPerSecond": 3, "settleSeconds": 0, "maxConcurrent": "100%",
            // twice as long as a lease
            "unreachableSeconds": 60, "timeoutSeconds": 100,
        },
    })
}

/// Waits until so many more sockets were closed than now.
async fn until_closed(fleet: &Fleet, load: &Load, more: u64) -> Result<(), Failure> {
    let wanted = load.snapshot().closed_with(1012) + more;
    let closed = || async {
        let closed = load.snapshot().closed_with(1012);
        (closed >= wanted)
            .then_some(())
            .ok_or_else(|| format!("{closed} of {wanted}"))
    };
    fleet
        .namespace
        .until("gateways close sockets", CHANGE, closed)
        .await?;
    Ok(())
}

/// Waits until nobody has been closed for a while.
async fn until_quiet(fleet: &Fleet, load: &Load) -> Result<u64, Failure> {
    let mut last = (load.snapshot().closed_with(1012), Instant::now());
    let quiet = || {
        let closed = load.snapshot().closed_with(1012);
        if closed != last.0 {
            last = (closed, Instant::now());
        }
        let is_quiet = last.1.elapsed() >= QUIET;
        std::future::ready(
            is_quiet
                .then_some(closed)
                .ok_or_else(|| format!("{closed} closes")),
        )
    };
    Ok(fleet.namespace.until("the gateways pause", CHANGE, quiet).await?)
}

/// Waits until the story of a pod is so.
async fn until_story(
    fleet: &Fleet,
    witness: &Witness,
    pod: &Pod,
    what: &str,
    good: impl Fn(&Story) -> bool,
) -> Result<(), Failure> {
    let (name, good) = (pod.name_any(), &good);
    let told = || {
        let story = witness.stories().remove(&name).unwrap_or_default();
        std::future::ready(good(&story).then_some(()).ok_or_else(|| format!("{story:?}")))
    };
    fleet
        .namespace
        .until(&format!("{name} {what}"), CHANGE, told)
        .await?;
    Ok(())
}

/// Whether an event says that the pod was given up.
async fn was_given_up(fleet: &Fleet, pod: &Pod) -> Result<bool, Failure> {
    let events = fleet.namespace.api::<Event>();
    let words = format!("{} could not be told to drain for", pod.name_any());
    let events = events.list(&ListParams::default()).await?;
    let notes = events.items.into_iter().filter_map(|event| event.note);
    Ok(notes.into_iter().any(|note| note.starts_with(&words)))
}

#[tokio::test]
async fn gateways_cut_off_from_the_operator_pause_and_go_on_with_it_or_after_a_time_without_it()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "partition", spec()).await?;
    let mut config = fleet.load(SOCKETS).await?;
    config.reconnect = Reconnect::BreakBeforeMake;
    let load = fleet.start_load(config).await?;
    let witness = Witness::start(&fleet);
    let old = fleet.revise(2).await?.unwrap_or_default();
    fleet
        .until_status("both are being drained", CHANGE, |status| {
            status.draining_replicas == 2
        })
        .await?;
    until_closed(&fleet, &load, 6).await?;

    let mut pods = fleet.pods().await?;
    pods.retain(|pod| label(pod, labels::REVISION) == old);
    let [lost, found] = &pods[..] else {
        return Err(format!("{} pods are drained", pods.len()).into());
    };
    let mut partitions = Vec::new();
    for operator in fleet.operator_pods().await? {
        partitions.push(Partition::between(&operator, &[lost, found]).await?);
    }
    let paused = until_quiet(&fleet, &load).await?;
    let stories = witness.stories();
    for pod in [lost, found] {
        let story = &stories[&pod.name_any()];
        let holds = story.connections > Some(0) && story.deleted_at.is_none();
        assert!(holds, "nobody is left who could have been closed: {story:?}");
    }

    for partition in &partitions {
        partition.heal(found).await?;
    }
    fleet
        .patch(json!({"spec": {"drain": {"minDisconnectsPerSecond": 60}}}))
        .await?;
    until_story(&fleet, &witness, found, "is drained and gone", |story| {
        story.drained_at.is_some() && story.gone
    })
    .await?;
    until_story(&fleet, &witness, lost, "is deleted", |story| {
        story.deleted_at.is_some()
    })
    .await?;
    assert!(was_given_up(&fleet, lost).await? && !was_given_up(&fleet, found).await?);
    let held = witness.stories()[&lost.name_any()]
        .connections
        .unwrap_or_default();
    until_closed(&fleet, &load, 5).await?;
    let report = load.stop().await;

    println!(
        "{paused} of {SOCKETS} sockets closed until the leases had run out; the gateway that was not reached again closes its \
         last {held} by itself: closes {:?}",
        report.closes.by_code
    );
    assert!(held > 0, "{:?}", witness.stories());
    let mut others: Stories = witness.stories();
    others.remove(&lost.name_any());
    nothing_was_cut(&report, &others)
}
