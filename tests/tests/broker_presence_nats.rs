//! Who is in a room over a real NATS that is cut off, or restarted: what is in memory there is lost then.

use std::time::Duration;

use anyhow::Result;
use wsfleet_gateway::broker::Broker;
use wsfleet_gateway::broker::redis::Timing;
use wsfleet_tests::attendance::{Store, attending, everybody, until_count};
use wsfleet_tests::broker::{PATIENT, SHORT, room};
use wsfleet_tests::nats::{NatsCluster, NatsServer};
use wsfleet_tests::proxy::Proxy;
use wsfleet_tests::wait::{until, until_async};

/// Longer than a restart takes, or another leader's election, on a busy machine: whoever does not come back would be announced
/// after that.
const TIMES: Timing = Timing {
    lease: Duration::from_secs(30),
    ..PATIENT
};
/// The same, and a link that goes silent is found.
const SUSPICIOUS: Timing = Timing {
    lease: TIMES.lease,
    ..SHORT
};

#[tokio::test]
async fn what_a_gateway_missed_while_it_was_cut_off_is_told_and_its_own_members_are_not() -> Result<()> {
    let nats = NatsServer::start().await?;
    let proxy = Proxy::start(nats.address()).await?;
    let url = format!("nats://{}", proxy.address());
    let brief = Duration::from_secs(1);
    let near = attending(&nats, &url, ("near", SUSPICIOUS, brief)).await?;
    let far = nats.node("far", TIMES, brief).await?;
    for (node, user) in [(&near, "ann"), (&far, "bob")] {
        node.subscribe(&room("r")).await?;
        node.enter("r", user, user);
    }
    for node in [&near, &far] {
        until_count(node, "r", 2).await?;
    }
    far.wait_delivered(1).await?;
    let before = far.announced();
    proxy.swallow();
    far.enter("r", "cleo", "cleo");
    far.exit("r", "bob", "bob");
    until_count(&far, "r", 2).await?;
    until("the link is made anew", || {
        near.stat(|stats| &stats.subscription_links) == 2
    })
    .await?;
    until_async("all is known again", || async {
        Ok(near
            .announced()
            .ends_with(&[(true, "cleo".into()), (false, "bob".into())]))
    })
    .await?;
    for node in [&near, &far] {
        until_count(node, "r", 2).await?;
        assert_eq!(everybody(node, "r", 1).await?.join(" "), "ann cleo");
    }
    let heard = [(true, "cleo".to_owned()), (false, "bob".to_owned())];
    assert_eq!(
        far.announced()[before.len()..],
        heard,
        "ann was there all the time"
    );
    assert_eq!(near.stat(|stats| &stats.presence_restored), 1);
    Ok(())
}

#[tokio::test]
async fn nobody_is_announced_who_is_told_again_after_nats_was_restarted_whatever_the_hold() -> Result<()> {
    let mut nats = NatsServer::start().await?;
    let hold = Duration::ZERO;
    let (one, two) = (
        nats.node("g1", TIMES, hold).await?,
        nats.node("g2", TIMES, hold).await?,
    );
    for (node, user) in [(&one, "ann"), (&two, "bob")] {
        node.subscribe(&room("r")).await?;
        node.enter("r", user, user);
    }
    for node in [&one, &two] {
        until_count(node, "r", 2).await?;
    }
    let before = (one.announced(), two.announced());
    nats.kill()?;
    until("the loss is seen", || !one.broker.health().up).await?;
    nats.restart().await?;
    for node in [&one, &two] {
        node.wait_healthy().await?;
    }
    until_async("both are told of again", || async {
        Ok(nats.subjects("wsfleet-there", "wsfleet.there.r.r.>").await? == 2)
    })
    .await?;
    // what is announced later shows that nothing was before
    two.enter("r", "cleo", "cleo");
    until("the next one is told", || one.announced().len() > before.0.len()).await?;
    until("and to both", || two.announced().len() > before.1.len()).await?;
    assert_eq!(one.announced()[before.0.len()..], [(true, "cleo".to_owned())]);
    assert_eq!(two.announced()[before.1.len()..], [(true, "cleo".to_owned())]);
    until_count(&one, "r", 3).await?;
    Ok(())
}

#[tokio::test]
async fn a_cluster_without_one_of_its_servers_knows_who_is_there_and_nobody_is_announced_for_that()
-> Result<()> {
    let mut cluster = NatsCluster::start().await?;
    let (url, hold) = (cluster.url(), Duration::from_secs(1));
    let mut nodes = Vec::new();
    for server_id in ["g1", "g2"] {
        let node = attending(&cluster.servers[0], &url, (server_id, TIMES, hold)).await?;
        node.subscribe(&room("r")).await?;
        for number in 0..20 {
            let user = format!("{server_id}-{number}");
            node.enter("r", &user, &user);
        }
        nodes.push(node);
    }
    for node in &nodes {
        until_count(node, "r", 40).await?;
    }
    let before: Vec<_> = nodes.iter().map(|node| node.announced().len()).collect();
    cluster.servers[2].kill()?;
    // a change that comes through shows that the others have a leader
    nodes[0].enter("r", "late", "late");
    for (node, before) in nodes.iter().zip(before) {
        until_count(node, "r", 41).await?;
        until("the next one is told", || node.announced().len() > before).await?;
        assert_eq!(node.announced()[before..], [(true, "late".to_owned())]);
    }
    Ok(())
}
