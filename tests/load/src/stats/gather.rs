//! Counters -> report.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Stats;
use super::report::{
    Deliveries, Handshakes, Offline, Publishes, Reconnects, Report, Resumes, RoomVerdict, Sockets, Verdict,
};
use crate::ledger::Ledger;

/// Rooms named in a verdict.
const WORST_ROOMS: usize = 10;

impl Report {
    /// `reconnects` has one number for each client that was ever joined; `measured` is when publishing ended.
    pub(crate) fn gather(
        stats: &Stats,
        ledger: &Ledger,
        target: u32,
        now: Duration,
        measured: Duration,
        reconnects: impl Iterator<Item = u32>,
    ) -> Self {
        Self {
            elapsed_seconds: (now.as_secs_f64() * 1000.0).round() / 1000.0,
            verdict: verdict(stats, ledger),
            sockets: Sockets {
                target: target.into(),
                connected: stats.open.get(),
                joined: stats.joined.get(),
                stopped: stats.stopped.get(),
                by_server: stats.servers.get(),
            },
            handshakes: Handshakes {
                accepted: stats.accepted.get(),
                refused: stats.refused.get(),
                latency_ms: stats.handshake.percentiles(),
                joined_ms: stats.join.percentiles(),
            },
            deliveries: deliveries(stats, measured),
            publishes: publishes(stats),
            closes: stats.closes.get(),
            reconnects: comings_back(stats, reconnects),
            errors: stats.errors.get(),
        }
    }
}

fn verdict(stats: &Stats, ledger: &Ledger) -> Verdict {
    let (counts, cut) = (ledger.counts(), stats.closes.cut());
    let worst = ledger.worst(WORST_ROOMS).into_iter();
    let rooms = worst.map(|(room, counts)| RoomVerdict { room, counts }).collect();
    Verdict {
        ok: counts.is_clean() && cut == 0,
        counts,
        cut,
        rooms,
    }
}

fn deliveries(stats: &Stats, measured: Duration) -> Deliveries {
    let last = *stats.last_second.lock();
    let total = stats.deliveries.get();
    Deliveries {
        total,
        per_second: last.deliveries.round(),
        mean_per_second: (total as f64 / measured.as_secs_f64().max(0.001)).round(),
        busiest_second: last.busiest_deliveries.round(),
        latency_ms: stats.delivery.percentiles(),
        announcements: stats.announcements.get(),
    }
}

fn publishes(stats: &Stats) -> Publishes {
    Publishes {
        sent: stats.published.get(),
        per_second: stats.last_second.lock().publishes.round(),
        acked: stats.acked.get(),
        acked_again: stats.acked_again.get(),
        sent_again: stats.sent_again.get(),
        errored: stats.publish_errors.get(),
        refused: stats.refused_publishes.get(),
        unconfirmed: stats.unconfirmed.get(),
        outstanding: stats.outstanding(),
        skipped: stats.skipped.get(),
        latency_ms: stats.ack.percentiles(),
    }
}

fn comings_back(stats: &Stats, per_client: impl Iterator<Item = u32>) -> Reconnects {
    let mut histogram = BTreeMap::<u32, u64>::new();
    for reconnects in per_client {
        *histogram.entry(reconnects).or_default() += 1;
    }
    let clients: u64 = histogram.values().sum();
    let total = stats.reconnects.get();
    Reconnects {
        total,
        mean_per_client: (total as f64 / clients.max(1) as f64 * 1000.0).round() / 1000.0,
        max_per_client: histogram.last_key_value().map_or(0, |(most, _)| *most),
        histogram,
        resumes: Resumes {
            recovered: stats.recovered.get(),
            messages: stats.recovered_messages.get(),
            not_recovered: stats.not_recovered.get(),
        },
        offline: Offline {
            ms: stats.offline.percentiles(),
            missed: stats.missed_offline.get(),
            taken_back: stats.taken_back_offline.get(),
            overlapped: stats.overlapped.get(),
        },
    }
}
