//! What clients of gateways on a Redis Cluster notice of a failover, and how their connections are counted.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use wsfleet_tests::broker::key;
use wsfleet_tests::client::{Client, Connect};
use wsfleet_tests::gateway::{Gateway, OPEN};
use wsfleet_tests::redis_cluster::{PATIENT, RedisCluster};
use wsfleet_tests::resume::{FAST, hears, join_at, say};
use wsfleet_tests::wait::until_async;

async fn fleet(cluster: &RedisCluster) -> Result<Vec<Gateway>> {
    let url = cluster.url();
    let mut gateways = Vec::new();
    for id in ["g0", "g1"] {
        let own = ["--server-id", id, "--broker", &url];
        let limit = ["--limit", "connectionsPerUser=2"];
        let gateway = Gateway::start(&[&OPEN[..], &FAST, &own, &limit].concat())?;
        gateway.ready().await?;
        gateways.push(gateway);
    }
    Ok(gateways)
}

/// Says it until it is accepted; everything else has to be a temporary error. Gives the `ack`.
async fn say_at_last(client: &mut Client, room: &str, number: u64) -> Result<Value> {
    let message = json!({
        "type": "room_message", "room": room, "payload": number, "id": number, "msgId": number.to_string(),
    });
    loop {
        client.send(message.clone()).await?;
        let answer = client.expect_any(&["ack", "error"]).await?;
        if answer["type"] == "ack" {
            return Ok(answer);
        }
        ensure!(answer["temporary"] == true, "{answer}");
    }
}

/// A room in a slot of the first primary, and one in another's.
async fn rooms(cluster: &RedisCluster) -> Result<[String; 2]> {
    let mut found = [None, None];
    for number in 0..100 {
        let name = format!("r{number}");
        let owner = cluster.owner(0, cluster.slot(&key(&name)).await?).await?;
        found[usize::from(owner != 0)].get_or_insert(name);
        if let [Some(first), Some(second)] = &found {
            return Ok([first.clone(), second.clone()]);
        }
    }
    bail!("a hundred rooms are all on one primary")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stay_and_miss_nothing_when_a_primary_is_killed() -> Result<()> {
    let mut cluster = RedisCluster::start(Duration::from_secs(2)).await?;
    let gateways = fleet(&cluster).await?;
    let rooms = rooms(&cluster).await?;
    let mut clients = Vec::new();
    let mut epoch = Value::Null;
    for (number, gateway) in gateways.iter().cycle().take(4).enumerate() {
        let mut client = gateway.client(&format!("u{number}")).await?;
        client.join(&rooms[1]).await?;
        epoch = client.join(&rooms[0]).await?["epoch"].clone();
        clients.push(client);
    }
    say(&mut clients[0], &rooms[0], 1, 3).await?;
    cluster.until_replicated().await?;
    cluster.node_mut(0).kill()?;
    for number in 4..=6 {
        let sender = usize::try_from(number)? % 4;
        let ack = say_at_last(&mut clients[sender], &rooms[0], number).await?;
        assert_eq!((&ack["offset"], &ack["epoch"]), (&json!(number), &epoch));
    }
    for client in &mut clients {
        hears(client, "room_message", 1..=6).await?;
        assert!(client.all_so_far("gap").await?.is_empty());
    }
    let ack = say_at_last(&mut clients[1], &rooms[1], 1).await?;
    assert_eq!(ack["offset"], 1);
    let mut late = gateways[0].client("late").await?;
    assert_eq!(join_at(&mut late, &rooms[0], &epoch, 2).await?["recovered"], true);
    hears(&mut late, "room_message", 3..=6).await
}

/// Whether one more connection of ann is let in.
async fn ann(gateway: &Gateway) -> Result<Option<Client>> {
    let mut client = Connect::to(gateway.ports.clients).token("ann").open().await?;
    if client.expect("welcome").await.is_ok() {
        return Ok(Some(client));
    }
    let code = client.closed().await?;
    ensure!(code == 4103, "closed with {code}");
    Ok(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_connections_are_counted_in_the_cluster_and_again_when_their_slot_moved() -> Result<()> {
    let cluster = RedisCluster::start(PATIENT).await?;
    let gateways = fleet(&cluster).await?;
    let seats = "wsfleet:0:seats:{user_ann}";
    let counted = async |count: usize| {
        until_async("the fleet's count", || async {
            let slot = cluster.slot(seats).await?;
            let owner = cluster.owner(0, slot).await?;
            Ok(cluster.ask::<usize>(owner, &["HLEN", seats]).await? == count)
        })
        .await
    };
    let mut clients = Vec::new();
    for gateway in &gateways {
        clients.extend(ann(gateway).await?);
    }
    assert_eq!(clients.len(), 2);
    assert!(ann(&gateways[0]).await?.is_none());
    counted(2).await?;
    let slot = cluster.slot(seats).await?;
    let owner = cluster.owner(0, slot).await?;
    cluster.move_slot(slot, (owner + 1) % 3).await?;
    clients.remove(0).close().await?;
    counted(1).await?;
    until_async("a place for ann", || async {
        let Some(client) = ann(&gateways[1]).await? else {
            return Ok(false);
        };
        drop(client);
        Ok(true)
    })
    .await?;
    counted(1).await
}
