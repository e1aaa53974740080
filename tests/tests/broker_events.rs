//! Events reach their stream in every shape of Redis, and are acknowledged when whoever has to has them.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use wsfleet_tests::client::Client;
use wsfleet_tests::gateway::Fleet;
use wsfleet_tests::redis_cluster::RedisCluster;
use wsfleet_tests::sentinel::{Watched, pair};
use wsfleet_tests::wait::until_async;
use wsfleet_tests::worker::{STREAM, entries, send_event};

async fn ready(broker: &str, flags: &[&str]) -> Result<(Fleet, Client)> {
    let fleet = Fleet::at(broker, 1, flags)?;
    fleet.gateway(0).ready().await?;
    let client = fleet.client(0, "ann").await?;
    Ok((fleet, client))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_the_stream_and_what_its_events_were_called_are_in_one_slot() -> Result<()> {
    let cluster = RedisCluster::start(Duration::from_secs(10)).await?;
    let (_fleet, mut ann) = ready(&cluster.url(), &[]).await?;
    for duplicate in [false, true] {
        let ack = send_event(&mut ann, "e", json!(1), json!({"msgId": "m"})).await?;
        assert_eq!(ack["duplicate"], duplicate, "{ack}");
    }
    let slot = cluster.slot(STREAM).await?;
    let owner = cluster.owner(0, slot).await?;
    assert_eq!(entries(cluster.node(owner), STREAM).await?.len(), 1);
    // where the slot goes the events go, and what was there stays known
    let to = (owner + 1) % 3;
    cluster.move_slot(slot, to).await?;
    let mut refused = 0;
    loop {
        let answer = send_event(&mut ann, "e", json!(1), json!({"msgId": "m"})).await?;
        if answer["type"] == "ack" {
            assert_eq!(answer["duplicate"], true, "{answer}");
            break;
        }
        assert_eq!(answer["temporary"], true, "{answer}");
        refused += 1;
    }
    send_event(&mut ann, "later", json!(1), json!({})).await?;
    let names: Vec<_> = entries(cluster.node(to), STREAM).await?;
    let names: Vec<_> = names.iter().map(|(_, fields)| &*fields["name"]).collect();
    println!("slot {slot} moved from node {owner} to {to}; {refused} events were refused meanwhile");
    assert_eq!(names, ["e", "later"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_follow_the_master_that_the_sentinels_name() -> Result<()> {
    let watched = Watched::start(3).await?;
    let (_fleet, mut ann) = ready(&watched.url(), &[]).await?;
    assert_eq!(
        send_event(&mut ann, "before", json!(1), json!({})).await?["type"],
        "ack"
    );
    watched.in_step().await?;
    watched.fail_over().await?;
    watched.failed_over().await?;
    until_async("the gateway has found the new master", || async {
        let there = watched.servers[1].gateway_connections().await?;
        Ok(there.iter().any(|name| name == "wsfleet-command"))
    })
    .await?;
    while send_event(&mut ann, "after", json!(1), json!({"msgId": "m"})).await?["type"] != "ack" {}
    let names: Vec<_> = entries(&watched.servers[1], STREAM).await?;
    let names: Vec<_> = names.iter().map(|(_, fields)| &*fields["name"]).collect();
    assert_eq!(names, ["before", "after"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_durability_replicated_an_event_is_acknowledged_when_a_replica_has_it() -> Result<()> {
    let [master, replica] = pair().await?;
    let (_fleet, mut ann) = ready(&master.url(), &["--durability", "replicated"]).await?;
    assert_eq!(
        send_event(&mut ann, "both", json!(1), json!({})).await?["type"],
        "ack"
    );
    assert_eq!(
        entries(&replica, STREAM).await?.len(),
        1,
        "the replica has it before the ack"
    );
    replica.freeze()?;
    for _ in 0..2 {
        // the second is known to the master, and no better off
        let error = send_event(&mut ann, "one", json!(1), json!({"msgId": "m"})).await?;
        assert_eq!(
            (&error["code"], &error["temporary"]),
            (&json!("unconfirmed"), &json!(true))
        );
    }
    replica.thaw()?;
    let ack = send_event(&mut ann, "one", json!(1), json!({"msgId": "m"})).await?;
    assert_eq!((&ack["type"], &ack["duplicate"]), (&json!("ack"), &json!(true)));
    assert_eq!(entries(&replica, STREAM).await?.len(), 2);
    Ok(())
}
