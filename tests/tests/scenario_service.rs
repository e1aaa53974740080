//! What it means for a pod to leave the Service, in each way in which kube-proxy works: its sockets stay, and new ones go
//! elsewhere.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use wsfleet_crds::labels;
use wsfleet_load::{Load, LoadConfig};
use wsfleet_tests::cluster::{Cluster, ProxyMode};
use wsfleet_tests::scenario::{Failure, Fleet, NAME};
use wsfleet_tests::verdict::every_close_had_a_code;

const CHANGE: Duration = Duration::from_mins(1);
/// Connections of which none may reach a pod: with two pods, all of them miss one by chance once in a million times.
const PROBES: u32 = 20;

/// A load at a node's own address: not each mode serves 127.0.0.1.
async fn load_of(fleet: &Fleet, connections: u32) -> Result<LoadConfig, Failure> {
    let nodes = Api::<Node>::all(fleet.namespace.cluster().client());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let mut addresses = nodes
        .into_iter()
        .filter_map(|node| node.status?.addresses)
        .flatten();
    let address = addresses
        .find(|address| address.type_ == "InternalIP")
        .ok_or("no node has an address")?;
    let port = fleet.namespace.node_port(NAME).await?.port();
    let mut config = fleet.load(connections).await?;
    config.targets = vec![format!("ws://{}:{port}/ws", address.address).parse()?];
    Ok(config)
}

/// How many of so many new connections reach the pod.
async fn reach(fleet: &Fleet, pod: &str) -> Result<u64, Failure> {
    let mut config = load_of(fleet, PROBES).await?;
    (config.room_prefix, config.user_prefix) = ("probe-".into(), "probe-".into());
    config.publish_rate = 0.0;
    let probes = fleet.start_load(config).await?;
    Ok(on(&probes.stop().await.sockets.by_server, pod))
}

fn on(by_server: &std::collections::BTreeMap<String, u64>, pod: &str) -> u64 {
    by_server.get(pod).copied().unwrap_or_default()
}

/// Says by its label whether a pod is in the Service, as the operator does; the gateway itself is not told.
async fn admit(fleet: &Fleet, pod: &str, accepting: bool) -> Result<(), Failure> {
    let patch = json!({"metadata": {"labels": {labels::ACCEPTING: accepting.to_string()}}});
    fleet
        .namespace
        .api::<Pod>()
        .patch(pod, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let settled = || async {
        let reached = reach(fleet, pod).await.map_err(|error| error.to_string())?;
        ((reached > 0) == accepting)
            .then_some(())
            .ok_or_else(|| format!("{reached} of {PROBES} connections reach {pod}"))
    };
    let what = format!("new connections reach {pod}: {accepting}");
    fleet.namespace.until(&what, CHANGE, settled).await?;
    Ok(())
}

/// A pod with sockets leaves the Service and comes back to it; how many it held throughout.
async fn leave_and_return(fleet: &Fleet, pod: &str) -> Result<u64, Failure> {
    let load: Load = fleet.start_load(load_of(fleet, 100).await?).await?;
    let held = on(&load.snapshot().sockets.by_server, pod);
    assert!(held > 0, "{:?}", load.snapshot().sockets);
    admit(fleet, pod, false).await?;
    let heard = load.snapshot().deliveries.total;
    let still = || async {
        let report = load.snapshot();
        (report.deliveries.total > heard + 1_000)
            .then_some(())
            .ok_or_else(|| format!("{:?}", report.deliveries))
    };
    fleet.namespace.until("messages go on", CHANGE, still).await?;
    assert_eq!(reach(fleet, pod).await?, 0, "none comes later either");
    let report = load.stop().await;
    every_close_had_a_code(&report)?;
    assert_eq!(on(&report.sockets.by_server, pod), held, "{:?}", report.sockets);
    assert_eq!(report.reconnects.total, 0, "{:?}", report.closes.by_code);
    admit(fleet, pod, true).await?;
    Ok(held)
}

#[tokio::test]
async fn sockets_outlive_that_their_pod_leaves_the_service_with_iptables_and_with_nftables()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "service", json!({"replicas": 2})).await?;
    // nobody else writes labels
    fleet.patch(json!({"spec": {"paused": true}})).await?;
    fleet
        .until_status("the pause is seen", CHANGE, |status| {
            status
                .conditions
                .iter()
                .any(|condition| condition.type_ == "Paused" && condition.status == "True")
        })
        .await?;
    let pod = fleet.pods().await?.first().ok_or("no gateway")?.name_any();

    let with_iptables = leave_and_return(&fleet, &pod).await?;
    let nftables = ProxyMode::nftables(&cluster).await?;
    admit(&fleet, &pod, true).await?;
    let with_nftables = leave_and_return(&fleet, &pod).await?;
    drop(nftables);
    println!("sockets that stayed: {with_iptables} with iptables, {with_nftables} with nftables");
    admit(&fleet, &pod, true).await
}
