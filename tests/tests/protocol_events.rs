//! Events of clients, from the socket to the stream that workers read.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use wsfleet_gateway::protocol::Codec;
use wsfleet_tests::client::{Client, Connect, jwt, unix_now};
use wsfleet_tests::gateway::{Fleet, Gateway, Kind, UNLIMITED};
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::until_async;
use wsfleet_tests::worker::{STREAM, appended, entries, send_event};

wsfleet_tests::on_redis_and_nats! {
    an_acknowledged_event_is_in_the_stream_as_it_was_sent_in_every_codec,
    an_event_sent_again_with_its_msg_id_is_appended_once_on_whichever_gateway,
    while_the_broker_is_away_an_event_gets_a_temporary_error_and_no_ack,
    what_became_of_events_is_counted,
}

fn redis(fleet: &Fleet) -> Result<&RedisServer> {
    fleet.redis.as_ref().context("a fleet on Redis")
}

/// What an acknowledged event is told: it has no place, but whether it was there before.
fn acked(answer: &Value, id: &str, duplicate: bool) {
    let expected = json!({"type": "ack", "id": id, "epoch": "", "offset": 0, "duplicate": duplicate});
    assert_eq!(*answer, expected);
}

async fn an_acknowledged_event_is_in_the_stream_as_it_was_sent_in_every_codec(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let payload = json!({"cart": [1, 2.5, "é", null], "deep": {"a": [[]]}});
    for (number, codec) in Codec::ALL.into_iter().enumerate() {
        let gateway = fleet.gateway(number);
        let connect = Connect::to(gateway.ports.clients).codec(codec).token("ann");
        let mut ann = connect.open().await?;
        let welcome = ann.expect("welcome").await?;
        let features = welcome["features"].as_array().context("features")?;
        assert!(features.contains(&json!("event")), "{welcome}");
        let name = format!("order.{number}");
        acked(
            &send_event(&mut ann, &name, payload.clone(), json!({})).await?,
            &name,
            false,
        );
        // the ack came behind the entry
        let entry = appended(&fleet, STREAM).await?.pop().context("an entry")?;
        let time: u64 = entry["timestamp"].parse()?;
        ensure!(
            time.abs_diff(unix_now() * 1_000) < 3_600_000,
            "milliseconds: {time}"
        );
        assert_eq!(serde_json::from_str::<Value>(&entry["payload"])?, payload);
        let connection = welcome["connectionId"].as_str().context("an id")?;
        let server = format!("g{}", number % fleet.len());
        let expected = [
            ("name", &*name),
            ("payload", &*entry["payload"]),
            ("userId", "user_ann"),
            ("connectionId", connection),
            ("serverId", &*server),
            ("timestamp", &*entry["timestamp"]),
        ];
        let expected = BTreeMap::from(expected.map(|(field, value)| (field.to_owned(), value.to_owned())));
        assert_eq!(entry, expected);
    }
    // who does not ask is not answered
    let mut bob = fleet.client(0, "bob").await?;
    bob.send(json!({"type": "event", "name": "quiet", "payload": 1}))
        .await?;
    until_async("the fourth entry", || async {
        Ok(appended(&fleet, STREAM).await?.len() == 4)
    })
    .await?;
    assert!(bob.all_so_far("ack").await?.is_empty());
    Ok(())
}

async fn an_event_sent_again_with_its_msg_id_is_appended_once_on_whichever_gateway(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut one, mut two) = (fleet.client(0, "ann").await?, fleet.client(1, "ann").await?);
    let named = json!({"msgId": "m1"});
    acked(
        &send_event(&mut one, "e", json!(1), named.clone()).await?,
        "e",
        false,
    );
    acked(
        &send_event(&mut one, "e", json!(1), named.clone()).await?,
        "e",
        true,
    );
    acked(
        &send_event(&mut two, "e", json!(1), named.clone()).await?,
        "e",
        true,
    );
    // names of others, and of messages, are others
    let mut bob = fleet.client(0, "bob").await?;
    acked(&send_event(&mut bob, "e", json!(1), named).await?, "e", false);
    one.send(
        json!({"type": "direct_message", "targetUserId": "user_ann", "payload": 1, "id": 2, "msgId": "m1"}),
    )
    .await?;
    assert_eq!(one.expect("ack").await?["duplicate"], false);
    let users = appended(&fleet, STREAM).await?;
    let users: Vec<_> = users.iter().map(|fields| &*fields["userId"]).collect();
    assert_eq!(users, ["user_ann", "user_bob"]);
    Ok(())
}

#[tokio::test]
async fn a_gateway_without_a_stream_says_so_and_never_acknowledges() -> Result<()> {
    let off = ["--events", "off"];
    for (kind, flags) in [
        (Kind::Memory, &[][..]),
        (Kind::Redis(1), &off),
        (Kind::Nats(1), &off),
    ] {
        let fleet = Fleet::start_with(kind, flags).await?;
        let mut ann = Connect::to(fleet.gateway(0).ports.clients)
            .token("ann")
            .open()
            .await?;
        let welcome = ann.expect("welcome").await?;
        let features = welcome["features"].as_array().context("features")?;
        assert!(!features.contains(&json!("event")), "{welcome}");
        let error = send_event(&mut ann, "order", json!(1), json!({})).await?;
        assert_eq!(
            (&error["type"], &error["code"], &error["temporary"], &error["id"]),
            (
                &json!("error"),
                &json!("events_off"),
                &json!(false),
                &json!("order")
            )
        );
        let text = error["error"].as_str().context("a text")?;
        assert!(text.contains("--broker redis://"), "{text}");
        if let Some(redis) = &fleet.redis {
            assert!(entries(redis, STREAM).await?.is_empty());
        }
    }
    Ok(())
}

#[tokio::test]
async fn malformed_events_are_answered_and_not_appended() -> Result<()> {
    let fleet = Fleet::start(Kind::Redis(1)).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let long = "n".repeat(129);
    for (fields, code) in [
        (json!({"payload": 1}), "missing_field"),
        (json!({"name": "n"}), "missing_field"),
        (json!({"name": "", "payload": 1}), "invalid_field"),
        (json!({"name": 7, "payload": 1}), "invalid_field"),
        (json!({"name": long, "payload": 1}), "invalid_field"),
        (json!({"name": "n", "payload": 1, "msgId": []}), "invalid_field"),
    ] {
        let mut message = fields;
        message["type"] = "event".into();
        message["id"] = "i".into();
        ann.send(message.clone()).await?;
        let error = ann.expect("error").await?;
        assert_eq!(
            (&error["code"], &error["id"]),
            (&json!(code), &json!("i")),
            "{message}"
        );
    }
    assert!(ann.all_so_far("ack").await?.is_empty());
    assert!(entries(redis(&fleet)?, STREAM).await?.is_empty());
    Ok(())
}

/// A fleet whose broker has what it had when it is started again.
async fn durable(kind: Kind) -> Result<Fleet> {
    let fleet = match kind {
        Kind::Redis(count) => Fleet::on(Some(RedisServer::start_durable().await?), count, &[])?,
        _ => return Fleet::start(kind).await,
    };
    fleet.gateway(0).ready().await?;
    Ok(fleet)
}

async fn while_the_broker_is_away_an_event_gets_a_temporary_error_and_no_ack(kind: Kind) -> Result<()> {
    let mut fleet = durable(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    acked(
        &send_event(&mut ann, "before", json!(1), json!({})).await?,
        "before",
        false,
    );
    fleet.kill_broker()?;
    let mut errors = BTreeMap::new();
    for _ in 0..20 {
        let answer = send_event(&mut ann, "away", json!(1), json!({"msgId": "again"})).await?;
        assert_eq!(
            (&answer["type"], &answer["temporary"]),
            (&json!("error"), &json!(true)),
            "{answer}"
        );
        *errors.entry(answer["code"].to_string()).or_insert(0) += 1;
    }
    let known = |code: &String| ["\"broker_unavailable\"", "\"unconfirmed\""].contains(&code.as_str());
    assert!(errors.keys().all(known), "{errors:?}");
    fleet.restart_broker().await?;
    fleet.gateway(0).ready().await?;
    // what was refused is accepted now: the client sends it again by its name
    acked(
        &send_event(&mut ann, "away", json!(1), json!({"msgId": "again"})).await?,
        "away",
        false,
    );
    let names = appended(&fleet, STREAM).await?;
    let names: Vec<_> = names.iter().map(|fields| &*fields["name"]).collect();
    assert_eq!(names, ["before", "away"]);
    Ok(())
}

async fn what_became_of_events_is_counted(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    for _ in 0..3 {
        send_event(&mut ann, "e", json!(1), json!({"msgId": "m"})).await?;
    }
    send_event(&mut ann, "f", json!(1), json!({})).await?;
    for (result, count) in [("appended", 2.0), ("duplicate", 2.0), ("unavailable", 0.0)] {
        let label = format!("result=\"{result}\"");
        let counted = fleet.gateway(0).metric("ws_events_total", &[&label]).await?;
        assert_eq!(counted.to_string(), f64::to_string(&count), "{result}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_nats_the_stream_is_bounded_and_keeps_the_newest_in_order() -> Result<()> {
    const SENT: usize = 1_500;
    const KEPT: usize = 100;
    let bound = ["--event-stream-length", "100"];
    let fleet = Fleet::start_with(Kind::Nats(1), &[&UNLIMITED[..], &bound].concat()).await?;
    let mut ann = fleet.client(0, "ann").await?;
    for number in 0..SENT {
        ann.send(json!({"type": "event", "name": "n", "payload": number, "id": number}))
            .await?;
    }
    let acks = ann.expect_many("ack", SENT).await?;
    assert!((0..SENT).all(|number| acks[number]["id"] == number), "in order");
    let kept = appended(&fleet, STREAM).await?;
    let kept: Vec<_> = kept.iter().map(|fields| fields["payload"].clone()).collect();
    let expected: Vec<_> = (SENT - KEPT..SENT).map(|number| number.to_string()).collect();
    assert_eq!(kept, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_is_bounded_and_keeps_the_newest() -> Result<()> {
    const SENT: usize = 3_000;
    const KEPT: usize = 1_000;
    let bound = ["--event-stream-length", "1000", "--event-stream", "app/inbox"];
    let fleet = Fleet::start_with(Kind::Redis(1), &[&UNLIMITED[..], &bound].concat()).await?;
    let mut ann = fleet.client(0, "ann").await?;
    for number in 0..SENT {
        ann.send(json!({"type": "event", "name": "n", "payload": number, "id": number}))
            .await?;
    }
    let acks = ann.expect_many("ack", SENT).await?;
    assert!((0..SENT).all(|number| acks[number]["id"] == number), "in order");
    assert!(entries(redis(&fleet)?, STREAM).await?.is_empty());
    let kept = entries(redis(&fleet)?, "app/inbox").await?;
    println!("{SENT} events were sent, {} are kept of {KEPT}", kept.len());
    // whole nodes of the stream go, of 100 entries by default
    assert!((KEPT..KEPT + 100).contains(&kept.len()), "{}", kept.len());
    let first = SENT - kept.len();
    for (index, (_, fields)) in kept.iter().enumerate() {
        assert_eq!(fields["payload"], (first + index).to_string());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_count_against_the_limits_of_messages() -> Result<()> {
    const SENT: usize = 100;
    let fleet = Fleet::start_with(Kind::Redis(1), &["--limit", "messagesPerSecond=5"]).await?;
    let mut ann = fleet.client(0, "ann").await?;
    for number in 0..SENT {
        ann.send(json!({"type": "event", "name": "n", "payload": 1, "id": number}))
            .await?;
    }
    let mut codes = BTreeMap::new();
    for _ in 0..SENT {
        let answer = ann.expect_any(&["ack", "error"]).await?;
        *codes.entry(answer["code"].to_string()).or_insert(0) += 1;
    }
    println!("{SENT} events with messagesPerSecond=5: {codes:?}");
    let appended = entries(redis(&fleet)?, STREAM).await?.len();
    assert_eq!(codes.get("null"), Some(&appended));
    assert_eq!(codes.get("\"message_rate_exceeded\""), Some(&(SENT - appended)));
    Ok(())
}

#[tokio::test]
async fn a_token_with_the_claim_events_sends_those_and_no_other() -> Result<()> {
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    let file = NamedTempFile::new()?;
    std::fs::write(file.path(), SECRET)?;
    let path = file.path().to_string_lossy().into_owned();
    let redis = RedisServer::start().await?;
    let url = redis.url();
    let secret = ["--auth", "jwt", "--jwt-secret-file", &path];
    let gateway = Gateway::start(&[&secret[..], &["--broker", &url]].concat())?;
    gateway.ready().await?;
    let client = async |claims: Value| -> Result<Client> {
        let connect = Connect::to(gateway.ports.clients).token(&jwt(SECRET, &claims)?);
        let mut client = connect.open().await?;
        client.expect("welcome").await?;
        Ok(client)
    };
    let exp = unix_now() + 600;
    let mut some = client(json!({"sub": "ann", "exp": exp, "events": ["order.*"]})).await?;
    acked(
        &send_event(&mut some, "order.new", json!(1), json!({})).await?,
        "order.new",
        false,
    );
    let refused = send_event(&mut some, "refund", json!(1), json!({})).await?;
    assert_eq!(
        (&refused["code"], &refused["id"]),
        (&json!("forbidden"), &json!("refund"))
    );
    let mut all = client(json!({"sub": "bob", "exp": exp, "rooms": []})).await?;
    acked(
        &send_event(&mut all, "refund", json!(1), json!({})).await?,
        "refund",
        false,
    );
    assert_eq!(entries(&redis, STREAM).await?.len(), 2);
    Ok(())
}
