//! A message that is the last one for long, published in a Redis Cluster while its slot moves, where no gateway was subscribed
//! yet: it shows no hole, and is found because a stream is compared when its slot has moved.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use wsfleet_gateway::broker::encode;
use wsfleet_gateway::broker::redis::Timing;
use wsfleet_tests::broker::{Node, PATIENT, key, message, offsets, room, text};
use wsfleet_tests::redis_cluster::{PATIENT as NODES_PATIENT, PRIMARIES, RedisCluster};

/// Streams in which nothing is heard are not compared as long as the test runs.
const NEVER: Timing = Timing {
    compare: Duration::from_hours(1),
    ..PATIENT
};

/// What a publish does, in the moment in which the slot is this node's: nobody can have subscribed there before.
async fn arrive_with_a_message(cluster: &RedisCluster, slot: usize, to: usize) -> Result<()> {
    let (stream, log) = (key("lobby"), "wsfleet:0:room.log:{lobby}");
    let (epoch, last): (String, u64) = {
        let from = cluster.owner(to, slot).await?;
        let known: Vec<String> = cluster.ask(from, &["HMGET", &stream, "e", "o"]).await?;
        let [epoch, last] = <[String; 2]>::try_from(known).ok().context("a stream")?;
        (epoch, last.parse()?)
    };
    let event = encode(&message("the last one")?)?;
    let place = last + 1;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let told = [format!("{epoch} {place} ").as_bytes(), &event].concat();
    let source = cluster.begin_move(slot, to).await?;
    let mut pipe = redis::pipe();
    pipe.cmd("CLUSTER")
        .arg(&["SETSLOT", &slot.to_string(), "NODE", &cluster.id(to).await?])
        .ignore();
    pipe.cmd("HSET").arg(&stream).arg("o").arg(place).ignore();
    pipe.cmd("XADD")
        .arg(log)
        .arg(format!("{place}-{now}"))
        .arg("m")
        .arg(&event[..])
        .ignore();
    pipe.cmd("SPUBLISH").arg(&stream).arg(told);
    let (heard,): (usize,) = pipe
        .query_async(&mut cluster.node(to).connection().await?)
        .await?;
    ensure!(heard == 0, "somebody was subscribed");
    cluster.end_move(slot, source, to).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_message_is_found_that_came_where_nobody_was_subscribed_yet() -> Result<()> {
    let cluster = RedisCluster::start(NODES_PATIENT).await?;
    let nodes = [
        Node::healthy_with(&cluster.url(), NEVER).await?,
        Node::healthy_with(&cluster.url(), NEVER).await?,
    ];
    for node in &nodes {
        node.subscribe(&room("lobby")).await?;
    }
    for number in 1..=3 {
        nodes[0].publish(&room("lobby"), &number.to_string()).await??;
    }
    for node in &nodes {
        node.wait_delivered(3).await?;
    }
    let slot = cluster.slot(&key("lobby")).await?;
    let home = cluster.owner(0, slot).await?;
    arrive_with_a_message(&cluster, slot, (home + 1) % PRIMARIES).await?;
    for node in &nodes {
        let deliveries = node.wait_delivered(4).await?;
        assert_eq!(offsets(&deliveries), [1, 2, 3, 4]);
        assert_eq!(text(&deliveries[3].event), "the last one");
        assert_eq!(*node.sink.gaps.lock(), []);
    }
    Ok(())
}
