//! A master of Redis dies, or is demoted, under a thousand messages a second through three gateways, while its replica lags
//! behind, so that the failover takes back what the master alone had. Clients that come back are told of it, and its amount is
//! known; with `--durability replicated` nothing is taken back that was acknowledged.

use anyhow::{Result, ensure};
use wsfleet_load::Report;
use wsfleet_tests::chat::{Chat, figures, given_out, nothing_was_silent};
use wsfleet_tests::sentinel::{Watched, follows, replica_of};

/// Every change is on disk before it is answered.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const KEEP: [&str; 2] = ["--history", "*=2000/600"];
const REPLICATED: [&str; 4] = ["--history", "*=2000/600", "--durability", "replicated"];

/// How the master goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// SIGKILL.
    Killed,
    /// The Sentinels make the replica the master; until that is done the old one accepts what will be lost.
    Demoted,
}

/// Has the Sentinels move the master, and awaits that the gateways have moved; tells how long that took.
async fn fail_over(watched: &mut Watched, chat: &Chat, end: End) -> Result<String> {
    match end {
        End::Killed => watched.servers[0].kill()?,
        End::Demoted => watched.fail_over().await?,
    }
    let found = chat.relies(false).await?;
    watched.failed_over().await?;
    if end == End::Killed {
        // it has nothing to be acknowledged with, alone
        watched.servers[0].restart().await?;
        replica_of(&watched.servers[0], Some(watched.servers[1].port())).await?;
    }
    follows(&watched.servers[0], watched.servers[1].port()).await?;
    let relied = chat.relies(true).await?;
    Ok(format!(
        "{end:?}: found by all gateways after {found:.1?}, relied on again {relied:.1?} later"
    ))
}

async fn with_the_default(end: End) -> Result<String> {
    let mut watched = Watched::start(3).await?;
    let mut chat = Chat::start(&watched.url(), &KEEP).await?;
    chat.part_is_away().await?;
    let [master, replica] = &watched.servers;
    master.lose_replica(replica).await?;
    chat.acknowledged(3_000).await?;
    let behind = given_out(master).await? - given_out(replica).await?;
    let times = fail_over(&mut watched, &chat, end).await?;
    chat.back().await?;
    chat.flows().await?;
    let report = chat.end().await?;
    ensure!(behind >= 3_000, "{behind} messages");
    nothing_was_silent(&report)?;
    ensure!(report.verdict.counts.epoch_changes > 0, "{report}");
    ensure!(
        told_of_a_new_epoch(&report) > 0 && report.reconnects.offline.taken_back > 0,
        "{report}"
    );
    let figures = figures("acknowledged by the master", &report);
    Ok(format!(
        "{times}\n{figures}\ntaken back: the master was {behind} messages ahead of its replica when it went"
    ))
}

fn told_of_a_new_epoch(report: &Report) -> u64 {
    let reasons = &report.reconnects.resumes.not_recovered;
    reasons.get("epoch_changed").copied().unwrap_or_default()
}

async fn with_a_replica(end: End) -> Result<String> {
    let mut watched = Watched::start_with(3, &DURABLE).await?;
    let mut chat = Chat::start(&watched.url(), &REPLICATED).await?;
    chat.part_is_away().await?;
    // acknowledged, and missed by those that are away
    chat.acknowledged(3_000).await?;
    let [master, replica] = &watched.servers;
    master.lose_replica(replica).await?;
    chat.refused(1_000).await?;
    let acked = chat.load.snapshot().publishes.acked;
    chat.refused(1_000).await?;
    ensure!(
        chat.load.snapshot().publishes.acked == acked,
        "acknowledged, and on no replica"
    );
    let behind = given_out(master).await? - given_out(replica).await?;
    ensure!(behind > 0, "nothing is to be taken back");
    let times = fail_over(&mut watched, &chat, end).await?;
    chat.back().await?;
    chat.flows().await?;
    let report = chat.end().await?;
    nothing_was_silent(&report)?;
    ensure!(report.verdict.counts.epoch_changes > 0, "{report}");
    let missing = report.verdict.counts.taken_back + report.reconnects.offline.taken_back;
    ensure!(
        missing == 0,
        "{missing} acknowledged messages are missing: {report}"
    );
    let figures = figures("acknowledged with a replica", &report);
    Ok(format!(
        "{times}\n{figures}\ntaken back: {behind} messages, none of them acknowledged"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_master_takes_along_is_told_by_a_new_epoch() -> Result<()> {
    println!("{}", with_the_default(End::Killed).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_demoted_master_takes_along_is_told_by_a_new_epoch() -> Result<()> {
    println!("{}", with_the_default(End::Demoted).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_takes_nothing_along_that_was_acknowledged_with_a_replica() -> Result<()> {
    println!("{}", with_a_replica(End::Killed).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_takes_nothing_along_that_was_acknowledged_with_a_replica() -> Result<()> {
    println!("{}", with_a_replica(End::Demoted).await?);
    Ok(())
}
