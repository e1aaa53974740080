//! The NATS broker against a real `nats-server` that fails, is not let in to, or is one of three.

use std::time::Duration;

use anyhow::{Result, anyhow};
use wsfleet_gateway::broker::nats::NatsBroker;
use wsfleet_gateway::broker::redis::Timing;
use wsfleet_gateway::broker::{Broker, BrokerError, Reading, Span, StreamKey};
use wsfleet_gateway::config::{DirectHistory, Histories};
use wsfleet_tests::broker::{Node, PATIENT, SHORT, offsets, room, text};
use wsfleet_tests::nats::{NatsCluster, NatsServer};
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::wait::{soon, until, until_async};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_server_was_killed_and_goes_on_where_it_was() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let node = Node::on_nats(&server.url(), PATIENT)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    let before = node.subscribe(&lobby).await?;
    for number in 0..50 {
        node.publish(&lobby, &number.to_string()).await??;
    }
    server.kill()?;
    until("the loss is seen", || !node.broker.health().up).await?;
    assert_eq!(node.publish(&lobby, "lost").await?, Err(BrokerError::Unavailable));
    server.restart().await?;
    node.wait_healthy().await?;
    let next = node.publish(&lobby, "next").await??;
    assert_eq!((next.epoch, next.offset), (before.epoch, 51));
    assert!(offsets(&node.wait_delivered(51).await?).into_iter().eq(1..=51));
    let reading = Reading {
        stream: lobby,
        span: Span::After(0),
        messages: 300,
        bytes: 1 << 20,
    };
    let page = soon("a page", node.broker.history(reading)).await??;
    let texts: Vec<_> = page.messages.iter().map(|kept| text(&kept.event)).collect();
    let expected = (0..50)
        .map(|number| number.to_string())
        .chain(["next".to_owned()]);
    assert!(texts.iter().cloned().eq(expected), "{texts:?}");
    Ok(())
}

#[tokio::test]
async fn a_link_that_swallows_everything_is_found_and_what_was_missed_is_read() -> Result<()> {
    let server = NatsServer::start().await?;
    let proxy = Proxy::start(server.address()).await?;
    let near = Node::on_nats(&format!("nats://{}", proxy.address()), SHORT)?;
    let far = Node::on_nats(&server.url(), PATIENT)?;
    let lobby = room("lobby");
    for node in [&near, &far] {
        node.wait_healthy().await?;
        node.subscribe(&lobby).await?;
    }
    far.publish(&lobby, "1").await??;
    near.wait_delivered(1).await?;
    proxy.swallow();
    for number in 2..=200 {
        far.publish(&lobby, &number.to_string()).await??;
    }
    let delivered = near.wait_delivered(200).await?;
    assert!(offsets(&delivered).into_iter().eq(1..=200));
    assert_eq!(
        (
            near.stat(|s| &s.subscription_links),
            near.stat(|s| &s.probes_missed)
        ),
        (2, 1)
    );
    assert_eq!(*near.sink.gaps.lock(), []);
    near.wait_healthy().await?;
    assert_eq!(near.publish(&lobby, "201").await??.offset, 201);
    Ok(())
}

#[tokio::test]
async fn a_message_that_nobody_confirms_is_told_to_be_unconfirmed() -> Result<()> {
    let server = NatsServer::start().await?;
    let proxy = Proxy::start(server.address()).await?;
    let node = Node::on_nats(&format!("nats://{}", proxy.address()), SHORT)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    node.publish(&lobby, "1").await??;
    proxy.swallow();
    assert_eq!(node.publish(&lobby, "2").await?, Err(BrokerError::Unconfirmed));
    until("the link is made anew", || {
        node.stat(|s| &s.subscription_links) == 2
    })
    .await?;
    node.wait_healthy().await?;
    // it was swallowed
    assert_eq!(node.publish(&lobby, "3").await??.offset, 2);
    Ok(())
}

#[tokio::test]
async fn streams_that_are_gone_begin_anew_and_that_is_told() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let node = Node::on_nats(&server.url(), PATIENT)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    let before = node.subscribe(&lobby).await?;
    for _ in 0..5 {
        node.publish(&lobby, "old").await??;
    }
    node.wait_delivered(5).await?;
    server.kill()?;
    server.forget()?;
    server.restart().await?;
    until("the new epoch is told", || !node.sink.gaps.lock().is_empty()).await?;
    node.wait_healthy().await?;
    let after = node.publish(&lobby, "new").await??;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.offset, 1);
    assert_eq!(offsets(&node.wait_delivered(6).await?), [1, 2, 3, 4, 5, 1]);
    Ok(())
}

#[tokio::test]
async fn credentials_are_used_and_wrong_ones_do_not_stop_the_process() -> Result<()> {
    let server = NatsServer::start_with(&["--user", "chat", "--pass", "s@cret"]).await?;
    let wrong = Node::on_nats(&server.url(), PATIENT)?;
    let right = Node::on_nats(&format!("nats://chat:s%40cret@{}", server.address()), PATIENT)?;
    right.wait_healthy().await?;
    right.publish(&room("lobby"), "hello").await??;
    assert!(!wrong.broker.health().up);
    assert_eq!(
        wrong.publish(&room("lobby"), "x").await?,
        Err(BrokerError::Unavailable)
    );
    Ok(())
}

#[tokio::test]
async fn fleets_with_prefixes_of_their_own_share_a_server_and_nothing_else() -> Result<()> {
    let server = NatsServer::start().await?;
    let one = Node::on_nats(&server.url(), PATIENT)?;
    let two = Node::on_nats(&format!("{}?prefix=two", server.url()), PATIENT)?;
    let lobby = room("lobby");
    for (node, text) in [(&one, "one"), (&two, "two")] {
        node.wait_healthy().await?;
        node.subscribe(&lobby).await?;
        assert_eq!(node.publish(&lobby, text).await??.offset, 1);
    }
    assert_eq!(text(&one.wait_delivered(1).await?[0].event), "one");
    assert_eq!(text(&two.wait_delivered(1).await?[0].event), "two");
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_loses_one_of_three_loses_no_message() -> Result<()> {
    let mut cluster = NatsCluster::start().await?;
    // without a leader there is no answer at all, so it must be asked again soon
    let timing = Timing {
        answer: Duration::from_secs(5),
        ..PATIENT
    };
    let nodes = [
        Node::on_nats(&cluster.url(), timing)?,
        Node::on_nats(&cluster.url(), timing)?,
    ];
    let lobby = room("lobby");
    for node in &nodes {
        node.wait_healthy().await?;
        node.subscribe(&lobby).await?;
    }
    let mut last = 0;
    for lost in 0..2 {
        for number in 0..100 {
            last = publish_at_last(&nodes[number % 2], &lobby, last).await?;
        }
        cluster.servers[lost].kill()?;
        last = publish_at_last(&nodes[0], &lobby, last).await?;
        cluster.servers[lost].restart().await?;
    }
    for node in &nodes {
        let count = usize::try_from(last)?;
        let delivered = node.wait_delivered(count).await?;
        assert!(offsets(&delivered).into_iter().eq(1..=last));
        assert_eq!(*node.sink.gaps.lock(), []);
    }
    Ok(())
}

/// The offset of a message that is sent until it is accepted: a server that is lost may be this node's, or lead the stream.
async fn publish_at_last(node: &Node<NatsBroker>, room: &StreamKey, last: u64) -> Result<u64> {
    loop {
        if let Ok(position) = node.publish(room, "x").await? {
            assert!(position.offset > last);
            return Ok(position.offset);
        }
        tokio::task::yield_now().await;
    }
}

fn keeping(rule: &str) -> Result<Histories> {
    let rule = rule.parse().map_err(|_| anyhow!("{rule} is no rule"))?;
    Ok(Histories::new(vec![rule], DirectHistory::default()))
}

#[tokio::test]
async fn what_has_become_too_old_is_removed_and_the_position_stays() -> Result<()> {
    let server = NatsServer::start().await?;
    let node = Node::on_nats_keeping(&server.url(), PATIENT, keeping("*=300/1")?)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    let mut last = node.publish(&lobby, "x").await??;
    for _ in 0..9 {
        last = node.publish(&lobby, "x").await??;
    }
    // the birth was removed by nothing yet
    assert_eq!(server.messages("wsfleet-at").await?, 11);
    until_async("the old ones are removed", || async {
        Ok(server.messages("wsfleet-at").await? == 1)
    })
    .await?;
    let other = Node::on_nats_keeping(&server.url(), PATIENT, keeping("*=300/1")?)?;
    other.wait_healthy().await?;
    assert_eq!(other.subscribe(&lobby).await?, last);
    let reading = Reading {
        stream: lobby.clone(),
        span: Span::After(0),
        messages: 300,
        bytes: 1 << 20,
    };
    let page = soon("a page", other.broker.history(reading)).await??;
    assert_eq!((page.messages.len(), page.position), (0, last));
    assert_eq!(other.publish(&lobby, "next").await??.offset, 11);
    Ok(())
}

#[tokio::test]
async fn of_rooms_without_a_history_the_last_message_is_all_there_is() -> Result<()> {
    let server = NatsServer::start().await?;
    let node = Node::on_nats_keeping(&server.url(), PATIENT, keeping("*=off")?)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    for offset in 1..=9 {
        assert_eq!(node.publish(&lobby, "x").await??.offset, offset);
    }
    assert_eq!(server.messages("wsfleet-at").await?, 1);
    Ok(())
}

#[tokio::test]
async fn messages_of_ephemeral_rooms_are_heard_and_stored_nowhere() -> Result<()> {
    let server = NatsServer::start().await?;
    let node = Node::on_nats_keeping(&server.url(), PATIENT, keeping("*=ephemeral")?)?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    assert_eq!(node.subscribe(&lobby).await?.offset, 0);
    assert_eq!(node.publish(&lobby, "x").await??.offset, 0);
    let delivered = node.wait_delivered(1).await?;
    assert_eq!(
        (delivered[0].position.as_ref(), text(&delivered[0].event)),
        (None, "x".to_owned())
    );
    assert_eq!(server.messages("wsfleet-at").await?, 0);
    Ok(())
}
