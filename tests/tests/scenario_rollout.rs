//! Rollouts of a fleet under load on the real cluster: nothing is cut, nothing is closed faster than the budget allows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::time::Duration;

use serde_json::json;
use wsfleet_load::{Load, Reconnect};
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::scenario::{Failure, Fleet};
use wsfleet_tests::verdict::{budget_was_kept, most_of_mean, nothing_was_cut, nothing_was_missed};
use wsfleet_tests::witness::{Stories, Witness};

/// Sockets of the fleet of six.
const SOCKETS: u32 = 6_000;
/// Its `drain.maxDisconnectPermille`: 2.5 % of the fleet's sockets per second, 150 of 6,000.
const PERMILLE: u32 = 25;
/// Sockets of the fleet of four.
const FEW: u32 = 2_000;
const CHANGE: Duration = Duration::from_mins(5);

fn pods(replicas: u32) -> serde_json::Value {
    json!({
        "replicas": replicas,
        "gateway": {"capacity": {"maxConnections": 2000}},
        "rollout": {"maxSurge": "50%"},
        "drain": {"maxDisconnectPermille": PERMILLE, "maxConcurrent": "100%"},
    })
}

/// Rolls a fleet of so many pods to a new template and waits until the old revision is gone and all clients are back. Returns
/// the old revision.
async fn roll(fleet: &Fleet, load: &Load, size: u32) -> Result<Option<String>, Failure> {
    let old = fleet.revise(2).await?;
    fleet.until_revised(old.as_deref(), size, CHANGE).await?;
    fleet.until_ready(CHANGE).await?;
    fleet.until_joined(load, CHANGE).await?;
    Ok(old)
}

/// Every pod of the revision was cordoned, drained, and only then deleted.
fn assert_all_were_drained(stories: &Stories, old: Option<&str>, size: usize) {
    let replaced: Vec<_> = stories
        .values()
        .filter(|story| Some(&*story.revision) == old)
        .collect();
    assert_eq!(replaced.len(), size, "{stories:?}");
    for story in replaced {
        assert!(story.gone, "{story:?}");
        assert!(
            story.drained_at.is_some() && story.cordoned_at.is_some(),
            "{story:?}"
        );
    }
}

#[tokio::test]
async fn a_rollout_of_six_pods_with_6000_sockets_moves_each_once_evenly_within_the_budget_and_loses_nothing()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "rollout", pods(6)).await?;
    let mut config = fleet.load(SOCKETS).await?;
    // clients that know nothing of server_shutdown but its delay: every move is a close by a gateway
    config.reconnect = Reconnect::BreakBeforeMake;
    config.rate = 600.0;
    config.publish_rate = 100.0;
    let load = fleet.start_load(config).await?;
    let witness = Witness::start(&fleet);

    let old = roll(&fleet, &load, 6).await?;
    let report = load.stop().await;
    let stories = witness.stories();

    let (moves, uneven) = (report.reconnects.mean_per_client, most_of_mean(&report, 6));
    println!(
        "rollout of 6 pods, {SOCKETS} sockets: {} closes with 1012, {} cut, {} a second at most, {moves:.3} reconnects per \
         client, {uneven:.3} max/mean sockets per pod afterwards, {} messages lost, {} missed",
        report.closed_with(1012),
        report.verdict.cut,
        report.closes.busiest_second,
        report.verdict.counts.lost,
        report.reconnects.offline.missed,
    );
    nothing_was_cut(&report, &stories)?;
    nothing_was_missed(&report)?;
    budget_was_kept(&report, u64::from(SOCKETS * PERMILLE / 1000))?;
    assert_all_were_drained(&stories, old.as_deref(), 6);
    assert!(
        witness.most_pods() <= 9,
        "{} pods at once, 6 and a surge of 3 are allowed",
        witness.most_pods()
    );
    assert!(
        report.closed_with(1012) >= u64::from(SOCKETS),
        "every client had to move: {:?}",
        report.closes.by_code
    );
    assert!(moves <= 1.05, "{:?}\n{stories:?}", report.reconnects);
    assert!(uneven <= 1.15, "{:?}\n{stories:?}", report.sockets.by_server);
    Ok(())
}

#[tokio::test]
async fn clients_that_make_before_they_break_are_never_offline_in_a_rollout() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "handover", pods(4)).await?;
    let load = fleet.start_load(fleet.load(FEW).await?).await?;
    let witness = Witness::start(&fleet);

    roll(&fleet, &load, 4).await?;
    let report = load.stop().await;

    nothing_was_cut(&report, &witness.stories())?;
    assert!(
        report.reconnects.mean_per_client <= 1.05,
        "{:?}",
        report.reconnects
    );
    assert_eq!(
        report.reconnects.offline.missed, 0,
        "messages that came on neither socket: {:?}",
        report.reconnects
    );
    println!(
        "make before break: {:.2} reconnects per client, {} missed, {} overlapped",
        report.reconnects.mean_per_client,
        report.reconnects.offline.missed,
        report.reconnects.offline.overlapped
    );
    Ok(())
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_closes_no_socket() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let mut spec = pods(2);
    wsfleet_tests::scenario::merge(&mut spec, json!({"rollout": {"progressDeadlineSeconds": 10}}));
    let fleet = Fleet::start(&cluster, "badimage", spec).await?;
    let mut config = fleet.load(200).await?;
    config.rate = 100.0;
    let load = fleet.start_load(config).await?;

    fleet
        .patch(json!({"spec": {"gateway": {"image": cluster.image("no-such-image:dev")}}}))
        .await?;
    fleet
        .until_status(
            "Progressing is False and says why",
            Duration::from_mins(2),
            |status| {
                status.conditions.iter().any(|condition| {
                    condition.type_ == "Progressing"
                        && condition.status == "False"
                        && condition.message.contains("no-such-image")
                })
            },
        )
        .await?;
    let report = load.stop().await;
    assert_eq!(report.reconnects.total, 0, "{:?}", report.closes.by_code);
    assert!(report.verdict.ok, "{:?}", report.verdict);
    Ok(())
}
