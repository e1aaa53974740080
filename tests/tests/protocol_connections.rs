//! Heartbeats, slow consumers and the server API, with each broker.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use wsfleet_crds::admin::Problem;
use wsfleet_tests::client::{CUT, Connect};
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_memory_and_redis;
use wsfleet_tests::wait::{until_async, within};

on_memory_and_redis! {
    a_silent_client_is_closed_and_one_that_answers_stays,
    a_slow_consumer_is_closed_with_4102_and_the_others_get_everything,
    a_client_that_sends_slowly_byte_by_byte_is_served,
    back_ends_publish_to_rooms_and_users,
    a_malformed_api_request_is_refused_with_what_to_send,
}

async fn a_silent_client_is_closed_and_one_that_answers_stays(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    // not polled, it answers no ping
    let mut dead = fleet.client(0, "dead").await?;
    let mut alive = fleet.client(0, "alive").await?;
    let no_pong = || gateway.metric("ws_closes_total", &["code=\"4201\""]);
    // first ping within 30 s, 10 s to answer it, 5 s to answer the close, for each of them up to a second until the sweep:
    // 48 s until it is counted. That the times are kept is shown in virtual time, beside the sweep.
    within(
        Duration::from_secs(100),
        "the dead one is closed, the other one pinged",
        async {
            while no_pong().await? < 1.0 || alive.pings() < 1 {
                let _ = alive
                    .expect_within(Duration::from_millis(500), "nothing, but pings are answered")
                    .await;
            }
            anyhow::Ok(())
        },
    )
    .await??;
    assert_eq!(dead.closed().await?, 4201);
    alive.join("still here").await?;
    assert_eq!(gateway.state().await?.connections, 1);
    Ok(())
}

async fn a_slow_consumer_is_closed_with_4102_and_the_others_get_everything(kind: Kind) -> Result<()> {
    const MESSAGES: usize = 300;
    let fleet = Fleet::start_with(
        kind,
        &["--limit", "messagesPerSecond=0", "--limit", "bytesPerSecond=0"],
    )
    .await?;
    let mut slow = Connect::to(fleet.gateway(1).ports.clients)
        .token("slow")
        .receive_buffer(4_096)
        .open()
        .await?;
    slow.expect("welcome").await?;
    slow.join("lobby").await?;
    let mut fast = fleet.client(1, "fast").await?;
    fast.join("lobby").await?;
    let mut sender = fleet.client(0, "sender").await?;
    sender.join("lobby").await?;
    let payload = json!("x".repeat(50_000));
    for number in 0..MESSAGES as u64 {
        // in step with the fast one: what is tested is the slow one, not this test's own reading
        sender.say("lobby", payload.clone()).await?;
        assert_eq!(fast.expect("room_message").await?["offset"], number + 1);
        assert_eq!(sender.expect("room_message").await?["offset"], number + 1);
    }
    until_async("the slow one is closed, and counted", || async {
        Ok(fleet
            .gateway(1)
            .metric("ws_closes_total", &["code=\"4102\""])
            .await?
            > 0.5)
    })
    .await?;
    let code = slow.closed().await?;
    assert!(code == 4102 || code == CUT, "{code}");
    // what it had got before is whole and without a hole
    let got = slow.kept("room_message");
    assert!(
        got.iter().enumerate().all(|(i, m)| m["offset"] == i as u64 + 1),
        "{} messages",
        got.len()
    );
    assert!(got.len() < MESSAGES);
    Ok(())
}

async fn a_client_that_sends_slowly_byte_by_byte_is_served(kind: Kind) -> Result<()> {
    use tokio::io::AsyncWriteExt;
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let text = br#"{"type":"join","room":"slow"}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len())?, 1, 2, 3, 4];
    frame.extend(
        text.iter()
            .enumerate()
            .map(|(i, byte)| byte ^ [1, 2, 3, 4][i % 4]),
    );
    for byte in frame {
        ann.raw().write_all(&[byte]).await?;
        ann.raw().flush().await?;
        tokio::task::yield_now().await;
    }
    assert_eq!(ann.expect("joined").await?["room"], "slow");
    Ok(())
}

async fn back_ends_publish_to_rooms_and_users(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    ann.join("lobby").await?;
    bob.join("lobby").await?;
    let api = fleet.gateway(2);
    let answer = api
        .api(
            "/api/v1/publish",
            &json!({"room": "lobby", "payload": {"n": 1}, "userId": "robot"}),
        )
        .await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let placed: Value = answer.json()?;
    assert_eq!(placed["offset"], 1);
    for client in [&mut ann, &mut bob] {
        let message = client.expect("room_message").await?;
        assert_eq!(
            (&message["userId"], &message["payload"]["n"]),
            (&json!("robot"), &json!(1))
        );
    }
    assert_eq!(ann.join("lobby").await?["epoch"], placed["epoch"]);
    let answer = api
        .api(
            "/api/v1/direct",
            &json!({"userId": "user_bob", "payload": "psst"}),
        )
        .await?;
    assert_eq!(answer.json::<Value>()?["offset"], 1);
    assert_eq!(bob.expect("direct_message").await?["payload"], "psst");
    Ok(())
}

async fn a_malformed_api_request_is_refused_with_what_to_send(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let cases = [
        ("/api/v1/publish", json!({"payload": 1}), 400, "room"),
        ("/api/v1/publish", json!({"room": "a"}), 400, "payload"),
        (
            "/api/v1/publish",
            json!({"room": "a", "payload": 1, "user": "x"}),
            400,
            "user",
        ),
        ("/api/v1/publish", json!({"room": "", "payload": 1}), 422, "room"),
        (
            "/api/v1/publish",
            json!({"room": "x".repeat(256), "payload": 1}),
            422,
            "255",
        ),
        ("/api/v1/direct", json!({"payload": 1}), 400, "userId"),
        ("/api/v1/nothing", json!({}), 404, "path"),
    ];
    for (path, body, status, word) in cases {
        let answer = gateway.api(path, &body).await?;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem: Problem = answer.json()?;
        assert!(problem.detail.contains(word), "{path} {body}: {problem:?}");
    }
    Ok(())
}
