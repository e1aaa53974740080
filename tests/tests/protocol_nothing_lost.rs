//! A crowd that writes without a pause, on gateways that are replaced and killed: what was acknowledged reaches everybody,
//! once and in order, also those that were away.

use std::time::Duration;

use anyhow::{Result, anyhow};
use wsfleet_load::{Load, LoadConfig, RoomLayout};
use wsfleet_tests::processes::Processes;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::verdict::nothing_was_missed;
use wsfleet_tests::wait::until;

const CLIENTS: u32 = 1_000;

/// A thousand clients in a hundred rooms, 500 messages a second.
fn crowd(fleet: &Processes) -> Result<Load> {
    let mut targets = fleet.targets()?;
    Ok(Load::start(LoadConfig {
        connections: CLIENTS,
        rate: 200.0,
        rooms: RoomLayout::Count(100),
        publish_rate: 500.0,
        reconnect_window: Duration::from_secs(1),
        // longer than a busy machine pauses
        grace: Duration::from_secs(15),
        ..LoadConfig::new(targets.remove(0))
    })?)
}

/// All are in their rooms, and have heard something since they were.
async fn chatting(load: &Load) -> Result<()> {
    until("all have joined", || load.joined() == u64::from(CLIENTS)).await?;
    let before = load.snapshot().deliveries.total;
    until("they chat", || load.snapshot().deliveries.total > before + 10_000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gateway_is_replaced_one_by_sigkill_and_nothing_is_missing_out_of_order_or_twice() -> Result<()>
{
    let redis = RedisServer::start().await?;
    let mut fleet = Processes::start(&redis.url(), 3, &["--drain-window", "4"]).await?;
    let load = crowd(&fleet)?;
    load.set_targets(fleet.targets()?)?;
    chatting(&load).await?;
    fleet.replace(0, &load).await?;
    chatting(&load).await?;
    fleet.kill(1, &load).await?;
    chatting(&load).await?;
    fleet.replace(2, &load).await?;
    chatting(&load).await?;
    let report = load.stop().await;
    println!("{report}");
    nothing_was_missed(&report).map_err(|failure| anyhow!("{failure}"))
}
