//! The result of a run, or its state so far: the JSON of `--json` and of `GET /snapshot`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::closes::Closes;
use crate::ledger::Counts;

/// A run's numbers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Seconds since the run began.
    pub elapsed_seconds: f64,
    /// Whether anything went wrong that must not.
    pub verdict: Verdict,
    /// Sockets now (at the end: before this tool closed them).
    pub sockets: Sockets,
    /// Upgrades.
    pub handshakes: Handshakes,
    /// Messages that arrived.
    pub deliveries: Deliveries,
    /// Messages that were sent.
    pub publishes: Publishes,
    /// Ends of sockets.
    pub closes: Closes,
    /// Comings back of clients.
    pub reconnects: Reconnects,
    /// `error` messages that did not answer a publish, by code.
    pub errors: BTreeMap<String, u64>,
}

/// Whether anything went wrong that must not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Nothing was lost, late, duplicated, out of order or cut.
    pub ok: bool,
    /// Messages times members, over all rooms.
    #[serde(flatten)]
    pub counts: Counts,
    /// Sockets that ended without a close frame (1006).
    pub cut: u64,
    /// Rooms in which something went wrong, the worst first, at most ten.
    pub rooms: Vec<RoomVerdict>,
}

/// What went wrong in one room.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomVerdict {
    /// Its name.
    pub room: String,
    /// Messages times members.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Sockets and clients now.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sockets {
    /// Clients wanted.
    pub target: u64,
    /// Open sockets; more than clients while some hold an old and a new one.
    pub connected: u64,
    /// Clients joined to all of their rooms.
    pub joined: u64,
    /// Clients that will not come back, by reason.
    pub stopped: BTreeMap<String, u64>,
    /// Open sockets by the server's `serverId`.
    pub by_server: BTreeMap<String, u64>,
}

/// Upgrades.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handshakes {
    /// Answered with 101.
    pub accepted: u64,
    /// Others, by HTTP status or by what failed.
    pub refused: BTreeMap<String, u64>,
    /// From the start of the TCP connect to the 101, in milliseconds.
    pub latency_ms: Percentiles,
    /// From the start of the TCP connect until joined to all rooms, in milliseconds.
    pub joined_ms: Percentiles,
}

/// Messages that arrived.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deliveries {
    /// Room messages, times sockets.
    pub total: u64,
    /// In the last full second.
    pub per_second: f64,
    /// Over the whole run.
    pub mean_per_second: f64,
    /// In the busiest second.
    pub busiest_second: f64,
    /// From the publisher's write to the member's read, in milliseconds; this run's own messages only.
    pub latency_ms: Percentiles,
    /// `user_joined` and `user_left`, times sockets.
    pub announcements: u64,
}

/// Messages that were sent.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Publishes {
    /// Written to a socket; each message once.
    pub sent: u64,
    /// In the last full second.
    pub per_second: f64,
    /// Acknowledged; each message once.
    pub acked: u64,
    /// Of these, those that had been accepted before they were sent again (`duplicate: true`).
    pub acked_again: u64,
    /// Written to a socket again.
    pub sent_again: u64,
    /// Answers that were an error, by code; after a temporary one the message is sent again.
    pub errored: BTreeMap<String, u64>,
    /// Messages that were refused for good, by the code of the last answer.
    pub refused: BTreeMap<String, u64>,
    /// Messages that were not answered: they may have been accepted or not.
    pub unconfirmed: u64,
    /// Messages on which nothing of this has been decided yet.
    pub outstanding: u64,
    /// Not sent: no client was joined, or its socket did not take more.
    pub skipped: u64,
    /// From the write to the acknowledgement, in milliseconds.
    pub latency_ms: Percentiles,
}

/// Comings back of clients.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconnects {
    /// Clients joined again.
    pub total: u64,
    /// Per client that was ever joined.
    pub mean_per_client: f64,
    /// Of the client with the most.
    pub max_per_client: u32,
    /// Number of reconnects -> clients.
    pub histogram: BTreeMap<u32, u64>,
    /// What they were given of the past.
    pub resumes: Resumes,
    /// Times without a joined socket.
    pub offline: Offline,
}

/// What clients were told that came back and said where they were. Each of a client's rooms counts.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resumes {
    /// `recovered: true`.
    pub recovered: u64,
    /// Messages that came with it.
    pub messages: u64,
    /// `recovered: false`, by reason.
    pub not_recovered: BTreeMap<String, u64>,
}

impl Resumes {
    /// Those that were recovered, of all; 1 without any.
    pub fn share(&self) -> f64 {
        let all = self.recovered + self.not_recovered.values().sum::<u64>();
        if all == 0 {
            1.0
        } else {
            self.recovered as f64 / all as f64
        }
    }
}

/// Times that clients spent without a joined socket, and what that cost.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offline {
    /// How long, in milliseconds; clients that are still away are not in it.
    pub ms: Percentiles,
    /// Messages that came on neither the old nor the new socket. No loss by the verdict's definition: the client did not ask
    /// for them, or was told `recovered: false`.
    pub missed: u64,
    /// Messages that had been acknowledged in an epoch that was over when the client came back: it was told so with
    /// `epoch_changed`.
    pub taken_back: u64,
    /// Messages that came on both.
    pub overlapped: u64,
}

/// A distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// Values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

impl Report {
    /// The exit status that says how it went: 0, or 3 when something was lost, late, duplicated, out of order or cut.
    pub const fn exit_code(&self) -> u8 {
        if self.verdict.ok { 0 } else { 3 }
    }

    /// Closes with this code that this tool did not begin.
    pub fn closed_with(&self, code: u16) -> u64 {
        let kinds = self.closes.by_code.iter();
        kinds
            .filter(|c| c.code == code && c.initiator != super::Initiator::Client)
            .map(|c| c.count)
            .sum()
    }
}
