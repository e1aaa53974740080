//! What is kept in a real `redis-server`, how it is found again, and how holes in what was delivered are filled.

use std::time::Duration;

use anyhow::Result;
use redis::aio::MultiplexedConnection;
use wsfleet_gateway::broker::redis::Timing;
use wsfleet_gateway::broker::{Broker, Page, Position, Reading, Span, StreamKey};
use wsfleet_tests::broker::{Node, PATIENT, cut_and, key, message, offsets, room, text};
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{soon, until};

const LOG: &str = "wsfleet:0:room.log:{lobby}";

/// Compares what is silent all the time.
const RESTLESS: Timing = Timing {
    compare: Duration::from_millis(100),
    ..PATIENT
};

async fn read(node: &Node, stream: &StreamKey, span: Span) -> Result<Page> {
    let reading = Reading {
        stream: stream.clone(),
        span,
        messages: 300,
        bytes: 1 << 20,
    };
    Ok(soon("a page", node.broker.history(reading)).await??)
}

fn read_offsets(page: &Page) -> Vec<u64> {
    page.messages.iter().map(|kept| kept.offset).collect()
}

async fn ask<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, words: &[&str]) -> Result<T> {
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    Ok(cmd.query_async(connection).await?)
}

/// A position and its message in one step, as gateways write them: whoever reads in between must not find the one without the
/// other.
const UNHEARD: &str = r"
local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
local id = string.format('%d-%d', offset, redis.call('TIME')[1] * 1000)
return redis.call('XADD', KEYS[2], id, 'm', ARGV[1])
";

/// Publishes as another gateway does, but so that no link hears of it.
async fn publish_unheard(redis: &RedisServer, count: u64) -> Result<()> {
    let mut connection = redis.connection().await?;
    let event = serde_json::to_string(&message("unheard")?)?;
    for _ in 0..count {
        let _: String = ask(
            &mut connection,
            &["EVAL", UNHEARD, "2", &key("lobby"), LOG, &event],
        )
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn messages_are_kept_beside_their_position_and_both_end_in_time() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    let first = node.publish_as(&lobby, message("hello")?, Some("m:1")).await??;
    node.publish(&lobby, "again").await??;
    let mut connection = redis.connection().await?;
    let mut keys: Vec<String> = ask(&mut connection, &["KEYS", "wsfleet:0:room*"]).await?;
    keys.sort_unstable();
    let id = "wsfleet:0:room.id:{lobby}:3:ann:m:1";
    assert_eq!(keys, [id, LOG, &key("lobby")]);
    let known: String = ask(&mut connection, &["GET", id]).await?;
    assert_eq!(known, format!("{} 1", first.position.epoch));
    let seconds = [(id, 300), (LOG, 300), (&*key("lobby"), 30 * 86_400)];
    for (key, seconds) in seconds {
        let left: i64 = ask(&mut connection, &["TTL", key]).await?;
        assert!((seconds - 60..=seconds).contains(&left), "{key}: {left} s");
    }
    let page = read(&node, &lobby, Span::After(0)).await?;
    assert_eq!(
        page.position,
        Position {
            offset: 2,
            ..first.position.clone()
        }
    );
    let texts: Vec<_> = page.messages.iter().map(|kept| text(&kept.event)).collect();
    assert_eq!(
        (read_offsets(&page), texts),
        (vec![1, 2], vec!["hello".to_owned(), "again".to_owned()])
    );
    Ok(())
}

#[tokio::test]
async fn a_log_is_trimmed_by_length_and_read_exactly() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    let outcomes = node.publish_many(&lobby, 1_000)?;
    until("all replies", || outcomes.lock().len() == 1_000).await?;
    let mut connection = redis.connection().await?;
    let length: u64 = ask(&mut connection, &["XLEN", LOG]).await?;
    assert!((300..=400).contains(&length), "{length} messages");
    let page = read(&node, &lobby, Span::After(0)).await?;
    assert!(read_offsets(&page).into_iter().eq(701..=1_000));
    let page = read(&node, &lobby, Span::Before(Some(703))).await?;
    assert_eq!((read_offsets(&page), page.more), (vec![701, 702], false));
    Ok(())
}

#[tokio::test]
async fn a_log_is_trimmed_by_age_as_it_grows() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    let mut connection = redis.connection().await?;
    // an hour old
    for offset in 1..=40 {
        let time: Vec<u64> = ask(&mut connection, &["TIME"]).await?;
        let id = format!("{offset}-{}", (time[0] - 3_600) * 1_000);
        let _: String = ask(&mut connection, &["XADD", LOG, &id, "m", "old"]).await?;
    }
    let _: i64 = ask(&mut connection, &["HSET", &key("lobby"), "o", "40"]).await?;
    let page = read(&node, &lobby, Span::After(0)).await?;
    assert_eq!((read_offsets(&page), page.position.offset), (vec![], 40));
    for _ in 0..32 {
        node.publish(&lobby, "new").await??;
    }
    let length: u64 = ask(&mut connection, &["XLEN", LOG]).await?;
    assert_eq!(length, 32);
    let page = read(&node, &lobby, Span::Before(None)).await?;
    assert!(read_offsets(&page).into_iter().eq(41..=72));
    Ok(())
}

#[tokio::test]
async fn a_stream_whose_metadata_is_gone_begins_anew_without_its_old_messages() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    let before = node.subscribe(&lobby).await?;
    for _ in 0..5 {
        node.publish(&lobby, "old").await??;
    }
    let mut connection = redis.connection().await?;
    let _: i64 = ask(&mut connection, &["DEL", &key("lobby")]).await?;
    let after = node.publish(&lobby, "new").await??;
    assert_ne!(after.epoch, before.epoch);
    let page = read(&node, &lobby, Span::After(0)).await?;
    assert_eq!((read_offsets(&page), &page.position), (vec![1], &after));
    until("the new epoch is told", || !node.sink.gaps.lock().is_empty()).await?;
    assert_eq!(*node.sink.gaps.lock(), [(1, 0, after.epoch.to_string())]);
    assert_eq!(offsets(&node.wait_delivered(6).await?), [1, 2, 3, 4, 5, 1]);
    Ok(())
}

#[tokio::test]
async fn what_was_published_while_the_link_was_gone_is_read_and_delivered_in_order() -> Result<()> {
    let redis = RedisServer::start().await?;
    let (node, other) = (
        Node::start(&redis.url(), PATIENT)?,
        Node::start(&redis.url(), PATIENT)?,
    );
    let lobby = room("lobby");
    for node in [&node, &other] {
        node.wait_healthy().await?;
        node.subscribe(&lobby).await?;
    }
    node.publish(&lobby, "1").await??;
    for node in [&node, &other] {
        node.wait_delivered(1).await?;
    }
    cut_and(&redis, &[]).await?;
    publish_unheard(&redis, 200).await?;
    for node in [&node, &other] {
        until("the link is rebuilt", || {
            node.stat(|s| &s.subscription_links) == 2
        })
        .await?;
        node.wait_healthy().await?;
    }
    assert_eq!(other.publish(&lobby, "end").await??.offset, 202);
    for node in [&node, &other] {
        let delivered = node.wait_delivered(202).await?;
        assert!(offsets(&delivered).into_iter().eq(1..=202));
        assert_eq!(*node.sink.gaps.lock(), []);
    }
    Ok(())
}

#[tokio::test]
async fn a_last_message_that_was_lost_is_found_in_a_silent_room() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::start(&redis.url(), RESTLESS)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    node.publish(&lobby, "1").await??;
    publish_unheard(&redis, 2).await?;
    let delivered = node.wait_delivered(3).await?;
    assert_eq!(offsets(&delivered), [1, 2, 3]);
    assert_eq!(text(&delivered[2].event), "unheard");
    assert_eq!(node.publish(&lobby, "4").await??.offset, 4);
    assert_eq!(offsets(&node.wait_delivered(4).await?), [1, 2, 3, 4]);
    let filled = node.broker.stats().repairs.with_label_values(&["filled"]).get();
    assert_eq!((filled, node.sink.gaps.lock().len()), (1, 0));
    assert_eq!(node.stat(|s| &s.subscription_links), 1);
    Ok(())
}

#[tokio::test]
async fn what_is_lost_for_good_is_told_once() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::start(&redis.url(), RESTLESS)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    let epoch = node.subscribe(&lobby).await?.epoch;
    node.publish(&lobby, "1").await??;
    let mut connection = redis.connection().await?;
    let _: i64 = ask(&mut connection, &["HINCRBY", &key("lobby"), "o", "3"]).await?;
    until("the gap is told", || !node.sink.gaps.lock().is_empty()).await?;
    assert_eq!(node.publish(&lobby, "5").await??.offset, 5);
    assert_eq!(offsets(&node.wait_delivered(2).await?), [1, 5]);
    assert_eq!(*node.sink.gaps.lock(), [(2, 4, epoch.to_string())]);
    let gaps = node.broker.stats().repairs.with_label_values(&["gap"]).get();
    assert_eq!(gaps, 1);
    Ok(())
}

#[tokio::test]
async fn offsets_that_went_back_end_the_epoch_and_its_messages() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::start(&redis.url(), RESTLESS)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    let before = node.subscribe(&lobby).await?;
    for _ in 0..5 {
        node.publish(&lobby, "x").await??;
    }
    node.wait_delivered(5).await?;
    let mut connection = redis.connection().await?;
    let _: i64 = ask(&mut connection, &["HSET", &key("lobby"), "o", "2"]).await?;
    until("the new epoch is told", || !node.sink.gaps.lock().is_empty()).await?;
    let after = node.publish(&lobby, "y").await??;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.offset, 1);
    let page = read(&node, &lobby, Span::After(0)).await?;
    assert_eq!((read_offsets(&page), page.position), (vec![1], after));
    assert_eq!(offsets(&node.wait_delivered(6).await?), [1, 2, 3, 4, 5, 1]);
    Ok(())
}

#[tokio::test]
async fn a_log_whose_metadata_was_evicted_is_not_taken_for_that_of_the_new_epoch() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    let mut before = Position::none();
    for n in 0..5 {
        before = node.publish(&lobby, &format!("old {n}")).await??;
    }
    let mut connection = redis.connection().await?;
    let _: u64 = ask(&mut connection, &["DEL", &key("lobby")]).await?;
    let anew = soon("subscribed", node.broker.subscribe(lobby.clone())).await??;
    assert_ne!(anew.epoch, before.epoch);
    assert_eq!(anew.offset, 0);
    let first = node.publish(&lobby, "new").await??;
    assert_eq!((&first.epoch, first.offset), (&anew.epoch, 1));
    let page = read(&node, &lobby, Span::Before(None)).await?;
    assert_eq!(read_offsets(&page), [1]);
    assert_eq!(page.position, first);
    Ok(())
}
