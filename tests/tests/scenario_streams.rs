//! Nothing is lost, in pods on the real cluster: while every gateway is replaced and one is killed, and while Sentinels
//! let another Redis take over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};
use wsfleet_load::{Load, LoadConfig, RoomLayout};
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::scenario::{Failure, Fleet};
use wsfleet_tests::verdict::nothing_was_missed;

const CLIENTS: u32 = 1_000;
const CHANGE: Duration = Duration::from_mins(3);

/// Three gateways that are replaced within a minute.
fn gateways(broker: &str) -> Value {
    json!({
        "replicas": 3,
        "broker": {"redis": {"url": broker}},
        "gateway": {"capacity": {"maxConnections": 1000}},
        "rollout": {"maxSurge": "50%"},
        "drain": {
            "timeoutSeconds": 20, "terminationMarginSeconds": 10,
            "maxDisconnectPermille": 50, "maxConcurrent": "100%",
        },
    })
}

/// So many clients in a hundred rooms, and so many messages a second.
async fn crowd(fleet: &Fleet, clients: u32, rate: f64) -> Result<Load, Failure> {
    let config = LoadConfig {
        rooms: RoomLayout::Count(100),
        publish_rate: rate,
        // longer than a busy machine pauses
        grace: Duration::from_secs(20),
        ..fleet.load(clients).await?
    };
    fleet.start_load(config).await
}

/// All have heard much since they are all in their rooms.
async fn chatting(fleet: &Fleet, load: &Load) -> Result<(), Failure> {
    fleet.until_joined(load, CHANGE).await?;
    let before = load.snapshot();
    let heard = || async {
        let now = load.snapshot();
        let (acked, total) = (now.publishes.acked, now.deliveries.total);
        let enough = acked > before.publishes.acked + 1_000 && total > before.deliveries.total + 5_000;
        enough
            .then_some(())
            .ok_or_else(|| format!("{acked} messages acknowledged, {total} deliveries"))
    };
    fleet.namespace.until("they chat", CHANGE, heard).await?;
    Ok(())
}

#[tokio::test]
async fn every_pod_is_replaced_and_one_is_killed_and_nothing_is_missing_out_of_order_or_twice()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "streams", gateways("redis://redis:6379")).await?;
    let load = crowd(&fleet, CLIENTS, 500.0).await?;
    chatting(&fleet, &load).await?;

    let killed = fleet.pods().await?.remove(0);
    fleet.kill_process_of(&killed)?;
    chatting(&fleet, &load).await?;
    fleet.until_ready(CHANGE).await?;

    let before = fleet.revise(2).await?;
    fleet.until_revised(before.as_deref(), 3, CHANGE).await?;
    chatting(&fleet, &load).await?;
    let report = load.stop().await;
    println!("{report}");
    nothing_was_missed(&report)
}

const SENTINELS: &str = "redis-sentinel://redis-0.redis:26379,redis-1.redis:26379,redis-2.redis:26379/chat";

/// The pods of Redis, by their names.
async fn redis_pods(fleet: &Fleet) -> Result<Vec<Pod>, Failure> {
    let of_redis = ListParams::default().labels("app.kubernetes.io/name=redis");
    let mut pods = fleet.namespace.api::<Pod>().list(&of_redis).await?.items;
    pods.sort_by_key(Pod::name_any);
    Ok(pods)
}

/// Whether a pod's containers are all ready.
fn is_ready(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.is_some_and(|statuses| statuses.iter().all(|status| status.ready))
}

/// What a pod's Sentinel believes to be the primary.
async fn primary(fleet: &Fleet, of: &str) -> Result<String, Failure> {
    let namespace = fleet.namespace.name();
    let ask = "redis-cli -p 26379 --raw sentinel get-master-addr-by-name chat";
    let mut arguments = vec!["exec", "-n", namespace, of, "-c", "sentinel", "--"];
    arguments.extend(ask.split(' '));
    let answer = fleet.namespace.cluster().kubectl(&arguments).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_redis_that_stands_still_is_left_for_another_and_no_client_is_dropped() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::without_redis(&cluster, "sentinel").await?;
    fleet.apply_example("redis-sentinel.yaml").await?;
    let ready = || async {
        let pods = redis_pods(&fleet).await.map_err(|error| error.to_string())?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        (ready == 3)
            .then_some(pods)
            .ok_or_else(|| format!("{ready} of 3 pods are ready"))
    };
    let pods = fleet
        .namespace
        .until("Redis and its Sentinels are ready", CHANGE, ready)
        .await?;
    fleet.apply_spec(gateways(SENTINELS)).await?;
    fleet.until_ready(CHANGE).await?;
    let load = crowd(&fleet, 300, 100.0).await?;
    chatting(&fleet, &load).await?;

    let stopped = fleet.stop_process_of(&pods[0], "redis")?;
    let taken_over = || async {
        let primary = primary(&fleet, "redis-1")
            .await
            .map_err(|error| error.to_string())?;
        (primary != "redis-0.redis")
            .then_some(primary.clone())
            .ok_or(primary)
    };
    let new = fleet
        .namespace
        .until("the Sentinels agree on another primary", CHANGE, taken_over)
        .await?;
    chatting(&fleet, &load).await?;
    // it still believes to be the primary, until a Sentinel tells it
    drop(stopped);
    chatting(&fleet, &load).await?;
    let report = load.stop().await;

    println!("{new} took over\n{report}");
    assert_eq!(report.reconnects.total, 0, "{:?}", report.reconnects);
    let counts = report.verdict.counts;
    assert_eq!((counts.lost, counts.out_of_order), (0, 0), "{:?}", report.verdict);
    Ok(())
}
