//! The Redis broker against a real `redis-server`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use wsfleet_gateway::broker::redis::{RedisBroker, RedisConfig, Timing};
use wsfleet_gateway::broker::{
    Broker, BrokerError, Delivery, Event, Health, Position, Publish, Sink, StreamKey,
};
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{soon, until, until_within};

const HEALTHY: Health = Health {
    up: true,
    degraded: false,
};

/// Patience short enough for tests.
const SHORT: Timing = Timing {
    silence: Duration::from_millis(300),
    answer: Duration::from_millis(500),
    connect: Duration::from_millis(500),
    backoff_min: Duration::from_millis(10),
    backoff_max: Duration::from_millis(100),
};

/// Keeps what was delivered.
#[derive(Default)]
struct Recorder {
    batches: Mutex<Vec<usize>>,
    deliveries: Mutex<Vec<Delivery>>,
}

impl Sink for Recorder {
    fn deliver(&self, batch: Vec<Delivery>) {
        self.batches.lock().push(batch.len());
        self.deliveries.lock().extend(batch);
    }
}

struct Node {
    broker: RedisBroker,
    sink: Arc<Recorder>,
}

impl Node {
    fn start(url: &str, timing: Timing) -> Result<Self> {
        let sink = Arc::new(Recorder::default());
        let config = RedisConfig::from_url(url)?.with_timing(timing);
        let broker = RedisBroker::start(&config, Arc::clone(&sink) as Arc<dyn Sink>);
        Ok(Self { broker, sink })
    }

    async fn healthy(url: &str) -> Result<Self> {
        let node = Self::start(url, Timing::default())?;
        node.wait_healthy().await?;
        Ok(node)
    }

    async fn wait_healthy(&self) -> Result<()> {
        until("the broker is up and proven", || self.broker.health() == HEALTHY).await
    }

    async fn subscribe(&self, stream: &StreamKey) -> Result<Position> {
        Ok(soon("a subscription", self.broker.subscribe(stream.clone())).await??)
    }

    async fn publish(&self, stream: &StreamKey, text: &str) -> Result<Result<Position, BrokerError>> {
        self.publish_event(stream, message(text)?).await
    }

    async fn publish_event(&self, stream: &StreamKey, event: Event) -> Result<Result<Position, BrokerError>> {
        let (tell, outcome) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result| {
            let _ = tell.send(result);
        });
        self.broker.publish(vec![Publish {
            stream: stream.clone(),
            event,
            reply: Some(reply),
        }]);
        Ok(soon("the outcome of a publish", outcome).await??)
    }

    /// Publishes `count` messages in one call; the outcomes arrive in the returned list in the order of replies.
    fn publish_many(&self, stream: &StreamKey, count: usize) -> Result<Outcomes> {
        let outcomes = Outcomes::default();
        let batch = (0..count)
            .map(|number| {
                let outcomes = Arc::clone(&outcomes);
                let reply = Box::new(move |result| outcomes.lock().push((number, result)));
                Ok(Publish {
                    stream: stream.clone(),
                    event: message("x")?,
                    reply: Some(reply),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        self.broker.publish(batch);
        Ok(outcomes)
    }

    async fn wait_delivered(&self, count: usize) -> Result<Vec<Delivery>> {
        until(&format!("{count} deliveries"), || {
            self.sink.deliveries.lock().len() >= count
        })
        .await?;
        Ok(self.sink.deliveries.lock().clone())
    }

    fn stat(
        &self,
        read: impl Fn(&wsfleet_gateway::broker::redis::Stats) -> &std::sync::atomic::AtomicU64,
    ) -> u64 {
        read(self.broker.stats()).load(Ordering::Relaxed)
    }
}

type Outcomes = Arc<Mutex<Vec<(usize, Result<Position, BrokerError>)>>>;

fn room(name: &str) -> StreamKey {
    StreamKey::Room(name.into())
}

fn message(text: &str) -> Result<Event> {
    Ok(Event::RoomMessage {
        user_id: "ann".into(),
        payload: RawValue::from_string(serde_json::to_string(text)?)?,
        timestamp: 1,
        server_id: "g1".into(),
    })
}

fn text(event: &Event) -> String {
    match event {
        Event::RoomMessage { payload, .. } | Event::DirectMessage { payload, .. } => {
            serde_json::from_str(payload.get()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn offsets(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries
        .iter()
        .filter_map(|d| Some(d.position.as_ref()?.offset))
        .collect()
}

/// The stream's metadata key, for tests that play tricks on it.
fn key(name: &str) -> String {
    format!("wsfleet:0:room:{{{name}}}")
}

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
    assert_eq!(node.stat(|s| &s.subscriptions), 2_000);

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
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "still {} channels",
            channels.len()
        );
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
async fn it_starts_without_redis_says_so_and_recovers() -> Result<()> {
    let mut redis = RedisServer::reserve(&["--save", "", "--appendonly", "no"])?;
    let node = Node::start(&redis.url(), SHORT)?;
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
    let node = Node::start(&redis.url(), SHORT)?;
    node.wait_healthy().await?;
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
    let node = Node::start(&redis.url(), SHORT)?;
    node.wait_healthy().await?;
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

/// Cuts all subscription links, and does more in the same moment.
async fn cut_and(redis: &RedisServer, more: &[&[&str]]) -> Result<()> {
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub");
    for command in more {
        pipe.cmd(command[0]).arg(&command[1..]);
    }
    let _: Vec<redis::Value> = pipe.query_async(&mut redis.connection().await?).await?;
    Ok(())
}

#[tokio::test]
async fn offsets_missed_over_a_reconnect_are_counted_and_nothing_is_delivered_twice() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::start(&redis.url(), SHORT)?;
    node.wait_healthy().await?;
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
        Node::start(&redis.url(), SHORT)?,
        Node::start(&redis.url(), SHORT)?,
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
    let node = Node::start(&redis.url(), SHORT)?;
    node.wait_healthy().await?;
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
    let node = Node::start(&format!("redis://{}", proxy.address()), SHORT)?;
    node.wait_healthy().await?;
    let other = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    other.subscribe(&lobby).await?;
    assert_eq!(proxy.accepted(), 2);
    proxy.swallow();
    other.publish(&lobby, "into the black hole").await??;
    let limit = SHORT.silence + SHORT.answer + Duration::from_secs(5);
    until_within(limit, "both links are replaced", || proxy.accepted() == 4).await?;
    node.wait_healthy().await?;
    assert_eq!(node.stat(|s| &s.missed), 1);
    other.publish(&lobby, "after").await??;
    assert_eq!(offsets(&node.wait_delivered(1).await?), [2]);
    Ok(())
}

#[tokio::test]
async fn a_silent_link_is_probed_and_stays_when_the_probes_arrive() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::start(&redis.url(), SHORT)?;
    node.wait_healthy().await?;
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
    let node = Node::start(&redis.url(), SHORT)?;
    node.wait_healthy().await?;
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
    let right = Node::start(&format!("redis://:s3%20cret@127.0.0.1:{}", redis.port()), SHORT)?;
    let named = Node::start(
        &format!("redis://default:s3%20cret@127.0.0.1:{}/2", redis.port()),
        SHORT,
    )?;
    let wrong = Node::start(&format!("redis://:nope@127.0.0.1:{}", redis.port()), SHORT)?;
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
    let node = Node::healthy(&redis.url()).await?;
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
        ensure!(start.elapsed() < Duration::from_secs(20), "connections are left");
        tokio::task::yield_now().await;
    }
    assert_eq!(
        node.publish(&room("lobby"), "x").await?,
        Err(BrokerError::Unavailable)
    );
    Ok(())
}
