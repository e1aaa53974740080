//! How long it takes until gateways find that a link to Redis is of no use, for each way in which that comes about, and until they
//! rely on Redis again. Nobody is sent away, and nothing that was acknowledged is missing without a word.
//!
//! `make found` writes the times down in docs/endurance.md.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;
use wsfleet_tests::chat::{Chat, nothing_was_silent};
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::sentinel::{Watched, replica_of, sentinel, url};

/// Little, so that nothing waits for anything but the links.
const RATE: f64 = 100.0;

/// Awaits that all gateways have found it, and that they rely on Redis again; gives the row of the table in docs/endurance.md.
async fn found(chat: &Chat, kind: &str) -> Result<String> {
    let begun = Instant::now();
    let found = chat.relies(false).await?;
    chat.relies(true).await?;
    let seconds = |time: Duration| time.as_secs_f64();
    Ok(format!(
        "row: | {kind} | {:.1} s | {:.1} s |",
        seconds(found),
        seconds(begun.elapsed())
    ))
}

async fn ends_well(chat: Chat) -> Result<()> {
    chat.flows().await?;
    let report = chat.end().await?;
    ensure!(report.reconnects.total == 0, "{report}");
    nothing_was_silent(&report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_carry_nothing_any_more_are_found() -> Result<()> {
    let redis = RedisServer::start().await?;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await?;
    let chat = Chat::at_rate(RATE, &format!("redis://{}", proxy.address()), &[]).await?;
    proxy.swallow();
    println!(
        "{}",
        found(&chat, "the links carry nothing any more, new ones do").await?
    );
    ends_well(chat).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_to_a_watched_master_that_carry_nothing_any_more_are_found() -> Result<()> {
    let redis = RedisServer::start().await?;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await?;
    // the Sentinel names the proxy, so that the links go through it
    let sentinel = sentinel("fleet", proxy.address().port(), 1).await?;
    let chat = Chat::at_rate(RATE, &url(&[&sentinel]), &[]).await?;
    proxy.swallow();
    println!("{}", found(&chat, "the same, with Sentinels").await?);
    ends_well(chat).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_demoted_by_hand_is_found_although_it_answers() -> Result<()> {
    let watched = Watched::start(1).await?;
    let [old, new] = &watched.servers;
    let chat = Chat::at_rate(RATE, &watched.url(), &[]).await?;
    watched.in_step().await?;
    replica_of(new, None).await?;
    replica_of(old, Some(new.port())).await?;
    watched.name(new).await?;
    println!(
        "{}",
        found(&chat, "the master is demoted by hand, and goes on answering").await?
    );
    ends_well(chat).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_is_found() -> Result<()> {
    let mut watched = Watched::start(3).await?;
    let chat = Chat::at_rate(RATE, &watched.url(), &[]).await?;
    watched.servers[0].kill()?;
    println!(
        "{}",
        found(&chat, "the master is killed (SIGKILL), Sentinels fail over").await?
    );
    ends_well(chat).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_is_found() -> Result<()> {
    let watched = Watched::start(3).await?;
    let chat = Chat::at_rate(RATE, &watched.url(), &[]).await?;
    watched.servers[0].freeze()?;
    println!(
        "{}",
        found(&chat, "the master hangs (SIGSTOP), Sentinels fail over").await?
    );
    watched.servers[0].thaw()?;
    ends_well(chat).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_replaced_by_order_is_found_before_it_knows_itself() -> Result<()> {
    let watched = Watched::start(3).await?;
    let chat = Chat::at_rate(RATE, &watched.url(), &[]).await?;
    watched.in_step().await?;
    watched.fail_over().await?;
    println!("{}", found(&chat, "the Sentinels are told to fail over").await?);
    ends_well(chat).await
}
