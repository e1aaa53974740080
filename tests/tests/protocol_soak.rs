//! Churn: connections come, join, write, leave, and end with and without a close frame, beside a crowd that stays. Afterwards
//! everything is as it was: what the gateways count is what there is, and nothing is left of those that went. `make soak`
//! goes on for an hour.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::Instant;
use wsfleet_load::{Load, LoadConfig, RoomLayout};
use wsfleet_tests::census::Census;
use wsfleet_tests::client::Connect;
use wsfleet_tests::process::Process;
use wsfleet_tests::processes::Processes;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::settings::setting;
use wsfleet_tests::wait::{until, until_async};

/// Clients that stay, and those that come and go at the same time.
const CROWD: u32 = 200;
const CHURN: u64 = 40;
/// Visits a second.
const PACE: f64 = 60.0;
/// Rooms of those that come and go.
const ROOMS: u64 = 500;
const MIB: f64 = 1_048_576.0;
/// Counts are compared so many times in a run.
const ROUNDS: u32 = 12;

/// A user of the test's own comes, does what users do, and goes; every third without a word.
async fn visit(gateway: &Process, number: u64) -> Result<()> {
    let connect = Connect::to(gateway.ports.clients);
    let mut client = connect.token(&format!("v{number}")).open().await?;
    client.expect("welcome").await?;
    for step in 0..3 {
        let room = format!("churn-{}", (number * 7 + step) % ROOMS);
        client.join(&room).await?;
        client.say_acked(&room, json!(number), json!(step)).await?;
        if step == 0 {
            client.leave(&room).await?;
        }
    }
    client
        .send(
            json!({"type": "direct_message", "targetUserId": format!("user_v{}", number / 2), "payload": 1}),
        )
        .await?;
    if number.is_multiple_of(3) {
        drop(client);
    } else {
        client.close().await?;
    }
    Ok(())
}

/// Visits until then, at an even pace: an hour at whatever the machine can do would measure the machine.
async fn churn(fleet: &Processes, until: Instant, next: &Arc<AtomicU64>) -> Result<()> {
    let (begin, before) = (Instant::now(), next.load(Relaxed));
    let pace = setting("SOAK_VISITS", PACE)?;
    let visitor = |_| async {
        while Instant::now() < until {
            let number = next.fetch_add(1, Relaxed);
            let due = begin + Duration::from_secs_f64((number - before) as f64 / pace);
            tokio::time::sleep_until(due.min(until)).await;
            let gateways = fleet.gateways();
            visit(&gateways[number as usize % gateways.len()], number).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..CHURN).map(visitor)).await?;
    Ok(())
}

/// Awaits that a gateway counts as many connections and users as the load has there, and as the kernel knows of; its books
/// are balanced.
async fn agreed(gateway: &Process, there: impl Fn() -> u64) -> Result<Census> {
    until_async("the gateway counts what there is", || async {
        let (census, there) = (Census::of(gateway).await?, there() as f64);
        let Census {
            connections,
            sockets,
            users,
            opened,
            closed,
            ..
        } = census;
        let equal = [connections, sockets, users, opened - closed];
        ensure!(
            equal.iter().all(|count| (count - there).abs() < 0.5),
            "{there}: {census:?}"
        );
        Ok(true)
    })
    .await?;
    Census::of(gateway).await
}

fn crowd(fleet: &Processes) -> Result<Load> {
    let mut targets = fleet.targets()?;
    Ok(Load::start(LoadConfig {
        targets: targets.clone(),
        connections: CROWD,
        rooms: RoomLayout::Count(CROWD / 10),
        publish_rate: 50.0,
        grace: Duration::from_secs(15),
        ..LoadConfig::new(targets.remove(0))
    })?)
}

/// Nothing is left on a gateway of those that went, and its memory is what it was.
async fn nothing_is_left(gateway: &Process, first: &Census) -> Result<Census> {
    until_async("everything is as it was before", || async {
        let census = Census::of(gateway).await?;
        let Census {
            connections,
            sockets,
            users,
            rooms,
            queued,
            ..
        } = census;
        let none = [connections, sockets, users, rooms, queued];
        ensure!(none.iter().all(|count| *count < 0.5), "{census:?}");
        ensure!(census.tasks <= first.tasks, "{census:?} {first:?}");
        ensure!(census.descriptors <= first.descriptors, "{census:?} {first:?}");
        Ok(true)
    })
    .await?;
    let last = agreed(gateway, || 0).await?;
    // what the crowd's buffers were, and what is kept of rooms in which something was said
    ensure!(
        last.resident < first.resident * 1.2 + 8.0 * MIB,
        "memory has grown: {first:?} {last:?}"
    );
    Ok(last)
}

/// The churn beside the crowd, with pauses in which the gateways are asked; what they said.
async fn rounds(
    fleet: &Processes,
    load: &Load,
    lasting: Duration,
    next: &Arc<AtomicU64>,
) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let begin = Instant::now();
    for round in 1..ROUNDS {
        churn(fleet, begin + lasting * round / ROUNDS, next).await?;
        for (number, gateway) in fleet.gateways().iter().enumerate() {
            let name = format!("g{number}");
            let here = || load.snapshot().sockets.by_server.get(&name).copied();
            let census = agreed(gateway, || here().unwrap_or_default()).await?;
            let (seconds, visits) = (begin.elapsed().as_secs(), next.load(Relaxed));
            said.push(format!("{seconds} s, {visits} visits, {name}: {census:?}"));
        }
    }
    Ok(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_churn_gauges_are_what_there_is_and_nothing_is_left() -> Result<()> {
    let lasting = Duration::from_secs_f64(60.0 * setting("SOAK_MINUTES", 1.0)?);
    let redis = RedisServer::start().await?;
    let fleet = Processes::start(&redis.url(), 2, &[]).await?;
    let next = Arc::default();
    // a gateway that has worked is what the end is compared with: caches and pools are there
    churn(&fleet, Instant::now() + lasting / ROUNDS, &next).await?;
    let mut first = Vec::new();
    for gateway in fleet.gateways() {
        first.push(agreed(gateway, || 0).await?);
    }

    let load = crowd(&fleet)?;
    until("all have joined", || load.joined() == u64::from(CROWD)).await?;
    for said in rounds(&fleet, &load, lasting, &next).await? {
        println!("{said}");
    }
    let report = load.stop().await;
    println!("{report}");
    ensure!(report.verdict.ok, "{report}");

    for (gateway, first) in fleet.gateways().iter().zip(&first) {
        let last = nothing_is_left(gateway, first).await?;
        println!(
            "row: | {} | {} | {} | {:.1} → {:.1} MiB | {} → {} | {} → {} |",
            lasting.as_secs() / 60,
            last.opened,
            report.deliveries.total,
            first.resident / MIB,
            last.resident / MIB,
            first.descriptors,
            last.descriptors,
            first.tasks,
            last.tasks
        );
    }
    Ok(())
}
