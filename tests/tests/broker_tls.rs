//! A real `redis-server` that speaks TLS.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Result;
use tempfile::TempDir;
use wsfleet_gateway::broker::redis::RedisConfig;
use wsfleet_gateway::broker::{Broker, BrokerError, Reading, Span};
use wsfleet_tests::broker::{Node, PATIENT, room};
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::tls::Certificate;
use wsfleet_tests::wait::{soon, until, until_async};

/// A server with a port for TLS beside the plain one, and its certificate.
struct Secured {
    redis: RedisServer,
    port: u16,
    certificate: Certificate,
    _folder: TempDir,
}

impl Secured {
    async fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let certificate = Certificate::new("redis")?;
        let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        std::fs::write(&cert, certificate.pem())?;
        std::fs::write(&key, certificate.key_pem())?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let redis = RedisServer::start_with(&[
            "--save",
            "",
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &cert.to_string_lossy(),
            "--tls-key-file",
            &key.to_string_lossy(),
            "--tls-auth-clients",
            "no",
        ])
        .await?;
        Ok(Self {
            redis,
            port,
            certificate,
            _folder: folder,
        })
    }
}

#[tokio::test]
async fn both_links_speak_tls_and_come_back_when_they_are_cut() -> Result<()> {
    let server = Secured::start().await?;
    let config = RedisConfig::from_url(&format!("rediss://localhost:{}", server.port))?.with_timing(PATIENT);
    let node = Node::with(&config.trusting(Arc::from(server.certificate.pem().as_bytes())))?;
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
    let server = Secured::start().await?;
    let proxy = Proxy::start(([127, 0, 0, 1], server.port).into()).await?;
    let config = RedisConfig::from_url(&format!("rediss://localhost:{}", proxy.address().port()))?;
    let node = |trusted: &Certificate| {
        let config = config.clone().with_timing(PATIENT);
        Node::with(&config.trusting(Arc::from(trusted.pem().as_bytes())))
    };
    let stranger = node(&Certificate::new("another")?)?;
    until("it tries, and tries again", || proxy.accepted() >= 4).await?;
    assert!(!stranger.broker.health().up);
    let refused = stranger.publish(&room("lobby"), "secret").await?;
    assert_eq!(refused, Err(BrokerError::Unavailable));
    // it is not the way that is closed
    let friend = node(&server.certificate)?;
    until("who trusts it is served", || friend.broker.health().up).await?;
    assert!(!stranger.broker.health().up);
    Ok(())
}
