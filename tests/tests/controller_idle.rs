//! Nothing is written while nothing happens, counted by the API server itself.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use wsfleet_crds::condition::ConditionType;
use wsfleet_tests::cluster::tally;
use wsfleet_tests::fleet::{ANONYMOUS, Fleet, SOON, manifest};
use wsfleet_tests::operator::Operator;

/// How long silence is listened to.
const SILENCE: Duration = Duration::from_secs(20);
/// For how long nothing must have been written before that counts as settled; status numbers follow within 5 s.
const SETTLED: Duration = Duration::from_secs(8);

#[tokio::test]
async fn three_resources_at_rest_cost_no_write_but_the_leases_renewal() -> Result<()> {
    let fleet = Fleet::new("idle").await?;
    let operator = Operator::start(&fleet.namespace, "operator").await?;
    operator.until_leading(SOON).await?;
    for name in ["one", "two", "three"] {
        fleet.apply(&manifest(name, 2, ANONYMOUS)).await?;
    }
    for name in ["one", "two", "three"] {
        fleet.until_pods(name, 2).await?;
        fleet
            .until_condition(name, ConditionType::TemplateValid, "True")
            .await?;
    }
    let log = fleet.namespace.cluster().audit_log()?;
    let ours = |since| -> Result<Vec<_>> {
        let mut writes = log.writes_since(since)?;
        writes.retain(|write| {
            write.namespace == fleet.namespace.name() && write.user_agent.starts_with("wsfleet-operator")
        });
        Ok(writes)
    };
    let start = Timestamp::now();
    ensure!(
        !ours(start - Duration::from_mins(2))?.is_empty(),
        "the operator's writes are not found in the audit log"
    );
    fleet
        .namespace
        .until(
            "the operator has nothing more to write",
            Duration::from_mins(1),
            async || {
                let mut recent = ours(Timestamp::now() - SETTLED)?;
                recent.retain(|write| write.resource != "leases");
                ensure!(
                    recent.is_empty() && start + SETTLED <= Timestamp::now(),
                    "{recent:?}"
                );
                anyhow::Ok(())
            },
        )
        .await?;

    let (since, begin) = (Timestamp::now(), Instant::now());
    let passes = operator.metric("wsc_reconcile_seconds_count", &[]).await?;
    // what is awaited here is that nothing happens
    tokio::time::sleep(SILENCE).await;
    let counts = tally(&ours(since)?, |write| {
        format!("{} {}", write.verb, write.resource)
    });
    let renewals = counts.get("update leases").copied().unwrap_or(0);
    ensure!(counts.keys().all(|key| key == "update leases"), "{counts:?}");
    // one each five seconds; a machine that pauses makes it fewer
    let most = begin.elapsed().as_secs() / 5 + 1;
    ensure!(
        (1..=most).contains(&(renewals as u64)),
        "{renewals} renewals in {SILENCE:?}"
    );
    let passes = operator.metric("wsc_reconcile_seconds_count", &[]).await? - passes;
    println!("{passes} passes over 3 resources in {SILENCE:?}, {renewals} renewals, no other write");
    Ok(())
}
