//! Redis, or NATS, is killed under 1,000 messages a second through three gateways, one of which is killed with it, and started again: with
//! its append-only file, or the files of JetStream, nothing that was acknowledged is lost; without, what is lost is never lost silently. Either way a
//! message that was not accepted is told so.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use wsfleet_load::{Load, LoadConfig, Report, RoomLayout};
use wsfleet_tests::nats::NatsServer;
use wsfleet_tests::processes::Processes;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::verdict::nothing_was_missed;
use wsfleet_tests::wait::until;

const CLIENTS: u32 = 200;

/// What carries the messages.
trait Server {
    fn url(&self) -> String;
    fn kill(&mut self) -> Result<()>;
    async fn restart(&mut self) -> Result<()>;
}

impl Server for RedisServer {
    fn url(&self) -> String {
        self.url()
    }

    fn kill(&mut self) -> Result<()> {
        self.kill()
    }

    async fn restart(&mut self) -> Result<()> {
        self.restart().await
    }
}

impl Server for NatsServer {
    fn url(&self) -> String {
        self.url()
    }

    fn kill(&mut self) -> Result<()> {
        self.kill()
    }

    async fn restart(&mut self) -> Result<()> {
        self.restart().await
    }
}

fn crowd(fleet: &Processes) -> Result<Load> {
    let mut targets = fleet.targets()?;
    Ok(Load::start(LoadConfig {
        targets: targets.clone(),
        connections: CLIENTS,
        rate: 100.0,
        rooms: RoomLayout::Count(CLIENTS / 4),
        publish_rate: 1_000.0,
        reconnect_window: Duration::from_secs(1),
        // longer than Redis is away, and a busy machine pauses
        grace: Duration::from_secs(25),
        ..LoadConfig::new(targets.remove(0))
    })?)
}

async fn chatting(load: &Load) -> Result<()> {
    until("all have joined", || load.joined() == u64::from(CLIENTS)).await?;
    let before = load.snapshot().publishes.acked;
    until("they chat", || load.snapshot().publishes.acked > before + 5_000).await
}

/// Everything that was sent is acknowledged or refused in the end.
async fn killed_and_started_again(mut server: impl Server) -> Result<Report> {
    let mut fleet = Processes::start(&server.url(), 3, &[]).await?;
    let load = crowd(&fleet)?;
    chatting(&load).await?;
    server.kill()?;
    fleet.strike(0)?;
    let refusals = || load.snapshot().publishes.errored.values().sum::<u64>();
    until("messages are refused", || refusals() > 500).await?;
    server.restart().await?;
    fleet.restore(0, &load).await?;
    fleet.ready().await?;
    chatting(&load).await?;
    let report = load.stop().await;
    let publishes = &report.publishes;
    let refused: u64 = publishes.refused.values().sum();
    ensure!(
        publishes.sent == publishes.acked + refused,
        "messages have no answer: {report}"
    );
    ensure!(publishes.sent_again > 0, "{report}");
    Ok(report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_append_only_file_nothing_that_was_acknowledged_is_lost() -> Result<()> {
    let appending = ["--save", "", "--appendonly", "yes"];
    let report = killed_and_started_again(RedisServer::start_with(&appending).await?).await?;
    println!("{report}");
    ensure!(report.verdict.counts.epoch_changes == 0, "{report}");
    nothing_was_missed(&report).map_err(|failure| anyhow!("{failure}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_it_what_is_lost_is_told_by_another_epoch() -> Result<()> {
    let report = killed_and_started_again(RedisServer::start().await?).await?;
    println!("{report}");
    let (counts, reconnects) = (report.verdict.counts, &report.reconnects);
    let silent = counts.lost + counts.late + counts.out_of_order + counts.duplicated;
    ensure!(silent == 0, "{report}");
    ensure!(counts.epoch_changes > 0, "{report}");
    let reasons: Vec<_> = reconnects.resumes.not_recovered.keys().collect();
    ensure!(reasons == ["epoch_changed"], "{reasons:?}");
    println!(
        "taken back: {} of those that stayed, {} of those that were away; {} of {} clients that came back were told",
        counts.taken_back,
        reconnects.offline.taken_back,
        reconnects.resumes.not_recovered["epoch_changed"],
        reconnects.total
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_files_of_jetstream_nothing_that_was_acknowledged_is_lost() -> Result<()> {
    let report = killed_and_started_again(NatsServer::start().await?).await?;
    println!("{report}");
    ensure!(report.verdict.counts.epoch_changes == 0, "{report}");
    nothing_was_missed(&report).map_err(|failure| anyhow!("{failure}"))
}
