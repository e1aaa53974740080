//! Rebalancing on the real cluster: new gateways get their share of the sockets, and nobody is cut or moved twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::json;
use wsfleet_load::Reconnect;
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::scenario::{Failure, Fleet};
use wsfleet_tests::verdict::nothing_was_cut;
use wsfleet_tests::witness::Witness;

const CLIENTS: u32 = 300;
/// What each of three gateways holds when all hold the same.
const SHARE: u64 = 100;
/// Closes per second.
const PER_SECOND: u64 = 15;
/// The most that comes to a gateway of two between two of its numbers, which are five seconds apart: one that had nearly its
/// share goes so far above it, and gives that away again.
const UNSEEN: u64 = PER_SECOND * 5 / 2 + 1;
/// A minute of unevenness comes before anything is done.
const EVEN: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_third_gateway_gets_its_share_of_the_sockets_of_two_and_nobody_is_cut() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let spec = json!({
        "replicas": 2,
        "gateway": {"capacity": {"maxConnections": 1000}},
        "drain": {"maxDisconnectPermille": 50, "passiveSeconds": {"rebalance": 5}},
        "rebalance": {"maxSkew": 20, "stopSkew": 5, "minExcess": 5, "maxDisconnectPermille": 50},
    });
    let fleet = Fleet::start(&cluster, "rebalance", spec).await?;
    let mut config = fleet.load(CLIENTS).await?;
    config.reconnect = Reconnect::BreakBeforeMake;
    let load = fleet.start_load(config).await?;
    let names = |pods: Vec<k8s_openapi::api::core::v1::Pod>| -> Vec<_> {
        pods.iter().map(|pod| (pod.name_any(), pod.uid())).collect()
    };
    let before = names(fleet.pods().await?);
    let witness = Witness::start(&fleet);
    // the Service may have had the first gateway before the second: they need not begin alike
    let held = load.snapshot().sockets.by_server;
    let excess: u64 = held.values().map(|held| held.saturating_sub(SHARE)).sum();

    fleet.patch(json!({"spec": {"replicas": 3}})).await?;
    fleet
        .until_status("two gateways give sockets away", EVEN, |status| {
            status.cordoned_replicas == 2 && status.draining_replicas == 0
        })
        .await?;
    let even = fleet
        .until_status(
            "three gateways accept and hold as many sockets each",
            EVEN,
            |status| {
                let seen = status.connections.unwrap_or_default();
                let all = u64::from(CLIENTS);
                status.accepting_replicas == 3
                    && seen.total == all
                    && seen.max * 3 * 100 <= all * 110 + 3 * 500
            },
        )
        .await?;
    fleet.until_joined(&load, EVEN).await?;
    let report = load.stop().await;

    nothing_was_cut(&report, &witness.stories())?;
    let after = names(fleet.pods().await?);
    assert!(
        before.iter().all(|pod| after.contains(pod)) && after.len() == 3,
        "{before:?} {after:?}"
    );
    let moved = report.closed_with(4200);
    assert_eq!(
        report.reconnects.total, moved,
        "nobody is moved by anything else: {:?}",
        report.closes.by_code
    );
    // it is even from 5 % above the share on
    assert!(
        (excess * 6 / 10..=excess + UNSEEN).contains(&moved),
        "{moved} moved of {excess} too many, at first {held:?}: {:?}; {:?}; {:?}",
        even.connections,
        report.closes.per_second,
        report.sockets.by_server
    );
    println!(
        "scale out from 2 to 3: {moved} of {CLIENTS} clients moved with 4200, {excess} were too many, 0 cut; {:?}",
        even.connections
    );
    Ok(())
}
