//! Who is in a large room while gateways are killed and replaced under it: the members of a killed gateway who do not come back
//! are gone, counts are exact after many kills, and of a rollout nobody hears. `make presence` does it with 10,000 members.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::Rng as _;
use serde_json::Value;
use tokio::time::Instant;
use wsfleet_load::{Load, LoadConfig, Reconnect, RoomLayout};
use wsfleet_tests::http::Ask;
use wsfleet_tests::nats::NatsServer;
use wsfleet_tests::processes::Processes;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::settings::setting;
use wsfleet_tests::wait::{until, until_async};

const GATEWAYS: usize = 3;
const ROOM: &str = "/api/v1/rooms/load-0/presence?limit=1";

struct Plan {
    clients: u32,
    kills: usize,
    /// Seconds over which a gateway that is replaced sends its clients away.
    window: u64,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        Ok(Self {
            clients: setting("PRESENCE_CLIENTS", 300)?,
            kills: setting("PRESENCE_KILLS", 3)?,
            window: setting("PRESENCE_WINDOW", 4)?,
        })
    }

    fn crowd(&self, fleet: &Processes) -> Result<Load> {
        let mut targets = fleet.targets()?;
        Ok(Load::start(LoadConfig {
            targets: targets.clone(),
            connections: self.clients,
            rooms: RoomLayout::Count(1),
            publish_rate: 0.0,
            // they are in no room between two sockets
            reconnect: Reconnect::BreakBeforeMake,
            reconnect_window: Duration::from_secs(1),
            ..LoadConfig::new(targets.remove(0))
        })?)
    }

    async fn all_are_there(&self, load: &Load) -> Result<()> {
        until("all are in the room", || load.joined() == u64::from(self.clients)).await
    }
}

/// How many users are in the room, as one of the gateways says.
async fn count(fleet: &Processes, asked: usize) -> Result<u64> {
    let answer: Value = Ask::get(ROOM)
        .send(fleet.gateways()[asked].ports.api)
        .await?
        .json()?;
    answer["count"].as_u64().with_context(|| answer.to_string())
}

async fn until_count(fleet: &Processes, wanted: u64) -> Result<()> {
    for asked in 0..GATEWAYS {
        until_async(&format!("gateway {asked} counts {wanted} users"), || async {
            let count = count(fleet, asked).await?;
            ensure!(count == wanted, "{count}");
            Ok(true)
        })
        .await?;
    }
    Ok(())
}

/// A gateway is killed whose clients do not come back; tells how many they are, and when they are gone.
async fn killed_for_good(fleet: &mut Processes, load: &Load, plan: &Plan) -> Result<(u64, Duration)> {
    load.set_targets(vec![fleet.targets()?.swap_remove(0)])?;
    let there = load.joined();
    fleet.strike(0)?;
    let since = Instant::now();
    until("its sockets end", || load.connected() < there).await?;
    until_async("its members are gone", || async {
        Ok(count(fleet, 1).await? == load.joined() && count(fleet, 2).await? == load.joined())
    })
    .await?;
    let (gone, took) = (there - load.joined(), since.elapsed());
    fleet.restore(0, load).await?;
    plan.all_are_there(load).await?;
    until_count(fleet, u64::from(plan.clients)).await?;
    Ok((gone, took))
}

/// Where it is kept who is in the room.
enum Store {
    Redis(RedisServer),
    Nats(NatsServer),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact_after_kills_and_nobody_hears_of_a_rollout() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (report, row) = rolled_out(&Store::Redis(RedisServer::start().await?), &plan).await?;
    println!("{report}");
    println!("row: {row}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_so_over_nats() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (report, row) = rolled_out(&Store::Nats(NatsServer::start().await?), &plan).await?;
    println!("{report}");
    println!("over NATS: {row}");
    Ok(())
}

/// Kills and replaces gateways as is planned; gives what the clients say, and the row of what came of it.
async fn rolled_out(store: &Store, plan: &Plan) -> Result<(String, String)> {
    // what these would announce to a crowd that comes is not what is asked
    let quiet = ["--limit", "announceMembers=0"];
    let window = plan.window.to_string();
    let flags = [&quiet[..], &["--drain-window", &window]].concat();
    let mut fleet = Processes::start(&store.url(), GATEWAYS, &flags).await?;
    let load = plan.crowd(&fleet)?;
    plan.all_are_there(&load).await?;
    until_count(&fleet, u64::from(plan.clients)).await?;

    let (gone, took) = killed_for_good(&mut fleet, &load, plan).await?;
    for _ in 0..plan.kills {
        let number = rand::rng().random_range(0..GATEWAYS);
        fleet.kill(number, &load).await?;
        plan.all_are_there(&load).await?;
    }
    // whoever was there only under a lease that ran out would be missing, or there twice, when all of them have
    store.until_no_lease_is_old(plan).await?;
    until_count(&fleet, u64::from(plan.clients)).await?;

    // from here on all would hear of anybody who comes or goes
    fleet.add_flags(&["--limit", "announceMembers=100000"]);
    // and the second time those that are replaced would tell it, too
    for number in (0..GATEWAYS).chain(0..GATEWAYS) {
        fleet.replace(number, &load).await?;
        plan.all_are_there(&load).await?;
    }
    store.until_nobody_is_leaving(plan).await?;
    until_count(&fleet, u64::from(plan.clients)).await?;
    let heard = load.snapshot().deliveries.announcements;
    let report = load.stop().await;
    ensure!(heard == 0, "{heard} announcements of users who were back in time");
    let row = format!(
        "| {} | {gone} | {:.1} s | {} | {} | {heard} |",
        plan.clients,
        took.as_secs_f64(),
        plan.kills,
        plan.clients
    );
    Ok((report.to_string(), row))
}

impl Store {
    fn url(&self) -> String {
        match self {
            Self::Redis(redis) => redis.url(),
            Self::Nats(nats) => nats.url(),
        }
    }

    /// Awaits that only the gateways that run have leases, and nothing is to be cleared of others.
    async fn until_no_lease_is_old(&self, plan: &Plan) -> Result<()> {
        until_async("the killed gateways' members are cleared away", || async {
            let leases = match self {
                Self::Redis(redis) => {
                    redis::pipe()
                        .cmd("ZCARD")
                        .arg("wsfleet:0:presence.live:{fleet}")
                        .cmd("ZCARD")
                        .arg("wsfleet:0:presence.dead:{fleet}")
                        .query_async(&mut redis.connection().await?)
                        .await?
                }
                Self::Nats(nats) => (
                    nats.subjects("wsfleet-there", "wsfleet.there.l.leases.>").await?,
                    0,
                ),
            };
            Ok(leases == (GATEWAYS, 0))
        })
        .await?;
        self.until_nobody_is_leaving(plan).await
    }

    /// Awaits that nobody is taken for somebody who may be back.
    async fn until_nobody_is_leaving(&self, plan: &Plan) -> Result<()> {
        until_async("nobody is leaving", || async {
            let leaving: usize = match self {
                Self::Redis(redis) => {
                    redis::cmd("ZCARD")
                        .arg("wsfleet:0:room.leaving:{load-0}")
                        .query_async(&mut redis.connection().await?)
                        .await?
                }
                // a leave is there for as long as it is held back
                Self::Nats(nats) => {
                    let stored = nats.subjects("wsfleet-there", "wsfleet.there.r.load-0.>").await?;
                    stored.saturating_sub(plan.clients as usize)
                }
            };
            Ok(leaving == 0)
        })
        .await
    }
}
