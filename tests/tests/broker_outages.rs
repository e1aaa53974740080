//! The Redis broker when its `redis-server` is not there, is lost, forgets, or goes back in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use wsfleet_gateway::broker::redis::Timing;
use wsfleet_gateway::broker::{Broker, BrokerError, Health, Position, Publish};
use wsfleet_tests::broker::{HEALTHY, Node, PATIENT, SHORT, cut_and, key, message, offsets, room, text};
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{SOON, soon, until};

#[tokio::test]
async fn it_starts_without_redis_says_so_and_recovers() -> Result<()> {
    let mut redis = RedisServer::reserve(&["--save", "", "--appendonly", "no"])?;
    let node = Node::start(&redis.url(), PATIENT)?;
    let lobby = room("lobby");
    assert_eq!(
        node.broker.health(),
        Health {
            up: false,
            degraded: true
        }
    );
    assert_eq!(node.publish(&lobby, "x").await?, Err(BrokerError::Unavailable));
    assert_eq!(
        node.broker.subscribe(lobby.clone()).await,
        Err(BrokerError::Unavailable)
    );
    redis.restart().await?;
    node.wait_healthy().await?;
    node.subscribe(&lobby).await?;
    assert_eq!(node.publish(&lobby, "x").await??.offset, 1);
    node.wait_delivered(1).await?;
    Ok(())
}

#[tokio::test]
async fn a_redis_that_lost_everything_begins_new_epochs_and_subscriptions_stand() -> Result<()> {
    let mut redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    let before = node.subscribe(&lobby).await?;
    node.publish(&lobby, "before").await??;
    node.wait_delivered(1).await?;
    redis.kill()?;
    until("the loss is noticed", || !node.broker.health().up).await?;
    assert_eq!(node.publish(&lobby, "lost").await?, Err(BrokerError::Unavailable));
    redis.restart().await?;
    node.wait_healthy().await?;
    let after = node.publish(&lobby, "after").await??;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.offset, 1);
    let deliveries = node.wait_delivered(2).await?;
    assert_eq!(text(&deliveries[1].event), "after");
    assert_eq!(deliveries[1].position.as_ref(), Some(&after));
    assert_eq!(node.stat(|s| &s.epoch_changes), 1);
    assert_eq!(node.stat(|s| &s.missed), 0);
    Ok(())
}

#[tokio::test]
async fn a_durable_redis_keeps_epochs_and_offsets_over_a_kill() -> Result<()> {
    let mut redis = RedisServer::start_durable().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    let before = node.subscribe(&lobby).await?;
    node.publish(&lobby, "1").await??;
    node.wait_delivered(1).await?;
    redis.kill()?;
    until("the loss is noticed", || !node.broker.health().up).await?;
    redis.restart().await?;
    node.wait_healthy().await?;
    assert_eq!(
        node.publish(&lobby, "2").await??,
        Position {
            epoch: before.epoch,
            offset: 2
        }
    );
    assert_eq!(offsets(&node.wait_delivered(2).await?), [1, 2]);
    Ok(())
}

#[tokio::test]
async fn offsets_missed_over_a_reconnect_are_counted_and_nothing_is_delivered_twice() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let (lobby, quiet) = (room("lobby"), room("quiet"));
    node.subscribe(&lobby).await?;
    node.subscribe(&quiet).await?;
    for i in 0..3 {
        node.publish(&lobby, &i.to_string()).await??;
    }
    node.wait_delivered(3).await?;
    cut_and(
        &redis,
        &[
            &["HINCRBY", &key("lobby"), "o", "4"],
            &["HINCRBY", &key("quiet"), "o", "2"],
        ],
    )
    .await?;
    until("the link is rebuilt", || {
        node.stat(|s| &s.subscription_links) == 2
    })
    .await?;
    node.wait_healthy().await?;
    assert_eq!(node.publish(&lobby, "after").await??.offset, 8);
    assert_eq!(node.publish(&quiet, "after").await??.offset, 3);
    assert_eq!(offsets(&node.wait_delivered(5).await?), [1, 2, 3, 8, 3]);
    assert_eq!(node.stat(|s| &s.missed), 6);
    assert_eq!(node.stat(|s| &s.duplicates), 0);
    Ok(())
}

#[tokio::test]
async fn offsets_that_redis_took_back_are_not_given_out_again_in_the_same_epoch() -> Result<()> {
    let redis = RedisServer::start().await?;
    let (a, b) = (
        Node::start(&redis.url(), PATIENT)?,
        Node::start(&redis.url(), PATIENT)?,
    );
    let lobby = room("lobby");
    for node in [&a, &b] {
        node.wait_healthy().await?;
        node.subscribe(&lobby).await?;
    }
    for i in 0..5 {
        a.publish(&lobby, &i.to_string()).await??;
    }
    a.wait_delivered(5).await?;
    let old = b.wait_delivered(5).await?[4]
        .position
        .clone()
        .context("a place")?;
    cut_and(&redis, &[&["HSET", &key("lobby"), "o", "2"]]).await?;
    for node in [&a, &b] {
        until("the link is rebuilt", || {
            node.stat(|s| &s.subscription_links) == 2
        })
        .await?;
        node.wait_healthy().await?;
    }
    let new = b.publish(&lobby, "after").await??;
    assert_ne!(new.epoch, old.epoch);
    assert_eq!(new.offset, 1);
    for node in [&a, &b] {
        assert_eq!(node.wait_delivered(6).await?[5].position.as_ref(), Some(&new));
    }
    Ok(())
}

#[tokio::test]
async fn all_of_many_subscriptions_stand_after_a_reconnect() -> Result<()> {
    const ROOMS: usize = 5_000;
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let rooms: Vec<_> = (0..ROOMS).map(|i| room(&format!("room-{i}"))).collect();
    let all = futures::future::join_all(rooms.iter().map(|r| node.broker.subscribe(r.clone())));
    for position in soon("subscriptions", all).await? {
        position?;
    }
    cut_and(&redis, &[]).await?;
    until("the loss is noticed", || {
        node.stat(|s| &s.subscription_links) == 2
    })
    .await?;
    node.wait_healthy().await?;
    let lost = Arc::new(Mutex::new(0));
    for r in &rooms {
        let lost = Arc::clone(&lost);
        let reply = Box::new(move |result: Result<_, _>| *lost.lock() += usize::from(result.is_err()));
        node.broker.publish(vec![Publish {
            stream: r.clone(),
            event: message("x")?,
            msg_id: None,
            reply: Some(reply),
        }]);
    }
    let mut per_room = BTreeMap::new();
    for delivery in node.wait_delivered(ROOMS).await? {
        *per_room.entry(delivery.stream).or_insert(0) += 1;
    }
    assert_eq!(per_room.len(), ROOMS);
    assert!(per_room.values().all(|&n| n == 1));
    assert_eq!(*lost.lock(), 0);
    Ok(())
}

#[tokio::test]
async fn a_frozen_redis_is_noticed_nothing_is_told_falsely_and_it_recovers() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy_with(&redis.url(), SHORT).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    redis.freeze()?;
    assert_eq!(node.publish(&lobby, "sent").await?, Err(BrokerError::Unconfirmed));
    until("it is degraded", || {
        node.broker.health()
            == Health {
                up: false,
                degraded: true,
            }
    })
    .await?;
    assert_eq!(
        node.publish(&lobby, "not sent").await?,
        Err(BrokerError::Unavailable)
    );
    redis.thaw()?;
    node.wait_healthy().await?;
    let position = node.publish(&lobby, "after").await??;
    // what was not confirmed may have been accepted; what was refused was not
    assert!((1..=2).contains(&position.offset), "{position:?}");
    until("it is delivered", || {
        node.sink
            .deliveries
            .lock()
            .iter()
            .any(|d| text(&d.event) == "after")
    })
    .await?;
    assert!(
        node.sink
            .deliveries
            .lock()
            .iter()
            .all(|d| text(&d.event) != "not sent")
    );
    Ok(())
}

#[tokio::test]
async fn black_holed_links_are_found_and_replaced() -> Result<()> {
    let redis = RedisServer::start().await?;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await?;
    let node = Node::healthy_with(&format!("redis://{}", proxy.address()), SHORT).await?;
    let other = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    other.subscribe(&lobby).await?;
    let links = proxy.accepted();
    proxy.swallow();
    other.publish(&lobby, "into the black hole").await??;
    until("both links are replaced", || proxy.accepted() >= links + 2).await?;
    node.wait_healthy().await?;
    assert_eq!(node.stat(|s| &s.missed), 1);
    other.publish(&lobby, "after").await??;
    // what went into the black hole is read
    assert_eq!(offsets(&node.wait_delivered(2).await?), [1, 2]);
    Ok(())
}

#[tokio::test]
async fn a_silent_link_is_probed_and_stays_when_the_probes_arrive() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    until("some probes", || node.stat(|s| &s.probes) >= 5).await?;
    assert_eq!(node.stat(|s| &s.subscription_links), 1);
    assert_eq!(node.stat(|s| &s.command_links), 1);
    assert_eq!(node.stat(|s| &s.probes_missed), 0);
    assert_eq!(node.broker.health(), HEALTHY);
    Ok(())
}

#[tokio::test]
async fn a_flood_beyond_the_queue_is_overload_and_each_reply_comes_once() -> Result<()> {
    const FLOOD: usize = 100_000;
    let redis = RedisServer::start().await?;
    let node = Node::healthy_with(&redis.url(), SHORT).await?;
    redis.freeze()?;
    let outcomes = node.publish_many(&room("lobby"), FLOOD)?;
    until("all replies", || outcomes.lock().len() == FLOOD).await?;
    let mut numbers: Vec<_> = outcomes.lock().iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..FLOOD));
    let count = |wanted: &BrokerError| {
        outcomes
            .lock()
            .iter()
            .filter(|(_, r)| r.as_ref() == Err(wanted))
            .count()
    };
    assert!(count(&BrokerError::Overloaded) > 0);
    assert!(count(&BrokerError::Unconfirmed) > 0);
    assert!(count(&BrokerError::Unavailable) > 0);
    redis.thaw()?;
    node.wait_healthy().await
}

#[tokio::test]
async fn nobody_publishes_into_a_redis_that_came_back_before_the_other_gateways_did() -> Result<()> {
    let mut redis = RedisServer::start().await?;
    // what a gateway has to come back in before others publish: longer than a busy machine pauses
    let timing = Timing {
        connect: Duration::from_secs(5),
        ..PATIENT
    };
    // tries again so seldom that it comes back last
    let seldom = Timing {
        backoff_min: timing.backoff_max,
        ..timing
    };
    let (quick, slow) = (
        Node::start(&redis.url(), timing)?,
        Node::start(&redis.url(), seldom)?,
    );
    let lobby = room("lobby");
    for node in [&quick, &slow] {
        node.wait_healthy().await?;
        node.subscribe(&lobby).await?;
    }
    redis.kill()?;
    until("the loss is noticed", || {
        !quick.broker.health().up && !slow.broker.health().up
    })
    .await?;
    redis.restart().await?;
    let mut first = quick.publish(&lobby, "first").await?;
    let begin = Instant::now();
    while first.is_err() {
        assert_eq!(first, Err(BrokerError::Unavailable));
        assert!(begin.elapsed() < SOON, "publishing is never possible again");
        tokio::task::yield_now().await;
        first = quick.publish(&lobby, "first").await?;
    }
    slow.wait_delivered(1).await?;
    quick.wait_delivered(1).await?;
    assert_eq!(slow.stat(|s| &s.missed), 0);
    Ok(())
}
