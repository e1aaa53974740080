//! A primary of a Redis Cluster dies under a thousand messages a second through three gateways, while its replica lags behind:
//! as in `broker_failover`, for the rooms in that primary's slots, and nothing happens to the others.

use std::time::Duration;

use anyhow::{Result, ensure};
use wsfleet_tests::chat::{Chat, figures, given_out, nothing_was_silent};
use wsfleet_tests::redis_cluster::{PRIMARIES, RedisCluster};

/// After so much silence a node counts as failed.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Every change is on disk before it is answered.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const KEEP: [&str; 2] = ["--history", "*=2000/600"];
const REPLICATED: [&str; 4] = ["--history", "*=2000/600", "--durability", "replicated"];

/// By how many messages the first primary is ahead of its replica.
async fn behind(cluster: &RedisCluster) -> Result<u64> {
    Ok(given_out(cluster.node(0)).await? - given_out(cluster.node(PRIMARIES)).await?)
}

/// Kills the first primary, awaits that its replica has taken over, and starts it again as the replica of that;
/// tells how long that took.
async fn die(cluster: &mut RedisCluster, chat: &Chat) -> Result<String> {
    cluster.node_mut(0).kill()?;
    let found = chat.relies(false).await?;
    cluster.until_owner(0, PRIMARIES).await?;
    cluster.node_mut(0).restart().await?;
    let relied = chat.relies(true).await?;
    Ok(format!(
        "found by all gateways after {found:.1?}, relied on again {relied:.1?} later"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_primary_takes_along_is_told_by_a_new_epoch() -> Result<()> {
    let mut cluster = RedisCluster::start(TIMEOUT).await?;
    let mut chat = Chat::start(&cluster.url(), &KEEP).await?;
    chat.part_is_away().await?;
    cluster.node(0).lose_replica(cluster.node(PRIMARIES)).await?;
    chat.acknowledged(4_000).await?;
    let behind = behind(&cluster).await?;
    println!("{}", die(&mut cluster, &chat).await?);
    chat.back().await?;
    chat.flows().await?;
    let report = chat.end().await?;
    println!("{}", figures("Cluster, acknowledged by the primary", &report));
    println!("taken back: the primary was {behind} messages ahead of its replica when it went");
    ensure!(behind > 500, "{behind} messages");
    nothing_was_silent(&report)?;
    ensure!(report.verdict.counts.epoch_changes > 0, "{report}");
    ensure!(report.reconnects.offline.taken_back > 0, "{report}");
    ensure!(
        report.reconnects.resumes.recovered > 0,
        "rooms of other primaries lost nothing: {report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_takes_nothing_along_that_was_acknowledged_with_a_replica() -> Result<()> {
    let mut cluster = RedisCluster::start_with(TIMEOUT, &DURABLE).await?;
    let mut chat = Chat::start(&cluster.url(), &REPLICATED).await?;
    chat.part_is_away().await?;
    // acknowledged, and missed by those that are away
    chat.acknowledged(3_000).await?;
    cluster.node(0).lose_replica(cluster.node(PRIMARIES)).await?;
    chat.refused(1_000).await?;
    let behind = behind(&cluster).await?;
    ensure!(behind > 0, "nothing is to be taken back");
    println!("{}", die(&mut cluster, &chat).await?);
    chat.back().await?;
    chat.flows().await?;
    let report = chat.end().await?;
    println!("{}", figures("Cluster, acknowledged with a replica", &report));
    println!("taken back: {behind} messages, none of them acknowledged");
    nothing_was_silent(&report)?;
    ensure!(report.verdict.counts.epoch_changes > 0, "{report}");
    let missing = report.verdict.counts.taken_back + report.reconnects.offline.taken_back;
    ensure!(
        missing == 0,
        "{missing} acknowledged messages are missing: {report}"
    );
    Ok(())
}
