//! The codecs on real sockets: who speaks which, that all understand each other, and what is answered to bytes that are
//! none of the codec's.

use anyhow::Result;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use wsfleet_gateway::protocol::Codec;
use wsfleet_tests::client::Client;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_memory_and_redis;

on_memory_and_redis! {
    members_with_different_codecs_understand_each_other,
    what_json_can_say_and_others_cannot_still_reaches_everyone,
    a_direct_message_reaches_devices_with_any_codec,
    answers_and_errors_come_in_the_codec_of_the_connection,
    a_frame_of_the_wrong_kind_closes_with_1003,
    malformed_bytes_are_answered_and_the_connection_stays,
    a_value_that_json_cannot_say_or_that_is_too_big_as_json_is_refused,
}

const BINARY: [Codec; 2] = [Codec::MsgPack, Codec::Proto];

/// A client per codec, each on a gateway of its own where there are several, and one without a subprotocol.
async fn one_of_each(fleet: &Fleet) -> Result<Vec<Client>> {
    let codecs = Codec::ALL.into_iter().map(Some).chain([None]);
    let mut clients = Vec::new();
    for (number, codec) in codecs.enumerate() {
        clients.push(fleet.client_as(number, &format!("u{number}"), codec).await?);
    }
    Ok(clients)
}

async fn members_with_different_codecs_understand_each_other(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut clients = one_of_each(&fleet).await?;
    for client in &mut clients {
        client.join("zimmer 1").await?;
    }
    let payloads = [
        json!(null),
        json!("text with \"quotes\", \u{0} and 😀"),
        json!({"a": [1, -1, 2.5, true, {}], "ключ": u64::MAX, "b": [], "long": "x".repeat(40_000)}),
    ];
    let mut offset = 0;
    for from in 0..clients.len() {
        for payload in &payloads {
            let ack = clients[from]
                .say_acked("zimmer 1", payload.clone(), json!("id 1"))
                .await?;
            offset += 1;
            assert_eq!((&ack["id"], &ack["offset"]), (&json!("id 1"), &json!(offset)));
            for client in &mut clients {
                let message = client.expect("room_message").await?;
                assert_eq!(&message["payload"], payload);
                assert_eq!(message["userId"], format!("user_u{from}"));
                assert_eq!(
                    (&message["roomId"], &message["offset"]),
                    (&json!("zimmer 1"), &json!(offset))
                );
            }
        }
    }
    Ok(())
}

async fn what_json_can_say_and_others_cannot_still_reaches_everyone(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut json = fleet.client(0, "json").await?;
    let mut msgpack = fleet.client_as(1, "msgpack", Some(Codec::MsgPack)).await?;
    json.join("r").await?;
    msgpack.join("r").await?;
    for (payload, said) in [(r#""\ud800!""#, json!("\u{fffd}!")), ("[1e2]", json!([100.0]))] {
        let text = format!(r#"{{"type":"room_message","room":"r","payload":{payload}}}"#);
        json.send_text(&text).await?;
        assert_eq!(msgpack.expect("room_message").await?["payload"], said);
    }
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    json.send_text(&format!(
        r#"{{"type":"room_message","room":"r","payload":{deep}}}"#
    ))
    .await?;
    assert_eq!(msgpack.expect("room_message").await?["payload"].to_string(), deep);
    Ok(())
}

async fn a_direct_message_reaches_devices_with_any_codec(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut devices = Vec::new();
    for (number, codec) in Codec::ALL.into_iter().enumerate() {
        devices.push(fleet.client_as(number, "bob", Some(codec)).await?);
    }
    for codec in Codec::ALL {
        let mut ann = fleet.client_as(1, "ann", Some(codec)).await?;
        let payload = json!({"from": codec.subprotocol(), "n": 1});
        ann.send(
            json!({"type": "direct_message", "targetUserId": "user_bob", "payload": payload, "id": "d"}),
        )
        .await?;
        let ack = ann.expect("ack").await?;
        for device in &mut devices {
            let message = device.expect("direct_message").await?;
            assert_eq!(message["payload"], payload);
            assert_eq!(message["fromUserId"], "user_ann");
            assert_eq!(message["offset"], ack["offset"]);
        }
    }
    Ok(())
}

async fn answers_and_errors_come_in_the_codec_of_the_connection(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--presence-hold", "1"]).await?;
    let mut watcher = fleet.client(0, "watcher").await?;
    watcher.join("r").await?;
    for codec in Codec::ALL {
        let mut client = fleet
            .client_as(
                1,
                codec.subprotocol().trim_start_matches("wsfleet.v1."),
                Some(codec),
            )
            .await?;
        client.send(json!({"type": "ping"})).await?;
        client.expect("pong").await?;
        client
            .send(json!({"type": "room_message", "room": "r", "payload": 1, "id": "early"}))
            .await?;
        let error = client.expect("error").await?;
        assert_eq!(
            (&error["code"], &error["id"], &error["temporary"]),
            (&json!("not_in_room"), &json!("early"), &json!(false))
        );
        client.send(json!({"type": "join", "room": ""})).await?;
        assert!(matches!(
            client.expect("error").await?["code"].as_str(),
            Some("invalid_field" | "missing_field")
        ));
        client
            .send(json!({"type": "join", "room": "r".repeat(300)}))
            .await?;
        assert_eq!(client.expect("error").await?["code"], "room_name_too_long");
        client.join("r").await?;
        let joined = watcher.expect("user_joined").await?;
        client.leave("r").await?;
        assert_eq!(watcher.expect("user_left").await?["userId"], joined["userId"]);
        assert_eq!(client.close().await?, 1000);
    }
    Ok(())
}

async fn a_frame_of_the_wrong_kind_closes_with_1003(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    for codec in BINARY {
        let mut client = fleet.client_as(0, "ann", Some(codec)).await?;
        client.send_text(r#"{"type":"ping"}"#).await?;
        assert_eq!(client.closed().await?, 1003, "{codec:?}");
    }
    let mut json = fleet.client_as(0, "ann", Some(Codec::Json)).await?;
    json.send_frame(Message::binary(b"{\"type\":\"ping\"}".to_vec()))
        .await?;
    assert_eq!(json.closed().await?, 1003);
    Ok(())
}

async fn malformed_bytes_are_answered_and_the_connection_stays(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    for (codec, text, code) in [
        (Codec::MsgPack, "Invalid MessagePack", "invalid_msgpack"),
        (
            Codec::Proto,
            "Invalid Protocol Buffers message",
            "invalid_protobuf",
        ),
    ] {
        let mut client = fleet.client_as(0, "ann", Some(codec)).await?;
        for bytes in [&b"\xC1"[..], b"\x0A\xFF", b"{\"type\":\"ping\"}", &[0x91; 5_000]] {
            client.send_frame(Message::binary(bytes.to_vec())).await?;
            let error = client.expect("error").await?;
            assert_eq!(
                (&error["error"], &error["code"]),
                (&json!(text), &json!(code)),
                "{bytes:?}"
            );
        }
        // well-formed, and no message: an empty map, an empty message
        let nothing: &[u8] = if codec == Codec::MsgPack { b"\x80" } else { b"" };
        client.send_frame(Message::binary(nothing.to_vec())).await?;
        assert_eq!(client.expect("error").await?["error"], "Unknown message type");
        client.join("still there").await?;
    }
    Ok(())
}

async fn a_value_that_json_cannot_say_or_that_is_too_big_as_json_is_refused(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut client = fleet.client_as(0, "ann", Some(Codec::MsgPack)).await?;
    client.join("r").await?;
    let binary = b"\x83\xA4type\xACroom_message\xA4room\xA1r\xA7payload\xC4\x01x";
    client.send_frame(Message::binary(binary.to_vec())).await?;
    assert_eq!(client.expect("error").await?["code"], "not_json");
    client.say("r", Value::from("\0".repeat(20_000))).await?;
    assert_eq!(client.expect("error").await?["code"], "message_too_big");
    client.say("r", json!("fits")).await?;
    assert_eq!(client.expect("room_message").await?["payload"], "fits");
    Ok(())
}
