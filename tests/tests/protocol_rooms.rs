//! Rooms, as clients see them, with each broker.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wsfleet_tests::client::Client;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_each_broker;

on_each_broker! {
    a_message_reaches_every_member_on_every_gateway_the_sender_included_with_its_offset,
    every_member_sees_one_order_whoever_sends,
    who_left_hears_no_more_and_who_joins_later_begins_at_the_position_told,
    a_join_tells_epoch_and_offset_also_of_an_empty_room,
    users_that_join_and_leave_are_announced_to_the_others,
    a_users_second_connection_on_a_gateway_is_not_announced,
    a_cut_connection_leaves_its_rooms,
    rooms_with_awkward_names_are_rooms_like_any_other,
    a_room_name_of_255_bytes_is_allowed_and_one_more_is_not,
    only_members_can_send_to_a_room,
    payloads_arrive_as_they_were_written,
    rooms_are_left_and_joined_again_in_quick_succession_without_a_loss,
    two_rooms_of_one_connection_do_not_mix,
    rooms_per_connection_are_bounded,
}

/// Leaves are told soon.
const BRIEF: [&str; 2] = ["--presence-hold", "1"];

fn offsets(messages: &[Value]) -> Vec<u64> {
    messages.iter().filter_map(|m| m["offset"].as_u64()).collect()
}

/// Three users, each on a gateway of its own where there are three, all in the room.
async fn three_members(fleet: &Fleet, room: &str) -> Result<Vec<Client>> {
    let mut members = Vec::new();
    for (number, name) in ["ann", "bob", "cleo"].into_iter().enumerate() {
        let mut client = fleet.client(number, name).await?;
        client.join(room).await?;
        members.push(client);
    }
    Ok(members)
}

async fn a_message_reaches_every_member_on_every_gateway_the_sender_included_with_its_offset(
    kind: Kind,
) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut members = three_members(&fleet, "lobby").await?;
    let ack = members[0]
        .say_acked("lobby", json!({"text": "hi"}), json!("m1"))
        .await?;
    assert_eq!(
        (&ack["id"], &ack["offset"], &ack["duplicate"]),
        (&json!("m1"), &json!(1), &json!(false)),
        "{ack}"
    );
    for member in &mut members {
        let message = member.expect("room_message").await?;
        assert_eq!(message["roomId"], "lobby");
        assert_eq!(message["userId"], "user_ann");
        assert_eq!(message["payload"], json!({"text": "hi"}));
        assert_eq!(message["offset"], 1);
        assert_eq!(message["serverId"], "g0");
        assert!(
            message["timestamp"]
                .as_u64()
                .is_some_and(|t| t > 1_700_000_000_000),
            "{message}"
        );
    }
    // nothing came twice: a second message would have been followed by the first's copies
    members[2].say("lobby", json!("second")).await?;
    for member in &mut members {
        let message = member.expect("room_message").await?;
        assert_eq!(
            (&message["payload"], &message["offset"]),
            (&json!("second"), &json!(2))
        );
        assert!(member.all_so_far("room_message").await?.is_empty());
    }
    Ok(())
}

async fn every_member_sees_one_order_whoever_sends(kind: Kind) -> Result<()> {
    const EACH: usize = 40;
    let fleet = Fleet::start(kind).await?;
    let mut members = three_members(&fleet, "lobby").await?;
    for i in 0..EACH {
        for (number, member) in members.iter_mut().enumerate() {
            member.say("lobby", json!([number, i])).await?;
        }
    }
    let mut orders = Vec::new();
    for member in &mut members {
        let messages = member.expect_many("room_message", EACH * 3).await?;
        assert_eq!(offsets(&messages), (1..=EACH as u64 * 3).collect::<Vec<_>>());
        orders.push(messages.iter().map(|m| m["payload"].clone()).collect::<Vec<_>>());
    }
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[1], orders[2]);
    for sender in 0..3 {
        let own: Vec<_> = orders[0]
            .iter()
            .filter(|p| p[0] == sender)
            .map(|p| p[1].clone())
            .collect();
        assert_eq!(
            own,
            (0..EACH).map(|i| json!(i)).collect::<Vec<_>>(),
            "a sender's own order is kept"
        );
    }
    Ok(())
}

async fn who_left_hears_no_more_and_who_joins_later_begins_at_the_position_told(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut members = three_members(&fleet, "lobby").await?;
    members[0].say_acked("lobby", json!(1), json!(1)).await?;
    for member in &mut members {
        member.expect("room_message").await?;
    }
    members[1].leave("lobby").await?;
    let mut late = fleet.client(2, "dora").await?;
    let joined = late.join("lobby").await?;
    assert_eq!(joined["offset"], 1);
    let ack = members[0].say_acked("lobby", json!(2), json!(2)).await?;
    assert_eq!(ack["epoch"], joined["epoch"]);
    for member in [0, 2] {
        assert_eq!(members[member].expect("room_message").await?["offset"], 2);
    }
    assert_eq!(late.expect("room_message").await?["offset"], 2);
    assert!(members[1].all_so_far("room_message").await?.is_empty());
    Ok(())
}

async fn a_join_tells_epoch_and_offset_also_of_an_empty_room(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    let first = ann.join("empty").await?;
    assert_eq!(first["offset"], 0);
    assert!(first["epoch"].as_str().is_some_and(|e| !e.is_empty()), "{first}");
    let second = bob.join("empty").await?;
    assert_eq!(
        (&second["epoch"], &second["offset"]),
        (&first["epoch"], &json!(0))
    );
    let again = ann.join("empty").await?;
    assert_eq!((&again["epoch"], &again["offset"]), (&first["epoch"], &json!(0)));
    assert_eq!(
        bob.say_acked("empty", json!(1), json!(1)).await?["epoch"],
        first["epoch"]
    );
    Ok(())
}

async fn users_that_join_and_leave_are_announced_to_the_others(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &BRIEF).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("lobby").await?;
    let mut bob = fleet.client(1, "bob").await?;
    bob.join("lobby").await?;
    let joined = ann.expect("user_joined").await?;
    assert_eq!(
        (&joined["roomId"], &joined["userId"]),
        (&json!("lobby"), &json!("user_bob")),
        "{joined}"
    );
    assert_eq!(joined["serverId"], format!("g{}", 1 % fleet.len()));
    bob.leave("lobby").await?;
    let left = ann.expect("user_left").await?;
    assert_eq!(
        (&left["roomId"], &left["userId"]),
        (&json!("lobby"), &json!("user_bob")),
        "{left}"
    );
    // who joins needs no announcement of itself
    assert!(ann.all_so_far("user_joined").await?.is_empty());
    assert!(bob.all_so_far("user_joined").await?.is_empty());
    assert!(bob.all_so_far("user_left").await?.is_empty());
    Ok(())
}

async fn a_users_second_connection_on_a_gateway_is_not_announced(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &BRIEF).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("lobby").await?;
    let (mut first, mut second) = (fleet.client(1, "bob").await?, fleet.client(1, "bob").await?);
    first.join("lobby").await?;
    second.join("lobby").await?;
    first.leave("lobby").await?;
    // what is announced later shows that nothing was announced before
    let mut cleo = fleet.client(1, "cleo").await?;
    cleo.join("lobby").await?;
    assert_eq!(ann.expect("user_joined").await?["userId"], "user_bob");
    assert_eq!(ann.expect("user_joined").await?["userId"], "user_cleo");
    second.leave("lobby").await?;
    assert_eq!(ann.expect("user_left").await?["userId"], "user_bob");
    assert!(ann.all_so_far("user_left").await?.is_empty());
    Ok(())
}

async fn a_cut_connection_leaves_its_rooms(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &BRIEF).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("lobby").await?;
    let mut bob = fleet.client(1, "bob").await?;
    bob.join("lobby").await?;
    ann.expect("user_joined").await?;
    drop(bob);
    assert_eq!(ann.expect("user_left").await?["userId"], "user_bob");
    let mut cleo = fleet.client(2, "cleo").await?;
    cleo.join("lobby").await?;
    ann.expect("user_joined").await?;
    cleo.close().await?;
    assert_eq!(ann.expect("user_left").await?["userId"], "user_cleo");
    Ok(())
}

async fn rooms_with_awkward_names_are_rooms_like_any_other(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let names = [
        "events",
        "a:b",
        "a",
        "b",
        "\u{1F600}\u{1F468}\u{200D}\u{1F469}",
        "{",
        "}",
        "{}",
        "a}",
        "%7D",
        "%",
        "*",
        "?",
        "[ab]",
        " ",
        "\"",
        "\\",
        "\n",
        "\0",
        "../x",
        "room:events",
        "wsfleet:0:room:{a}",
    ];
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    for name in names {
        ann.join(name).await?;
        bob.join(name).await?;
    }
    for name in names {
        let ack = ann.say_acked(name, json!({"to": name}), json!(name)).await?;
        assert_eq!(
            (&ack["id"], &ack["offset"]),
            (&json!(name), &json!(1)),
            "{name:?}: {ack}"
        );
        for client in [&mut ann, &mut bob] {
            let message = client.expect("room_message").await?;
            assert_eq!(message["roomId"], name);
            assert_eq!(message["payload"]["to"], name);
        }
    }
    assert!(bob.all_so_far("room_message").await?.is_empty());
    Ok(())
}

async fn a_room_name_of_255_bytes_is_allowed_and_one_more_is_not(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let longest = "\u{e9}".repeat(127) + "x";
    assert_eq!(longest.len(), 255);
    ann.join(&longest).await?;
    assert_eq!(ann.say_acked(&longest, json!(1), json!(1)).await?["offset"], 1);
    for name in [longest + "y", String::new()] {
        ann.send(json!({"type": "join", "room": name, "id": 7})).await?;
        let error = ann.expect("error").await?;
        assert!(
            error["code"] == "room_name_too_long" || error["code"] == "invalid_field",
            "{error}"
        );
        assert_eq!(error["temporary"], false);
    }
    Ok(())
}

async fn only_members_can_send_to_a_room(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut members = three_members(&fleet, "lobby").await?;
    let mut outsider = fleet.client(0, "eve").await?;
    outsider
        .send(json!({"type": "room_message", "room": "lobby", "payload": 1, "id": "x"}))
        .await?;
    let error = outsider.expect("error").await?;
    assert_eq!(
        (&error["code"], &error["id"]),
        (&json!("not_in_room"), &json!("x")),
        "{error}"
    );
    members[1].say("lobby", json!("from a member")).await?;
    assert_eq!(
        members[2].expect("room_message").await?["payload"],
        "from a member"
    );
    Ok(())
}

async fn payloads_arrive_as_they_were_written(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut members = three_members(&fleet, "lobby").await?;
    let payloads = [
        json!(null),
        json!(false),
        json!(-0.5),
        json!("\u{0}\u{1f}\"\\/\u{2028}\u{1F600}"),
        json!([]),
        json!({"a": {"b": [1, {"c": "d"}]}, "type": "leave", "room": "x"}),
        json!(9_007_199_254_740_993_u64),
        json!("x".repeat(60_000)),
    ];
    for payload in &payloads {
        members[0].say("lobby", payload.clone()).await?;
    }
    for member in &mut members {
        for payload in &payloads {
            let message = member.expect("room_message").await?;
            ensure!(message["payload"] == *payload, "{message} instead of {payload}");
        }
    }
    Ok(())
}

async fn rooms_are_left_and_joined_again_in_quick_succession_without_a_loss(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    ann.join("lobby").await?;
    for round in 1..=30 {
        let joined = bob.join("lobby").await?;
        assert_eq!(joined["offset"], round - 1);
        ann.say("lobby", json!(round)).await?;
        assert_eq!(bob.expect("room_message").await?["offset"], round);
        bob.leave("lobby").await?;
    }
    // without waiting for answers the order is kept as well
    for _ in 0..10 {
        bob.send(json!({"type": "join", "room": "lobby"})).await?;
        bob.send(json!({"type": "leave", "room": "lobby"})).await?;
    }
    bob.expect_many("left", 10).await?;
    bob.expect_many("joined", 10).await?;
    bob.join("lobby").await?;
    ann.say("lobby", json!("end")).await?;
    assert_eq!(bob.expect("room_message").await?["payload"], "end");
    Ok(())
}

async fn two_rooms_of_one_connection_do_not_mix(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    for room in ["a", "b"] {
        ann.join(room).await?;
    }
    bob.join("a").await?;
    ann.say("b", json!("b1")).await?;
    ann.say("a", json!("a1")).await?;
    let message = bob.expect("room_message").await?;
    assert_eq!(
        (&message["roomId"], &message["payload"]),
        (&json!("a"), &json!("a1"))
    );
    let both = ann.expect_many("room_message", 2).await?;
    assert!(
        both.iter()
            .all(|m| m["offset"] == 1 && m["payload"] == format!("{}1", m["roomId"].as_str().unwrap_or("")))
    );
    Ok(())
}

async fn rooms_per_connection_are_bounded(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--limit", "roomsPerConnection=2"]).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("a").await?;
    ann.join("b").await?;
    ann.send(json!({"type": "join", "room": "c"})).await?;
    assert_eq!(ann.expect("error").await?["code"], "too_many_rooms");
    ann.leave("a").await?;
    ann.join("c").await?;
    Ok(())
}
