//! Leader election of real operator processes by a real Lease.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::DeleteParams;
use wsfleet_tests::fleet::{ANONYMOUS, Fleet, SOON, manifest};
use wsfleet_tests::operator::{LEASE, Operator};

async fn lease(fleet: &Fleet) -> Result<LeaseSpec> {
    let lease = fleet.namespace.api::<Lease>().get(LEASE).await?;
    lease.spec.context("a Lease without spec")
}

/// Waits until `identity` holds the Lease, and returns its epoch.
async fn until_held_by(fleet: &Fleet, identity: &str, within: Duration) -> Result<i32> {
    let what = format!("{identity} holds the Lease");
    let held = fleet.namespace.until(&what, within, async || {
        let spec = lease(fleet).await?;
        ensure!(spec.holder_identity.as_deref() == Some(identity), "{spec:?}");
        anyhow::Ok(spec.lease_transitions.unwrap_or(0))
    });
    Ok(held.await?)
}

#[tokio::test]
async fn a_killed_leader_is_followed_at_a_higher_epoch_by_one_that_wrote_nothing() -> Result<()> {
    let fleet = Fleet::new("leader").await?;
    let first = Operator::start(&fleet.namespace, "first").await?;
    first.until_leading(SOON).await?;
    let second = Operator::start(&fleet.namespace, "second").await?;
    fleet.apply(&manifest("chat", 2, ANONYMOUS)).await?;
    fleet.until_pods("chat", 2).await?;
    second.get("/readyz").await?;
    ensure!(!second.leads().await?, "two leaders");
    for verb in ["create", "update", "patch", "delete"] {
        let label = format!("verb=\"{verb}\"");
        let writes = second.metric("wsc_api_requests_total", &[&label]).await?;
        ensure!(writes == 0.0, "the follower sent {writes} {verb} requests");
    }

    let epoch = until_held_by(&fleet, "first", SOON).await?;
    first.kill()?;
    let killed = Instant::now();
    let left = lease(&fleet).await?;
    let next = until_held_by(&fleet, "second", Duration::from_mins(2)).await?;
    println!("followed after {:?}", killed.elapsed());
    // what bounds it on a machine that does not pause: it is taken a try after it has run out
    ensure!(
        left.lease_duration_seconds.is_some_and(|seconds| seconds <= 15),
        "{left:?}"
    );
    ensure!(next > epoch, "epoch {epoch}, then {next}");
    second.until_leading(SOON).await?;
    // the new leader acts
    fleet.apply(&manifest("chat", 3, ANONYMOUS)).await?;
    fleet.until_pods("chat", 3).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_at_once() -> Result<()> {
    let fleet = Fleet::new("leader").await?;
    let first = Operator::start(&fleet.namespace, "first").await?;
    first.until_leading(SOON).await?;
    let second = Operator::start(&fleet.namespace, "second").await?;
    fleet
        .namespace
        .until("the second is ready", SOON, async || second.get("/readyz").await)
        .await?;
    let epoch = until_held_by(&fleet, "first", SOON).await?;
    let status = first.terminate().await?;
    ensure!(status.success(), "{status}");
    // it has let go, so that nobody waits until the Lease runs out
    let left = lease(&fleet).await?;
    ensure!(left.holder_identity.as_deref() != Some("first"), "{left:?}");
    let next = until_held_by(&fleet, "second", SOON).await?;
    ensure!(next > epoch, "epoch {epoch}, then {next}");
    Ok(())
}

#[tokio::test]
async fn a_deleted_lease_is_made_again_and_there_is_still_one_leader() -> Result<()> {
    let fleet = Fleet::new("leader").await?;
    let first = Operator::start(&fleet.namespace, "first").await?;
    first.until_leading(SOON).await?;
    let second = Operator::start(&fleet.namespace, "second").await?;
    fleet
        .namespace
        .until("the second is ready", SOON, async || second.get("/readyz").await)
        .await?;
    fleet
        .namespace
        .api::<Lease>()
        .delete(LEASE, &DeleteParams::default())
        .await?;
    fleet
        .namespace
        .until("one leader, who holds the Lease", SOON, async || {
            let holder = lease(&fleet).await?.holder_identity;
            let leads = (first.leads().await?, second.leads().await?);
            let fits = matches!(
                (holder.as_deref(), leads),
                (Some("first"), (true, false)) | (Some("second"), (false, true))
            );
            ensure!(fits, "{holder:?} {leads:?}");
            anyhow::Ok(())
        })
        .await?;
    Ok(())
}
