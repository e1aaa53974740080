//! The Redis broker on a real Redis Cluster of three primaries and three replicas.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context, Result, ensure};
use wsfleet_gateway::broker::{Accepted, Broker, BrokerError, Event, Position, Reading, Span};
use wsfleet_tests::broker::{Node, SHORT, key, message, offsets, room, text};
use wsfleet_tests::redis_cluster::{NODES, PATIENT, PRIMARIES, RedisCluster};
use wsfleet_tests::wait::{soon, until, until_async};

/// Rooms, some in slots of each primary.
const ROOMS: usize = 60;

fn names() -> impl Iterator<Item = String> {
    (0..ROOMS).map(|number| format!("room {number}"))
}

/// What was delivered of each room: epoch and offset, and the text.
fn delivered(node: &Node) -> BTreeMap<String, Vec<(Position, String)>> {
    let mut rooms: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for delivery in node.sink.deliveries.lock().iter() {
        if let Some(position) = &delivery.position {
            let place = (position.clone(), text(&delivery.event));
            rooms
                .entry(format!("{:?}", delivery.stream))
                .or_default()
                .push(place);
        }
    }
    rooms
}

/// Publishes until it is accepted; each refusal before that has to be a temporary one.
async fn publish_at_last(node: &Node, name: &str, text: &str) -> Result<Position> {
    loop {
        match node.publish(&room(name), text).await? {
            Ok(position) => return Ok(position),
            Err(BrokerError::Unavailable) => tokio::task::yield_now().await,
            Err(other) => return Err(other).context("neither accepted nor surely not"),
        }
    }
}

async fn two(cluster: &RedisCluster) -> Result<[Node; 2]> {
    let (url, timing) = (cluster.url(), wsfleet_tests::broker::PATIENT);
    let nodes = [Node::start(&url, timing)?, Node::start(&url, timing)?];
    for node in &nodes {
        node.wait_healthy().await?;
    }
    Ok(nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_all_slots_work_as_on_one_redis() -> Result<()> {
    let cluster = RedisCluster::start(PATIENT).await?;
    let nodes = two(&cluster).await?;
    for node in &nodes {
        for name in names() {
            assert_eq!(node.subscribe(&room(&name)).await?.offset, 0);
        }
    }
    for (number, name) in names().enumerate() {
        for offset in 1..=3 {
            let sender = &nodes[(number + offset) % 2];
            let position = sender.publish(&room(&name), &offset.to_string()).await??;
            assert_eq!(position.offset, u64::try_from(offset)?);
        }
        let joined = Event::UserJoined {
            user_id: "ann".into(),
            server_id: "g1".into(),
            connection: "c".into(),
        };
        nodes[0].publish_event(&room(&name), joined).await??;
    }
    for node in &nodes {
        // with the announcements
        node.wait_delivered(ROOMS * 4).await?;
        let rooms = delivered(node);
        assert_eq!(rooms.len(), ROOMS);
        for (name, places) in rooms {
            let all: Vec<_> = places
                .iter()
                .map(|(place, text)| (place.offset, &**text))
                .collect();
            assert_eq!(all, [(1, "1"), (2, "2"), (3, "3")], "{name}");
        }
    }
    for name in names() {
        let stream = room(&name);
        let first = nodes[0].publish_as(&stream, message("4")?, Some("id")).await??;
        let second = nodes[1].publish_as(&stream, message("4")?, Some("id")).await??;
        let position = first.position.clone();
        assert_eq!(
            second,
            Accepted {
                position,
                duplicate: true
            }
        );
        let reading = Reading {
            stream,
            span: Span::After(1),
            messages: 300,
            bytes: 1 << 20,
        };
        let page = soon("a page", nodes[1].broker.history(reading)).await??;
        assert_eq!(page.position, first.position);
        let texts: Vec<_> = page.messages.iter().map(|kept| text(&kept.event)).collect();
        assert_eq!(texts, ["2", "3", "4"]);
    }
    for primary in 0..PRIMARIES {
        let keys: Vec<String> = cluster.ask(primary, &["KEYS", "wsfleet:0:room:*"]).await?;
        assert!(
            keys.len() > ROOMS / 10,
            "{} rooms are on primary {primary}",
            keys.len()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_gateway_has_two_connections_to_each_primary_and_none_to_a_replica() -> Result<()> {
    let cluster = RedisCluster::start(PATIENT).await?;
    let nodes = two(&cluster).await?;
    let pair = |count| {
        let names = ["wsfleet-command", "wsfleet-subscription"];
        BTreeMap::from(names.map(|name| (name.to_owned(), count)))
    };
    let mut all = vec![pair(nodes.len()); PRIMARIES];
    all.resize(NODES, BTreeMap::new());
    until_async("only these connections", || async {
        Ok(cluster.gateway_connections().await? == all)
    })
    .await?;
    let each = all.iter().flat_map(BTreeMap::values).sum::<usize>() / nodes.len();
    println!("connections of a gateway: {each}; nodes of Redis: {NODES}");
    assert!(each <= NODES + 2);
    for node in nodes {
        soon("the end of a broker", node.broker.close()).await?;
    }
    until_async("no connections", || async {
        Ok(cluster
            .gateway_connections()
            .await?
            .iter()
            .all(BTreeMap::is_empty))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_while_messages_flow_loses_nothing() -> Result<()> {
    let cluster = RedisCluster::start(PATIENT).await?;
    let nodes = two(&cluster).await?;
    for node in &nodes {
        node.subscribe(&room("lobby")).await?;
    }
    let slot = cluster.slot(&key("lobby")).await?;
    let home = cluster.owner(0, slot).await?;
    let mut last = 0;
    for turn in 1..=PRIMARIES {
        let moving = cluster.move_slot(slot, (home + turn) % PRIMARIES);
        let flowing = async {
            for number in 0..50 {
                let sender = &nodes[number % 2];
                last = publish_at_last(sender, "lobby", "x").await?.offset;
            }
            anyhow::Ok(())
        };
        let (moved, flowed) = tokio::join!(moving, flowing);
        moved?;
        flowed?;
    }
    assert_eq!(
        last,
        50 * u64::try_from(PRIMARIES)?,
        "what was refused was not accepted"
    );
    for node in &nodes {
        let all = node.wait_delivered(usize::try_from(last)?).await?;
        assert!(offsets(&all).into_iter().eq(1..=last), "{:?}", offsets(&all));
        assert_eq!(*node.sink.gaps.lock(), []);
        assert_eq!(node.stat(|s| &s.epoch_changes), 0);
        until("it counts in one place", || {
            node.broker.stats().subscriptions.get() == 1
        })
        .await?;
    }
    // nobody is subscribed where it was on its way
    for primary in 0..PRIMARIES {
        let channels: Vec<String> = cluster
            .ask(primary, &["PUBSUB", "SHARDCHANNELS", &key("lobby")])
            .await?;
        assert_eq!(channels.len(), usize::from(primary == home), "primary {primary}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_whose_probe_moves_away_is_proven_by_another() -> Result<()> {
    let cluster = RedisCluster::start(PATIENT).await?;
    let node = Node::healthy_with(&cluster.url(), SHORT).await?;
    let probes = async |primary| {
        let command = ["PUBSUB", "SHARDCHANNELS", "wsfleet:0:probe:*"];
        cluster.ask::<Vec<String>>(primary, &command).await
    };
    let before = probes(0).await?;
    assert_eq!(before.len(), 1);
    cluster.move_slot(cluster.slot(&before[0]).await?, 1).await?;
    until_async("another probe", || async {
        let now = probes(0).await?;
        Ok(now.len() == 1 && now != before)
    })
    .await?;
    node.wait_healthy().await?;
    assert_eq!(probes(1).await?.len(), 1);
    Ok(())
}

/// Subscribes both to all rooms, and publishes one message to each.
async fn begin(nodes: &[Node; 2]) -> Result<BTreeMap<String, Position>> {
    let mut epochs = BTreeMap::new();
    for name in names() {
        for node in nodes {
            node.subscribe(&room(&name)).await?;
        }
        epochs.insert(name.clone(), nodes[0].publish(&room(&name), "before").await??);
    }
    for node in nodes {
        node.wait_delivered(ROOMS).await?;
    }
    Ok(epochs)
}

/// Publishes to all rooms in turn until each of a whole round was accepted; gives what was accepted, and how
/// often one was refused for now.
async fn publish_until_all_work(nodes: &[Node; 2]) -> Result<(Vec<(String, Position, String)>, usize)> {
    let mut accepted = Vec::new();
    let mut refused = 0;
    for round in 0.. {
        let before = refused;
        for name in names() {
            let text = format!("{name}, round {round}");
            match nodes[round % 2].publish(&room(&name), &text).await? {
                Ok(position) => accepted.push((name, position, text)),
                Err(BrokerError::Unavailable | BrokerError::Unconfirmed) => refused += 1,
                Err(other) => return Err(other.into()),
            }
        }
        if refused == before {
            break;
        }
    }
    ensure!(refused > 0, "a failure that nobody sees shows nothing");
    Ok((accepted, refused))
}

/// Each node delivered everything that was accepted and is not lost with its epoch, in order, and nothing twice.
fn check(nodes: &[Node; 2], accepted: &[(String, Position, String)]) {
    let places: HashSet<_> = accepted
        .iter()
        .map(|(name, place, _)| (name, &*place.epoch, place.offset))
        .collect();
    assert_eq!(places.len(), accepted.len(), "a place was given twice");
    for node in nodes {
        let rooms = delivered(node);
        for places in rooms.values() {
            for pair in places.windows(2) {
                let same = pair[0].0.epoch == pair[1].0.epoch;
                assert!(!same || pair[0].0.offset < pair[1].0.offset, "{pair:?}");
            }
        }
        let gaps = node.sink.gaps.lock().clone();
        for (name, place, text) in accepted {
            let places = &rooms[&format!("{:?}", room(name))];
            let lost = places.last().is_some_and(|(last, _)| last.epoch != place.epoch);
            assert!(
                lost || places.contains(&(place.clone(), text.clone())),
                "{name} {place:?} of {places:?}, gaps {gaps:?}"
            );
        }
    }
}

/// Awaits that both deliver what is published to every room now.
async fn works(nodes: &[Node; 2]) -> Result<Vec<(String, Position, String)>> {
    let mut accepted = Vec::new();
    for name in names() {
        let position = publish_at_last(&nodes[0], &name, "after").await?;
        accepted.push((name, position, "after".to_owned()));
    }
    for node in nodes {
        until_async("all rooms are delivered", || async {
            let rooms = delivered(node);
            let heard =
                |places: &Vec<(Position, String)>| places.last().is_some_and(|(_, text)| text == "after");
            Ok(rooms.values().filter(|places| heard(places)).count() == ROOMS)
        })
        .await?;
    }
    Ok(accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_is_followed_by_its_replica() -> Result<()> {
    let mut cluster = RedisCluster::start(std::time::Duration::from_secs(2)).await?;
    let nodes = two(&cluster).await?;
    begin(&nodes).await?;
    cluster.node_mut(0).kill()?;
    let (mut accepted, refused) = publish_until_all_work(&nodes).await?;
    println!(
        "publishes meanwhile: {} accepted, {refused} refused for now",
        accepted.len()
    );
    for node in &nodes {
        node.wait_healthy().await?;
    }
    accepted.extend(works(&nodes).await?);
    check(&nodes, &accepted);
    // back as a replica: nothing is asked of it
    cluster.node_mut(0).restart().await?;
    accepted = works(&nodes).await?;
    check(&nodes, &accepted);
    let connections = cluster.gateway_connections().await?;
    let used: BTreeSet<usize> = (0..NODES).filter(|node| !connections[*node].is_empty()).collect();
    assert_eq!(used, BTreeSet::from([1, 2, PRIMARIES]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_is_followed_by_its_replica() -> Result<()> {
    let cluster = RedisCluster::start(std::time::Duration::from_secs(2)).await?;
    let nodes = [
        Node::healthy_with(&cluster.url(), SHORT).await?,
        Node::healthy_with(&cluster.url(), SHORT).await?,
    ];
    begin(&nodes).await?;
    cluster.node(0).freeze()?;
    let (mut accepted, refused) = publish_until_all_work(&nodes).await?;
    println!(
        "publishes meanwhile: {} accepted, {refused} refused for now",
        accepted.len()
    );
    accepted.extend(works(&nodes).await?);
    cluster.node(0).thaw()?;
    check(&nodes, &accepted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_demoted_and_goes_on_is_left() -> Result<()> {
    let cluster = RedisCluster::start(PATIENT).await?;
    let nodes = two(&cluster).await?;
    let before = begin(&nodes).await?;
    cluster.ask::<()>(PRIMARIES, &["CLUSTER", "FAILOVER"]).await?;
    until_async("the gateways are where the slots are", || async {
        let connections = cluster.gateway_connections().await?;
        Ok(connections[0].is_empty() && connections[PRIMARIES].len() == 2)
    })
    .await?;
    let accepted = works(&nodes).await?;
    check(&nodes, &accepted);
    for (name, position, _) in accepted {
        assert_eq!(
            position.epoch, before[&name].epoch,
            "nothing is lost by a failover that waits"
        );
        assert_eq!(position.offset, 2);
    }
    Ok(())
}
