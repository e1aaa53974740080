//! A failover takes one message back, which had reached no replica: what those are told who stay, and those who come back.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wsfleet_tests::client::Client;
use wsfleet_tests::gateway::Fleet;
use wsfleet_tests::load::LOBBY;
use wsfleet_tests::resume::{hears, join_at, say};
use wsfleet_tests::sentinel::{Watched, follows, replica_of};

/// What is there after it: the sixth message of the room is gone.
struct After {
    _watched: Watched,
    fleet: Fleet,
    /// Wrote all six, and stayed.
    ann: Client,
    /// The epoch of the six.
    epoch: Value,
    /// What ann was told of the sixth.
    answer: Value,
}

async fn failed_over(durability: &str) -> Result<After> {
    let mut watched = Watched::start(3).await?;
    let fleet = Fleet::at(&watched.url(), 2, &["--durability", durability])?;
    for number in 0..2 {
        fleet.gateway(number).ready().await?;
    }
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    let epoch = ann.join(LOBBY).await?["epoch"].clone();
    bob.join(LOBBY).await?;
    say(&mut ann, LOBBY, 1, 5).await?;
    watched.in_step().await?;
    let [master, replica] = &watched.servers;
    master.lose_replica(replica).await?;
    ann.send(json!({"type": "room_message", "room": LOBBY, "payload": 6, "id": 6}))
        .await?;
    let answer = ann.expect_any(&["ack", "error"]).await?;
    // it was delivered, whatever its sender is told
    hears(&mut bob, "room_message", 1..=6).await?;
    drop(bob);
    ann.during(async {
        watched.servers[0].kill()?;
        watched.failed_over().await?;
        watched.servers[0].restart().await?;
        let [old, new] = &watched.servers;
        replica_of(old, Some(new.port())).await?;
        follows(old, new.port()).await?;
        for number in 0..2 {
            fleet.gateway(number).ready().await?;
        }
        Ok(())
    })
    .await?;
    Ok(After {
        _watched: watched,
        fleet,
        ann,
        epoch,
        answer,
    })
}

/// What somebody is told who was away since this offset.
async fn back(after: &After, name: &str, offset: u64) -> Result<(Client, Value)> {
    let mut client = after.fleet.client(1, name).await?;
    let joined = join_at(&mut client, LOBBY, &after.epoch, offset).await?;
    Ok((client, joined))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_replica_it_was_not_acknowledged_and_whoever_did_not_see_it_misses_nothing() -> Result<()> {
    let mut after = failed_over("replicated").await?;
    ensure!(after.answer["code"] == "unconfirmed", "{}", after.answer);
    let gap = after.ann.expect("gap").await?;
    ensure!(gap["from"] == 6 && gap["to"] == 5, "{gap}");
    ensure!(gap["epoch"] != after.epoch, "{gap}");
    let ack = after.ann.say_acked(LOBBY, json!("six"), json!("six")).await?;
    ensure!(ack["offset"] == 6 && ack["epoch"] == gap["epoch"], "{ack}");

    let (mut late, joined) = back(&after, "late", 3).await?;
    ensure!(
        joined["recovered"] == true && joined["epoch"] == gap["epoch"],
        "{joined}"
    );
    hears(&mut late, "room_message", 4..=5).await?;
    let last = late.expect("room_message").await?;
    ensure!(last["offset"] == 6 && last["payload"] == "six", "{last}");

    let (_saw, joined) = back(&after, "saw", 6).await?;
    ensure!(
        joined["recovered"] == false && joined["reason"] == "epoch_changed",
        "{joined}"
    );
    ensure!(joined["offset"] == 6, "{joined}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_default_it_was_acknowledged_and_everybody_is_told_of_a_new_epoch() -> Result<()> {
    let mut after = failed_over("primary").await?;
    ensure!(after.answer["type"] == "ack", "{}", after.answer);
    let gap = after.ann.expect("gap").await?;
    ensure!(gap["from"] == 1 && gap["to"] == 0, "{gap}");
    for (name, offset) in [("late", 3), ("saw", 6)] {
        let (_client, joined) = back(&after, name, offset).await?;
        ensure!(
            joined["recovered"] == false && joined["reason"] == "epoch_changed",
            "{joined}"
        );
        ensure!(
            joined["epoch"] == gap["epoch"] && joined["offset"] == 0,
            "{joined}"
        );
    }
    Ok(())
}
