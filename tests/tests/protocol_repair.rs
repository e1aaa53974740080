//! What members see when their gateway's link to Redis was cut while messages were published: all of them, or which are lost.

use anyhow::Result;
use serde_json::{Value, json};
use wsfleet_tests::broker::{cut_and, key};
use wsfleet_tests::client::Client;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::resume::{hears, join_at, say};
use wsfleet_tests::wait::until_async;

/// Cuts all subscriptions of the fleet and, in the same moment, adds messages to the room `r` that no link hears of: some
/// are kept, some are not.
async fn cut_and_add(fleet: &Fleet, kept: std::ops::RangeInclusive<u64>, last: u64) -> Result<()> {
    let redis = fleet
        .redis
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("a fleet with Redis"))?;
    let (key, last) = (key("r"), last.to_string());
    let time: Vec<u64> = ::redis::cmd("TIME")
        .query_async(&mut redis.connection().await?)
        .await?;
    let event = r#"{"m":{"u":"eve","p":"unheard","t":5,"s":"g9"}}"#;
    let ids: Vec<_> = kept
        .map(|offset| format!("{offset}-{}", time[0] * 1_000))
        .collect();
    let mut commands: Vec<Vec<&str>> = vec![vec!["HSET", &key, "o", &last]];
    for id in &ids {
        commands.push(vec!["XADD", "wsfleet:0:room.log:{r}", id, "m", event]);
    }
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
    cut_and(redis, &commands).await
}

async fn repaired(fleet: &Fleet, result: &str, times: f64) -> Result<()> {
    let label = format!("result=\"{result}\"");
    for number in 0..fleet.len() {
        until_async("the gateway has repaired the room", || async {
            let gateway = fleet.gateway(number);
            Ok(gateway.metric("ws_gap_repairs_total", &[&label]).await? >= times)
        })
        .await?;
    }
    Ok(())
}

async fn members(fleet: &Fleet) -> Result<(Vec<Client>, Value)> {
    let mut members = Vec::new();
    let mut epoch = Value::Null;
    for number in 0..4 {
        let mut member = fleet.client(number, &format!("u{number}")).await?;
        epoch = member.join("r").await?["epoch"].clone();
        members.push(member);
    }
    Ok((members, epoch))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_gateway_whose_link_was_cut_miss_nothing() -> Result<()> {
    let fleet = Fleet::start(Kind::Redis(2)).await?;
    let (mut members, epoch) = members(&fleet).await?;
    say(&mut members[0], "r", 1, 2).await?;
    cut_and_add(&fleet, 3..=7, 7).await?;
    // once a gateway, not once a member
    repaired(&fleet, "filled", 1.0).await?;
    say(&mut members[1], "r", 8, 8).await?;
    let mut late = fleet.client(0, "late").await?;
    assert_eq!(join_at(&mut late, "r", &epoch, 2).await?["recovered"], true);
    hears(&mut late, "room_message", 3..=8).await?;
    for member in &mut members {
        hears(member, "room_message", 1..=8).await?;
        assert!(member.all_so_far("gap").await?.is_empty());
    }
    for number in 0..2 {
        assert!(fleet.gateway(number).metric("ws_gap_repairs_total", &[]).await? <= 1.0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_told_which_messages_are_lost() -> Result<()> {
    let fleet = Fleet::start(Kind::Redis(2)).await?;
    let (mut members, epoch) = members(&fleet).await?;
    say(&mut members[0], "r", 1, 2).await?;
    cut_and_add(&fleet, 5..=6, 7).await?;
    repaired(&fleet, "gap", 1.0).await?;
    say(&mut members[1], "r", 8, 8).await?;
    for member in &mut members {
        hears(member, "room_message", 1..=2).await?;
        let expected = [(3, 4), (7, 7)];
        for (from, to) in expected {
            let gap = member.expect("gap").await?;
            assert_eq!(
                gap,
                json!({"type": "gap", "room": "r", "from": from, "to": to, "epoch": epoch})
            );
        }
        for offset in [5, 6, 8] {
            assert_eq!(member.expect("room_message").await?["offset"], offset);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_told_that_a_room_has_begun_anew() -> Result<()> {
    let fleet = Fleet::start(Kind::Redis(2)).await?;
    let (mut members, epoch) = members(&fleet).await?;
    say(&mut members[0], "r", 1, 3).await?;
    for member in &mut members {
        hears(member, "room_message", 1..=3).await?;
    }
    // Redis went back: what was delivered is not there any more
    let redis = fleet
        .redis
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("a fleet with Redis"))?;
    cut_and(redis, &[&["HSET", &key("r"), "o", "1"]]).await?;
    let gap = members[1].expect("gap").await?;
    assert_eq!((&gap["from"], &gap["to"]), (&json!(1), &json!(0)));
    assert_ne!(gap["epoch"], epoch);
    say(&mut members[0], "r", 1, 1).await?;
    for (number, member) in members.iter_mut().enumerate() {
        if number != 1 {
            assert_eq!(member.expect("gap").await?["epoch"], gap["epoch"]);
        }
        hears(member, "room_message", 1..=1).await?;
    }
    let mut back = fleet.client(1, "back").await?;
    let joined = join_at(&mut back, "r", &epoch, 2).await?;
    assert_eq!(
        (&joined["recovered"], &joined["reason"]),
        (&json!(false), &json!("epoch_changed"))
    );
    Ok(())
}
