//! The Redis broker against a real `redis-server` that is well.

use std::time::Instant;

use anyhow::{Result, ensure};
use wsfleet_gateway::broker::{Broker, BrokerError, Event, Position, StreamKey};
use wsfleet_tests::broker::{Node, PATIENT, SHORT, key, offsets, room, text};
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{SOON, soon, until};

#[tokio::test]
async fn every_subscribed_broker_gets_every_message_in_one_order_the_publishers_own_included() -> Result<()> {
    let redis = RedisServer::start().await?;
    let (a, b) = (
        Node::healthy(&redis.url()).await?,
        Node::healthy(&redis.url()).await?,
    );
    let lobby = room("lobby");
    let start = a.subscribe(&lobby).await?;
    assert_eq!(start.offset, 0);
    assert_eq!(
        b.subscribe(&lobby).await?,
        start,
        "an empty room has one epoch, whoever asks"
    );
    for i in 0..50 {
        let node = if i % 2 == 0 { &a } else { &b };
        let position = node.publish(&lobby, &i.to_string()).await??;
        assert_eq!(
            position,
            Position {
                epoch: start.epoch.clone(),
                offset: i + 1
            }
        );
    }
    for node in [&a, &b] {
        let deliveries = node.wait_delivered(50).await?;
        assert_eq!(offsets(&deliveries), (1..=50).collect::<Vec<_>>());
        let texts: Vec<_> = deliveries.iter().map(|d| text(&d.event)).collect();
        assert_eq!(texts, (0..50).map(|i| i.to_string()).collect::<Vec<_>>());
        assert!(deliveries.iter().all(|d| d.stream == lobby));
    }
    Ok(())
}

#[tokio::test]
async fn streams_with_awkward_names_never_mix() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let long = "x".repeat(255);
    let names = [
        "events",
        "a:b",
        "a",
        "b",
        "{",
        "}",
        "{}",
        "}{",
        "{a}",
        "a}",
        "%7D",
        "%",
        "\u{1F600}",
        "\0",
        " ",
        "*",
        "[a]",
        "?",
        "\r\n",
        "probe",
        &long,
    ];
    let mut streams = Vec::new();
    for name in names {
        streams.push(StreamKey::Room(name.into()));
        streams.push(StreamKey::User(name.into()));
    }
    for stream in &streams {
        assert_eq!(node.subscribe(stream).await?.offset, 0, "{stream:?}");
    }
    for stream in &streams {
        assert_eq!(
            node.publish(stream, &format!("{stream:?}")).await??.offset,
            1,
            "{stream:?}"
        );
    }
    let deliveries = node.wait_delivered(streams.len()).await?;
    assert_eq!(deliveries.len(), streams.len());
    for (delivery, stream) in deliveries.iter().zip(&streams) {
        assert_eq!(delivery.stream, *stream);
        assert_eq!(text(&delivery.event), format!("{stream:?}"));
    }
    Ok(())
}

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
async fn announcements_are_delivered_without_a_place_and_take_none() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    let left = Event::UserLeft {
        user_id: "bob".into(),
        server_id: "g1".into(),
    };
    assert_eq!(node.publish_event(&lobby, left).await??.offset, 0);
    assert_eq!(node.publish(&lobby, "first").await??.offset, 1);
    let deliveries = node.wait_delivered(2).await?;
    assert_eq!(deliveries[0].position, None);
    assert!(matches!(&*deliveries[0].event, Event::UserLeft { user_id, .. } if &**user_id == "bob"));
    Ok(())
}

#[tokio::test]
async fn a_burst_is_answered_in_order_and_handed_on_in_batches() -> Result<()> {
    const BURST: usize = 20_000;
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    let outcomes = node.publish_many(&lobby, BURST)?;
    until("all replies", || outcomes.lock().len() == BURST).await?;
    for (index, (number, outcome)) in outcomes.lock().iter().enumerate() {
        assert_eq!(*number, index);
        assert_eq!(outcome.as_ref().map(|p| p.offset), Ok(index as u64 + 1));
    }
    let deliveries = node.wait_delivered(BURST).await?;
    assert_eq!(offsets(&deliveries), (1..=BURST as u64).collect::<Vec<_>>());
    let batches = node.sink.batches.lock().len();
    assert!(batches < BURST / 10, "{batches} batches for {BURST} messages");
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
async fn joining_and_leaving_in_quick_succession_ends_as_the_last_word_says() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    for _ in 0..200 {
        let _abandoned = node.broker.subscribe(lobby.clone());
        node.broker.unsubscribe(&lobby);
    }
    node.subscribe(&lobby).await?;
    node.publish(&lobby, "heard").await??;
    assert_eq!(text(&node.wait_delivered(1).await?[0].event), "heard");
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
