//! `--durability replicated`: what is acknowledged is on a replica, and survives the master.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use wsfleet_gateway::broker::BrokerError;
use wsfleet_gateway::broker::redis::{RedisConfig, Timing};
use wsfleet_gateway::config::Durability;
use wsfleet_tests::broker::{Node, SHORT, message, room};
use wsfleet_tests::gateway::Fleet;
use wsfleet_tests::load::{Crowd, LOBBY};
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::resume::join_at;
use wsfleet_tests::sentinel::{Watched, pair};
use wsfleet_tests::wait::until;

/// A broker that waits two seconds for a replica, and longer before it gives up a link.
async fn replicated(url: &str) -> Result<Node> {
    let timing = Timing {
        answer: Duration::from_secs(6),
        ..SHORT
    };
    let config = RedisConfig::from_url(url)?
        .with_timing(timing)
        .with_durability(Durability::Replicated);
    let node = Node::with(&config)?;
    node.wait_healthy().await?;
    Ok(node)
}

#[tokio::test]
async fn what_no_replica_has_is_not_acknowledged_until_one_has_it() -> Result<()> {
    let [master, replica] = pair().await?;
    let node = replicated(&master.url()).await?;
    let other = replicated(&master.url()).await?;
    let lobby = room("lobby");
    node.subscribe(&lobby).await?;
    assert_eq!(node.publish(&lobby, "1").await??.offset, 1);

    replica.freeze()?;
    assert_eq!(node.publish(&lobby, "2").await?, Err(BrokerError::Unconfirmed));
    let named = async |node: &Node| node.publish_as(&lobby, message("3")?, Some("id")).await;
    assert_eq!(named(&node).await?, Err(BrokerError::Unconfirmed));
    // another gateway that is asked again knows no better, although it appends nothing
    assert_eq!(named(&other).await?, Err(BrokerError::Unconfirmed));
    let outcomes = node.publish_many(&lobby, 10)?;
    until("all ten are answered", || outcomes.lock().len() == 10).await?;
    assert!(
        outcomes
            .lock()
            .iter()
            .all(|(_, r)| *r == Err(BrokerError::Unconfirmed))
    );
    assert_eq!(node.stat(|s| &s.unreplicated), 12);

    replica.thaw()?;
    let again = named(&other).await??;
    assert!(again.duplicate, "it had been accepted before the replica had it");
    assert_eq!(node.publish(&lobby, "14").await??.offset, 14);
    // waiting for a replica is no sign of a lost link
    assert_eq!(node.stat(|s| &s.command_links), 1);
    assert_eq!(node.stat(|s| &s.subscription_links), 1);
    node.wait_delivered(14).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_replica_nothing_is_acknowledged() -> Result<()> {
    let redis = RedisServer::start().await?;
    let node = replicated(&redis.url()).await?;
    assert_eq!(
        node.publish(&room("lobby"), "1").await?,
        Err(BrokerError::Unconfirmed)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_under_load_no_acknowledged_message_is_missing_in_a_resume() -> Result<()> {
    let mut watched = Watched::start(3).await?;
    let fleet = Fleet::at(&watched.url(), 2, &["--durability", "replicated"])?;
    for number in 0..2 {
        fleet.gateway(number).ready().await?;
    }
    let mut late = fleet.client(0, "late").await?;
    let epoch = late.join(LOBBY).await?["epoch"].clone();
    late.close().await?;
    // few enough for one resume
    let crowd = Crowd::start(&fleet, 2).await?;
    until("the load flows", || crowd.acked() > 50).await?;
    watched.servers[0].kill()?;
    watched.failed_over().await?;
    // alone, the new master has nothing to be acknowledged with: the old one comes back as its replica
    watched.servers[0].restart().await?;
    for number in 0..2 {
        fleet.gateway(number).ready().await?;
    }
    let before = crowd.acked();
    until("the load flows again", || crowd.acked() > before + 20).await?;
    let told = Arc::clone(&crowd.told);
    for member in crowd.end().await? {
        told.judge(&member)?;
    }
    let mut late = fleet.client(1, "late").await?;
    let joined = join_at(&mut late, LOBBY, &epoch, 0).await?;
    assert_eq!(joined["recovered"], json!(true), "{joined}");
    let count = joined["offset"].as_u64().unwrap_or_default();
    let resumed = late.expect_many("room_message", usize::try_from(count)?).await?;
    for acked in told.acked.lock().iter() {
        let there = resumed.iter().filter(|message| message["payload"] == **acked);
        assert_eq!(there.count(), 1, "{acked}");
    }
    println!(
        "acknowledged {}, refused {}, unconfirmed {}; {count} messages in the resume, every acknowledged one among them",
        told.acked.lock().len(),
        told.refused.lock().len(),
        told.unconfirmed.lock().len()
    );
    Ok(())
}
