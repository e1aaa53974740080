//! Real `nats-server`s that speak TLS.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use wsfleet_gateway::broker::nats::{NatsBroker, NatsConfig};
use wsfleet_gateway::broker::{Broker, BrokerError};
use wsfleet_gateway::config::Histories;
use wsfleet_tests::broker::{Node, PATIENT, SHORT, offsets, room, text};
use wsfleet_tests::gateway::Fleet;
use wsfleet_tests::nats::NatsServer;
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::redis_tls::Shown;
use wsfleet_tests::tls::Certificate;
use wsfleet_tests::wait::until;

/// A broker that trusts these, or whom the system trusts.
fn node(url: &str, trusted: Option<Arc<[u8]>>) -> Result<Node<NatsBroker>> {
    let config = NatsConfig::from_url(url)?.with_timing(PATIENT);
    let config = trusted.map(|pem| config.clone().trusting(pem)).unwrap_or(config);
    Node::on_nats_with(&config, Histories::default())
}

#[tokio::test]
async fn messages_of_any_size_go_by_tls_and_the_connection_comes_back() -> Result<()> {
    const LARGE: usize = 60 << 10;
    let shown = Shown::by("localhost")?;
    let mut server = NatsServer::start_secured(&shown, false).await?;
    let url = format!("tls://localhost:{}", server.address().port());
    let node = node(&url, Some(shown.pem()))?;
    node.wait_healthy().await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    node.publish(&lobby, "small").await??;
    // more than sockets and records hold
    let large = "x".repeat(LARGE);
    for _ in 0..50 {
        node.publish(&lobby, &large).await??;
    }
    let delivered = node.wait_delivered(51).await?;
    assert!(offsets(&delivered).into_iter().eq(1..=51));
    assert!(
        delivered[1..]
            .iter()
            .all(|delivery| text(&delivery.event) == large)
    );
    server.kill()?;
    until("the loss is seen", || !node.broker.health().up).await?;
    server.restart().await?;
    node.wait_healthy().await?;
    assert_eq!(node.publish(&lobby, "again").await??.offset, 52);
    node.wait_delivered(52).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_for_which_nobody_vouches_or_that_has_another_name_is_not_talked_to() -> Result<()> {
    let shown = Shown::by("localhost")?;
    let server = NatsServer::start_secured(&shown, false).await?;
    let another: Arc<[u8]> = Arc::from(Certificate::new("another")?.pem().as_bytes());
    let port = server.address().port();
    for (host, trusted) in [
        ("localhost", Some(another)),
        ("localhost", None),
        ("127.0.0.1", Some(shown.pem())),
    ] {
        let proxy = Proxy::start(server.address()).await?;
        let stranger = node(&format!("tls://{host}:{}", proxy.address().port()), trusted)?;
        until("it tries, and tries again", || proxy.accepted() >= 3).await?;
        assert!(!stranger.broker.health().up, "{host}");
        let refused = stranger.publish(&room("lobby"), "secret").await?;
        assert_eq!(refused, Err(BrokerError::Unavailable), "{host}");
    }
    // it is not the way that is closed
    let friend = node(&format!("tls://localhost:{port}"), Some(shown.pem()))?;
    friend.wait_healthy().await
}

#[tokio::test]
async fn who_was_told_of_no_tls_speaks_to_no_server_that_wants_it_and_the_other_way_round() -> Result<()> {
    let shown = Shown::by("localhost")?;
    let (secured, plain) = (
        NatsServer::start_secured(&shown, false).await?,
        NatsServer::start().await?,
    );
    for (scheme, server) in [("nats", &secured), ("tls", &plain)] {
        let proxy = Proxy::start(server.address()).await?;
        let url = format!("{scheme}://user:secret@localhost:{}", proxy.address().port());
        let wrong = node(&url, Some(shown.pem()))?;
        until("it tries, and tries again", || proxy.accepted() >= 3).await?;
        assert!(!wrong.broker.health().up, "{scheme}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_wants_tls_first_gets_it_first() -> Result<()> {
    let shown = Shown::by("localhost")?;
    let server = NatsServer::start_secured(&shown, true).await?;
    let proxy = Proxy::start(server.address()).await?;
    let late = NatsConfig::from_url(&format!("tls://localhost:{}", proxy.address().port()))?;
    let late = late.with_timing(SHORT).trusting(shown.pem());
    let late = Node::on_nats_with(&late, Histories::default())?;
    let url = format!("tls://localhost:{}?handshake_first=true", server.address().port());
    let early = node(&url, Some(shown.pem()))?;
    early.wait_healthy().await?;
    assert_eq!(early.publish(&room("lobby"), "x").await??.offset, 1);
    until("the other tries again", || proxy.accepted() >= 2).await?;
    assert!(!late.broker.health().up);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_told_of_tls_and_of_who_vouches_by_its_flags() -> Result<()> {
    let shown = Shown::by("localhost")?;
    let server = NatsServer::start_secured(&shown, false).await?;
    let authorities = shown.folder().join("tls.crt").display().to_string();
    let url = format!("tls://localhost:{}", server.address().port());
    let fleet = Fleet::at(&url, 2, &["--broker-ca-file", &authorities])?;
    for number in 0..2 {
        fleet.gateway(number).ready().await?;
    }
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    for client in [&mut ann, &mut bob] {
        client.send(json!({"type": "join", "room": "lobby"})).await?;
        client.expect("joined").await?;
    }
    ann.send(json!({"type": "room_message", "room": "lobby", "payload": "by TLS"}))
        .await?;
    assert_eq!(bob.expect("room_message").await?["payload"], "by TLS");
    Ok(())
}
