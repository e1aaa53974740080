//! A deleted resource with `deletionPolicy: Drain` on the real cluster: it goes when its gateways hold no socket any more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::time::Duration;

use kube::api::DeleteParams;
use serde_json::json;
use wsfleet_crds::labels::DRAIN_FINALIZER;
use wsfleet_load::Reconnect;
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::scenario::{Failure, Fleet, NAME};
use wsfleet_tests::steps::condition;
use wsfleet_tests::verdict::{budget_was_kept, nothing_was_cut};
use wsfleet_tests::witness::Witness;

const CLIENTS: u32 = 200;
/// Sockets that the fleet closes in a second.
const PER_SECOND: u64 = 20;
const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_deleted_fleet_closes_its_sockets_at_its_rate_before_it_goes() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let spec = json!({
        "replicas": 2,
        "deletionPolicy": "Drain",
        "drain": {"maxDisconnectPermille": 1, "minDisconnectsPerSecond": PER_SECOND},
    });
    let fleet = Fleet::start(&cluster, "deletion", spec).await?;
    let held = fleet.resource().get(NAME).await?;
    assert_eq!(
        held.metadata.finalizers.as_deref(),
        Some(&[DRAIN_FINALIZER.to_owned()][..])
    );
    let mut config = fleet.load(CLIENTS).await?;
    config.reconnect = Reconnect::BreakBeforeMake;
    let load = fleet.start_load(config).await?;
    let witness = Witness::start(&fleet);

    fleet.resource().delete(NAME, &DeleteParams::default()).await?;
    fleet
        .until_status("the resource waits for its sockets", SOON, |status| {
            let waits =
                condition(status, "Progressing").is_some_and(|(_, text)| text.contains("deletionPolicy"));
            waits && status.draining_replicas == 2
        })
        .await?;
    let resource = fleet.resource();
    let gone = fleet.namespace.until("the resource gone", SOON, async || {
        match resource.get_opt(NAME).await.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(left) => Err(format!("{:?}", left.status)),
        }
    });
    gone.await?;
    let report = load.stop().await;
    nothing_was_cut(&report, &witness.stories())?;
    let ahead = budget_was_kept(&report, PER_SECOND)?;
    let closed = report.closed_with(1012);
    println!(
        "deleted: {closed} of {CLIENTS} sockets closed with 1012, at most {ahead} ahead of {PER_SECOND} a second, 0 cut"
    );
    assert_eq!(closed, u64::from(CLIENTS), "{:?}", report.closes.by_code);
    Ok(())
}
