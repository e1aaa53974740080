//! What every broker that many gateways share does in the same way, on a real server of each kind.

use anyhow::Result;
use wsfleet_gateway::broker::nats::NatsBroker;
use wsfleet_gateway::broker::redis::RedisBroker;
use wsfleet_gateway::broker::{Broker, Event, Page, Position, Reading, Span, StreamKey};
use wsfleet_tests::broker::{Counted, Node, PATIENT, message, offsets, room, text};
use wsfleet_tests::nats::NatsServer;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{soon, until};

/// A server, and the broker on it.
trait Carrier: Sized {
    type Broker: Counted;

    async fn start() -> Result<Self>;

    /// A gateway's broker, up and proven.
    async fn node(&self) -> Result<Node<Self::Broker>>;
}

impl Carrier for RedisServer {
    type Broker = RedisBroker;

    async fn start() -> Result<Self> {
        Self::start().await
    }

    async fn node(&self) -> Result<Node<RedisBroker>> {
        Node::healthy(&self.url()).await
    }
}

impl Carrier for NatsServer {
    type Broker = NatsBroker;

    async fn start() -> Result<Self> {
        Self::start().await
    }

    async fn node(&self) -> Result<Node<NatsBroker>> {
        let node = Node::on_nats(&self.url(), PATIENT)?;
        node.wait_healthy().await?;
        Ok(node)
    }
}

macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {
        mod redis {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name::<super::RedisServer>().await
            })*
        }
        mod nats {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name::<super::NatsServer>().await
            })*
        }
    };
}

on_each_server! {
    every_subscribed_broker_gets_every_message_in_one_order_the_publishers_own_included,
    streams_with_awkward_names_never_mix,
    announcements_are_delivered_without_a_place_and_take_none,
    a_burst_is_answered_in_order_and_handed_on_in_batches,
    joining_and_leaving_in_quick_succession_ends_as_the_last_word_says,
    brokers_that_publish_to_one_room_at_once_share_its_offsets_without_a_hole,
    of_a_message_that_is_sent_to_several_brokers_one_is_delivered_and_all_are_told_its_place,
    the_place_of_a_message_that_is_not_kept_any_more_is_told_to_who_sends_it_again,
    what_is_kept_is_read_by_pages_from_either_end,
}

async fn read<B: Counted>(node: &Node<B>, stream: &StreamKey, span: Span, messages: usize) -> Result<Page> {
    let reading = Reading {
        stream: stream.clone(),
        span,
        messages,
        bytes: 1 << 20,
    };
    Ok(soon("a page", node.broker.history(reading)).await??)
}

fn read_offsets(page: &Page) -> (Vec<u64>, bool) {
    (page.messages.iter().map(|kept| kept.offset).collect(), page.more)
}

async fn every_subscribed_broker_gets_every_message_in_one_order_the_publishers_own_included<C: Carrier>()
-> Result<()> {
    let carrier = C::start().await?;
    let (a, b) = (carrier.node().await?, carrier.node().await?);
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

async fn streams_with_awkward_names_never_mix<C: Carrier>() -> Result<()> {
    let carrier = C::start().await?;
    let node = carrier.node().await?;
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

async fn announcements_are_delivered_without_a_place_and_take_none<C: Carrier>() -> Result<()> {
    let carrier = C::start().await?;
    let node = carrier.node().await?;
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

async fn a_burst_is_answered_in_order_and_handed_on_in_batches<C: Carrier>() -> Result<()> {
    const BURST: usize = 20_000;
    let carrier = C::start().await?;
    let node = carrier.node().await?;
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

async fn joining_and_leaving_in_quick_succession_ends_as_the_last_word_says<C: Carrier>() -> Result<()> {
    let carrier = C::start().await?;
    let node = carrier.node().await?;
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

async fn brokers_that_publish_to_one_room_at_once_share_its_offsets_without_a_hole<C: Carrier>() -> Result<()>
{
    const EACH: usize = 500;
    let carrier = C::start().await?;
    let (a, b) = (carrier.node().await?, carrier.node().await?);
    let lobby = room("lobby");
    for node in [&a, &b] {
        node.subscribe(&lobby).await?;
    }
    let outcomes = [a.publish_many(&lobby, EACH)?, b.publish_many(&lobby, EACH)?];
    let mut told = Vec::new();
    for outcomes in &outcomes {
        until("all replies", || outcomes.lock().len() == EACH).await?;
        for (_, outcome) in &*outcomes.lock() {
            told.push(outcome.as_ref().map_err(Clone::clone)?.offset);
        }
    }
    told.sort_unstable();
    assert!(told.into_iter().eq(1..=2 * EACH as u64));
    for node in [&a, &b] {
        let delivered = node.wait_delivered(2 * EACH).await?;
        assert!(offsets(&delivered).into_iter().eq(1..=2 * EACH as u64));
        assert_eq!(*node.sink.gaps.lock(), []);
    }
    Ok(())
}

async fn of_a_message_that_is_sent_to_several_brokers_one_is_delivered_and_all_are_told_its_place<
    C: Carrier,
>() -> Result<()> {
    let carrier = C::start().await?;
    let nodes = [carrier.node().await?, carrier.node().await?];
    let lobby = room("lobby");
    nodes[0].subscribe(&lobby).await?;
    nodes[0].publish(&lobby, "before").await??;
    let sending = (0..50).map(|number| {
        let (node, lobby) = (&nodes[number % 2], &lobby);
        async move { node.publish_as(lobby, message("once")?, Some("m:1")).await }
    });
    let mut first = 0;
    for outcome in futures::future::join_all(sending).await {
        let accepted = outcome??;
        assert_eq!(accepted.position.offset, 2);
        first += usize::from(!accepted.duplicate);
    }
    assert_eq!(first, 1);
    nodes[1].publish(&lobby, "behind").await??;
    let delivered = nodes[0].wait_delivered(3).await?;
    let texts: Vec<_> = delivered.iter().map(|delivery| text(&delivery.event)).collect();
    assert_eq!(texts, ["before", "once", "behind"]);
    let other = nodes[1]
        .publish_as(&room("other"), message("once")?, Some("m:1"))
        .await??;
    assert_eq!((other.position.offset, other.duplicate), (1, false));
    Ok(())
}

async fn the_place_of_a_message_that_is_not_kept_any_more_is_told_to_who_sends_it_again<C: Carrier>()
-> Result<()> {
    let carrier = C::start().await?;
    let nodes = [carrier.node().await?, carrier.node().await?];
    let lobby = room("lobby");
    let first = nodes[0]
        .publish_as(&lobby, message("once")?, Some("m:1"))
        .await??;
    // more frames than are kept, each with messages of its own
    for number in 0..400 {
        nodes[0]
            .publish_as(&lobby, message("x")?, Some(&format!("x{number}")))
            .await??;
    }
    let again = nodes[1]
        .publish_as(&lobby, message("once")?, Some("m:1"))
        .await??;
    assert_eq!((again.position, again.duplicate), (first.position, true));
    Ok(())
}

async fn what_is_kept_is_read_by_pages_from_either_end<C: Carrier>() -> Result<()> {
    let carrier = C::start().await?;
    let node = carrier.node().await?;
    let lobby = room("lobby");
    let outcomes = node.publish_many(&lobby, 1_000)?;
    until("all replies", || outcomes.lock().len() == 1_000).await?;
    let all = read(&node, &lobby, Span::After(0), 300).await?;
    assert_eq!(read_offsets(&all), ((701..=1_000).collect(), false));
    assert_eq!(all.position.offset, 1_000);
    for first in [701, 801, 901] {
        let page = read(&node, &lobby, Span::After(first - 1), 100).await?;
        assert_eq!(read_offsets(&page), ((first..first + 100).collect(), first < 901));
    }
    let last = read(&node, &lobby, Span::Before(None), 3).await?;
    assert_eq!(read_offsets(&last), (vec![998, 999, 1_000], true));
    let first = read(&node, &lobby, Span::Before(Some(703)), 3).await?;
    assert_eq!(read_offsets(&first), (vec![701, 702], false));
    let empty = read(&node, &room("empty"), Span::After(0), 3).await?;
    assert_eq!(
        (read_offsets(&empty), empty.position.offset),
        ((vec![], false), 0)
    );
    Ok(())
}
