//! What is answered to which message, and to messages that are none, with each broker.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_each_broker;
use wsfleet_tests::wait::{until_async, within};

on_each_broker! {
    a_welcome_tells_who_and_where,
    invalid_json_is_answered_with_the_articles_text,
    an_unknown_type_is_answered_and_never_a_reason_to_close,
    a_missing_or_wrong_field_is_named,
    unknown_fields_are_ignored,
    an_id_may_be_text_or_number_and_comes_back_as_it_was,
    without_an_id_there_is_no_ack,
    a_ping_is_answered_after_everything_before_it,
    a_message_that_is_too_big_closes_with_1009,
    text_that_is_not_utf8_closes_with_1007,
    an_unmasked_or_broken_frame_closes_with_1002,
    too_many_messages_are_an_error_and_when_it_lasts_a_close_with_4101,
    too_many_bytes_are_an_error,
    a_close_is_answered_and_counted_with_its_code,
}

async fn a_welcome_tells_who_and_where(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = wsfleet_tests::client::Connect::to(fleet.gateway(0).ports.clients)
        .token("ann")
        .open()
        .await?;
    let welcome = ann.expect("welcome").await?;
    assert_eq!(
        (&welcome["userId"], &welcome["serverId"]),
        (&json!("user_ann"), &json!("g0"))
    );
    assert!(
        welcome["connectionId"].as_str().is_some_and(|id| !id.is_empty()),
        "{welcome}"
    );
    assert_eq!(welcome["pingInterval"], 30_000);
    assert!(
        welcome["limits"].is_object() && welcome["features"].is_array(),
        "{welcome}"
    );
    Ok(())
}

async fn invalid_json_is_answered_with_the_articles_text(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    for text in [
        "",
        " ",
        "{",
        "nonsense",
        "{\"type\":\"ping\"",
        "{\"type\":\"ping\"}}",
        "\u{0}",
        "{'type':'ping'}",
    ] {
        ann.send_text(text).await?;
        let error = ann.expect("error").await?;
        assert_eq!(
            (&error["error"], &error["code"]),
            (&json!("Invalid JSON"), &json!("invalid_json")),
            "{text:?}"
        );
        assert_eq!(error["temporary"], false);
    }
    ann.join("still there").await?;
    Ok(())
}

async fn an_unknown_type_is_answered_and_never_a_reason_to_close(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    for text in [
        r#"{"type":"dance"}"#,
        r#"{"type":""}"#,
        "{}",
        r#"{"kind":"ping"}"#,
    ] {
        ann.send_text(text).await?;
        let error = ann.expect("error").await?;
        assert_eq!(error["error"], "Unknown message type", "{text}: {error}");
        assert_eq!(error["code"], "unknown_type");
    }
    ann.join("still there").await?;
    Ok(())
}

async fn a_missing_or_wrong_field_is_named(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let cases = [
        (json!({"type": "join"}), "missing_field", "room"),
        (json!({"type": "leave"}), "missing_field", "room"),
        (
            json!({"type": "room_message", "payload": 1}),
            "missing_field",
            "room",
        ),
        (
            json!({"type": "room_message", "room": "a"}),
            "missing_field",
            "payload",
        ),
        (
            json!({"type": "direct_message", "payload": 1}),
            "missing_field",
            "targetUserId",
        ),
        (
            json!({"type": "direct_message", "targetUserId": "a"}),
            "missing_field",
            "payload",
        ),
        (json!({"type": "join", "room": 7}), "invalid_field", "room"),
        (
            json!({"type": "direct_message", "targetUserId": ["a"], "payload": 1}),
            "invalid_field",
            "targetUserId",
        ),
    ];
    for (message, code, field) in cases {
        ann.send(message.clone()).await?;
        let error = ann.expect("error").await?;
        assert_eq!(error["code"], code, "{message}: {error}");
        assert!(
            error["error"].as_str().is_some_and(|text| text.contains(field)),
            "{message}: {error}"
        );
    }
    Ok(())
}

async fn unknown_fields_are_ignored(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.send(json!({"type": "join", "room": "a", "since": {"x": [1]}, "version": 9}))
        .await?;
    assert_eq!(ann.expect("joined").await?["room"], "a");
    ann.send_text(r#"{"payload":{"room":"b"},"more":null,"room":"a","id":"1","type":"room_message"}"#)
        .await?;
    assert_eq!(ann.expect("ack").await?["offset"], 1);
    assert_eq!(ann.expect("room_message").await?["payload"]["room"], "b");
    Ok(())
}

async fn an_id_may_be_text_or_number_and_comes_back_as_it_was(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("a").await?;
    for id in [
        json!("x"),
        json!("\"\\\n\u{1F600}"),
        json!(0),
        json!(-3),
        json!(1.5),
        json!(u64::MAX),
    ] {
        assert_eq!(ann.say_acked("a", json!(1), id.clone()).await?["id"], id);
    }
    Ok(())
}

async fn without_an_id_there_is_no_ack(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("a").await?;
    ann.say("a", json!(1)).await?;
    ann.say_acked("a", json!(2), json!("second")).await?;
    assert_eq!(ann.expect_many("room_message", 2).await?[1]["payload"], 2);
    assert!(ann.all_so_far("ack").await?.is_empty());
    Ok(())
}

async fn a_ping_is_answered_after_everything_before_it(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    for _ in 0..10 {
        ann.send(json!({"type": "join", "room": "a"})).await?;
        ann.send(json!({"type": "leave", "room": "a"})).await?;
        ann.send(json!({"type": "ping"})).await?;
        ann.expect("pong").await?;
        assert_eq!(ann.expect_many("left", 1).await?.len(), 1);
        assert_eq!(ann.expect_many("joined", 1).await?.len(), 1);
    }
    Ok(())
}

async fn a_message_that_is_too_big_closes_with_1009(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--limit", "messageBytes=1000"]).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("a").await?;
    let fits = "x".repeat(
        1_000
            - json!({"type": "room_message", "room": "a", "payload": ""})
                .to_string()
                .len(),
    );
    ann.say("a", json!(fits)).await?;
    ann.expect("room_message").await?;
    ann.say("a", json!(fits + "x")).await?;
    assert_eq!(ann.closed().await?, 1009);
    // in fragments it is too big as well
    let mut bob = fleet.client(0, "bob").await?;
    let half = Message::Frame(tokio_tungstenite::tungstenite::protocol::frame::Frame::message(
        vec![b' '; 600],
        tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode::Data(
            tokio_tungstenite::tungstenite::protocol::frame::coding::Data::Text,
        ),
        false,
    ));
    bob.send_frame(half).await?;
    let rest = Message::Frame(tokio_tungstenite::tungstenite::protocol::frame::Frame::message(
        vec![b' '; 600],
        tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode::Data(
            tokio_tungstenite::tungstenite::protocol::frame::coding::Data::Continue,
        ),
        true,
    ));
    bob.send_frame(rest).await?;
    assert_eq!(bob.closed().await?, 1009);
    Ok(())
}

async fn text_that_is_not_utf8_closes_with_1007(kind: Kind) -> Result<()> {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.send_frame(Message::Frame(Frame::message(
        vec![0xc3, 0x28],
        OpCode::Data(Data::Text),
        true,
    )))
    .await?;
    assert_eq!(ann.closed().await?, 1007);
    Ok(())
}

async fn an_unmasked_or_broken_frame_closes_with_1002(kind: Kind) -> Result<()> {
    use tokio::io::AsyncWriteExt;
    let fleet = Fleet::start(kind).await?;
    // unmasked; reserved bit; reserved opcode; fragmented ping
    for bytes in [
        &[0x81, 0x01, b'x'][..],
        &[0xc1, 0x80, 0, 0, 0, 0],
        &[0x83, 0x80, 0, 0, 0, 0],
        &[0x09, 0x80, 0, 0, 0, 0],
    ] {
        let mut ann = fleet.client(0, "ann").await?;
        ann.raw().write_all(bytes).await?;
        assert_eq!(ann.closed().await?, 1002, "{bytes:x?}");
    }
    Ok(())
}

async fn too_many_messages_are_an_error_and_when_it_lasts_a_close_with_4101(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--limit", "messagesPerSecond=5"]).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(0, "bob").await?);
    bob.join("a").await?;
    ann.join("a").await?;
    // ten at once, then five a second: far fewer than are sent, though the machine may pause meanwhile
    for i in 0..90 {
        ann.say("a", json!(i)).await?;
    }
    let error = ann.expect("error").await?;
    assert_eq!(
        (&error["code"], &error["temporary"]),
        (&json!("message_rate_exceeded"), &json!(true)),
        "{error}"
    );
    // dropped ones were not sent on: offsets have no hole, and the first is there
    let heard = bob.expect("room_message").await?;
    assert_eq!((&heard["payload"], &heard["offset"]), (&json!(0), &json!(1)));
    assert!(bob.all_so_far("room_message").await?.len() < 60);
    // going on like that ends the connection
    let abuse = async {
        loop {
            let _ = ann.say("a", json!(0)).await;
            if let Ok(code) = ann.closed_within(Duration::from_millis(20)).await {
                return code;
            }
        }
    };
    assert_eq!(
        within(Duration::from_mins(2), "the connection is closed", abuse).await?,
        4101
    );
    assert_eq!(bob.all_so_far("error").await?.len(), 0);
    Ok(())
}

async fn too_many_bytes_are_an_error(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(
        kind,
        &["--limit", "messageBytes=10000", "--limit", "bytesPerSecond=10000"],
    )
    .await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("a").await?;
    // 20,000 at once, then 10,000 a second: far fewer than are sent, though the machine may pause meanwhile
    for _ in 0..12 {
        ann.say("a", json!("x".repeat(9_000))).await?;
    }
    let error = ann.expect("error").await?;
    assert_eq!(
        (&error["code"], &error["temporary"]),
        (&json!("byte_rate_exceeded"), &json!(true)),
        "{error}"
    );
    Ok(())
}

async fn a_close_is_answered_and_counted_with_its_code(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let (ann, bob) = (fleet.client(0, "ann").await?, fleet.client(0, "bob").await?);
    until_async("two connections", || async {
        Ok(gateway.state().await?.connections == 2)
    })
    .await?;
    assert_eq!(ann.close().await?, 1000);
    drop(bob);
    until_async("no connection", || async {
        Ok(gateway.state().await?.connections == 0)
    })
    .await?;
    for (code, initiator) in [("1000", "client"), ("1006", "client")] {
        let labels = [format!("code=\"{code}\""), format!("initiator=\"{initiator}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let closes = gateway.metric("ws_closes_total", &labels).await?;
        assert!((closes - 1.0).abs() < f64::EPSILON, "{code}: {closes}");
    }
    Ok(())
}
