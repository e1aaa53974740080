//! What is kept of rooms, and that of a message that is sent again only the first counts, with each broker.

use anyhow::Result;
use serde_json::{Value, json};
use wsfleet_tests::client::{Client, unix_now};
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::guarded::Guarded;
use wsfleet_tests::on_each_broker;
use wsfleet_tests::resume::say;
use wsfleet_tests::wait::until_async;

on_each_broker! {
    history_gives_the_last_messages_in_order_and_older_ones_by_pages,
    a_page_of_history_has_300_messages_or_256_kib_at_most,
    a_room_keeps_what_its_rule_says,
    what_is_too_old_is_not_given_any_more,
    an_ephemeral_room_has_messages_without_offsets,
    a_message_that_is_sent_again_is_acked_as_a_duplicate_and_delivered_once,
    of_a_hundred_messages_with_one_msg_id_at_once_one_is_delivered,
    a_msg_id_belongs_to_its_sender_and_to_its_stream,
}

async fn history(client: &mut Client, room: &str, limit: u64, before: Option<u64>) -> Result<Value> {
    client
        .send(json!({"type": "history", "room": room, "limit": limit, "before": before, "id": "h"}))
        .await?;
    let history = client.expect("history").await?;
    assert_eq!((&history["room"], &history["id"]), (&json!(room), &json!("h")));
    Ok(history)
}

fn offsets(history: &Value) -> Vec<u64> {
    let messages = history["messages"].as_array().into_iter().flatten();
    messages
        .filter_map(|message| message["offset"].as_u64())
        .collect()
}

async fn history_gives_the_last_messages_in_order_and_older_ones_by_pages(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    let joined = ann.join("r").await?;
    let empty = history(&mut bob, "r", 10, None).await?;
    assert_eq!((&empty["epoch"], &empty["offset"]), (&joined["epoch"], &json!(0)));
    assert!(offsets(&empty).is_empty() && empty.get("next").is_none());
    say(&mut ann, "r", 1, 7).await?;
    let last = history(&mut bob, "r", 3, None).await?;
    assert_eq!((offsets(&last), &last["next"]), (vec![5, 6, 7], &json!(5)));
    let message = &last["messages"][2];
    assert_eq!(
        (&message["userId"], &message["payload"]),
        (&json!("user_ann"), &json!(7))
    );
    assert!(
        message["timestamp"].is_u64() && message["serverId"].is_string(),
        "{message}"
    );
    let older = history(&mut bob, "r", 3, Some(5)).await?;
    assert_eq!((offsets(&older), &older["next"]), (vec![2, 3, 4], &json!(2)));
    let oldest = history(&mut bob, "r", 3, Some(2)).await?;
    assert_eq!((offsets(&oldest), oldest.get("next")), (vec![1], None));
    let before_all = history(&mut bob, "r", 3, Some(1)).await?;
    assert!(offsets(&before_all).is_empty());
    let beyond = history(&mut bob, "r", 2, Some(1 << 50)).await?;
    assert_eq!((offsets(&beyond), &beyond["offset"]), (vec![6, 7], &json!(7)));
    Ok(())
}

async fn a_page_of_history_has_300_messages_or_256_kib_at_most(kind: Kind) -> Result<()> {
    let flags = [
        "--history",
        "*=1000/600",
        "--limit",
        "messagesPerSecond=0",
        "--limit",
        "bytesPerSecond=0",
    ];
    let fleet = Fleet::start_with(kind, &flags).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("many").await?;
    for number in 1..=320 {
        ann.say("many", json!(number)).await?;
    }
    ann.expect_many("room_message", 320).await?;
    let page = history(&mut ann, "many", 1_000, None).await?;
    assert!(offsets(&page).into_iter().eq(21..=320));
    assert_eq!(page["next"], 21);
    ann.join("large").await?;
    let large = "x".repeat(60_000);
    for _ in 0..8 {
        ann.say("large", json!(large)).await?;
        ann.expect("room_message").await?;
    }
    let page = history(&mut ann, "large", 300, None).await?;
    let size = page.to_string().len();
    assert!((60_000..256 << 10).contains(&size), "{size} bytes");
    let first = page["next"].as_u64();
    assert_eq!(first, offsets(&page).first().copied());
    let older = history(&mut ann, "large", 300, first).await?;
    assert_eq!(offsets(&older).last().copied(), first.map(|first| first - 1));
    Ok(())
}

async fn a_room_keeps_what_its_rule_says(kind: Kind) -> Result<()> {
    let flags = ["--history", "few=5/600", "--history", "none*=off"];
    let fleet = Fleet::start_with(kind, &flags).await?;
    let mut ann = fleet.client(0, "ann").await?;
    for room in ["few", "none", "other"] {
        ann.join(room).await?;
        say(&mut ann, room, 1, 8).await?;
    }
    assert_eq!(
        offsets(&history(&mut ann, "few", 300, None).await?),
        [4, 5, 6, 7, 8]
    );
    let none = history(&mut ann, "none", 300, None).await?;
    assert_eq!((offsets(&none), &none["offset"]), (vec![], &json!(8)));
    assert!(
        offsets(&history(&mut ann, "other", 300, None).await?)
            .into_iter()
            .eq(1..=8)
    );
    Ok(())
}

async fn what_is_too_old_is_not_given_any_more(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(
        kind,
        &["--history", "brief=100/1", "--limit", "messagesPerSecond=0"],
    )
    .await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("brief").await?;
    say(&mut ann, "brief", 1, 3).await?;
    let ann = tokio::sync::Mutex::new(ann);
    until_async("nothing is given any more", || async {
        let history = history(&mut *ann.lock().await, "brief", 300, None).await?;
        assert_eq!(history["offset"], 3, "the position stays");
        Ok(offsets(&history).is_empty())
    })
    .await
}

async fn an_ephemeral_room_has_messages_without_offsets(kind: Kind) -> Result<()> {
    let flags = ["--history", "cursor:*=ephemeral"];
    let fleet = Fleet::start_with(kind, &flags).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    for client in [&mut ann, &mut bob] {
        let joined = client.join("cursor:1").await?;
        assert_eq!(
            (&joined["epoch"], &joined["offset"]),
            (&json!(""), &json!(0)),
            "{joined}"
        );
    }
    for number in 0..3 {
        let ack = ann.say_acked("cursor:1", json!(number), json!(number)).await?;
        assert_eq!((&ack["epoch"], &ack["offset"]), (&json!(""), &json!(0)), "{ack}");
    }
    for client in [&mut ann, &mut bob] {
        for number in 0..3 {
            let message = client.expect("room_message").await?;
            assert_eq!(
                (&message["payload"], &message["offset"]),
                (&json!(number), &json!(0))
            );
        }
    }
    assert!(offsets(&history(&mut bob, "cursor:1", 300, None).await?).is_empty());
    if let Some(redis) = &fleet.redis {
        let keys: Vec<String> = ::redis::cmd("KEYS")
            .arg("wsfleet:*cursor*")
            .query_async(&mut redis.connection().await?)
            .await?;
        assert!(keys.is_empty(), "{keys:?}");
    }
    Ok(())
}

fn with_msg_id(msg_id: &Value, id: &Value) -> Value {
    json!({"type": "room_message", "room": "r", "payload": id, "id": id, "msgId": msg_id})
}

async fn a_message_that_is_sent_again_is_acked_as_a_duplicate_and_delivered_once(kind: Kind) -> Result<()> {
    // also where nothing else is kept
    let fleet = Fleet::start_with(kind, &["--history", "r=off"]).await?;
    let (mut phone, mut desk) = (fleet.client(0, "ann").await?, fleet.client(1, "ann").await?);
    let mut bob = fleet.client(2, "bob").await?;
    for client in [&mut phone, &mut desk, &mut bob] {
        client.join("r").await?;
    }
    phone.send(with_msg_id(&json!("m1"), &json!(1))).await?;
    let first = phone.expect("ack").await?;
    assert_eq!(
        (&first["offset"], &first["duplicate"]),
        (&json!(1), &json!(false))
    );
    phone.say_acked("r", json!("between"), json!(2)).await?;
    for client in [&mut phone, &mut desk] {
        client.send(with_msg_id(&json!("m1"), &json!(3))).await?;
        let again = client.expect("ack").await?;
        assert_eq!(
            (&again["offset"], &again["duplicate"]),
            (&json!(1), &json!(true)),
            "{again}"
        );
        assert_eq!(again["epoch"], first["epoch"]);
    }
    desk.say_acked("r", json!("end"), json!(4)).await?;
    let heard = bob.expect_many("room_message", 3).await?;
    let heard: Vec<_> = heard
        .iter()
        .map(|message| (&message["offset"], &message["payload"]))
        .collect();
    let expected = [json!(1), json!("between"), json!("end")];
    assert!(
        heard
            .into_iter()
            .eq([json!(1), json!(2), json!(3)].iter().zip(&expected))
    );
    assert!(bob.all_so_far("room_message").await?.is_empty());
    Ok(())
}

async fn of_a_hundred_messages_with_one_msg_id_at_once_one_is_delivered(kind: Kind) -> Result<()> {
    let flags = [
        "--limit",
        "messagesPerSecond=0",
        "--limit",
        "connectionsPerUser=0",
    ];
    let fleet = Fleet::start_with(kind, &flags).await?;
    let mut devices = Vec::new();
    for number in 0..10 {
        let mut device = fleet.client(number, "ann").await?;
        device.join("r").await?;
        devices.push(device);
    }
    for device in &mut devices {
        for id in 0..10 {
            device.send(with_msg_id(&json!("once"), &json!(id))).await?;
        }
    }
    let mut firsts = 0;
    for device in &mut devices {
        for ack in device.expect_many("ack", 10).await? {
            assert_eq!(ack["offset"], 1, "{ack}");
            firsts += usize::from(ack["duplicate"] == false);
        }
    }
    assert_eq!(firsts, 1);
    devices[0].say_acked("r", json!("end"), json!("end")).await?;
    for device in &mut devices {
        let heard = device.expect_many("room_message", 2).await?;
        assert_eq!(
            (&heard[0]["offset"], &heard[1]["payload"]),
            (&json!(1), &json!("end"))
        );
    }
    Ok(())
}

async fn a_msg_id_belongs_to_its_sender_and_to_its_stream(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    for client in [&mut ann, &mut bob] {
        client.join("r").await?;
        client.send(with_msg_id(&json!(7), &json!("own"))).await?;
        assert_eq!(client.expect("ack").await?["duplicate"], false);
        // a text that says the same is the same
        client.send(with_msg_id(&json!("7"), &json!("again"))).await?;
        assert_eq!(client.expect("ack").await?["duplicate"], true);
    }
    let direct =
        json!({"type": "direct_message", "targetUserId": "user_bob", "payload": 1, "id": 1, "msgId": 7});
    for duplicate in [false, true] {
        ann.send(direct.clone()).await?;
        let ack = ann.expect("ack").await?;
        assert_eq!(
            (&ack["duplicate"], &ack["offset"]),
            (&json!(duplicate), &json!(1))
        );
    }
    bob.expect("direct_message").await?;
    assert!(bob.all_so_far("direct_message").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn history_is_for_those_who_may_join() -> Result<()> {
    let guarded = Guarded::start(&[]).await?;
    let claims = json!({"sub": "ann", "exp": unix_now() + 600, "rooms": ["open"]});
    let mut ann = guarded.client(&claims).await?;
    ann.send(json!({"type": "history", "room": "closed", "limit": 1, "id": 5}))
        .await?;
    let error = ann.expect("error").await?;
    assert_eq!((&error["code"], &error["id"]), (&json!("forbidden"), &json!(5)));
    history(&mut ann, "open", 1, None).await?;
    Ok(())
}
