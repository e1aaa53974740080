//! Real Redis servers that speak TLS: one, watched by Sentinels, and as a cluster.

use std::sync::Arc;

use anyhow::Result;
use wsfleet_gateway::broker::redis::RedisConfig;
use wsfleet_gateway::broker::{Broker, BrokerError, Reading, Span};
use wsfleet_tests::broker::{Node, PATIENT, room};
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::redis_cluster::{NODES, PATIENT as NO_FAILOVER, PRIMARIES, RedisCluster};
use wsfleet_tests::redis_tls::{Secured, Shown, connections};
use wsfleet_tests::sentinel::MASTER;
use wsfleet_tests::tls::Certificate;
use wsfleet_tests::wait::{soon, until, until_async};

#[tokio::test]
async fn both_links_speak_tls_and_come_back_when_they_are_cut() -> Result<()> {
    let shown = Shown::by("localhost")?;
    let server = Secured::start(&shown, &["--save", ""]).await?;
    let config = RedisConfig::from_url(&format!("rediss://localhost:{}", server.port))?.with_timing(PATIENT);
    let node = Node::with(&config.trusting(shown.pem()))?;
    until("both links work", || !node.broker.health().degraded).await?;
    let lobby = room("lobby");
    soon("subscribed", node.broker.subscribe(lobby.clone())).await??;
    node.publish(&lobby, "one").await??;
    until("it is delivered", || node.sink.deliveries.lock().len() == 1).await?;

    let mut asker = server.redis.connection().await?;
    for kind in ["normal", "pubsub"] {
        let mut kill = redis::cmd("CLIENT");
        kill.arg(&["KILL", "TYPE", kind, "SKIPME", "yes"]);
        let killed: u64 = kill.query_async(&mut asker).await?;
        assert_eq!(killed, 1, "{kind}");
    }
    let went = || async { Ok(node.publish(&lobby, "two").await?.is_ok()) };
    until_async("it publishes again", went).await?;
    until("it is delivered, too", || node.sink.deliveries.lock().len() >= 2).await?;
    let reading = Reading {
        stream: lobby,
        span: Span::After(0),
        messages: 10,
        bytes: 1 << 20,
    };
    let kept = soon("a page", node.broker.history(reading)).await??;
    assert!(kept.messages.len() >= 2, "{kept:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_for_which_nobody_vouches_is_not_talked_to() -> Result<()> {
    let shown = Shown::by("localhost")?;
    let server = Secured::start(&shown, &["--save", ""]).await?;
    let proxy = Proxy::start(([127, 0, 0, 1], server.port).into()).await?;
    let config = RedisConfig::from_url(&format!("rediss://localhost:{}", proxy.address().port()))?;
    let node = |trusted| Node::with(&config.clone().with_timing(PATIENT).trusting(trusted));
    let stranger = node(another()?)?;
    until("it tries, and tries again", || proxy.accepted() >= 4).await?;
    assert!(!stranger.broker.health().up);
    let refused = stranger.publish(&room("lobby"), "secret").await?;
    assert_eq!(refused, Err(BrokerError::Unavailable));
    // it is not the way that is closed
    let friend = node(shown.pem())?;
    until("who trusts it is served", || friend.broker.health().up).await?;
    assert!(!stranger.broker.health().up);
    Ok(())
}

/// Who vouches for none of these servers.
fn another() -> Result<Arc<[u8]>> {
    Ok(Arc::from(Certificate::new("another")?.pem().as_bytes()))
}

#[tokio::test]
async fn sentinels_and_the_master_that_they_name_are_spoken_to_by_tls_over_a_failover() -> Result<()> {
    // Sentinels name addresses
    let shown = Shown::by("127.0.0.1")?;
    let [master, replica] = Secured::pair(&shown).await?;
    let sentinel = master.sentinel(&shown).await?;
    let url = format!("rediss-sentinel://127.0.0.1:{}/{MASTER}", sentinel.port);
    let config = RedisConfig::from_url(&url)?.with_timing(PATIENT);
    let node = Node::with(&config.clone().trusting(shown.pem()))?;
    until("both links work", || !node.broker.health().degraded).await?;
    assert_eq!(master.gateway_connections().await?, (2, 0));
    let lobby = room("lobby");
    soon("subscribed", node.broker.subscribe(lobby.clone())).await??;
    node.publish(&lobby, "before").await??;

    until_async("the Sentinel knows the replica", || async {
        let known: Vec<redis::Value> = sentinel.ask(&["SENTINEL", "REPLICAS", MASTER]).await?;
        Ok(known.len() == 1)
    })
    .await?;
    // refused until it knows how far the replica is
    let begins = || async {
        Ok(sentinel
            .ask::<redis::Value>(&["SENTINEL", "FAILOVER", MASTER])
            .await
            .is_ok())
    };
    until_async("the Sentinel begins", begins).await?;
    let went = || async {
        let moved = replica.gateway_connections().await? == (2, 0);
        Ok(moved && node.publish(&lobby, "after").await?.is_ok())
    };
    until_async("it publishes to the other", went).await?;
    until("both are delivered", || node.sink.deliveries.lock().len() >= 2).await?;
    Ok(())
}

#[tokio::test]
async fn a_sentinel_for_which_nobody_vouches_is_not_asked() -> Result<()> {
    let shown = Shown::by("127.0.0.1")?;
    let [master, _replica] = Secured::pair(&shown).await?;
    let sentinel = master.sentinel(&shown).await?;
    let proxy = Proxy::start(([127, 0, 0, 1], sentinel.port).into()).await?;
    let url = format!("rediss-sentinel://127.0.0.1:{}/{MASTER}", proxy.address().port());
    let config = RedisConfig::from_url(&url)?.with_timing(PATIENT);
    let stranger = Node::with(&config.clone().trusting(another()?))?;
    until("it tries, and tries again", || proxy.accepted() >= 4).await?;
    assert!(!stranger.broker.health().up);
    assert_eq!(master.gateway_connections().await?, (0, 0));
    let friend = Node::with(&config.trusting(shown.pem()))?;
    until("who trusts it is served", || friend.broker.health().up).await?;
    assert!(!stranger.broker.health().up);
    Ok(())
}

#[tokio::test]
async fn the_nodes_of_a_cluster_are_spoken_to_by_tls_and_by_their_names() -> Result<()> {
    // not for 127.0.0.1: that is where `CLUSTER NODES` says that they are, beside their names
    let shown = Shown::by("localhost")?;
    let cluster = RedisCluster::start_secured(NO_FAILOVER, &shown).await?;
    let config = RedisConfig::from_url(&cluster.tls_url())?.with_timing(PATIENT);
    let nodes = [
        Node::with(&config.clone().trusting(shown.pem()))?,
        Node::with(&config.clone().trusting(shown.pem()))?,
    ];
    for node in &nodes {
        until("all links work", || !node.broker.health().degraded).await?;
    }
    for number in 0..NODES {
        let expected = if number < PRIMARIES { 4 } else { 0 };
        let found = connections(cluster.node(number), cluster.tls_port(number)).await?;
        assert_eq!(found, (expected, 0), "node {number}");
    }
    let rooms: Vec<_> = (0..30).map(|number| room(&format!("room {number}"))).collect();
    for lobby in &rooms {
        soon("subscribed", nodes[1].broker.subscribe(lobby.clone())).await??;
        nodes[0].publish(lobby, "by the other").await??;
    }
    until("all are delivered", || {
        nodes[1].sink.deliveries.lock().len() == rooms.len()
    })
    .await?;

    cluster
        .ask::<redis::Value>(PRIMARIES, &["CLUSTER", "FAILOVER"])
        .await?;
    let (taken_over, by) = (cluster.node(PRIMARIES), cluster.tls_port(PRIMARIES));
    until_async("its replica has the links", || async {
        Ok(connections(taken_over, by).await? == (4, 0))
    })
    .await?;
    for lobby in &rooms {
        let went = || async { Ok(nodes[0].publish(lobby, "again").await?.is_ok()) };
        until_async("it publishes again", went).await?;
    }
    until("all are delivered", || {
        nodes[1].sink.deliveries.lock().len() >= 2 * rooms.len()
    })
    .await?;

    let stranger = Node::with(&config.trusting(another()?))?;
    let refused = stranger.publish(&rooms[0], "secret").await?;
    assert_eq!(refused, Err(BrokerError::Unavailable));
    assert!(!stranger.broker.health().up);
    Ok(())
}
