//! Who is in a room, over a real Redis Cluster: a room's keys are on one primary, what is of the whole fleet on another, and no
//! order holds between the two.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use wsfleet_gateway::broker::Broker;
use wsfleet_gateway::broker::redis::{PresenceSettings, Timing};
use wsfleet_tests::broker::{Node, PATIENT, key, room};
use wsfleet_tests::redis_cluster::{PATIENT as NODES_PATIENT, PRIMARIES, RedisCluster};
use wsfleet_tests::wait::{until, until_async};

const LIVE: &str = "wsfleet:0:presence.live:{fleet}";
const DUE: &str = "wsfleet:0:presence.due:{fleet}";
/// A lease that runs out soon.
const BRIEF: Timing = Timing {
    lease: Duration::from_secs(2),
    ..PATIENT
};
/// No renewal, with which rooms are compared, comes as long as a test runs.
const LONG: Timing = Timing {
    lease: Duration::from_hours(1),
    ..PATIENT
};

/// The node that has what is of the whole fleet.
async fn fleet_owner(cluster: &RedisCluster) -> Result<usize> {
    cluster.owner(1, cluster.slot(LIVE).await?).await
}

async fn node(cluster: &RedisCluster, server_id: &str, timing: Timing, hold: Duration) -> Result<Node> {
    let presence = PresenceSettings {
        server_id: server_id.into(),
        hold,
        announced: u32::MAX,
    };
    let node = Node::attending(&cluster.url(), timing, presence).await?;
    let owner = fleet_owner(cluster).await?;
    until_async("a lease", || async {
        let leases: Vec<String> = cluster.ask(owner, &["ZRANGE", LIVE, "0", "-1"]).await?;
        Ok(leases
            .iter()
            .any(|lease| lease.ends_with(&format!(" {server_id}"))))
    })
    .await?;
    Ok(node)
}

/// A room on each primary.
async fn rooms(cluster: &RedisCluster) -> Result<BTreeMap<usize, String>> {
    let mut found = BTreeMap::new();
    for number in 0..200 {
        let name = format!("r{number}");
        let owner = cluster.owner(0, cluster.slot(&key(&name)).await?).await?;
        found.entry(owner).or_insert(name);
        if found.len() == PRIMARIES {
            return Ok(found);
        }
    }
    bail!("two hundred rooms are not on all primaries")
}

async fn until_count(node: &Node, name: &str, count: u64) -> Result<()> {
    until_async(&format!("{count} users in {name}"), || async {
        Ok(node.attendance(name, None, 1).await?.count == count)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_on_two_gateways_is_one_and_is_gone_once_on_every_primary() -> Result<()> {
    let cluster = RedisCluster::start(NODES_PATIENT).await?;
    let hold = Duration::from_millis(500);
    let (one, two) = (
        node(&cluster, "g1", PATIENT, hold).await?,
        node(&cluster, "g2", PATIENT, hold).await?,
    );
    let mut expected = Vec::new();
    for (owner, name) in rooms(&cluster).await? {
        one.subscribe(&room(&name)).await?;
        one.enter(&name, "ann", "1-a");
        until_count(&one, &name, 1).await?;
        two.enter(&name, "ann", "2-a");
        two.enter(&name, "bob", "2-c");
        until_count(&one, &name, 2).await?;
        one.exit(&name, "ann", "1-a");
        two.exit(&name, "bob", "2-c");
        until_count(&one, &name, 1).await?;
        two.exit(&name, "ann", "2-a");
        until_count(&one, &name, 0).await?;
        let told = [(true, "ann"), (true, "bob"), (false, "bob"), (false, "ann")];
        expected.extend(told.map(|(came, user)| (came, user.to_owned())));
        one.wait_delivered(expected.len()).await?;
        assert_eq!(one.announced(), expected);
        let left: Vec<String> = cluster
            .ask(owner, &["KEYS", &format!("wsfleet:0:room.*{{{name}}}*")])
            .await?;
        assert!(left.iter().all(|key| key.contains("room.quiet")), "{left:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_members_of_gateways_that_ended_without_a_word_are_gone_from_every_primary() -> Result<()> {
    const USERS: u64 = 40;
    let cluster = RedisCluster::start(NODES_PATIENT).await?;
    let hold = Duration::from_millis(300);
    let stays = node(&cluster, "stays", BRIEF, hold).await?;
    let rooms = rooms(&cluster).await?;
    for name in rooms.values() {
        stays.subscribe(&room(name)).await?;
        stays.enter(name, "user-0", "s-0");
    }
    for kill in 0..3 {
        let killed = node(&cluster, &format!("k{kill}"), BRIEF, hold).await?;
        for name in rooms.values() {
            for number in 0..USERS {
                killed.enter(name, &format!("user-{number}"), &format!("{kill}-{number}"));
            }
            until_count(&stays, name, USERS).await?;
        }
        drop(killed);
        for name in rooms.values() {
            until_count(&stays, name, 1).await?;
        }
    }
    let gone = 3 * PRIMARIES * (usize::try_from(USERS)? - 1);
    until("all are announced as gone", || {
        stays.announced().iter().filter(|(came, _)| !came).count() >= gone
    })
    .await?;
    assert_eq!(
        stays.announced().len(),
        2 * gone + PRIMARIES,
        "each came once and went once"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_primary_of_the_fleet_dies_everybody_stays_and_nobody_is_announced() -> Result<()> {
    let mut cluster = RedisCluster::start(Duration::from_secs(2)).await?;
    let hold = Duration::from_secs(2);
    let (one, two) = (
        node(&cluster, "g1", PATIENT, hold).await?,
        node(&cluster, "g2", PATIENT, hold).await?,
    );
    let rooms = rooms(&cluster).await?;
    for name in rooms.values() {
        for number in 0..20 {
            one.enter(name, &format!("user-{number}"), &format!("1-{number}"));
        }
        until_count(&two, name, 20).await?;
        two.subscribe(&room(name)).await?;
    }
    cluster.until_replicated().await?;
    let owner = fleet_owner(&cluster).await?;
    cluster.node_mut(owner).kill()?;
    until("the loss is noticed", || !two.broker.health().up).await?;
    for node in [&one, &two] {
        node.wait_healthy().await?;
    }
    for name in rooms.values() {
        until_count(&two, name, 20).await?;
    }
    assert_eq!(two.announced(), [], "they were there all the time");
    // whoever leaves is gone
    for name in rooms.values() {
        for number in 0..20 {
            one.exit(name, &format!("user-{number}"), &format!("1-{number}"));
        }
    }
    for name in rooms.values() {
        until_count(&two, name, 0).await?;
    }
    let left = two.announced().iter().filter(|(came, _)| !came).count();
    ensure!(left <= 20 * PRIMARIES, "{left} are announced as gone");
    Ok(())
}

/// The room's node is slow: that somebody left is known there only after another gateway has looked at the room, found nobody
/// who is gone, and struck it off the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_that_is_late_on_its_node_is_told_in_time() -> Result<()> {
    let cluster = RedisCluster::start(NODES_PATIENT).await?;
    let hold = Duration::from_secs(2);
    let (one, two) = (
        node(&cluster, "g1", LONG, hold).await?,
        node(&cluster, "g2", LONG, hold).await?,
    );
    let fleet = fleet_owner(&cluster).await?;
    let mut rooms = rooms(&cluster).await?;
    rooms.remove(&fleet);
    let Some((home, name)) = rooms.pop_first() else {
        bail!("a room that is elsewhere");
    };
    two.subscribe(&room(&name)).await?;
    one.enter(&name, "ann", "1-a");
    until_count(&two, &name, 1).await?;
    cluster.node(home).freeze()?;
    one.exit(&name, "ann", "1-a");
    until_async("the room is on the list, and struck off", || async {
        Ok(cluster.ask::<usize>(fleet, &["ZREM", DUE, &name]).await? == 1)
    })
    .await?;
    cluster.node(home).thaw()?;
    until("it is told", || {
        two.announced().contains(&(false, "ann".to_owned()))
    })
    .await?;
    until_count(&two, &name, 0).await
}
