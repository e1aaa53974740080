//! Idle fleets on the real cluster: an operator with nothing to do writes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::sleep;
use wsfleet_load::Load;
use wsfleet_tests::cluster::{Cluster, Write, tally};
use wsfleet_tests::scenario::{Failure, Fleet};

const FLEETS: [&str; 3] = ["chat-1", "chat-2", "chat-3"];
const SOCKETS: u32 = 10;
const IDLE: Duration = Duration::from_mins(10);
/// Writes by nobody for so long: what the start of the fleets led to is over.
const QUIET: Duration = Duration::from_secs(15);
/// Time between two renewals of the lease.
const RENEWAL: Duration = Duration::from_secs(5);

/// Ten minutes, or less by `WSFLEET_IDLE_SECONDS` while this test is worked on.
fn idle() -> Duration {
    std::env::var("WSFLEET_IDLE_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .map_or(IDLE, |seconds| Duration::from_secs(seconds).min(IDLE))
}

/// What this fleet's operator has written since a time, its lease aside; and how often it renewed that.
fn writes(fleet: &Fleet, since: Timestamp) -> Result<(Vec<Write>, usize), Failure> {
    let namespace = fleet.namespace.name();
    let operator = format!("system:serviceaccount:{namespace}:{namespace}");
    let log = fleet.namespace.cluster().audit_log()?;
    let (lease, others): (Vec<_>, Vec<_>) = log
        .writes_since(since)?
        .into_iter()
        .filter(|write| write.user == operator)
        .partition(|write| write.resource == "leases");
    Ok((others, lease.len()))
}

async fn started(fleet: &Fleet) -> Result<Vec<Load>, Failure> {
    for name in FLEETS {
        // other scenarios cordon nodes, which is not idleness
        let spec = json!({"replicas": 2, "disruption": {"drainTaints": []}});
        fleet.apply_named(name, spec).await?;
    }
    let mut loads = Vec::new();
    for name in FLEETS {
        fleet.until_named_ready(name, Duration::from_mins(3)).await?;
        let mut config = fleet.load_of(name, SOCKETS).await?;
        config.publish_rate = 0.0;
        loads.push(fleet.start_load(config).await?);
    }
    Ok(loads)
}

#[tokio::test]
async fn an_operator_with_three_idle_fleets_writes_nothing_but_its_lease_for_ten_minutes()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::prepare(&cluster, "idle").await?;
    let loads = started(&fleet).await?;
    let settled = || async {
        let (others, renewals) =
            writes(&fleet, Timestamp::now() - QUIET).map_err(|error| error.to_string())?;
        if others.is_empty() && renewals > 0 {
            Ok(())
        } else {
            Err(format!("{renewals} renewals and {others:?}"))
        }
    };
    fleet
        .namespace
        .until(
            "what the start led to is written",
            Duration::from_mins(2),
            settled,
        )
        .await?;

    let since = Timestamp::now();
    sleep(idle()).await;
    let (others, renewals) = writes(&fleet, since)?;
    for load in &loads {
        let report = load.stop().await;
        assert_eq!(
            report.sockets.joined,
            u64::from(SOCKETS),
            "{:?}",
            report.closes.by_code
        );
        assert_eq!(report.reconnects.total, 0, "{:?}", report.closes.by_code);
    }
    let kinds = tally(&others, |write| {
        format!("{} {} {}", write.verb, write.resource, write.name)
    });
    assert!(
        others.is_empty(),
        "{} writes in {:?}: {kinds:?}\n{}",
        others.len(),
        idle(),
        cluster.report(fleet.namespace.name()).await
    );
    let most = (idle().as_secs() / RENEWAL.as_secs() + 2) as usize;
    assert!(
        (1..=most).contains(&renewals),
        "{renewals} renewals of the lease in {:?}",
        idle()
    );
    println!(
        "3 fleets of 2 gateways idle for {:?}: 0 writes, {renewals} renewals of the lease",
        idle()
    );
    Ok(())
}
