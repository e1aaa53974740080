//! What is measured. Each workload starts its server anew, opens its clients, and gives numbers back.

mod backend;
mod comeback;
mod deploy;
mod drain;
mod fanout;
mod latency;
mod memory;
mod redis;
mod resubscribe;
mod stalled;
mod writes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::adapter::tokens;
use crate::crowd::{Crowd, Plan};
use crate::server::{Flags, LOSSY_ROOMS, Running, Server, Site};

/// Numbers of one run, by what they are.
pub(crate) type Values = BTreeMap<String, f64>;

/// In the order in which they run and are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    Memory,
    Fanout,
    Burst,
    Writes,
    Latency,
    Neighbours,
    Storm,
    Deploy,
    Drain,
    Stalled,
    Dropping,
    BackendRoom,
    BackendRooms,
    Resubscribe,
    Comeback,
}

impl Workload {
    /// Whether it is run in every round: what is counted, not timed, comes out the same each time.
    pub(crate) const fn is_timed(self) -> bool {
        matches!(
            self,
            Self::Fanout
                | Self::Burst
                | Self::Latency
                | Self::Neighbours
                | Self::Storm
                | Self::BackendRoom
                | Self::BackendRooms
        )
    }

    /// Whether it is run in the further rounds of the floor and the gateway: what is judged by a few hundredths.
    pub(crate) const fn is_close(self) -> bool {
        matches!(
            self,
            Self::Fanout | Self::Burst | Self::Latency | Self::Storm | Self::Stalled
        )
    }

    /// Whether it is run when none was named: whole fleets are `make bench-fleet` and `make bench-storm`.
    pub(crate) const fn is_usual(self) -> bool {
        !matches!(
            self,
            Self::BackendRoom | Self::BackendRooms | Self::Resubscribe | Self::Comeback
        )
    }

    /// Whether it means anything for this server.
    pub(crate) fn is_for(self, server: Server) -> bool {
        match self {
            // a member that does not read stops the floor's room
            Self::Stalled => server != Server::Floor,
            Self::Drain | Self::Dropping | Self::Resubscribe | Self::Comeback => server == Server::Gateway,
            Self::BackendRoom | Self::BackendRooms => matches!(server, Server::Gateway | Server::SocketIo),
            _ => true,
        }
    }
}

/// How much of everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) rounds: u32,
    /// Further rounds, of the floor and the gateway by themselves.
    pub(crate) pairs: u32,
    /// Idle sockets whose memory is measured.
    pub(crate) idle: usize,
    /// Members of the big room, sockets of the storm and of the deploy.
    pub(crate) crowd: usize,
    /// Members of the room that gets bursts, and that latency is measured in.
    pub(crate) room: usize,
    /// Messages of a burst.
    pub(crate) burst: u32,
    /// Bursts while system calls are counted.
    pub(crate) counted_bursts: u32,
    /// Seconds of fan-out and of bursts.
    pub(crate) seconds: f64,
    /// Seconds of messages at a fixed rate.
    pub(crate) latency_seconds: f64,
    /// Seconds without the big room's messages, and as many with them.
    pub(crate) neighbour_seconds: f64,
    /// Seconds that resident memory must not change for.
    pub(crate) settle_seconds: u32,
    /// Seconds over which the gateway spreads its closes in a deploy that is compared with others'.
    pub(crate) drain_window: u32,
    /// The same, as it is by default.
    pub(crate) usual_window: u32,
    /// Members that do not read, and those that do.
    pub(crate) stalled: usize,
    pub(crate) healthy: usize,
    /// Seconds of messages without the stalled members, and as many with them.
    pub(crate) stalled_seconds: f64,
    /// Rooms of one gateway.
    pub(crate) rooms: usize,
    /// Clients of a fleet that come back.
    pub(crate) comeback: usize,
    /// Upgrades per second of one gateway meanwhile.
    pub(crate) handshakes: u32,
}

impl Scale {
    /// As in docs/benchmarks.md.
    pub(crate) const fn full() -> Self {
        Self {
            rounds: 3,
            pairs: 8,
            idle: 18_000,
            crowd: 10_000,
            room: 1_000,
            burst: 100,
            counted_bursts: 1,
            seconds: 4.0,
            latency_seconds: 8.0,
            neighbour_seconds: 6.0,
            settle_seconds: 3,
            drain_window: 10,
            usual_window: 60,
            stalled: 1_000,
            healthy: 100,
            stalled_seconds: 6.0,
            rooms: 100_000,
            comeback: 50_000,
            handshakes: 400,
        }
    }

    /// Small numbers: whether everything works, not how fast.
    pub(crate) const fn quick() -> Self {
        Self {
            rounds: 1,
            pairs: 0,
            idle: 200,
            crowd: 200,
            room: 20,
            burst: 100,
            counted_bursts: 2,
            seconds: 0.2,
            latency_seconds: 0.3,
            neighbour_seconds: 1.1,
            settle_seconds: 1,
            drain_window: 2,
            usual_window: 4,
            stalled: 20,
            healthy: 5,
            stalled_seconds: 3.0,
            rooms: 2_000,
            comeback: 3_000,
            handshakes: 400,
        }
    }
}

impl Scale {
    /// The most that are open at once.
    pub(crate) fn most_sockets(&self) -> usize {
        self.idle
            .max(self.crowd + latency::SMALL_ROOMS * latency::SMALL_ROOM)
    }
}

/// Bytes of a small message.
const SMALL: usize = 100;
/// Members of a room that is like most rooms.
const USUAL_ROOM: usize = 100;

/// One workload against one server.
pub(crate) struct Run<'a> {
    pub(crate) site: &'a Site,
    pub(crate) scale: &'a Scale,
    pub(crate) server: Server,
    pub(crate) secret: &'a [u8],
}

impl Run<'_> {
    pub(crate) fn run(&self, workload: Workload) -> Result<Values> {
        match workload {
            Workload::Drain => return drain::run(self),
            Workload::Stalled => return stalled::run(self, "full-"),
            Workload::Dropping => return stalled::run(self, LOSSY_ROOMS),
            Workload::BackendRoom => return backend::room(self),
            Workload::BackendRooms => return backend::rooms(self),
            Workload::Resubscribe => return resubscribe::run(self),
            Workload::Comeback => return comeback::run(self),
            _ => {}
        }
        let mut running = self.start()?;
        let values = match workload {
            Workload::Fanout => fanout::run(self, &running, self.scale.crowd, 1),
            Workload::Burst => fanout::run(self, &running, self.scale.room, self.scale.burst),
            Workload::Writes => writes::run(self, &running),
            Workload::Latency => latency::run(self, &running),
            Workload::Neighbours => latency::neighbours(self, &running),
            Workload::Storm => self.storm(&running),
            Workload::Deploy => deploy::run(self, &mut running),
            _ => memory::run(self, &running),
        };
        values.map_err(|error| blame(&running, error))
    }

    /// Starts the server.
    fn start(&self) -> Result<Running> {
        let flags = Flags {
            drain_window: self.scale.drain_window,
            ..Flags::default()
        };
        self.site.start(self.server, &flags)
    }

    fn open(
        &self,
        running: &Running,
        members: usize,
        rooms: &'static str,
        room_size: usize,
    ) -> Result<(Crowd, Duration)> {
        self.open_with(running, members, rooms, room_size, None)
    }

    /// As `open`, with the kernel's receive buffer of each client.
    fn open_with(
        &self,
        running: &Running,
        members: usize,
        rooms: &'static str,
        room_size: usize,
        receive_buffer: Option<usize>,
    ) -> Result<(Crowd, Duration)> {
        self.open_at(&[running.address], members, rooms, room_size, receive_buffer)
    }

    /// As `open_with`, spread over several servers.
    fn open_at(
        &self,
        addresses: &[SocketAddr],
        members: usize,
        rooms: &'static str,
        room_size: usize,
        receive_buffer: Option<usize>,
    ) -> Result<(Crowd, Duration)> {
        let protocol = self.server.protocol();
        let tokens = if protocol.needs_token() {
            tokens(self.secret, members)?
        } else {
            vec![String::new(); members]
        };
        Crowd::open(&Plan {
            protocol,
            addresses,
            rooms,
            room_size,
            tokens: &tokens,
            receive_buffer,
        })
    }

    /// Connects all at once, 500 of them under way at a time.
    fn storm(&self, running: &Running) -> Result<Values> {
        let members = self.scale.crowd;
        let (mut crowd, took) = self.open(running, members, "storm-", USUAL_ROOM)?;
        let mut values = percentiles("", &crowd.take_latency()?);
        values.insert("connects_per_second".into(), members as f64 / took.as_secs_f64());
        Ok(values)
    }
}

/// What the server has said goes with the error.
fn blame(running: &Running, error: anyhow::Error) -> anyhow::Error {
    let said = running.said();
    if said.is_empty() {
        error
    } else {
        error.context(format!("the server said: {said}"))
    }
}

/// Median and 99th percentile of microseconds, in milliseconds.
fn percentiles(prefix: &str, latency: &Histogram<u64>) -> Values {
    let at = |name: &str, quantile| {
        let milliseconds = latency.value_at_quantile(quantile) as f64 / 1000.0;
        (format!("{prefix}{name}_ms"), milliseconds)
    };
    Values::from([at("p50", 0.5), at("p99", 0.99)])
}
