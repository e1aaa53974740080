//! What a client that comes back does not get, and how much it gets at a time, with each broker.

use anyhow::{Context, Result};
use serde_json::json;
use wsfleet_tests::client::Connect;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_each_broker;
use wsfleet_tests::resume::{FAST, hears, join_at, say};

on_each_broker! {
    what_cannot_be_given_whole_is_not_given_and_the_reason_is_told,
    a_room_that_may_not_be_joined_is_left_and_the_others_are_resumed,
    more_than_a_queue_holds_is_written_as_it_is_taken,
    the_welcome_tells_the_window_and_where_the_personal_stream_stands,
}

async fn what_cannot_be_given_whole_is_not_given_and_the_reason_is_told(kind: Kind) -> Result<()> {
    let flags = [
        &FAST[..],
        &["--history", "few=3/600", "--history", "many=1000/600"],
    ]
    .concat();
    let fleet = Fleet::start_with(kind, &flags).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let few = ann.join("few").await?["epoch"].clone();
    let many = ann.join("many").await?["epoch"].clone();
    say(&mut ann, "few", 1, 8).await?;
    for number in 0..305 {
        ann.say("many", json!(number)).await?;
    }
    ann.expect_many("room_message", 8 + 305).await?;
    let table = [
        ("few", &few, 4, "too_old", 8),
        ("few", &json!("another"), 7, "epoch_changed", 8),
        ("few", &few, 9, "epoch_changed", 8),
        ("many", &many, 4, "limit", 305),
    ];
    for (number, (room, epoch, offset, reason, stands)) in table.into_iter().enumerate() {
        let mut bob = fleet.client(number, "bob").await?;
        let joined = join_at(&mut bob, room, epoch, offset).await?;
        assert_eq!(
            (&joined["recovered"], &joined["reason"]),
            (&json!(false), &json!(reason)),
            "{joined}"
        );
        assert_eq!(joined["offset"], stands, "{joined}");
        assert!(bob.all_so_far("room_message").await?.is_empty());
        bob.close().await?;
    }
    let mut bob = fleet.client(1, "bob").await?;
    for (room, epoch, from, to) in [("few", &few, 5, 8), ("many", &many, 5, 305)] {
        let joined = join_at(&mut bob, room, epoch, from).await?;
        assert_eq!(joined["recovered"], true, "{joined}");
        hears(&mut bob, "room_message", from + 1..=to).await?;
    }
    let resumed = |result: &'static str| {
        let fleet = &fleet;
        async move {
            let mut sum = 0.0;
            for number in 0..fleet.len() {
                let label = format!("result=\"{result}\"");
                sum += fleet.gateway(number).metric("ws_resume_total", &[&label]).await?;
            }
            anyhow::Ok(sum as u64)
        }
    };
    let counts = [
        ("recovered", 2),
        ("epoch_changed", 2),
        ("too_old", 1),
        ("limit", 1),
    ];
    for (result, count) in counts {
        assert_eq!(resumed(result).await?, count, "{result}");
    }
    Ok(())
}

async fn a_room_that_may_not_be_joined_is_left_and_the_others_are_resumed(kind: Kind) -> Result<()> {
    // the personal stream is not counted
    let fleet = Fleet::start_with(kind, &["--limit", "roomsPerConnection=2"]).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let epoch = ann.join("a").await?["epoch"].clone();
    ann.leave("a").await?;
    let rooms = ["a", "b", "c"].map(|room| json!({"room": room, "epoch": epoch, "offset": 0}));
    ann.send(json!({"type": "resume", "rooms": rooms, "id": "r"}))
        .await?;
    let error = ann.expect("error").await?;
    assert_eq!(
        (&error["code"], &error["id"]),
        (&json!("too_many_rooms"), &json!("r"))
    );
    let left = ann.expect("left").await?;
    let joined = ann.expect_many("joined", 2).await?;
    let rooms: Vec<_> = joined
        .iter()
        .filter_map(|joined| joined["room"].as_str())
        .collect();
    assert_eq!((rooms, &left["room"]), (vec!["a", "b"], &json!("c")));
    Ok(())
}

async fn more_than_a_queue_holds_is_written_as_it_is_taken(kind: Kind) -> Result<()> {
    let flags = [
        &FAST[..],
        &["--limit", "queueBytes=65536", "--limit", "queueMessages=40"],
    ]
    .concat();
    let fleet = Fleet::start_with(kind, &flags).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let epoch = ann.join("r").await?["epoch"].clone();
    let text = "x".repeat(800);
    for _ in 0..250 {
        ann.say("r", json!(text)).await?;
        ann.expect("room_message").await?;
    }
    let mut bob = Connect::to(fleet.gateway(1).ports.clients)
        .token("bob")
        .receive_buffer(4_096)
        .open()
        .await?;
    bob.expect("welcome").await?;
    let joined = join_at(&mut bob, "r", &epoch, 0).await?;
    assert_eq!(joined["recovered"], true);
    hears(&mut bob, "room_message", 1..=250).await
}

async fn the_welcome_tells_the_window_and_where_the_personal_stream_stands(kind: Kind) -> Result<()> {
    let flags = ["--history", "*=10/60", "--direct-history", "10/120"];
    let fleet = Fleet::start_with(kind, &flags).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.send(json!({"type": "direct_message", "targetUserId": "user_bob", "payload": 1, "id": 1}))
        .await?;
    let ack = ann.expect("ack").await?;
    let mut bob = Connect::to(fleet.gateway(1).ports.clients)
        .token("bob")
        .open()
        .await?;
    let welcome = bob.expect("welcome").await?;
    assert_eq!(welcome["resumeWindow"], 120_000);
    assert_eq!(welcome["position"], json!({"epoch": ack["epoch"], "offset": 1}));
    let features: Vec<_> = welcome["features"].as_array().context("a list")?.iter().collect();
    for feature in ["history", "msg_id", "resume"] {
        assert!(features.contains(&&json!(feature)), "{features:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_or_trimmed_behind_the_gateways_is_never_a_silent_hole() -> Result<()> {
    let fleet = Fleet::start(Kind::Redis(2)).await?;
    let redis = fleet.redis.as_ref().context("a Redis")?;
    let mut connection = redis.connection().await?;
    for (room, ask, reason) in [
        (
            "deleted",
            vec!["DEL", "room:{deleted}", "room.log:{deleted}"],
            "epoch_changed",
        ),
        (
            "trimmed",
            vec!["XTRIM", "room.log:{trimmed}", "MAXLEN", "1"],
            "too_old",
        ),
    ] {
        let mut ann = fleet.client(0, "ann").await?;
        let epoch = ann.join(room).await?["epoch"].clone();
        say(&mut ann, room, 1, 5).await?;
        let mut command = ::redis::cmd(ask[0]);
        for argument in &ask[1..] {
            let key = argument
                .starts_with("room")
                .then(|| format!("wsfleet:0:{argument}"));
            command.arg(key.as_deref().unwrap_or(argument));
        }
        let changed: i64 = command.query_async(&mut connection).await?;
        assert!(changed > 0, "{ask:?}");
        // begun anew, and as long as it was
        for number in 0..5 {
            ann.say_acked(room, json!(number), json!(number)).await?;
        }
        let mut bob = fleet.client(1, "bob").await?;
        let joined = join_at(&mut bob, room, &epoch, 2).await?;
        assert_eq!(
            (&joined["recovered"], &joined["reason"]),
            (&json!(false), &json!(reason)),
            "{joined}"
        );
        assert!(bob.all_so_far("room_message").await?.is_empty());
    }
    Ok(())
}
