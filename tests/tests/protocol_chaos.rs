//! Gateways that are killed at random times under a crowd. `make chaos` kills more of them, for longer.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep_until};
use wsfleet_load::{Load, LoadConfig, Report, RoomLayout};
use wsfleet_tests::processes::Processes;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::settings::setting;
use wsfleet_tests::verdict::nothing_was_missed;
use wsfleet_tests::wait::until;

const GATEWAYS: usize = 3;
/// Members of a room.
const ROOM: u32 = 20;

/// What happens.
#[derive(Debug)]
struct Plan {
    clients: u32,
    kills: usize,
    lasting: Duration,
    /// Gives the times, and the gateways.
    seed: u64,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        Ok(Self {
            clients: setting("CHAOS_CLIENTS", 500)?,
            kills: setting("CHAOS_KILLS", 5)?,
            lasting: Duration::from_secs(setting("CHAOS_SECONDS", 60)?),
            seed: setting("CHAOS_SEED", rand::random())?,
        })
    }

    fn crowd(&self, fleet: &Processes) -> Result<Load> {
        let mut targets = fleet.targets()?;
        Ok(Load::start(LoadConfig {
            targets: targets.clone(),
            connections: self.clients,
            rate: 100.0,
            rooms: RoomLayout::Count(self.clients.div_ceil(ROOM)),
            publish_rate: f64::from(self.clients) / 10.0,
            reconnect_window: Duration::from_secs(1),
            // longer than a busy machine pauses
            grace: Duration::from_secs(15),
            ..LoadConfig::new(targets.remove(0))
        })?)
    }

    /// The row of the table in docs/endurance.md.
    fn row(&self, report: &Report) -> String {
        let (counts, reconnects) = (report.verdict.counts, &report.reconnects);
        format!(
            "| {} | {} | {} s | {} | {} | {} | {} | {} | {} | {:.2} % | {} |",
            self.clients,
            self.kills,
            self.lasting.as_secs(),
            report.publishes.acked,
            report.deliveries.total,
            reconnects.total,
            counts.lost + counts.late + counts.gapped + counts.taken_back,
            counts.out_of_order + counts.contradicted,
            counts.duplicated + counts.repeated,
            reconnects.resumes.share() * 100.0,
            self.seed
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_are_killed_at_random_and_nothing_is_lost_or_out_of_order() -> Result<()> {
    let plan = Plan::from_environment()?;
    println!("{plan:?}");
    let redis = RedisServer::start().await?;
    let mut fleet = Processes::start(&redis.url(), GATEWAYS, &[]).await?;
    let load = plan.crowd(&fleet)?;
    let all_are_there = || load.joined() == u64::from(plan.clients);
    until("all have joined", all_are_there).await?;

    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut times: Vec<Duration> = (0..plan.kills)
        .map(|_| plan.lasting.mul_f64(rng.random()))
        .collect();
    times.sort_unstable();
    let begin = Instant::now();
    for at in times {
        sleep_until(begin + at).await;
        fleet.kill(rng.random_range(0..GATEWAYS), &load).await?;
    }
    sleep_until(begin + plan.lasting).await;
    until("all are back", all_are_there).await?;
    let report = load.stop().await;
    println!("{report}\nrow: {}", plan.row(&report));
    nothing_was_missed(&report).map_err(|failure| anyhow!("{failure}"))
}
