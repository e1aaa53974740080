//! Redis unreachable at start, and Redis lost under load, as clients see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use wsfleet_tests::client::{Client, Connect};
use wsfleet_tests::gateway::Fleet;
use wsfleet_tests::http::Ask;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{until, until_async};

const NOTHING_ON_DISK: [&str; 4] = ["--save", "", "--appendonly", "no"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_starts_without_redis_says_so_and_serves_when_it_comes() -> Result<()> {
    let mut fleet = Fleet::on(Some(RedisServer::reserve(&NOTHING_ON_DISK)?), 2, &[])?;
    let gateway = fleet.gateway(0);
    let ready = gateway.admin(Ask::get("/readyz")).await?;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("broker unreachable"), "{ready:?}");
    assert_eq!(gateway.admin(Ask::get("/livez")).await?.status, 200);
    assert_eq!(
        Ask::get("/healthz").send(gateway.ports.clients).await?.status,
        200
    );
    assert!(gateway.state().await?.broker_degraded);
    assert!(gateway.metric("ws_broker_up", &[]).await? < 0.5);
    // a client is told to come back later, with a code
    let mut early = Connect::to(gateway.ports.clients).token("ann").open().await?;
    assert_eq!(early.closed().await?, 4104);
    let refused = gateway
        .api("/api/v1/publish", &json!({"room": "a", "payload": 1}))
        .await?;
    assert_eq!(refused.status, 503);

    if let Some(redis) = &mut fleet.redis {
        redis.restart().await?;
    }
    for number in 0..2 {
        fleet.gateway(number).ready().await?;
    }
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    ann.join("lobby").await?;
    bob.join("lobby").await?;
    ann.say("lobby", json!("hello")).await?;
    assert_eq!(bob.expect("room_message").await?["payload"], "hello");
    assert!(fleet.gateway(0).metric("ws_broker_up", &[]).await? > 0.5);
    // the lobby and the user's own stream, and two of the fleet's
    until_async("subscriptions are told", || async {
        Ok((fleet.gateway(0).metric("ws_room_subscriptions", &[]).await? - 4.0).abs() < 0.5)
    })
    .await?;
    assert!(
        fleet
            .gateway(0)
            .metric("ws_broker_resubscribe_seconds_count", &[])
            .await?
            > 0.5
    );
    Ok(())
}

/// A client that publishes without a pause, and what came of it.
#[derive(Default)]
struct Counts {
    acked: AtomicU64,
    temporary: AtomicU64,
    /// How many of them were refused at least once.
    refused: AtomicU64,
    rooms_left: AtomicBool,
}

/// Publishes with ids until told to stop; each must be answered by an `ack` or a temporary error. Gives the client
/// back with what it heard in the room.
fn load(mut client: Client, counts: Arc<Counts>) -> JoinHandle<Result<(Client, Vec<Value>)>> {
    tokio::spawn(async move {
        let mut heard = Vec::new();
        let (mut number, mut refused) = (0_u64, false);
        while !counts.rooms_left.load(Ordering::Relaxed) {
            number += 1;
            let message = json!({"type": "room_message", "room": "lobby", "payload": number, "id": number});
            client.send(message).await?;
            let answer = client.expect_any(&["ack", "error"]).await?;
            if answer["type"] == "ack" {
                counts.acked.fetch_add(1, Ordering::Relaxed);
            } else {
                ensure!(answer["temporary"] == true && answer["id"] == number, "{answer}");
                counts.temporary.fetch_add(1, Ordering::Relaxed);
                counts.refused.fetch_add(
                    u64::from(!std::mem::replace(&mut refused, true)),
                    Ordering::Relaxed,
                );
            }
            heard.extend(client.take_kept("room_message"));
            sleep(Duration::from_millis(100)).await;
        }
        Ok((client, heard))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_lost_for_thirty_seconds_under_load_costs_no_socket_and_heals() -> Result<()> {
    const CLIENTS: usize = 30;
    const LOST: Duration = Duration::from_secs(30);
    let redis = RedisServer::start_durable().await?;
    let mut fleet = Fleet::on(Some(redis), 3, &[])?;
    for number in 0..3 {
        fleet.gateway(number).ready().await?;
    }
    let counts = Arc::new(Counts::default());
    let mut members = Vec::new();
    for number in 0..CLIENTS {
        let mut client = fleet.client(number, &format!("u{number}")).await?;
        client.join("lobby").await?;
        members.push(load(client, Arc::clone(&counts)));
    }
    let acked = || counts.acked.load(Ordering::Relaxed);
    until_async("the load flows", || async { Ok(acked() > 100) }).await?;

    if let Some(redis) = &mut fleet.redis {
        redis.kill()?;
    }
    let lost = Instant::now();
    until_async("the gateways notice", || async {
        let mut noticed = true;
        for number in 0..3 {
            noticed &= fleet.gateway(number).state().await?.broker_degraded;
        }
        Ok(noticed)
    })
    .await?;
    // what was acknowledged before the loss may still be on its way to a client
    until("every client is refused", || {
        counts.refused.load(Ordering::Relaxed) == CLIENTS as u64
    })
    .await?;
    let during = acked();
    while lost.elapsed() < LOST {
        assert_eq!(
            fleet.gateway(0).admin(Ask::get("/readyz")).await?.status,
            200,
            "ready, but degraded"
        );
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(acked(), during, "nothing is acknowledged while Redis is gone");
    assert!(counts.temporary.load(Ordering::Relaxed) > 100);

    if let Some(redis) = &mut fleet.redis {
        redis.restart().await?;
    }
    for number in 0..3 {
        fleet.gateway(number).ready().await?;
    }
    let healed = acked();
    until_async("the load flows again", || async { Ok(acked() > healed + 100) }).await?;
    counts.rooms_left.store(true, Ordering::Relaxed);
    let mut clients = try_join_all(members)
        .await?
        .into_iter()
        .collect::<Result<Vec<_>>>()?;

    // every socket survived, hears the room, and was told nothing twice or out of order
    clients[0].0.say("lobby", json!("the end")).await?;
    for (client, heard) in &mut clients {
        loop {
            let message = client.expect("room_message").await?;
            let end = message["payload"] == "the end";
            heard.push(message);
            if end {
                break;
            }
        }
        let offsets: Vec<u64> = heard.iter().filter_map(|m| m["offset"].as_u64()).collect();
        assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    }
    for number in 0..3 {
        let gateway = fleet.gateway(number);
        assert_eq!(gateway.state().await?.connections, CLIENTS as u64 / 3);
        assert!(gateway.metric("ws_closes_total", &[]).await? < 0.5);
    }
    Ok(())
}
