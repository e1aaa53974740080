//! The Redis broker against a real `redis-server` that is well.

use std::time::Instant;

use anyhow::{Result, ensure};
use wsfleet_gateway::broker::{Broker, BrokerError};
use wsfleet_tests::broker::{Node, PATIENT, SHORT, key, offsets, room, text};
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{SOON, soon, until};

#[tokio::test]
async fn databases_of_one_redis_are_fleets_of_their_own() -> Result<()> {
    let redis = RedisServer::start().await?;
    let zero = Node::healthy(&redis.url()).await?;
    let one = Node::healthy(&format!("{}/1", redis.url())).await?;
    let lobby = room("lobby");
    let epoch = zero.subscribe(&lobby).await?.epoch;
    assert_ne!(one.subscribe(&lobby).await?.epoch, epoch);
    zero.publish(&lobby, "zero").await??;
    one.publish(&lobby, "one").await??;
    assert_eq!(text(&zero.wait_delivered(1).await?[0].event), "zero");
    assert_eq!(text(&one.wait_delivered(1).await?[0].event), "one");
    Ok(())
}

#[tokio::test]
async fn a_gateway_has_two_connections_and_only_the_rooms_it_asked_for() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let rooms: Vec<_> = (0..2_000).map(|i| room(&format!("room-{i}"))).collect();
    let subscriptions = rooms.iter().map(|r| node.broker.subscribe(r.clone()));
    for position in soon("2,000 subscriptions", futures::future::join_all(subscriptions)).await? {
        assert_eq!(position?.offset, 0);
    }
    let mut connections = redis.gateway_connections().await?;
    connections.sort_unstable();
    assert_eq!(connections, ["wsfleet-command", "wsfleet-subscription"]);
    until("the gauge tells them", || {
        node.broker.stats().subscriptions.get() == 2_000
    })
    .await?;

    let mut connection = redis.connection().await?;
    for r in &rooms[1..] {
        node.broker.unsubscribe(r);
    }
    let start = Instant::now();
    loop {
        let channels: Vec<String> = redis::cmd("PUBSUB")
            .arg("CHANNELS")
            .arg("wsfleet:0:room:*")
            .query_async(&mut connection)
            .await?;
        if channels == [key("room-0")] {
            break;
        }
        ensure!(start.elapsed() < SOON, "still {} channels", channels.len());
        tokio::task::yield_now().await;
    }
    node.publish(&rooms[1], "to nobody").await??;
    node.publish(&rooms[0], "to one").await??;
    assert_eq!(text(&node.wait_delivered(1).await?[0].event), "to one");
    let days: i64 = redis::cmd("TTL")
        .arg(key("room-0"))
        .query_async::<i64>(&mut connection)
        .await?
        / 86_400;
    assert!((29..=30).contains(&days), "{days} days");
    Ok(())
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    node.publish(&lobby, "1").await??;
    let _: () = redis::cmd("SCRIPT")
        .arg("FLUSH")
        .query_async(&mut redis.connection().await?)
        .await?;
    let outcomes = node.publish_many(&lobby, 1_000)?;
    until("all replies", || outcomes.lock().len() == 1_000).await?;
    assert!(
        outcomes
            .lock()
            .iter()
            .enumerate()
            .all(|(i, (n, r))| i == *n && r.is_ok())
    );
    let deliveries = node.wait_delivered(1_001).await?;
    assert_eq!(offsets(&deliveries), (1..=1_001).collect::<Vec<_>>());
    assert_eq!(node.stat(|s| &s.command_links), 1);
    Ok(())
}

#[tokio::test]
async fn credentials_are_used_and_wrong_ones_do_not_stop_the_process() -> Result<()> {
    let redis = RedisServer::start_with(&["--save", "", "--requirepass", "s3 cret"]).await?;
    let right = Node::start(&format!("redis://:s3%20cret@127.0.0.1:{}", redis.port()), PATIENT)?;
    let named = Node::start(
        &format!("redis://default:s3%20cret@127.0.0.1:{}/2", redis.port()),
        PATIENT,
    )?;
    let wrong = Node::start(&format!("redis://:nope@127.0.0.1:{}", redis.port()), PATIENT)?;
    right.wait_healthy().await?;
    named.wait_healthy().await?;
    assert_eq!(
        wrong.publish(&room("lobby"), "x").await?,
        Err(BrokerError::Unavailable)
    );
    assert!(!wrong.broker.health().up);
    Ok(())
}

#[tokio::test]
async fn an_error_of_redis_itself_is_told_and_the_link_stays() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let _: () = redis::cmd("SET")
        .arg(key("lobby"))
        .arg("no hash")
        .query_async(&mut redis.connection().await?)
        .await?;
    let outcome = node.publish(&room("lobby"), "x").await?;
    assert!(
        matches!(&outcome, Err(BrokerError::Refused(text)) if text.contains("WRONGTYPE")),
        "{outcome:?}"
    );
    assert!(node.broker.subscribe(room("lobby")).await.is_err());
    assert_eq!(node.publish(&room("other"), "x").await??.offset, 1);
    assert_eq!(node.stat(|s| &s.command_links), 1);
    Ok(())
}

#[tokio::test]
async fn closing_ends_both_links_and_answers_what_is_open() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy_with(&redis.url(), SHORT).await?;
    redis.freeze()?;
    let outcomes = node.publish_many(&room("lobby"), 100)?;
    // sent, or at least taken from the queue: then it is unconfirmed
    tokio::task::yield_now().await;
    soon("the end", node.broker.close()).await?;
    assert_eq!(outcomes.lock().len(), 100);
    assert!(outcomes.lock().iter().all(|(_, r)| r.is_err()));
    redis.thaw()?;
    let start = Instant::now();
    while !redis.gateway_connections().await?.is_empty() {
        ensure!(start.elapsed() < SOON, "connections are left");
        tokio::task::yield_now().await;
    }
    assert_eq!(
        node.publish(&room("lobby"), "x").await?,
        Err(BrokerError::Unavailable)
    );
    Ok(())
}
