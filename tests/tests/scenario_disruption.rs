//! What others do to a fleet on the real cluster: pods deleted, nodes drained, processes killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use wsfleet_load::{Load, Reconnect, Report};
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::scenario::{Failure, Fleet};
use wsfleet_tests::verdict::{every_close_had_a_code, nothing_was_cut, nothing_was_lost};
use wsfleet_tests::witness::{Stories, Witness};

const CHANGE: Duration = Duration::from_mins(2);

/// So many gateways with times that let a pod end within half a minute.
fn gateways(replicas: u32) -> Value {
    json!({
        "replicas": replicas,
        "gateway": {"capacity": {"maxConnections": 1000}},
        "rollout": {"maxSurge": "50%"},
        "drain": {
            "timeoutSeconds": 20, "terminationMarginSeconds": 10,
            "maxDisconnectPermille": 50, "maxConcurrent": "100%",
        },
    })
}

/// Waits until so many gateways take sockets, and nothing else is there.
async fn until_whole(fleet: &Fleet, size: usize) -> Result<Vec<Pod>, Failure> {
    let whole = || async {
        let pods = fleet.pods().await.map_err(|error| error.to_string())?;
        let status = fleet.status().await.map_err(|error| error.to_string())?;
        if pods.len() == size && status.accepting_replicas as usize == size {
            Ok(pods)
        } else {
            Err(format!("{} pods, {status:?}", pods.len()))
        }
    };
    let pods = fleet
        .namespace
        .until(&format!("{size} gateways and no others"), CHANGE, whole)
        .await?;
    fleet.until_ready(CHANGE).await?;
    Ok(pods)
}

fn node_of(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn sockets_on(report: &Report, pod: &Pod) -> u64 {
    report
        .sockets
        .by_server
        .get(&pod.name_any())
        .copied()
        .unwrap_or_default()
}

/// Clients that stay until their gateway closes: every move is a close frame that a gateway sent.
async fn staying_clients(fleet: &Fleet, connections: u32) -> Result<Load, Failure> {
    let mut config = fleet.load(connections).await?;
    config.reconnect = Reconnect::BreakBeforeMake;
    fleet.start_load(config).await
}

#[tokio::test]
async fn a_gateway_pod_that_somebody_deletes_closes_every_socket_with_a_code_and_is_replaced()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "delete", gateways(3)).await?;
    let load = staying_clients(&fleet, 300).await?;
    let pods = fleet.pods().await?;
    let held = sockets_on(&load.snapshot(), &pods[1]);
    assert!(held > 0, "{:?}", load.snapshot().sockets);

    // as a person does it: the pod's own grace period, and kubectl waits for the end
    let name = pods[1].name_any();
    cluster
        .kubectl(&["delete", "pod", &name, "-n", fleet.namespace.name()])
        .await?;
    let after = until_whole(&fleet, 3).await?;
    fleet.until_joined(&load, CHANGE).await?;
    let report = load.stop().await;

    every_close_had_a_code(&report)?;
    assert!(
        after.iter().all(|pod| pod.uid() != pods[1].uid()),
        "the deleted pod is replaced"
    );
    assert!(
        (held..=held * 12 / 10).contains(&report.reconnects.total),
        "{held} clients had to move: {:?}",
        report.reconnects
    );
    assert_eq!(
        report.closed_with(1012),
        report.reconnects.total,
        "{:?}",
        report.closes.by_code
    );
    println!(
        "deleted with {held} sockets: {} reconnects, closes {:?}",
        report.reconnects.total, report.closes.by_code
    );
    Ok(())
}

/// What came of draining a node.
struct Drained {
    report: Report,
    stories: Stories,
    /// By kubectl.
    printed: String,
}

/// Drains a node with three of a fleet's six gateways, as an administrator does, and waits until all is well again. Holds in
/// either mode: every close has a code, only what was on the node has gone, and no pod was ever in two budgets.
async fn drain_a_node(prefix: &str, mode: &str) -> Result<Drained, Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::prepare(&cluster, prefix).await?;
    let mut spec = gateways(6);
    spec["disruption"] = json!({"mode": mode});
    // only this fleet's pods are evicted: other scenarios may have gateways on the node
    let scenario = fleet.namespace.name().to_owned();
    spec["template"] = json!({"metadata": {"labels": {"scenario": scenario}}});
    fleet.apply_spec(spec).await?;
    fleet.until_ready(CHANGE).await?;
    let load = staying_clients(&fleet, 300).await?;
    let nodes = cluster.nodes().await?;
    let (leaving, staying) = (nodes[0].as_str(), nodes[1].as_str());
    let before = fleet.pods().await?;
    let on_it = before.iter().filter(|pod| node_of(pod) == leaving).count();
    assert_eq!(on_it, 3, "gateways are spread over the nodes");
    let witness = Witness::start(&fleet);

    let cordon = cluster.cordon(leaving).await?;
    let printed = cordon.drain(&format!("scenario={scenario}"), CHANGE).await?;
    let after = until_whole(&fleet, 6).await?;
    fleet.until_joined(&load, CHANGE).await?;
    drop(cordon);
    let report = load.stop().await;
    let stories = witness.stories();

    every_close_had_a_code(&report)?;
    assert_eq!(
        report.closed_with(1012),
        report.reconnects.total,
        "{:?}",
        report.closes.by_code
    );
    assert!(
        after.iter().all(|pod| node_of(pod) == staying),
        "all gateways are on {staying}"
    );
    let gone = stories.values().filter(|story| story.gone);
    assert!(gone.clone().all(|story| story.node == leaving), "{stories:?}");
    assert_eq!(gone.count(), on_it, "{stories:?}");
    assert!(stories.values().all(|story| story.budgets == 1), "{stories:?}");
    Ok(Drained {
        report,
        stories,
        printed,
    })
}

#[tokio::test]
async fn kubectl_drain_of_a_node_closes_every_socket_with_a_code_while_gateways_may_be_evicted()
-> Result<(), Failure> {
    let drained = drain_a_node("drain", "Cooperative").await?;
    println!("closes {:?}\n{}", drained.report.closes.by_code, drained.printed);
    Ok(())
}

#[tokio::test]
async fn kubectl_drain_of_a_node_waits_in_strict_mode_until_each_gateway_is_empty() -> Result<(), Failure> {
    let drained = drain_a_node("strict", "Strict").await?;
    nothing_was_cut(&drained.report, &drained.stories)?;
    for story in drained.stories.values().filter(|story| story.gone) {
        // who is evicted has a deadline at most: only an operator that found it empty writes this
        assert!(story.drained_at.is_some(), "evicted with sockets: {story:?}");
    }
    println!("closes {:?}\n{}", drained.report.closes.by_code, drained.printed);
    Ok(())
}

#[tokio::test]
async fn a_leader_killed_in_the_middle_of_a_rollout_is_succeeded_by_the_other_replica() -> Result<(), Failure>
{
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "leader", gateways(4)).await?;
    let load = fleet.start_load(fleet.load(400).await?).await?;
    let witness = Witness::start(&fleet);
    let before = fleet.term().await?;

    let old = fleet.revise(2).await?;
    fleet
        .until_status("a pod is being drained", CHANGE, |status| {
            status.draining_replicas > 0
        })
        .await?;
    let operators = fleet.operator_pods().await?;
    let leader = operators.iter().find(|pod| pod.name_any() == before.holder);
    fleet.kill_process_of(leader.ok_or("the Lease's holder is no pod of the operator")?)?;
    let next = || async {
        let now = fleet.term().await.map_err(|error| error.to_string())?;
        if now.holder != before.holder && now.epoch > before.epoch {
            Ok(now)
        } else {
            Err(format!("{now:?}"))
        }
    };
    let after = fleet
        .namespace
        .until("the other replica leads", CHANGE, next)
        .await?;
    let pods = until_whole(&fleet, 4).await?;
    fleet.until_joined(&load, CHANGE).await?;
    let report = load.stop().await;
    let stories = witness.stories();

    nothing_was_cut(&report, &stories)?;
    let status = fleet.status().await?;
    assert_ne!(status.current_revision, old);
    assert_eq!(status.current_revision, status.update_revision);
    for pod in &pods {
        assert_eq!(
            pod.labels().get("wsfleet.dev/revision"),
            status.update_revision.as_ref()
        );
    }
    assert!(
        witness.most_pods() <= 6,
        "{} pods at once, 4 and a surge of 2 are allowed",
        witness.most_pods()
    );
    println!(
        "{before:?} killed, {after:?} took over: {:.2} reconnects per client, closes {:?}",
        report.reconnects.mean_per_client, report.closes.by_code
    );
    Ok(())
}

#[tokio::test]
async fn a_gateway_process_killed_by_the_kernel_cuts_only_its_own_sockets_and_all_come_back()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "sigkill", gateways(3)).await?;
    let load = fleet.start_load(fleet.load(300).await?).await?;
    let victim = fleet.pods().await?.remove(0);
    let held = sockets_on(&load.snapshot(), &victim);
    assert!(held > 0, "{:?}", load.snapshot().sockets);

    fleet.kill_process_of(&victim)?;
    let cut = || async {
        let cut = load.snapshot().verdict.cut;
        (cut == held)
            .then_some(())
            .ok_or_else(|| format!("{cut} of {held} sockets are cut"))
    };
    fleet.namespace.until("its sockets are cut", CHANGE, cut).await?;
    fleet.until_joined(&load, CHANGE).await?;
    let after = until_whole(&fleet, 3).await?;
    let report = load.stop().await;

    nothing_was_lost(&report)?;
    assert_eq!(report.verdict.cut, held, "only its own");
    assert_eq!(report.reconnects.total, held, "{:?}", report.reconnects);
    let same = after.iter().find(|pod| pod.uid() == victim.uid());
    println!(
        "killed with {held} sockets, all came back; the pod was {}",
        if same.is_some() { "restarted" } else { "replaced" }
    );
    Ok(())
}
