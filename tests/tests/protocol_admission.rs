//! Who gets in: tokens, limits, and the opening handshake. None of it depends on the broker, except that a welcome
//! needs one; each case runs with each all the same.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use wsfleet_gateway::protocol::Codec;
use wsfleet_tests::client::{Client, Connect, Upgrade, jwt, unix_now};
use wsfleet_tests::gateway::{Fleet, Gateway, Kind};
use wsfleet_tests::http::{Answer, Ask};
use wsfleet_tests::on_memory_and_redis;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::until_async;

on_memory_and_redis! {
    a_valid_jwt_is_its_subject_wherever_it_is_sent,
    a_bad_token_is_closed_with_4001_after_the_upgrade,
    a_token_that_expires_while_connected_closes_with_4202,
    connections_per_address_are_bounded_and_freed,
    upgrades_per_address_are_bounded,
    the_address_is_taken_from_trusted_proxies_only,
    a_full_gateway_answers_503_with_retry_after,
    connections_per_user_are_bounded,
    a_request_that_is_no_upgrade_is_told_what_is_missing,
    subprotocols_are_echoed_or_refused,
    origins_are_checked_when_listed,
    health_is_served_on_the_clients_port,
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A gateway that wants tokens, with what it needs kept.
struct Guarded {
    gateway: Gateway,
    _redis: Option<RedisServer>,
    _secret: NamedTempFile,
}

async fn guarded(kind: Kind, more: &[&str]) -> Result<Guarded> {
    let redis = match kind {
        Kind::Memory => None,
        Kind::Redis(_) | Kind::Nats(_) => Some(RedisServer::start().await?),
    };
    let broker = redis
        .as_ref()
        .map_or_else(|| "memory".to_owned(), RedisServer::url);
    let secret = NamedTempFile::new()?;
    std::fs::write(secret.path(), SECRET)?;
    let path = secret.path().to_string_lossy().into_owned();
    let flags = [
        &["--auth", "jwt", "--jwt-secret-file", &path, "--broker", &broker][..],
        more,
    ]
    .concat();
    let gateway = Gateway::start(&flags)?;
    gateway.ready().await?;
    Ok(Guarded {
        gateway,
        _redis: redis,
        _secret: secret,
    })
}

fn claims(user: &str) -> Value {
    json!({"sub": user, "exp": unix_now() + 600})
}

async fn user_of(mut client: Client) -> Result<Value> {
    Ok(client.expect("welcome").await?["userId"].clone())
}

async fn a_valid_jwt_is_its_subject_wherever_it_is_sent(kind: Kind) -> Result<()> {
    let guarded = guarded(kind, &[]).await?;
    let to = Connect::to(guarded.gateway.ports.clients);
    let token = jwt(SECRET, &claims("ann@example.com"))?;
    let query = to.clone().token(&token).open().await?;
    assert_eq!(user_of(query).await?, "ann@example.com");
    let header = to
        .clone()
        .header("authorization", format!("Bearer {token}"))
        .open()
        .await?;
    assert_eq!(user_of(header).await?, "ann@example.com");
    let offered = format!("wsfleet.v1.json, bearer.{token}");
    let subprotocol = to.header("sec-websocket-protocol", offered).open().await?;
    assert_eq!(
        subprotocol.upgrade_header("sec-websocket-protocol"),
        Some("wsfleet.v1.json")
    );
    assert_eq!(user_of(subprotocol).await?, "ann@example.com");
    Ok(())
}

async fn a_bad_token_is_closed_with_4001_after_the_upgrade(kind: Kind) -> Result<()> {
    let flags = [
        "--jwt-audience",
        "chat",
        "--jwt-issuer",
        "login",
        "--limit",
        "handshakesPerSecondPerIp=0",
    ];
    let guarded = guarded(kind, &flags).await?;
    let good = json!({"sub": "ann", "exp": unix_now() + 600, "aud": "chat", "iss": "login"});
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        claims
    };
    let to = Connect::to(guarded.gateway.ports.clients);
    assert_eq!(
        user_of(to.clone().token(&jwt(SECRET, &good)?).open().await?).await?,
        "ann"
    );
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.";
    let tokens = [
        jwt(b"another secret of 32 or more bytes", &good)?,
        jwt(SECRET, &with("exp", json!(unix_now() - 60)))?,
        jwt(SECRET, &with("aud", json!("mail")))?,
        jwt(SECRET, &with("iss", json!("me")))?,
        jwt(SECRET, &with("sub", json!("")))?,
        jwt(SECRET, &with("sub", json!(null)))?,
        unsigned.to_owned(),
        "nonsense".to_owned(),
        String::new(),
    ];
    for token in tokens {
        let mut client = to.clone().token(&token).open().await?;
        assert_eq!(client.closed().await?, 4001, "{token}");
    }
    assert_eq!(to.open().await?.closed().await?, 4001);
    Ok(())
}

async fn a_token_that_expires_while_connected_closes_with_4202(kind: Kind) -> Result<()> {
    let guarded = guarded(kind, &["--token-grace", "1"]).await?;
    // long enough to connect on a machine that pauses
    let token = jwt(SECRET, &json!({"sub": "ann", "exp": unix_now() + 10}))?;
    let mut ann = Connect::to(guarded.gateway.ports.clients)
        .token(&token)
        .open()
        .await?;
    ann.expect("welcome").await?;
    assert_eq!(ann.closed().await?, 4202);
    Ok(())
}

async fn refused(connect: Connect) -> Result<Answer> {
    match connect.upgrade().await? {
        Upgrade::Refused(answer) => Ok(answer),
        Upgrade::Open(_) => bail!("it was let in"),
    }
}

async fn connections_per_address_are_bounded_and_freed(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--limit", "connectionsPerIp=2"]).await?;
    let (first, _second) = (fleet.client(0, "ann").await?, fleet.client(0, "bob").await?);
    let to = Connect::to(fleet.gateway(0).ports.clients).token("cleo");
    assert_eq!(refused(to.clone()).await?.status, 429);
    first.close().await?;
    until_async("the place is free again", || async {
        Ok(matches!(to.clone().upgrade().await?, Upgrade::Open(_)))
    })
    .await
}

async fn upgrades_per_address_are_bounded(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--limit", "handshakesPerSecondPerIp=2"]).await?;
    let to = Connect::to(fleet.gateway(0).ports.clients).token("ann");
    let mut refusals = Vec::new();
    // four at once, then two a second: far fewer than ask, though the machine may pause meanwhile
    for _ in 0..60 {
        if let Upgrade::Refused(answer) = to.clone().upgrade().await? {
            refusals.push(answer);
        }
    }
    assert!(refusals.len() >= 4, "{} of 60 were refused", refusals.len());
    assert!(
        refusals
            .iter()
            .all(|answer| answer.status == 429 && answer.header("retry-after").is_some())
    );
    Ok(())
}

async fn the_address_is_taken_from_trusted_proxies_only(kind: Kind) -> Result<()> {
    let flags = ["--limit", "connectionsPerIp=1", "--trusted-hops", "1"];
    let behind = Fleet::start_with(kind, &flags).await?;
    let to = Connect::to(behind.gateway(0).ports.clients).token("ann");
    let from = |address: &str| {
        to.clone()
            .header("x-forwarded-for", format!("6.6.6.6, {address}"))
    };
    let _first = from("192.0.2.1").open().await?;
    assert_eq!(refused(from("192.0.2.1")).await?.status, 429);
    let _second = from("192.0.2.2").open().await?;
    let _third = from("2001:db8::1").open().await?;
    assert_eq!(
        refused(from("2001:db8::ffff")).await?.status,
        429,
        "an IPv6 /64 is one address"
    );

    let direct = Fleet::start_with(kind, &flags[..2]).await?;
    let to = Connect::to(direct.gateway(0).ports.clients).token("ann");
    let _only = to.clone().header("x-forwarded-for", "192.0.2.1").open().await?;
    assert_eq!(
        refused(to.header("x-forwarded-for", "192.0.2.2")).await?.status,
        429
    );
    Ok(())
}

async fn a_full_gateway_answers_503_with_retry_after(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--max-connections", "1"]).await?;
    let first = fleet.client(0, "ann").await?;
    let gateway = fleet.gateway(0);
    assert!(!gateway.state().await?.accepting);
    let answer = refused(Connect::to(gateway.ports.clients).token("bob")).await?;
    assert_eq!(answer.status, 503);
    assert!(
        answer
            .header("retry-after")
            .is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s > 0)),
        "{answer:?}"
    );
    until_async("the refusal is counted", || async {
        Ok(gateway.metric("ws_admission_rejected_total", &[]).await? >= 1.0)
    })
    .await?;
    first.close().await?;
    until_async("it accepts again", || async {
        Ok(gateway.state().await?.accepting)
    })
    .await
}

async fn connections_per_user_are_bounded(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--limit", "connectionsPerUser=2"]).await?;
    let (_first, second) = (fleet.client(0, "ann").await?, fleet.client(0, "ann").await?);
    let mut third = Connect::to(fleet.gateway(0).ports.clients)
        .token("ann")
        .open()
        .await?;
    assert_eq!(third.closed().await?, 4103);
    let _other = fleet.client(0, "bob").await?;
    second.close().await?;
    until_async("the place is free again", || async {
        Ok(fleet.client(0, "ann").await.is_ok())
    })
    .await
}

async fn a_request_that_is_no_upgrade_is_told_what_is_missing(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let to = fleet.gateway(0).ports.clients;
    let plain = Ask::get("/ws").send(to).await?;
    assert_eq!(plain.status, 426);
    assert_eq!(plain.header("sec-websocket-version"), Some("13"));
    let old = refused(Connect::to(to).header("sec-websocket-version", "8")).await?;
    assert_eq!(
        (old.status.as_u16(), old.header("sec-websocket-version")),
        (426, Some("13"))
    );
    assert_eq!(
        refused(Connect::to(to).header("sec-websocket-key", "short"))
            .await?
            .status,
        400
    );
    let post = Ask::json(hyper::Method::POST, "/ws", &json!({}))?
        .send(to)
        .await?;
    assert_eq!(post.status, 405);
    assert_eq!(Ask::get("/elsewhere").send(to).await?.status, 404);
    Ok(())
}

async fn subprotocols_are_echoed_or_refused(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let to = Connect::to(fleet.gateway(0).ports.clients).token("ann");
    let known = to
        .clone()
        .header("sec-websocket-protocol", "graphql-ws, wsfleet.v1.json")
        .open()
        .await?;
    assert_eq!(
        known.upgrade_header("sec-websocket-protocol"),
        Some("wsfleet.v1.json")
    );
    for codec in Codec::ALL {
        let client = to.clone().codec(codec).open().await?;
        let echoed = client.upgrade_header("sec-websocket-protocol");
        assert_eq!(echoed, Some(codec.subprotocol()));
    }
    assert_eq!(
        to.clone().open().await?.upgrade_header("sec-websocket-protocol"),
        None
    );
    assert_eq!(
        refused(to.header("sec-websocket-protocol", "graphql-ws, wsfleet.v2.json"))
            .await?
            .status,
        400
    );
    Ok(())
}

async fn origins_are_checked_when_listed(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--allowed-origin", "https://chat.example.com"]).await?;
    let to = Connect::to(fleet.gateway(0).ports.clients).token("ann");
    to.clone()
        .header("origin", "https://chat.example.com")
        .open()
        .await?;
    let evil = refused(to.header("origin", "https://chat.example.com.evil.example")).await?;
    assert_eq!(evil.status, 403);
    Ok(())
}

async fn health_is_served_on_the_clients_port(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    assert_eq!(
        Ask::get("/healthz").send(gateway.ports.clients).await?.status,
        200
    );
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.admin(Ask::get(path)).await?.status, 200, "{path}");
    }
    Ok(())
}
