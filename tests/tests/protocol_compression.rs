//! permessage-deflate (RFC 7692) between clients and gateways, with each broker.

use anyhow::{Context, Result};
use serde_json::json;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_memory_and_redis;
use wsfleet_tests::raw::Raw;

on_memory_and_redis! {
    a_room_message_is_compressed_for_those_who_negotiated_it_and_sent_as_it_is_to_the_others,
    compressed_messages_are_read_and_small_answers_are_sent_as_they_are,
    compression_that_is_off_or_not_offered_is_not_negotiated,
    an_offer_that_cannot_be_kept_is_declined_and_the_client_served_without,
}

const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

async fn open(fleet: &Fleet, number: usize, name: &str, offer: Option<&str>) -> Result<Raw> {
    let mut client = Raw::open(fleet.gateway(number).ports.clients, name, offer).await?;
    client.expect("welcome").await?;
    Ok(client)
}

async fn a_room_message_is_compressed_for_those_who_negotiated_it_and_sent_as_it_is_to_the_others(
    kind: Kind,
) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let offers = [
        Some("permessage-deflate"),
        Some("permessage-deflate; client_max_window_bits"),
        Some("permessage-deflate; server_max_window_bits=9"),
        None,
    ];
    let mut members = Vec::new();
    for (number, offer) in offers.into_iter().enumerate() {
        let mut member = open(&fleet, 0, &format!("member{number}"), offer).await?;
        member.send(0x81, br#"{"type":"join","room":"lobby"}"#).await?;
        member.expect("joined").await?;
        members.push(member);
    }
    let mut sender = fleet.client(1, "sender").await?;
    sender.join("lobby").await?;
    let payload = json!("round and round ".repeat(200));
    sender.say("lobby", payload.clone()).await?;
    sender.say("lobby", json!("small")).await?;
    let mut sizes = Vec::new();
    for (member, offer) in members.iter_mut().zip(offers) {
        let large = member.expect("room_message").await?;
        assert_eq!(large.is_compressed(), offer.is_some());
        assert_eq!(large.json()?["payload"], payload);
        let small = member.expect("room_message").await?;
        assert!(!small.is_compressed());
        assert_eq!(small.json()?["payload"], "small");
        sizes.push(large.payload.len());
    }
    assert_eq!(sizes[0], sizes[1], "the same bytes");
    assert!(sizes[2] < sizes[3] / 4, "{sizes:?}");
    assert_eq!(sender.expect("room_message").await?["payload"], payload);
    Ok(())
}

async fn compressed_messages_are_read_and_small_answers_are_sent_as_they_are(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = open(
        &fleet,
        0,
        "ann",
        Some("permessage-deflate; client_max_window_bits"),
    )
    .await?;
    assert_eq!(ann.extensions(), Some(AGREED));
    ann.send_deflated(&json!({"type": "join", "room": "lobby"}).to_string())
        .await?;
    assert!(!ann.expect("joined").await?.is_compressed());
    let words = "round and round ".repeat(1_000);
    let message = json!({"type": "room_message", "room": "lobby", "payload": words, "id": 1});
    ann.send_deflated(&message.to_string()).await?;
    assert_eq!(ann.expect("room_message").await?.json()?["payload"], words);
    Ok(())
}

async fn compression_that_is_off_or_not_offered_is_not_negotiated(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--compression", "off"]).await?;
    let mut ann = open(&fleet, 0, "ann", Some("permessage-deflate")).await?;
    assert_eq!(ann.extensions(), None);
    ann.send_deflated(r#"{"type":"ping"}"#).await?;
    assert_eq!(ann.closed().await?, 1002, "RSV1 means nothing here");
    let on = Fleet::start(kind).await?;
    let mut bob = open(&on, 0, "bob", None).await?;
    assert_eq!(bob.extensions(), None);
    bob.send_deflated(r#"{"type":"ping"}"#).await?;
    assert_eq!(bob.closed().await?, 1002);
    Ok(())
}

async fn an_offer_that_cannot_be_kept_is_declined_and_the_client_served_without(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let offer = "permessage-deflate; server_max_window_bits=8";
    let mut ann = open(&fleet, 0, "ann", Some(offer)).await?;
    assert_eq!(ann.extensions(), None);
    ann.send(0x81, br#"{"type":"ping"}"#).await?;
    ann.expect("pong").await?;
    let fallback = format!("{offer}, permessage-deflate; server_max_window_bits=10");
    let bob = open(&fleet, 1, "bob", Some(&fallback)).await?;
    let agreed = bob.extensions().context("an answer")?;
    assert_eq!(agreed, format!("{AGREED}; server_max_window_bits=10"));
    Ok(())
}
