//! A crowd against real gateways, judged by the load generator: what a drain or a restart may cost, and what not.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wsfleet_crds::admin::{DrainMode, DrainOrder, DrainRequest};
use wsfleet_load::{Load, LoadConfig, Report, RoomLayout, Target};
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_memory_and_redis;
use wsfleet_tests::wait::until;

const CROWD: u32 = 240;

on_memory_and_redis! {
    a_crowd_gets_every_message_once_and_in_order,
    a_crowd_that_leaves_and_comes_back_loses_nothing,
}

/// A crowd in rooms of twenty, dealt at random over all gateways of the fleet.
fn crowd(fleet: &Fleet) -> Result<Load> {
    let target = |number| Ok(format!("ws://{}/ws", fleet.gateway(number).ports.clients).parse()?);
    let targets: Vec<Target> = (0..fleet.len()).map(target).collect::<Result<_>>()?;
    Ok(Load::start(LoadConfig {
        targets,
        connections: CROWD,
        rate: 400.0,
        rooms: RoomLayout::Count(24),
        rooms_per_connection: 2,
        publish_rate: 100.0,
        reconnect_window: Duration::from_secs(1),
        // longer than a busy machine pauses: what comes after it is lost or late
        grace: Duration::from_secs(8),
        ..LoadConfig::new("ws://127.0.0.1/".parse()?)
    })?)
}

async fn chatting(load: &Load, joined: u32) -> Result<()> {
    until("all have joined", || load.joined() == u64::from(joined)).await?;
    let before = load.snapshot().deliveries.total;
    until("they chat", || load.snapshot().deliveries.total > before + 1000).await
}

/// Sockets on the first gateway.
fn on_the_first(load: &Load) -> u64 {
    let sockets = load.snapshot().sockets.by_server;
    sockets.get("g0").copied().unwrap_or_default()
}

fn clean(report: &Report) -> Result<()> {
    ensure!(report.verdict.ok, "{report}");
    ensure!(
        report.publishes.errored.is_empty() && report.errors.is_empty(),
        "{report}"
    );
    Ok(())
}

async fn a_crowd_gets_every_message_once_and_in_order(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let load = crowd(&fleet)?;
    chatting(&load, CROWD).await?;
    let report = load.stop().await;
    clean(&report)?;
    ensure!(report.publishes.acked == report.publishes.sent, "{report}");
    ensure!(report.sockets.by_server.len() == fleet.len(), "{report}");
    ensure!(report.reconnects.total == 0, "{report}");
    Ok(())
}

async fn a_crowd_that_leaves_and_comes_back_loses_nothing(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let load = crowd(&fleet)?;
    chatting(&load, CROWD).await?;
    load.set_target(CROWD / 4)?;
    chatting(&load, CROWD / 4).await?;
    load.set_target(CROWD)?;
    chatting(&load, CROWD).await?;
    clean(&load.stop().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_gateways_clients_move_once_at_the_granted_rate_and_lose_nothing() -> Result<()> {
    const RATE: f64 = 40.0;
    let fleet = Fleet::start(Kind::Redis(3)).await?;
    let load = crowd(&fleet)?;
    chatting(&load, CROWD).await?;
    let drain = DrainRequest {
        drain_id: "d1".into(),
        epoch: 1,
        mode: DrainMode::Drain,
        rate_per_second: Some(RATE),
        lease_seconds: Some(60),
        deadline: None,
        order: DrainOrder::Random,
        close_code: 1012,
        reconnect_window_seconds: 2,
        keep_connections: None,
        min_age_seconds: None,
    };
    let moving = on_the_first(&load);
    let begin = Instant::now();
    ensure!(fleet.gateway(0).drain(&drain).await?.status == 200);
    until("all sockets are on the others", || {
        !load.snapshot().sockets.by_server.contains_key("g0")
    })
    .await?;
    // not sooner than the rate allows, less half a second's worth at once; a pause of the machine makes it later only
    let (took, least) = (begin.elapsed().as_secs_f64(), moving as f64 / RATE - 0.5);
    ensure!(took >= least, "{moving} sockets have moved in {took} s");
    chatting(&load, CROWD).await?;
    let report = load.stop().await;
    clean(&report)?;
    ensure!(report.reconnects.max_per_client == 1, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_asked_to_end_lets_its_clients_go_one_by_one_and_cuts_nobody() -> Result<()> {
    let kind = Kind::Redis(2);
    let mut fleet = Fleet::start_with(kind, &["--drain-window", "4"]).await?;
    let load = crowd(&fleet)?;
    chatting(&load, CROWD).await?;
    let moving = on_the_first(&load);
    let begin = Instant::now();
    fleet.gateway(0).shut_down();
    fleet.gateway_mut(0).ended().await?;
    // a window of four seconds; a pause of the machine makes it later only
    let took = begin.elapsed();
    ensure!(took > Duration::from_secs(2), "all were let go within {took:?}");
    until("all are on the other one", || load.joined() == u64::from(CROWD)).await?;
    let report = load.stop().await;
    clean(&report)?;
    ensure!(
        report.reconnects.total == moving && report.reconnects.max_per_client == 1,
        "{report}"
    );
    Ok(())
}
