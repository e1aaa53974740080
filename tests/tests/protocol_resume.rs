//! Clients that come back get what they have missed: all of it, in order, each message once; or they are told why not. With
//! each broker.

use anyhow::{Context, Result};
use serde_json::json;
use wsfleet_gateway::protocol::Codec;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_each_broker;
use wsfleet_tests::resume::{FAST, hears, join_at, say};

on_each_broker! {
    who_comes_back_gets_exactly_what_it_missed_then_what_comes,
    who_missed_nothing_is_told_so,
    an_empty_room_can_be_resumed,
    a_room_in_which_nothing_was_ever_said_is_recovered,
    rooms_and_direct_messages_are_resumed_by_one_message,
    direct_messages_that_were_missed_reach_the_device_that_missed_them,
    a_member_that_says_where_it_was_gets_it_again,
    who_comes_back_amid_messages_gets_each_offset_once,
}

async fn who_comes_back_gets_exactly_what_it_missed_then_what_comes(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    for codec in [None, Some(Codec::MsgPack), Some(Codec::Proto)] {
        let room = format!("{codec:?}");
        let mut ann = fleet.client(0, "ann").await?;
        ann.join(&room).await?;
        let mut bob = fleet.client_as(1, "bob", codec).await?;
        let epoch = bob.join(&room).await?["epoch"].clone();
        say(&mut ann, &room, 1, 2).await?;
        hears(&mut bob, "room_message", 1..=2).await?;
        bob.close().await?;
        say(&mut ann, &room, 3, 6).await?;
        let mut bob = fleet.client_as(2, "bob", codec).await?;
        let joined = join_at(&mut bob, &room, &epoch, 2).await?;
        assert_eq!(
            (&joined["recovered"], &joined["offset"]),
            (&json!(true), &json!(6)),
            "{joined}"
        );
        assert_eq!(joined["epoch"], epoch);
        let first = bob.expect("room_message").await?;
        assert_eq!(
            (&first["payload"], &first["userId"]),
            (&json!(3), &json!("user_ann"))
        );
        assert_eq!((&first["roomId"], &first["offset"]), (&json!(room), &json!(3)));
        hears(&mut bob, "room_message", 4..=6).await?;
        say(&mut ann, &room, 7, 8).await?;
        hears(&mut bob, "room_message", 7..=8).await?;
        assert!(bob.all_so_far("room_message").await?.is_empty());
    }
    Ok(())
}

async fn who_missed_nothing_is_told_so(kind: Kind) -> Result<()> {
    // also where nothing is kept
    let fleet = Fleet::start_with(kind, &["--history", "*=off"]).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let epoch = ann.join("r").await?["epoch"].clone();
    say(&mut ann, "r", 1, 3).await?;
    let mut bob = fleet.client(1, "bob").await?;
    let joined = join_at(&mut bob, "r", &epoch, 3).await?;
    assert_eq!(
        (&joined["recovered"], joined.get("reason")),
        (&json!(true), None),
        "{joined}"
    );
    let joined = join_at(&mut fleet.client(2, "cleo").await?, "r", &epoch, 2).await?;
    assert_eq!(
        (&joined["recovered"], &joined["reason"]),
        (&json!(false), &json!("too_old"))
    );
    say(&mut ann, "r", 4, 4).await?;
    hears(&mut bob, "room_message", 4..=4).await
}

async fn an_empty_room_can_be_resumed(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    let joined = bob.join("r").await?;
    assert_eq!(joined["offset"], 0);
    bob.close().await?;
    ann.join("r").await?;
    say(&mut ann, "r", 1, 1).await?;
    let mut bob = fleet.client(2, "bob").await?;
    let joined = join_at(&mut bob, "r", &joined["epoch"], 0).await?;
    assert_eq!(
        (&joined["recovered"], &joined["offset"]),
        (&json!(true), &json!(1))
    );
    hears(&mut bob, "room_message", 1..=1).await
}

async fn a_room_in_which_nothing_was_ever_said_is_recovered(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut bob = fleet.client(0, "bob").await?;
    let epoch = bob.join("r").await?["epoch"].clone();
    bob.close().await?;
    let mut bob = fleet.client(1, "bob").await?;
    let joined = join_at(&mut bob, "r", &epoch, 0).await?;
    assert_eq!(
        (&joined["recovered"], &joined["offset"], &joined["epoch"]),
        (&json!(true), &json!(0), &epoch),
        "{joined}"
    );
    say(&mut bob, "r", 1, 1).await?;
    hears(&mut bob, "room_message", 1..=1).await
}

async fn rooms_and_direct_messages_are_resumed_by_one_message(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let mut places = Vec::new();
    for room in ["a", "b", "c"] {
        let epoch = ann.join(room).await?["epoch"].clone();
        say(&mut ann, room, 1, 4).await?;
        places.push(json!({"room": room, "epoch": epoch, "offset": 1}));
    }
    places[1]["epoch"] = json!("another");
    for number in 1..=3 {
        ann.send(
            json!({"type": "direct_message", "targetUserId": "user_bob", "payload": number, "id": number}),
        )
        .await?;
        ann.expect("ack").await?;
    }
    for codec in [None, Some(Codec::MsgPack), Some(Codec::Proto)] {
        let mut connect = wsfleet_tests::client::Connect::to(fleet.gateway(1).ports.clients).token("bob");
        if let Some(codec) = codec {
            connect = connect.codec(codec);
        }
        let mut bob = connect.open().await?;
        let personal = bob.expect("welcome").await?["position"].clone();
        assert_eq!(personal["offset"], 3, "{personal}");
        let user = json!({"epoch": personal["epoch"], "offset": 1});
        bob.send(json!({"type": "resume", "rooms": places, "user": user, "id": "r"}))
            .await?;
        let resumed = bob.expect("resumed").await?;
        assert_eq!(
            (&resumed["recovered"], &resumed["offset"]),
            (&json!(true), &json!(3)),
            "{resumed}"
        );
        assert_eq!(resumed["epoch"], personal["epoch"]);
        hears(&mut bob, "direct_message", 2..=3).await?;
        for (room, recovered) in [("a", true), ("b", false), ("c", true)] {
            let joined = bob.expect("joined").await?;
            assert_eq!(
                (&joined["room"], &joined["recovered"]),
                (&json!(room), &json!(recovered))
            );
        }
        let messages = bob.expect_many("room_message", 6).await?;
        let heard: Vec<_> = messages
            .iter()
            .map(|m| (m["roomId"].as_str(), m["offset"].as_u64()))
            .collect();
        let expected: Vec<_> = ["a", "c"]
            .into_iter()
            .flat_map(|room| (2..=4).map(move |offset| (Some(room), Some(offset))))
            .collect();
        assert_eq!(heard, expected);
        for kind in ["room_message", "direct_message", "error"] {
            assert!(bob.all_so_far(kind).await?.is_empty());
        }
        bob.close().await?;
    }
    Ok(())
}

async fn direct_messages_that_were_missed_reach_the_device_that_missed_them(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let mut send = async |number: u64| {
        ann.send(
            json!({"type": "direct_message", "targetUserId": "user_bob", "payload": number, "id": number}),
        )
        .await?;
        ann.expect("ack").await
    };
    let mut desk = fleet.client(1, "bob").await?;
    send(1).await?;
    hears(&mut desk, "direct_message", 1..=1).await?;
    let mut phone = wsfleet_tests::client::Connect::to(fleet.gateway(2).ports.clients)
        .token("bob")
        .open()
        .await?;
    let epoch = phone.expect("welcome").await?["position"]["epoch"].clone();
    phone.close().await?;
    send(2).await?;
    hears(&mut desk, "direct_message", 2..=2).await?;
    let mut phone = fleet.client(0, "bob").await?;
    phone
        .send(json!({"type": "resume", "user": {"epoch": epoch, "offset": 1}}))
        .await?;
    assert_eq!(phone.expect("resumed").await?["recovered"], true);
    send(3).await?;
    hears(&mut phone, "direct_message", 2..=3).await?;
    hears(&mut desk, "direct_message", 3..=3).await?;
    for device in [&mut phone, &mut desk] {
        assert!(device.all_so_far("direct_message").await?.is_empty());
    }
    Ok(())
}

async fn a_member_that_says_where_it_was_gets_it_again(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let epoch = ann.join("r").await?["epoch"].clone();
    say(&mut ann, "r", 1, 5).await?;
    hears(&mut ann, "room_message", 1..=5).await?;
    let joined = join_at(&mut ann, "r", &epoch, 3).await?;
    assert_eq!(joined["recovered"], true);
    hears(&mut ann, "room_message", 4..=5).await?;
    say(&mut ann, "r", 6, 6).await?;
    hears(&mut ann, "room_message", 6..=6).await?;
    assert!(ann.all_so_far("room_message").await?.is_empty());
    ann.leave("r").await
}

async fn who_comes_back_amid_messages_gets_each_offset_once(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &FAST).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let epoch = ann.join("r").await?["epoch"].clone();
    let stop = tokio_util::sync::CancellationToken::new();
    let (stopped, _stop_at_the_end) = (stop.clone(), stop.clone().drop_guard());
    let talking = tokio::spawn(async move {
        let mut said = 0_u64;
        while !stopped.is_cancelled() {
            for _ in 0..5 {
                ann.say("r", json!(said)).await?;
                said += 1;
            }
            ann.expect_many("room_message", 5).await?;
        }
        anyhow::Ok(said)
    });
    let mut last = 0;
    for round in 0..30 {
        let mut bob = fleet.client(round, "bob").await?;
        let joined = join_at(&mut bob, "r", &epoch, last).await?;
        assert_eq!(joined["recovered"], true, "round {round}: {joined}");
        assert!(joined["offset"].as_u64() >= Some(last));
        let until = joined["offset"].as_u64().context("an offset")? + 20;
        hears(&mut bob, "room_message", last + 1..=until).await?;
        last = until;
        bob.close().await?;
    }
    stop.cancel();
    let said = talking.await??;
    assert!(said >= last);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_that_was_killed_had_accepted_is_given_by_another_one() -> Result<()> {
    let mut gateways = Vec::new();
    let redis = wsfleet_tests::redis::RedisServer::start().await?;
    for number in 0..2 {
        let id = format!("g{number}");
        let flags = ["--server-id", &id, "--broker", &redis.url()];
        let gateway =
            wsfleet_tests::gateway::Gateway::start(&[&wsfleet_tests::gateway::OPEN[..], &flags].concat())?;
        gateway.ready().await?;
        gateways.push(gateway);
    }
    let mut ann = gateways[0].client("ann").await?;
    let epoch = ann.join("r").await?["epoch"].clone();
    say(&mut ann, "r", 1, 5).await?;
    drop(gateways.remove(0));
    let mut ann = gateways[0].client("ann").await?;
    let joined = join_at(&mut ann, "r", &epoch, 2).await?;
    assert_eq!(joined["recovered"], true, "{joined}");
    hears(&mut ann, "room_message", 3..=5).await
}
