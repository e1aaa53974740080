//! Changes of size on the real cluster: who goes, what grows a fleet, and what must not shrink it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::{Value, json};
use wsfleet_load::{LoadConfig, Reconnect};
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::scenario::{Failure, Fleet, merge};
use wsfleet_tests::steps::condition;
use wsfleet_tests::verdict::nothing_was_cut;
use wsfleet_tests::witness::Witness;

const CHANGE: Duration = Duration::from_mins(2);

/// 300 sockets need five of these gateways, 50 need the least, two.
fn autoscaled(metrics: &Value) -> Value {
    json!({
        "gateway": {"capacity": {"maxConnections": 100}},
        "drain": {"maxDisconnectPermille": 100, "maxConcurrent": "100%", "settleSeconds": 1},
        "autoscaling": {
            "mode": "Builtin", "minReplicas": 2, "maxReplicas": 6, "metrics": metrics,
            "targetUtilization": 70, "maxUtilization": 90, "reserve": 0,
            "scaleUp": {"maxPods": 6, "periodSeconds": 1},
            "scaleDown": {"stabilizationSeconds": 4, "maxPods": "100%", "periodSeconds": 1},
        },
    })
}

/// Waits until the autoscaler wants so many gateways, and all of them are there and no others.
async fn until_size(fleet: &Fleet, size: u32) -> Result<(), Failure> {
    fleet
        .until_status(&format!("a fleet of {size}"), CHANGE, |status| {
            [
                status.desired_replicas,
                status.replicas,
                status.accepting_replicas,
            ] == [size; 3]
        })
        .await?;
    Ok(())
}

/// A load whose first sockets are spread over the gateways by these weights; what comes back goes to the Service.
async fn uneven(fleet: &Fleet, weights: &[usize]) -> Result<LoadConfig, Failure> {
    let mut config = fleet.load(0).await?;
    for (pod, weight) in fleet.pods().await?.iter().zip(weights) {
        let target = fleet.target(pod)?;
        config.first_targets.extend(std::iter::repeat_n(target, *weight));
    }
    config.connections = (weights.iter().sum::<usize>() * 20) as u32;
    Ok(config)
}

#[tokio::test]
async fn scaling_in_from_four_to_two_takes_the_pods_with_the_fewest_sockets_after_draining_them()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let mut spec = json!({"replicas": 4, "gateway": {"capacity": {"maxConnections": 1000}}});
    merge(
        &mut spec,
        json!({"drain": {"maxDisconnectPermille": 50, "maxConcurrent": "100%"}}),
    );
    let fleet = Fleet::start(&cluster, "scalein", spec).await?;
    // neither the oldest pods nor the newest, neither the first names nor the last
    let mut config = uneven(&fleet, &[15, 3, 10, 2]).await?;
    config.reconnect = Reconnect::BreakBeforeMake;
    let load = fleet.start_load(config).await?;
    let before = fleet.pods().await?;
    let names: Vec<_> = before.iter().map(kube::ResourceExt::name_any).collect();
    let expected: BTreeMap<_, _> = names.iter().cloned().zip([300, 60, 200, 40]).collect();
    assert_eq!(load.snapshot().sockets.by_server, expected);
    fleet
        .until_status("the operator counts 600 sockets", CHANGE, |status| {
            status.connections.is_some_and(|seen| seen.total == 600)
        })
        .await?;
    let witness = Witness::start(&fleet);

    fleet.patch(json!({"spec": {"replicas": 2}})).await?;
    until_size(&fleet, 2).await?;
    fleet.until_ready(CHANGE).await?;
    fleet.until_joined(&load, CHANGE).await?;
    let report = load.stop().await;
    let stories = witness.stories();

    nothing_was_cut(&report, &stories)?;
    let left: Vec<_> = fleet.pods().await?;
    let left: Vec<_> = left.iter().map(|pod| (pod.name_any(), pod.uid())).collect();
    let most = [&before[0], &before[2]].map(|pod| (pod.name_any(), pod.uid()));
    assert_eq!(left, most, "the two with the most sockets stay: {expected:?}");
    for name in [&names[1], &names[3]] {
        let story = &stories[name];
        assert!(
            story.cordoned_at.is_some() && story.deadline.is_some() && story.drained_at.is_some(),
            "cordoned, drained and only then deleted: {story:?}"
        );
        assert_eq!(story.connections, Some(0), "{story:?}");
    }
    assert_eq!(
        (report.closed_with(1012), report.reconnects.total),
        (100, 100),
        "the 100 clients of those two move, once each: {:?}",
        report.closes.by_code
    );
    println!("scale in from 4 to 2: 100 of 600 clients moved, 0 cut, stayed: {left:?}");
    Ok(())
}

#[tokio::test]
async fn the_fleet_grows_by_asking_its_gateways_and_shrinks_when_sockets_leave() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let metrics = json!({"source": "Pods", "intervalSeconds": 2, "staleSeconds": 8});
    let fleet = Fleet::start(&cluster, "bypods", autoscaled(&metrics)).await?;
    let load = fleet.start_load(hundred(&fleet).await?).await?;
    let witness = Witness::start(&fleet);
    load.set_target(300)?;
    until_size(&fleet, 5).await?;
    fleet.until_joined(&load, CHANGE).await?;

    load.set_target(50)?;
    until_size(&fleet, 2).await?;
    fleet.until_joined(&load, CHANGE).await?;
    let report = load.stop().await;

    nothing_was_cut(&report, &witness.stories())?;
    println!(
        "grown by 300 sockets from 2 to 5 and shrunk to 2: {} reconnects, closes {:?}",
        report.reconnects.total, report.closes.by_code
    );
    Ok(())
}

/// What fits into two gateways, at a rate that lets more come while the fleet grows.
async fn hundred(fleet: &Fleet) -> Result<LoadConfig, Failure> {
    let mut config = fleet.load(100).await?;
    config.rate = 100.0;
    Ok(config)
}

#[tokio::test]
async fn the_fleet_grows_by_the_gauges_in_prometheus_and_does_not_shrink_while_that_is_down()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::prepare(&cluster, "byprom").await?;
    fleet.apply_example("prometheus.yaml").await?;
    let metrics = json!({
        "source": "Prometheus", "intervalSeconds": 2, "staleSeconds": 8,
        "prometheus": {"endpoint": "http://prometheus:9090"},
    });
    fleet.apply_spec(autoscaled(&metrics)).await?;
    fleet.namespace.until_deployed(&["prometheus"], CHANGE).await?;
    fleet.until_ready(CHANGE).await?;
    let load = fleet.start_load(hundred(&fleet).await?).await?;
    load.set_target(300)?;
    until_size(&fleet, 5).await?;
    fleet.until_joined(&load, CHANGE).await?;
    // it was Prometheus that counted, not the gateways in its stead
    fleet
        .until_status("MetricsAvailable is True", CHANGE, |status| {
            condition(status, "MetricsAvailable").is_some_and(|(is, _)| is == "True")
        })
        .await?;

    fleet.scale_deployment("prometheus", 0).await?;
    let lost = fleet
        .until_status("MetricsAvailable is False", CHANGE, |status| {
            condition(status, "MetricsAvailable").is_some_and(|(is, _)| is == "False")
        })
        .await?;
    let report = load.stop().await;
    nothing_was_cut(&report, &wsfleet_tests::witness::Stories::new())?;
    let names = pod_names(&fleet).await?;
    // three times what the sockets' absence would take to be believed
    let untouched = || async {
        let status = fleet.status().await.map_err(|error| error.to_string())?;
        let now = pod_names(&fleet).await.map_err(|error| error.to_string())?;
        let same = status.desired_replicas == 5 && status.accepting_replicas == 5 && now == names;
        same.then_some(())
            .ok_or_else(|| format!("{names:?} became {now:?}: {status:?}"))
    };
    fleet
        .throughout("no scale-in without numbers", Duration::from_secs(15), untouched)
        .await?;

    fleet.scale_deployment("prometheus", 1).await?;
    fleet
        .until_status("MetricsAvailable is True", CHANGE, |status| {
            condition(status, "MetricsAvailable").is_some_and(|(is, _)| is == "True")
        })
        .await?;
    until_size(&fleet, 2).await?;
    println!(
        "grown by Prometheus from 2 to 5; down: {:?}, no scale-in; up again: 2",
        condition(&lost, "MetricsAvailable")
    );
    Ok(())
}

async fn pod_names(fleet: &Fleet) -> Result<Vec<String>, Failure> {
    let pods = fleet.pods().await?;
    Ok(pods.iter().map(kube::ResourceExt::name_any).collect())
}
