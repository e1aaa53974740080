//! The kernel drops every packet between one of three gateways and Redis, under a crowd that writes 1,000 messages a second.
//! Nobody is sent away, no message is acknowledged that was not accepted, and when packets pass again the gateway's members get
//! all that they have missed. Runs in a network namespace of its own, as its root.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::process::Command;
use tokio::time::sleep;
use wsfleet_load::{Load, LoadConfig, Report, RoomLayout};
use wsfleet_tests::gateway::{OPEN, UNLIMITED};
use wsfleet_tests::process::Process;
use wsfleet_tests::processes::Processes;
use wsfleet_tests::program::program;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::settings::setting;
use wsfleet_tests::verdict::nothing_was_lost;
use wsfleet_tests::wait::until;

const TEST: &str = "the_link_to_redis_is_dropped_by_the_packet_filter_and_nothing_is_lost";
/// Says that the namespace is there.
const INSIDE: &str = "WSFLEET_TEST_NAMESPACE";
/// Where one gateway finds Redis; the others go to 127.0.0.1.
const FAR: &str = "127.0.0.2";
const CLIENTS: u32 = 150;
const KEEP: [&str; 2] = ["--history", "*=5000/600"];

/// Runs this test again where it may do what it likes with the packet filter.
async fn in_a_namespace() -> Result<()> {
    let gateway = program("wsfleet-gateway")?;
    let namespace = ["--user", "--map-root-user", "--net", "--"];
    let status = Command::new("unshare")
        .args(namespace)
        .arg(std::env::current_exe()?)
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, "yes")
        .env("WSFLEET_PROGRAMS", gateway.parent().context("a folder")?)
        .stdin(Stdio::null())
        .status()
        .await
        .context("unshare cannot be started: install it (Debian: apt-get install util-linux)")?;
    ensure!(status.success(), "in the namespace the test ended with {status}");
    Ok(())
}

async fn run(words: &str) -> Result<()> {
    let mut words = words.split(' ');
    let name = words.next().context("a program")?;
    let output = Command::new(name).args(words).output().await;
    let output =
        output.with_context(|| format!("{name} cannot be started: install iproute2 and nftables"))?;
    ensure!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

async fn chatting(load: &Load) -> Result<()> {
    until("all have joined", || load.joined() == u64::from(CLIENTS)).await?;
    let before = load.snapshot().publishes.acked;
    until("they chat", || load.snapshot().publishes.acked > before + 2_000).await
}

async fn dropped_for(lasting: Duration) -> Result<Report> {
    run("ip link set lo up").await?;
    run("nft add table inet wsfleet").await?;
    run("nft add chain inet wsfleet in { type filter hook input priority 0 ; }").await?;
    let both = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", FAR];
    let redis = RedisServer::start_with(&both).await?;
    let near = Processes::start(&redis.url(), 2, &KEEP).await?;
    let url = format!("redis://{FAR}:{}", redis.port());
    let own = ["--server-id", "far", "--broker", &url];
    let far = Process::start(&[&OPEN[..], &UNLIMITED[..], &KEEP[..], &own[..]].concat()).await?;
    far.ready().await?;
    let mut targets = near.targets()?;
    targets.push(format!("ws://{}/ws", far.ports.clients).parse()?);
    let load = Load::start(LoadConfig {
        targets: targets.clone(),
        connections: CLIENTS,
        rooms: RoomLayout::Count(CLIENTS / 5),
        publish_rate: 1_000.0,
        // what waits behind the filter is late, not lost
        grace: lasting + Duration::from_secs(20),
        retry: lasting + Duration::from_secs(100),
        ..LoadConfig::new(targets.remove(0))
    })?;
    chatting(&load).await?;
    run("nft add rule inet wsfleet in ip daddr 127.0.0.2 drop").await?;
    run("nft add rule inet wsfleet in ip saddr 127.0.0.2 drop").await?;
    // what is tested is that time goes by
    sleep(lasting).await;
    run("nft flush chain inet wsfleet in").await?;
    far.ready().await?;
    chatting(&load).await?;
    Ok(load.stop().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_to_redis_is_dropped_by_the_packet_filter_and_nothing_is_lost() -> Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        return in_a_namespace().await;
    }
    let report = dropped_for(Duration::from_secs(setting("LINK_SECONDS", 30)?)).await?;
    println!("{report}");
    let publishes = &report.publishes;
    ensure!(!publishes.errored.is_empty(), "nobody was refused: {report}");
    let refused: u64 = publishes.refused.values().sum();
    ensure!(
        publishes.sent == publishes.acked + refused,
        "messages have no answer: {report}"
    );
    ensure!(
        report.reconnects.total == 0 && report.verdict.cut == 0,
        "{report}"
    );
    nothing_was_lost(&report).map_err(|failure| anyhow!("{failure}"))
}
