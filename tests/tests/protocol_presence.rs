//! Who is in a room, as clients are told, with each broker.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wsfleet_gateway::protocol::Codec;
use wsfleet_tests::client::{Client, unix_now};
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::guarded::Guarded;
use wsfleet_tests::on_each_broker;
use wsfleet_tests::wait::until_async;

on_each_broker! {
    a_user_is_named_once_however_many_devices_it_has_in_the_order_of_names,
    users_are_told_by_pages,
    a_user_that_left_is_there_until_it_is_announced_as_gone,
    who_is_back_in_time_is_not_announced_at_all,
    it_is_told_only_of_rooms_whose_presence_is_on,
    every_codec_tells_the_same,
}

/// A leave is told after so many seconds; clients may ask as often as they like.
fn hold(seconds: &str) -> [&str; 4] {
    ["--presence-hold", seconds, "--limit", "messagesPerSecond=0"]
}

async fn ask(client: &mut Client, question: Value) -> Result<Value> {
    client.send(question).await?;
    client.expect_any(&["presence", "error"]).await
}

async fn presence(client: &mut Client, room: &str) -> Result<(Vec<String>, u64)> {
    let answer = ask(client, json!({"type": "presence", "room": room, "id": "p"})).await?;
    ensure!(
        answer["type"] == "presence" && answer["room"] == room && answer["id"] == "p",
        "{answer}"
    );
    Ok((users(&answer), answer["count"].as_u64().unwrap_or_default()))
}

fn users(answer: &Value) -> Vec<String> {
    let users = answer["users"].as_array().into_iter().flatten();
    users.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Awaits that these are in the room: what other gateways were told takes a moment.
async fn until_there(client: Client, room: &str, expected: &[&str]) -> Result<Client> {
    let client = tokio::sync::Mutex::new(client);
    until_async(&format!("{expected:?} in {room}"), || async {
        let (users, count) = presence(&mut *client.lock().await, room).await?;
        Ok(users == expected && count == expected.len() as u64)
    })
    .await?;
    Ok(client.into_inner())
}

async fn a_user_is_named_once_however_many_devices_it_has_in_the_order_of_names(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &hold("1")).await?;
    let mut cleo = fleet.client(0, "cleo").await?;
    assert_eq!(
        presence(&mut cleo, "r").await?,
        (vec![], 0),
        "asks without being in it"
    );
    cleo.join("r").await?;
    let mut devices = Vec::new();
    for number in 0..3 {
        let mut ann = fleet.client(number, "ann").await?;
        ann.join("r").await?;
        devices.push(ann);
    }
    // joining twice changes nothing
    devices[0].join("r").await?;
    fleet.client(1, "bob").await?.join("other").await?;
    let mut cleo = until_there(cleo, "r", &["user_ann", "user_cleo"]).await?;
    for ann in &mut devices[..2] {
        ann.leave("r").await?;
    }
    // what is announced later shows that nothing was announced before
    let mut dora = fleet.client(1, "dora").await?;
    dora.join("r").await?;
    assert_eq!(cleo.expect("user_joined").await?["userId"], "user_ann");
    assert_eq!(cleo.expect("user_joined").await?["userId"], "user_dora");
    dora.leave("r").await?;
    assert_eq!(cleo.expect("user_left").await?["userId"], "user_dora");
    let mut cleo = until_there(cleo, "r", &["user_ann", "user_cleo"]).await?;
    devices[2].leave("r").await?;
    assert_eq!(cleo.expect("user_left").await?["userId"], "user_ann");
    until_there(cleo, "r", &["user_cleo"]).await?;
    Ok(())
}

async fn users_are_told_by_pages(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &hold("15")).await?;
    let names: Vec<String> = (0..7).map(|number| format!("user_u{number}")).collect();
    let mut members = Vec::new();
    for number in 0..7 {
        let mut client = fleet.client(number, &format!("u{number}")).await?;
        client.join("r").await?;
        members.push(client);
    }
    let expected: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut asks = until_there(fleet.client(0, "asks").await?, "r", &expected).await?;
    let (mut all, mut after) = (Vec::new(), None);
    for size in [3, 3, 1] {
        let page = ask(
            &mut asks,
            json!({"type": "presence", "room": "r", "limit": 3, "after": after}),
        )
        .await?;
        assert_eq!((users(&page).len(), &page["count"]), (size, &json!(7)), "{page}");
        all.extend(users(&page));
        assert_eq!(page.get("next").is_some(), size == 3, "{page}");
        after = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(all, names);
    let beyond = ask(
        &mut asks,
        json!({"type": "presence", "room": "r", "after": "user_v"}),
    )
    .await?;
    assert_eq!((users(&beyond), beyond.get("next")), (vec![], None));
    let between = ask(
        &mut asks,
        json!({"type": "presence", "room": "r", "after": "user_u4x", "limit": 0}),
    )
    .await?;
    assert_eq!(
        users(&between),
        ["user_u5"],
        "one at least, and behind a name that nobody has"
    );
    Ok(())
}

async fn a_user_that_left_is_there_until_it_is_announced_as_gone(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &hold("600")).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("r").await?;
    let mut bob = fleet.client(1, "bob").await?;
    bob.join("r").await?;
    ann.expect("user_joined").await?;
    bob.leave("r").await?;
    let mut ann = until_there(ann, "r", &["user_ann", "user_bob"]).await?;
    assert!(ann.all_so_far("user_left").await?.is_empty());
    // the room is gone from this gateway, but not whom it is told of
    ann.leave("r").await?;
    until_there(bob, "r", &["user_ann", "user_bob"]).await?;
    Ok(())
}

async fn who_is_back_in_time_is_not_announced_at_all(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &hold("5")).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("r").await?;
    let mut bob = fleet.client(1, "bob").await?;
    bob.join("r").await?;
    ann.expect("user_joined").await?;
    drop(bob);
    let mut bob = fleet.client(2, "bob").await?;
    bob.join("r").await?;
    // cleo leaves behind bob, so bob would have been announced before
    let mut cleo = fleet.client(2, "cleo").await?;
    cleo.join("r").await?;
    cleo.leave("r").await?;
    assert_eq!(ann.expect("user_joined").await?["userId"], "user_cleo");
    assert_eq!(ann.expect("user_left").await?["userId"], "user_cleo");
    assert!(ann.all_so_far("user_joined").await?.is_empty());
    assert!(ann.all_so_far("user_left").await?.is_empty());
    until_there(ann, "r", &["user_ann", "user_bob"]).await?;
    Ok(())
}

async fn it_is_told_only_of_rooms_whose_presence_is_on(kind: Kind) -> Result<()> {
    let flags = [
        "--history",
        "cursor:*=ephemeral",
        "--presence",
        "cursor:1=on",
        "--presence",
        "quiet=off",
        "--limit",
        "messagesPerSecond=0",
    ];
    let fleet = Fleet::start_with(kind, &flags).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    for room in ["quiet", "cursor:2", "cursor:1", "r"] {
        ann.join(room).await?;
        bob.join(room).await?;
    }
    let mut announced = Vec::new();
    for joined in ann.expect_many("user_joined", 2).await? {
        announced.push(joined["roomId"].clone());
    }
    announced.sort_by_key(Value::to_string);
    assert_eq!(announced, ["cursor:1", "r"], "others are not announced");
    for room in ["cursor:1", "r"] {
        ann = until_there(ann, room, &["user_ann", "user_bob"]).await?;
    }
    for room in ["quiet", "cursor:2"] {
        let error = ask(&mut ann, json!({"type": "presence", "room": room, "id": 1})).await?;
        assert_eq!(
            (&error["code"], &error["id"], &error["temporary"]),
            (&json!("presence_off"), &json!(1), &json!(false)),
            "{error}"
        );
    }
    Ok(())
}

async fn every_codec_tells_the_same(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &hold("15")).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("r").await?;
    let mut bob = fleet.client(1, "bob").await?;
    bob.join("r").await?;
    until_there(ann, "r", &["user_ann", "user_bob"]).await?;
    for codec in [Codec::Json, Codec::MsgPack, Codec::Proto] {
        let mut client = fleet.client_as(2, "asks", Some(codec)).await?;
        let question = json!({"type": "presence", "room": "r", "limit": 1, "after": "a", "id": "p"});
        let answer = ask(&mut client, question).await?;
        let expected = json!({
            "type": "presence", "room": "r", "users": ["user_ann"], "count": 2, "next": "user_ann", "id": "p",
        });
        assert_eq!(answer, expected, "{codec:?}");
    }
    Ok(())
}

#[tokio::test]
async fn presence_is_for_those_who_may_join() -> Result<()> {
    let guarded = Guarded::start(&[]).await?;
    let claims = json!({"sub": "ann", "exp": unix_now() + 600, "rooms": ["open"]});
    let mut ann = guarded.client(&claims).await?;
    let error = ask(&mut ann, json!({"type": "presence", "room": "closed", "id": 5})).await?;
    assert_eq!((&error["code"], &error["id"]), (&json!("forbidden"), &json!(5)));
    assert_eq!(presence(&mut ann, "open").await?, (vec![], 0));
    Ok(())
}
