//! The Redis broker on a master that Sentinels know: found, moved with, left when it is demoted.

use std::sync::Arc;

use anyhow::{Context, Result};
use redis::Value;
use tokio::net::TcpListener;
use wsfleet_gateway::broker::{Broker, BrokerError, Position, StreamKey};
use wsfleet_tests::broker::{HEALTHY, Node, PATIENT, SHORT, key, offsets, room, text};
use wsfleet_tests::gateway::Fleet;
use wsfleet_tests::http::Ask;
use wsfleet_tests::load::Crowd;
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::sentinel::{Watched, follows, replica_of, sentinel, url};
use wsfleet_tests::wait::{until, until_async};

/// Publishes until it is accepted; every answer before that is a temporary error.
async fn publish_at_last(node: &Node, stream: &StreamKey, text: &str) -> Result<Position> {
    let mut outcome = node.publish(stream, text).await?;
    for _ in 0..6_000 {
        match outcome {
            Ok(position) => return Ok(position),
            Err(BrokerError::Unavailable | BrokerError::Unconfirmed) => {}
            Err(other) => anyhow::bail!("not a temporary error: {other}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        outcome = node.publish(stream, text).await?;
    }
    anyhow::bail!("never accepted: {outcome:?}")
}

/// Awaits that both links of all gateways end at this server, and none at the other.
async fn moved(from: &RedisServer, to: &RedisServer, gateways: usize) -> Result<()> {
    until_async("both links have moved", || async {
        let names = to.gateway_connections().await?;
        let count = |role: &str| names.iter().filter(|name| name.ends_with(role)).count();
        Ok(count("command") == gateways
            && count("subscription") == gateways
            && from.gateway_connections().await?.is_empty())
    })
    .await
}

#[tokio::test]
async fn an_ordered_failover_moves_both_links_and_rooms_go_on() -> Result<()> {
    let watched = Watched::start(1).await?;
    let node = Node::healthy(&watched.url()).await?;
    let lobby = room("lobby");
    let before = node.subscribe(&lobby).await?;
    node.publish(&lobby, "before").await??;
    node.wait_delivered(1).await?;
    watched.in_step().await?;
    watched.fail_over().await?;
    watched.failed_over().await?;
    let [old, new] = &watched.servers;
    moved(old, new, 1).await?;
    let position = publish_at_last(&node, &lobby, "after").await?;
    assert_eq!(position.epoch, before.epoch);
    node.wait_healthy().await?;
    let deliveries = node.wait_delivered(2).await?;
    assert_eq!(offsets(&deliveries[..2]), [1, 2]);
    assert_eq!(text(&deliveries[1].event), "after");
    follows(old, new.port()).await
}

#[tokio::test]
async fn offsets_that_a_failover_took_back_are_not_given_out_again_in_the_same_epoch() -> Result<()> {
    let mut watched = Watched::start(1).await?;
    let (a, b) = (
        Node::healthy(&watched.url()).await?,
        Node::healthy(&watched.url()).await?,
    );
    let lobby = room("lobby");
    for node in [&a, &b] {
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
    watched.in_step().await?;
    // as if the last three had not reached the replica
    let behind = &watched.servers[1];
    let _: Vec<Value> = redis::pipe()
        .cmd("CONFIG")
        .arg(&["SET", "replica-read-only", "no"])
        .cmd("HSET")
        .arg(&[&key("lobby"), "o", "2"])
        .query_async(&mut behind.connection().await?)
        .await?;
    watched.servers[0].kill()?;
    let new = publish_at_last(&b, &lobby, "after").await?;
    assert_ne!(new.epoch, old.epoch);
    assert_eq!(new.offset, 1);
    for node in [&a, &b] {
        node.wait_healthy().await?;
        assert_eq!(node.wait_delivered(6).await?[5].position.as_ref(), Some(&new));
    }
    Ok(())
}

#[tokio::test]
async fn a_master_that_was_demoted_by_hand_is_left_although_it_takes_subscriptions() -> Result<()> {
    let watched = Watched::start(1).await?;
    let [old, new] = &watched.servers;
    let node = Node::healthy(&watched.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    node.publish(&lobby, "1").await??;
    watched.in_step().await?;
    replica_of(new, None).await?;
    replica_of(old, Some(new.port())).await?;
    follows(old, new.port()).await?;
    // the Sentinel still names the old one, which is refused: nothing is accepted, nothing is taken for accepted
    until("the loss is noticed", || !node.broker.health().up).await?;
    assert_eq!(
        node.publish(&lobby, "refused").await?,
        Err(BrokerError::Unavailable)
    );
    watched.name(new).await?;
    moved(old, new, 1).await?;
    assert_eq!(publish_at_last(&node, &lobby, "2").await?.offset, 2);
    node.wait_healthy().await?;
    let deliveries = node.wait_delivered(2).await?;
    assert_eq!(offsets(&deliveries), [1, 2]);
    Ok(())
}

#[tokio::test]
async fn black_holed_links_to_a_watched_master_are_found_and_what_they_swallowed_is_read() -> Result<()> {
    let redis = RedisServer::start().await?;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await?;
    // the Sentinel names the proxy, so that the links go through it
    let sentinel = sentinel("fleet", proxy.address().port(), 1).await?;
    let node = Node::healthy_with(&url(&[&sentinel]), SHORT).await?;
    let other = Node::healthy(&redis.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    other.subscribe(&lobby).await?;
    proxy.swallow();
    other.publish(&lobby, "into the black hole").await??;
    until("the links are replaced", || {
        node.stat(|s| &s.command_links) >= 2 && node.stat(|s| &s.subscription_links) >= 2
    })
    .await?;
    node.wait_healthy().await?;
    other.publish(&lobby, "after").await??;
    assert_eq!(offsets(&node.wait_delivered(2).await?), [1, 2]);
    Ok(())
}

#[tokio::test]
async fn sentinels_that_are_gone_or_silent_or_know_nothing_are_passed_over() -> Result<()> {
    let watched = Watched::start(1).await?;
    let gone = RedisServer::reserve(&[])?;
    // takes connections and never answers
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let stranger = sentinel("another", watched.servers[0].port(), 1).await?;
    // names a server that is a replica
    let stale = sentinel("fleet", watched.servers[1].port(), 1).await?;
    let url = format!(
        "redis-sentinel://127.0.0.1:{},{},127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}/fleet",
        gone.port(),
        silent.local_addr()?,
        stranger.port(),
        stale.port(),
        watched.sentinels[0].port()
    );
    let node = Node::healthy_with(&url, PATIENT).await?;
    assert_eq!(node.publish(&room("lobby"), "1").await??.offset, 1);
    assert_eq!(watched.servers[0].gateway_connections().await?.len(), 2);
    assert_eq!(watched.servers[1].gateway_connections().await?.len(), 0);
    assert_eq!(node.broker.health(), HEALTHY);
    Ok(())
}

/// How often a server was asked for its role.
async fn asked(server: &RedisServer) -> Result<u64> {
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut server.connection().await?)
        .await?;
    let role = stats.lines().find(|line| line.starts_with("cmdstat_role:"));
    let calls = role.and_then(|line| line.split_once("calls=")?.1.split(',').next()?.parse().ok());
    Ok(calls.unwrap_or_default())
}

#[tokio::test]
async fn a_replica_is_no_redis_to_publish_to() -> Result<()> {
    let watched = Watched::start(1).await?;
    let [master, replica] = &watched.servers;
    let before = asked(replica).await?;
    let node = Node::start(&replica.url(), PATIENT)?;
    until_async("it is asked, refused, and asked again", || async {
        Ok(asked(replica).await? >= before + 3)
    })
    .await?;
    assert_eq!(node.stat(|s| &s.command_links), 0);
    replica_of(replica, None).await?;
    node.wait_healthy().await?;
    assert!(master.gateway_connections().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_found_every_gap_repaired_no_client_dropped_no_false_success() -> Result<()> {
    const CLIENTS: usize = 12;
    let mut watched = Watched::start(3).await?;
    let fleet = Fleet::at(&watched.url(), 3, &[])?;
    for number in 0..3 {
        fleet.gateway(number).ready().await?;
    }
    let crowd = Crowd::start(&fleet, CLIENTS).await?;
    until("the load flows", || crowd.acked() > 100).await?;
    // replication is asynchronous: the replica gets what is acknowledged, and only then the master dies
    crowd.pause().await?;
    watched.in_step().await?;
    watched.servers[0].kill()?;
    crowd.go_on();
    let before = crowd.acked();
    until_async("every gateway says that it is degraded, and is ready", || async {
        let mut all = true;
        for number in 0..3 {
            let gateway = fleet.gateway(number);
            let ready = gateway.admin(Ask::get("/readyz")).await?;
            all &= gateway.state().await?.broker_degraded
                && ready.status == 200
                && ready.body.contains("broker_degraded");
        }
        Ok(all)
    })
    .await?;
    watched.failed_over().await?;
    for number in 0..3 {
        fleet.gateway(number).ready().await?;
    }
    until("the load flows again", || crowd.acked() > before + 100).await?;
    let told = Arc::clone(&crowd.told);
    let members = crowd.end().await?;
    assert_eq!(members.len(), CLIENTS);
    for member in &members {
        told.judge(member)?;
        assert!(member.client.kept("gap").is_empty());
    }
    assert!(!told.refused.lock().is_empty());
    for number in 0..3 {
        let gateway = fleet.gateway(number);
        assert_eq!(gateway.state().await?.connections, CLIENTS as u64 / 3);
        assert!(gateway.metric("ws_closes_total", &[]).await? < 0.5);
        assert!(
            gateway
                .metric("ws_gap_repairs_total", &["result=\"gap\""])
                .await?
                < 0.5
        );
    }
    println!(
        "acknowledged {}, refused {}, unconfirmed {}; each of {CLIENTS} clients heard what was acknowledged, once",
        told.acked.lock().len(),
        told.refused.lock().len(),
        told.unconfirmed.lock().len()
    );
    Ok(())
}
