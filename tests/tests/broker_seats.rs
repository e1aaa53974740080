//! Connections of one user are counted in the whole fleet, on a real Redis or NATS, whatever happens to gateways and to those.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use serde_json::Value;
use wsfleet_crds::admin::{DrainMode, DrainOrder, DrainRequest};
use wsfleet_tests::client::{Client, Connect};
use wsfleet_tests::gateway::{Fleet, Gateway, Kind, OPEN};
use wsfleet_tests::http::Ask;
use wsfleet_tests::nats::NatsServer;
use wsfleet_tests::process::Process;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{SOON, until_async, within};

/// The default of `connectionsPerUser`.
const MOST: usize = 16;
const TWO: [&str; 2] = ["--limit", "connectionsPerUser=2"];
/// A dead gateway's lease runs out within 30 s; the rest is for a machine that may be busy.
const LEASE_AND_SOME: Duration = Duration::from_mins(1);

wsfleet_tests::on_redis_and_nats! {
    the_seventeenth_connection_in_the_fleet_is_refused_and_none_is_evicted,
    a_hundred_connections_at_once_to_two_gateways_are_sixteen,
    the_connections_of_a_killed_gateway_count_until_its_lease_runs_out,
    the_count_comes_back_when_the_broker_has_lost_everything,
    without_the_broker_the_gateways_own_count_holds_and_afterwards_the_fleets_again,
    without_a_limit_the_broker_is_not_asked,
    a_drained_clients_next_connection_may_come_before_its_old_one_ends,
    where_a_user_is_connected_is_known_in_the_whole_fleet,
}

/// Connects as ann; `None` when there are too many of her.
async fn ann(to: SocketAddr) -> Result<Option<Client>> {
    let mut client = Connect::to(to).token("ann").open().await?;
    if client.expect("welcome").await.is_ok() {
        return Ok(Some(client));
    }
    let code = client.closed().await?;
    ensure!(code == 4103, "closed with {code}");
    Ok(None)
}

/// Tries until she gets in.
async fn ann_at_last(to: SocketAddr, limit: Duration) -> Result<Client> {
    let trying = async {
        loop {
            if let Ok(Some(client)) = ann(to).await {
                return client;
            }
            tokio::task::yield_now().await;
        }
    };
    within(limit, "a place for ann", Box::pin(trying)).await
}

/// So many of her connections, each on the next gateway.
async fn anns(fleet: &Fleet, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for number in 0..count {
        let client = ann(fleet.gateway(number).ports.clients).await?;
        ensure!(client.is_some(), "connection {number} of {count} was refused");
        clients.extend(client);
    }
    Ok(clients)
}

/// Keys that look like this.
async fn keys(redis: &mut MultiplexedConnection, pattern: &str) -> Result<Vec<String>> {
    Ok(redis::cmd("KEYS").arg(pattern).query_async(redis).await?)
}

/// How many of her the broker has.
async fn count(fleet: &Fleet) -> Result<usize> {
    match (&fleet.redis, &fleet.nats) {
        (Some(redis), _) => {
            let mut connection = redis.connection().await?;
            let mut ask = redis::cmd("HLEN");
            Ok(ask
                .arg("wsfleet:0:seats:{user_ann}")
                .query_async(&mut connection)
                .await?)
        }
        (None, Some(nats)) => nats.subjects("wsfleet-seats", "wsfleet.seats.user_ann.>").await,
        (None, None) => bail!("a fleet on Redis or NATS"),
    }
}

/// Awaits that the broker counts so many of her.
async fn until_counted(fleet: &Fleet, wanted: usize) -> Result<()> {
    until_async("the fleet's count", || async {
        let count = count(fleet).await?;
        ensure!(count == wanted, "{count} instead of {wanted}");
        Ok(true)
    })
    .await
}

/// A gateway that is killed, and one that lives, with two connections of ann to the first.
async fn killed_and_living(url: &str) -> Result<(Process, Gateway, [Client; 2])> {
    let flags = [&OPEN[..], &TWO, &["--broker", url]].concat();
    let killed = Process::start(&flags).await?;
    killed.ready().await?;
    let lost = [
        ann_at_last(killed.ports.clients, SOON).await?,
        ann_at_last(killed.ports.clients, SOON).await?,
    ];
    let living = Gateway::start(&flags)?;
    living.ready().await?;
    let third = Box::pin(ann(living.ports.clients)).await?;
    ensure!(third.is_none(), "a third connection");
    killed.signal(Signal::KILL)?;
    Ok((killed, living, lost))
}

async fn the_seventeenth_connection_in_the_fleet_is_refused_and_none_is_evicted(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut clients = anns(&fleet, MOST).await?;
    for number in 0..2 {
        assert!(ann(fleet.gateway(number).ports.clients).await?.is_none());
        let gateway = fleet.gateway(number);
        until_async("the refusal is counted", || async {
            Ok(gateway.metric("ws_admission_rejected_total", &[]).await? >= 1.0)
        })
        .await?;
    }
    fleet.client(0, "bob").await?;
    for client in &mut clients {
        assert!(client.all_so_far("error").await?.is_empty());
    }
    // on the second gateway; free on the first
    clients.remove(1).close().await?;
    clients.push(ann_at_last(fleet.gateway(0).ports.clients, SOON).await?);
    assert!(ann(fleet.gateway(1).ports.clients).await?.is_none());
    drop(clients);
    // nothing is left behind
    until_counted(&fleet, 0).await
}

async fn a_hundred_connections_at_once_to_two_gateways_are_sixteen(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let attempts = (0..100).map(|number| ann(fleet.gateway(number).ports.clients));
    let clients = try_join_all(attempts).await?;
    assert_eq!(clients.iter().flatten().count(), MOST);
    until_counted(&fleet, MOST).await
}

async fn the_connections_of_a_killed_gateway_count_until_its_lease_runs_out(kind: Kind) -> Result<()> {
    // they end behind the gateways
    let (mut redis, mut nats) = (None, None);
    let url = match kind {
        Kind::Nats(_) => nats.insert(NatsServer::start().await?).url(),
        _ => redis.insert(RedisServer::start().await?).url(),
    };
    let (_killed, living, _lost) = killed_and_living(&url).await?;
    let _one = ann_at_last(living.ports.clients, LEASE_AND_SOME).await?;
    let _two = ann_at_last(living.ports.clients, SOON).await?;
    assert!(ann(living.ports.clients).await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_lost_its_lease_and_lives_takes_another_one() -> Result<()> {
    let redis = RedisServer::start().await?;
    let (_killed, living, _lost) = killed_and_living(&redis.url()).await?;
    let mut connection = redis.connection().await?;
    let leases = keys(&mut connection, "wsfleet:0:lease:*").await?;
    assert_eq!(leases.len(), 2);
    for lease in &leases {
        let ttl: i64 = redis::cmd("TTL").arg(lease).query_async(&mut connection).await?;
        assert!((1..=30).contains(&ttl), "{lease} lives for {ttl} s");
        redis::cmd("DEL").arg(lease).exec_async(&mut connection).await?;
    }
    // both are void now, so the killed gateway's connections are cleared away at once
    let _one = ann_at_last(living.ports.clients, SOON).await?;
    let _two = ann_at_last(living.ports.clients, SOON).await?;
    until_async("another lease", || async {
        let now = keys(&mut redis.connection().await?, "wsfleet:0:lease:*").await?;
        Ok(now.len() == 1 && !leases.contains(&now[0]))
    })
    .await?;
    assert!(ann(living.ports.clients).await?.is_none());
    Ok(())
}

async fn the_count_comes_back_when_the_broker_has_lost_everything(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut clients = anns(&fleet, MOST).await?;
    if let Some(redis) = &fleet.redis {
        let mut connection = redis.connection().await?;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
    }
    if let Some(nats) = &fleet.nats {
        nats.purge("wsfleet-seats").await?;
    }
    until_counted(&fleet, MOST).await?;
    for number in 0..2 {
        assert!(ann(fleet.gateway(number).ports.clients).await?.is_none());
    }
    for client in &mut clients {
        assert!(client.all_so_far("error").await?.is_empty());
    }
    Ok(())
}

async fn without_the_broker_the_gateways_own_count_holds_and_afterwards_the_fleets_again(
    kind: Kind,
) -> Result<()> {
    let mut fleet = Fleet::start_with(kind, &TWO).await?;
    let (first, second) = (fleet.gateway(0).ports.clients, fleet.gateway(1).ports.clients);
    let (_kept, there) = (ann(first).await?, ann(second).await?.context("a place")?);
    assert!(ann(first).await?.is_none());
    fleet.kill_broker()?;
    until_async("both gateways know", || async {
        let (one, two) = (fleet.gateway(0).state().await?, fleet.gateway(1).state().await?);
        Ok(one.broker_degraded && two.broker_degraded)
    })
    .await?;
    // not refused for what cannot be known, and not beyond what is known
    let more = ann(first).await?.context("a place")?;
    assert!(ann(first).await?.is_none());
    // leaves while nobody can be told
    there.close().await?;
    fleet.restart_broker().await?;
    fleet.gateway(0).ready().await?;
    fleet.gateway(1).ready().await?;
    until_counted(&fleet, 2).await?;
    assert!(ann(second).await?.is_none());
    more.close().await?;
    let _last = ann_at_last(second, SOON).await?;
    Ok(())
}

async fn without_a_limit_the_broker_is_not_asked(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--limit", "connectionsPerUser=0"]).await?;
    let _clients = anns(&fleet, MOST + 1).await?;
    assert_eq!(count(&fleet).await?, 0);
    Ok(())
}

async fn where_a_user_is_connected_is_known_in_the_whole_fleet(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut clients = anns(&fleet, 3).await?;
    let ask = || async {
        let asked = Ask::get("/api/v1/users/user_ann/connections");
        asked.send(fleet.gateway(1).ports.api).await?.json::<Value>()
    };
    let answer = ask().await?;
    assert_eq!(answer["scope"], "fleet", "{answer}");
    let servers = |answer: &Value| -> Vec<String> {
        let connections = answer["connections"].as_array().into_iter().flatten();
        let mut servers: Vec<_> = connections.map(|one| one["serverId"].to_string()).collect();
        servers.sort();
        servers
    };
    assert_eq!(servers(&answer), [r#""g0""#, r#""g0""#, r#""g1""#]);
    clients.remove(0).close().await?;
    until_async("one less is known", || async {
        Ok(servers(&ask().await?) == [r#""g0""#, r#""g1""#])
    })
    .await
}

async fn a_drained_clients_next_connection_may_come_before_its_old_one_ends(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &TWO).await?;
    let mut clients = anns(&fleet, 2).await?;
    let request = |mode, epoch| DrainRequest {
        drain_id: "d1".to_owned(),
        epoch,
        mode,
        rate_per_second: Some(0.2),
        lease_seconds: Some(60),
        deadline: None,
        order: DrainOrder::Random,
        close_code: 1012,
        reconnect_window_seconds: 60,
        keep_connections: None,
        min_age_seconds: None,
    };
    assert!(ann(fleet.gateway(1).ports.clients).await?.is_none());
    let draining = fleet.gateway(0);
    assert_eq!(draining.drain(&request(DrainMode::Drain, 1)).await?.status, 200);
    clients[0].expect("server_shutdown").await?;
    // so that the old one stays, however slow this machine is
    assert_eq!(draining.drain(&request(DrainMode::Resume, 2)).await?.status, 200);
    let _next = ann_at_last(fleet.gateway(1).ports.clients, SOON).await?;
    assert!(clients[0].all_so_far("error").await?.is_empty());
    assert!(ann(fleet.gateway(1).ports.clients).await?.is_none());
    Ok(())
}
