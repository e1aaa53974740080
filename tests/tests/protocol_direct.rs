//! Direct messages, as clients see them, with each broker.

use anyhow::Result;
use serde_json::json;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_each_broker;

on_each_broker! {
    every_device_on_every_gateway_gets_a_direct_message_exactly_once,
    a_message_to_oneself_reaches_all_ones_devices,
    a_message_to_a_user_who_is_not_there_is_accepted_and_takes_an_offset,
    users_and_rooms_of_one_name_do_not_mix,
    a_device_that_went_away_is_not_missed_by_the_others,
}

async fn every_device_on_every_gateway_gets_a_direct_message_exactly_once(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut devices = Vec::new();
    for number in 0..6 {
        devices.push(fleet.client(number, "bob").await?);
    }
    let (mut ann, mut cleo) = (fleet.client(0, "ann").await?, fleet.client(1, "cleo").await?);
    for offset in 1..=3 {
        let text = json!({"n": offset});
        ann.send(
            json!({"type": "direct_message", "targetUserId": "user_bob", "payload": text, "id": offset}),
        )
        .await?;
        let ack = ann.expect("ack").await?;
        assert_eq!(
            (&ack["id"], &ack["offset"]),
            (&json!(offset), &json!(offset)),
            "{ack}"
        );
    }
    for device in &mut devices {
        for offset in 1..=3 {
            let message = device.expect("direct_message").await?;
            assert_eq!(message["fromUserId"], "user_ann");
            assert_eq!(message["payload"]["n"], offset);
            assert_eq!(message["offset"], offset);
            assert!(message["timestamp"].is_u64(), "{message}");
        }
    }
    // one more by another sender, and then nothing is left that came twice
    cleo.send(json!({"type": "direct_message", "targetUserId": "user_bob", "payload": "end"}))
        .await?;
    for device in &mut devices {
        assert_eq!(device.expect("direct_message").await?["payload"], "end");
        assert!(device.all_so_far("direct_message").await?.is_empty());
    }
    assert!(ann.all_so_far("direct_message").await?.is_empty());
    Ok(())
}

async fn a_message_to_oneself_reaches_all_ones_devices(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut phone, mut desk) = (fleet.client(0, "ann").await?, fleet.client(1, "ann").await?);
    phone
        .send(json!({"type": "direct_message", "targetUserId": "user_ann", "payload": "note"}))
        .await?;
    for device in [&mut phone, &mut desk] {
        assert_eq!(device.expect("direct_message").await?["payload"], "note");
    }
    Ok(())
}

async fn a_message_to_a_user_who_is_not_there_is_accepted_and_takes_an_offset(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.send(json!({"type": "direct_message", "targetUserId": "user_bob", "payload": 1, "id": 1}))
        .await?;
    assert_eq!(ann.expect("ack").await?["offset"], 1);
    let mut bob = fleet.client(1, "bob").await?;
    ann.send(json!({"type": "direct_message", "targetUserId": "user_bob", "payload": 2, "id": 2}))
        .await?;
    assert_eq!(ann.expect("ack").await?["offset"], 2);
    assert_eq!(bob.expect("direct_message").await?["offset"], 2);
    Ok(())
}

async fn users_and_rooms_of_one_name_do_not_mix(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    ann.join("user_bob").await?;
    ann.send(json!({"type": "direct_message", "targetUserId": "user_bob", "payload": "direct"}))
        .await?;
    assert_eq!(bob.expect("direct_message").await?["payload"], "direct");
    ann.say("user_bob", json!("room")).await?;
    assert_eq!(ann.expect("room_message").await?["payload"], "room");
    assert!(ann.all_so_far("direct_message").await?.is_empty());
    assert!(bob.all_so_far("room_message").await?.is_empty());
    Ok(())
}

async fn a_device_that_went_away_is_not_missed_by_the_others(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let (gone, mut stays) = (fleet.client(1, "bob").await?, fleet.client(1, "bob").await?);
    gone.close().await?;
    ann.send(json!({"type": "direct_message", "targetUserId": "user_bob", "payload": 1}))
        .await?;
    assert_eq!(stays.expect("direct_message").await?["payload"], 1);
    stays.close().await?;
    let mut back = fleet.client(1, "bob").await?;
    ann.send(json!({"type": "direct_message", "targetUserId": "user_bob", "payload": 2, "id": 2}))
        .await?;
    assert_eq!(ann.expect("ack").await?["offset"], 2);
    assert_eq!(back.expect("direct_message").await?["payload"], 2);
    Ok(())
}
