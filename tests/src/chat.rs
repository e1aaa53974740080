//! A crowd that writes a thousand messages a second through three gateways while Redis fails under it, and some of which is
//! away meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;
use wsfleet_load::{Load, LoadConfig, Report, RoomLayout};

use crate::http::Ask;
use crate::processes::Processes;
use crate::redis::RedisServer;
use crate::wait::{until, until_async};

/// Messages offered by all together, a second.
pub const RATE: f64 = 1_000.0;
const GATEWAYS: usize = 3;
const CLIENTS: u32 = 400;
/// Members of a room: so few messages are in each that one resume gives what was missed in a minute.
const ROOM: u32 = 2;

/// Gateways, and a crowd that chats.
#[derive(Debug)]
pub struct Chat {
    /// The gateways.
    pub fleet: Processes,
    /// The crowd.
    pub load: Load,
    /// Messages offered a second.
    rate: f64,
    /// The first of them that runs: the one before it was killed.
    first: usize,
}

impl Chat {
    /// Starts three gateways with these flags, and awaits that the crowd chats.
    pub async fn start(broker: &str, flags: &[&str]) -> Result<Self> {
        Self::at_rate(RATE, broker, flags).await
    }

    /// The same with another rate.
    pub async fn at_rate(rate: f64, broker: &str, flags: &[&str]) -> Result<Self> {
        let fleet = Processes::start(broker, GATEWAYS, flags).await?;
        let mut targets = fleet.targets()?;
        let load = Load::start(LoadConfig {
            targets: targets.clone(),
            connections: CLIENTS,
            rate: 200.0,
            rooms: RoomLayout::Count(CLIENTS / ROOM),
            publish_rate: rate,
            reconnect_window: Duration::from_secs(1),
            // longer than a busy machine pauses, and than a refused message waits
            grace: Duration::from_secs(15),
            retry: Duration::from_mins(2),
            ..LoadConfig::new(targets.remove(0))
        })?;
        let chat = Self {
            fleet,
            load,
            rate,
            first: 0,
        };
        chat.flows().await?;
        Ok(chat)
    }

    /// Awaits that all are there and chat.
    pub async fn flows(&self) -> Result<()> {
        until("all have joined", || self.load.joined() == u64::from(CLIENTS)).await?;
        self.acknowledged((self.rate * 3.0) as u64).await
    }

    /// Awaits that so many messages more are acknowledged.
    pub async fn acknowledged(&self, more: u64) -> Result<()> {
        let before = self.load.snapshot().publishes.acked;
        until("messages are acknowledged", || {
            self.load.snapshot().publishes.acked >= before + more
        })
        .await
    }

    /// Awaits that so many messages more are answered with a temporary error.
    pub async fn refused(&self, more: u64) -> Result<()> {
        let refusals = || self.load.snapshot().publishes.errored.values().sum::<u64>();
        let before = refusals();
        until("messages are refused", || refusals() >= before + more).await
    }

    /// A gateway is killed, and its clients find no other one: they are away until [`Chat::back`].
    pub async fn part_is_away(&mut self) -> Result<()> {
        self.load
            .set_targets(vec![self.fleet.targets()?.swap_remove(0)])?;
        self.fleet.strike(0)?;
        self.first = 1;
        until("some are away", || self.load.joined() < u64::from(CLIENTS)).await
    }

    /// Another gateway takes the place of the one that was killed.
    pub async fn back(&mut self) -> Result<()> {
        self.fleet.restore(0, &self.load).await?;
        self.first = 0;
        Ok(())
    }

    /// Awaits that every gateway that runs says whether it relies on its broker; tells how long that took.
    pub async fn relies(&self, relies: bool) -> Result<Duration> {
        let since = Instant::now();
        for gateway in &self.fleet.gateways()[self.first..] {
            until_async(&format!("a gateway relies on its broker: {relies}"), || async {
                let ready = Ask::get("/readyz").send(gateway.ports.admin).await?;
                Ok(ready.body.contains("broker_degraded") != relies)
            })
            .await?;
        }
        Ok(since.elapsed())
    }

    /// Ends the chat. Everything that was sent is acknowledged or refused then, and only those came back who were away.
    pub async fn end(self) -> Result<Report> {
        let report = self.load.stop().await;
        let publishes = &report.publishes;
        let refused: u64 = publishes.refused.values().sum();
        ensure!(
            publishes.sent == publishes.acked + refused,
            "messages have no answer: {report}"
        );
        ensure!(
            report.reconnects.total == report.verdict.cut,
            "somebody was sent away: {report}"
        );
        Ok(report)
    }
}

/// Offsets that this server has given out in all rooms.
pub async fn given_out(server: &RedisServer) -> Result<u64> {
    let mut connection = server.connection().await?;
    // a node of a cluster that is a replica would send us to its primary; others do not know the word
    let _: Result<(), _> = redis::cmd("READONLY").query_async(&mut connection).await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("wsfleet:0:room:*")
        .query_async(&mut connection)
        .await?;
    let mut sum = 0;
    for key in keys {
        let offset: u64 = redis::cmd("HGET")
            .arg(key)
            .arg("o")
            .query_async(&mut connection)
            .await?;
        sum += offset;
    }
    Ok(sum)
}

/// Nothing was missing, late, twice or out of order without a word. What was sent again after it had been taken back is not
/// twice.
pub fn nothing_was_silent(report: &Report) -> Result<()> {
    let counts = report.verdict.counts;
    let silent = counts.lost + counts.late + counts.out_of_order + counts.duplicated + counts.contradicted;
    ensure!(silent == 0, "{report}");
    let reasons: Vec<_> = report.reconnects.resumes.not_recovered.keys().collect();
    ensure!(
        reasons.iter().all(|reason| *reason == "epoch_changed"),
        "{reasons:?}: {report}"
    );
    Ok(())
}

/// What was offered, acknowledged and refused, and what became of it.
pub fn figures(what: &str, report: &Report) -> String {
    let (publishes, counts, reconnects) = (&report.publishes, report.verdict.counts, &report.reconnects);
    let resumes = &reconnects.resumes;
    format!(
        "{what}: {RATE} messages a second offered for {:.0} s, {} sent, {} acknowledged, {} refused for good, \
         {} temporary errors; {} of {} that were away recovered, {} were told epoch_changed; acknowledged and missing: \
         {} for those that stayed, {} for those that were away, all of them told; silently: {}",
        report.elapsed_seconds,
        publishes.sent,
        publishes.acked,
        publishes.refused.values().sum::<u64>(),
        publishes.errored.values().sum::<u64>(),
        resumes.recovered,
        reconnects.total,
        resumes.not_recovered.get("epoch_changed").unwrap_or(&0),
        counts.taken_back,
        reconnects.offline.taken_back,
        counts.lost + counts.late,
    )
}
