//! Everything that is counted in a run, and the [`Report`] made of it. Counters are atomics; histograms and maps are
//! touched once per read of a socket, not once per message.

mod closes;
mod gather;
mod report;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

pub use closes::{CloseCount, Closes, Initiator, SecondCloses};
pub use report::{
    Deliveries, Handshakes, Offline, Percentiles, Publishes, Reconnects, Report, Resumes, RoomVerdict,
    Sockets, Verdict,
};

pub(crate) use closes::CloseLog;

/// Latencies in microseconds, up to one hour, three digits.
#[derive(Debug)]
pub(crate) struct Latencies(Mutex<Histogram<u64>>);

const LONGEST: u64 = 3_600_000_000;

impl Latencies {
    fn new() -> Option<Self> {
        Histogram::new_with_bounds(1, LONGEST, 3)
            .ok()
            .map(|histogram| Self(Mutex::new(histogram)))
    }

    pub(crate) fn record(&self, latency: Duration) {
        self.record_all(&[latency.as_micros() as u64]);
    }

    pub(crate) fn record_all(&self, micros: &[u64]) {
        let mut histogram = self.0.lock();
        for value in micros {
            histogram.saturating_record((*value).max(1));
        }
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let histogram = self.0.lock();
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        if histogram.is_empty() {
            return Percentiles::default();
        }
        Percentiles {
            count: histogram.len(),
            mean: (histogram.mean() / 10.0).round() / 100.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

/// A bounded map of labels to counts; what comes after the bound is counted as `other`.
#[derive(Debug, Default)]
pub(crate) struct Labels(Mutex<BTreeMap<String, u64>>);

const MOST_LABELS: usize = 100;

impl Labels {
    pub(crate) fn add(&self, label: &str) {
        let mut map = self.0.lock();
        if let Some(count) = map.get_mut(label) {
            *count += 1;
        } else {
            let label = if map.len() < MOST_LABELS { label } else { "other" };
            *map.entry(label.into()).or_default() += 1;
        }
    }

    pub(crate) fn get(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.lock().values().sum()
    }
}

/// Open sockets by the `serverId` of their `welcome`.
#[derive(Debug, Default)]
pub(crate) struct Servers(Mutex<BTreeMap<Arc<str>, u64>>);

impl Servers {
    /// Counts one socket; the text returned is what [`Servers::closed`] wants.
    pub(crate) fn opened(&self, server: &str) -> Arc<str> {
        let mut map = self.0.lock();
        let name = map
            .get_key_value(server)
            .map_or_else(|| Arc::from(server), |(name, _)| Arc::clone(name));
        *map.entry(Arc::clone(&name)).or_default() += 1;
        name
    }

    pub(crate) fn closed(&self, server: &Arc<str>) {
        let mut map = self.0.lock();
        if let Some(count) = map.get_mut(server) {
            *count -= 1;
            if *count == 0 {
                map.remove(server);
            }
        }
    }

    pub(crate) fn get(&self) -> BTreeMap<String, u64> {
        self.0
            .lock()
            .iter()
            .map(|(name, count)| (name.to_string(), *count))
            .collect()
    }
}

/// A number that goes up, or up and down.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// All counters of a run.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Sockets that have been upgraded and not ended.
    pub(crate) open: Count,
    /// Clients with at least one socket joined to all of its rooms.
    pub(crate) joined: Count,
    pub(crate) accepted: Count,
    pub(crate) refused: Labels,
    pub(crate) stopped: Labels,
    pub(crate) handshake: Latencies,
    pub(crate) join: Latencies,
    pub(crate) servers: Servers,
    pub(crate) deliveries: Count,
    pub(crate) announcements: Count,
    pub(crate) delivery: Latencies,
    pub(crate) published: Count,
    pub(crate) acked: Count,
    /// Acknowledged, and accepted when they had been sent before.
    pub(crate) acked_again: Count,
    pub(crate) sent_again: Count,
    pub(crate) unconfirmed: Count,
    pub(crate) refused_publishes: Labels,
    pub(crate) skipped: Count,
    pub(crate) publish_errors: Labels,
    pub(crate) ack: Latencies,
    pub(crate) errors: Labels,
    pub(crate) closes: CloseLog,
    pub(crate) reconnects: Count,
    pub(crate) offline: Latencies,
    /// Rooms that clients came back to, and messages that were given to them.
    pub(crate) recovered: Count,
    pub(crate) recovered_messages: Count,
    pub(crate) not_recovered: Labels,
    pub(crate) missed_offline: Count,
    pub(crate) taken_back_offline: Count,
    pub(crate) overlapped: Count,
    /// Deliveries and publishes of the last full second.
    pub(crate) last_second: Mutex<LastSecond>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastSecond {
    pub(crate) deliveries: f64,
    pub(crate) publishes: f64,
    pub(crate) busiest_deliveries: f64,
}

impl Stats {
    /// `None` only if the histograms' bounds were wrong.
    pub(crate) fn new() -> Option<Self> {
        Some(Self {
            open: Count::default(),
            joined: Count::default(),
            accepted: Count::default(),
            refused: Labels::default(),
            stopped: Labels::default(),
            handshake: Latencies::new()?,
            join: Latencies::new()?,
            servers: Servers::default(),
            deliveries: Count::default(),
            announcements: Count::default(),
            delivery: Latencies::new()?,
            published: Count::default(),
            acked: Count::default(),
            acked_again: Count::default(),
            sent_again: Count::default(),
            unconfirmed: Count::default(),
            refused_publishes: Labels::default(),
            skipped: Count::default(),
            publish_errors: Labels::default(),
            ack: Latencies::new()?,
            errors: Labels::default(),
            closes: CloseLog::default(),
            reconnects: Count::default(),
            offline: Latencies::new()?,
            recovered: Count::default(),
            recovered_messages: Count::default(),
            not_recovered: Labels::default(),
            missed_offline: Count::default(),
            taken_back_offline: Count::default(),
            overlapped: Count::default(),
            last_second: Mutex::default(),
        })
    }

    /// A client came back to a room, and was given so many messages.
    pub(crate) fn recovered(&self, messages: u64) {
        self.recovered.add(1);
        self.recovered_messages.add(messages);
    }

    /// Messages that were sent and are neither acknowledged nor given up.
    pub(crate) fn outstanding(&self) -> u64 {
        let settled = self.acked.get() + self.unconfirmed.get() + self.refused_publishes.sum();
        self.published.get().saturating_sub(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds_and_right_to_three_digits() {
        let latencies = Latencies::new().unwrap();
        latencies.record_all(&(1..=1000).map(|n| n * 1000).collect::<Vec<u64>>());
        let percentiles = latencies.percentiles();
        assert_eq!(percentiles.count, 1000);
        for (value, expected) in [
            (percentiles.p50, 500.0),
            (percentiles.p90, 900.0),
            (percentiles.p99, 990.0),
            (percentiles.p999, 999.0),
            (percentiles.max, 1000.0),
            (percentiles.mean, 500.5),
        ] {
            assert!(
                (value - expected).abs() <= expected * 0.002,
                "{value} for {expected}"
            );
        }
    }

    #[test]
    fn percentiles_of_nothing_are_zero_and_extremes_are_kept() {
        let latencies = Latencies::new().unwrap();
        assert_eq!(latencies.percentiles(), Percentiles::default());
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(100_000));
        assert_eq!(latencies.percentiles().count, 2);
    }

    #[test]
    fn labels_are_bounded() {
        let labels = Labels::default();
        for n in 0..1000 {
            labels.add(&n.to_string());
        }
        let map = labels.get();
        assert_eq!(map.len(), MOST_LABELS + 1);
        assert_eq!(map["other"], 900);
    }

    #[test]
    fn servers_without_sockets_are_forgotten() {
        let servers = Servers::default();
        let a = servers.opened("a");
        servers.opened("b");
        servers.closed(&a);
        assert_eq!(servers.get(), BTreeMap::from([("b".to_owned(), 1)]));
    }
}
