//! What the demo ends with: tables, a verdict, what to try next.

use std::collections::BTreeMap;
use std::time::Duration;

use wsfleet_load::{Initiator, Report};

use crate::console::{Table, say, thousands};
use crate::fleet::PodRecord;
use crate::view::Moment;

/// One part of the demo that was reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    /// What happened.
    pub(crate) name: &'static str,
    /// How long it took.
    pub(crate) took: Duration,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Parts that ended as they should.
    pub(crate) stages: Vec<Stage>,
    /// The fleet, second by second.
    pub(crate) moments: Vec<Moment>,
    /// Every gateway that there was.
    pub(crate) pods: BTreeMap<String, PodRecord>,
    /// What the clients noticed.
    pub(crate) clients: Option<Report>,
    /// How often a client had to reconnect in the rollout, on average.
    pub(crate) moved_per_client: Option<f64>,
    /// Parts that did not end as they should.
    pub(crate) failures: Vec<String>,
}

impl Outcome {
    /// Prints everything; `true` when nothing was lost or cut and every part ended as it should.
    pub(crate) fn tell(&self) -> bool {
        say("");
        for table in [self.over_time(), self.gateways(), self.noticed()] {
            say(&table.render());
            say("");
        }
        let faults = self.faults();
        for stage in &self.stages {
            say(&format!("✓ {} ({} s)", stage.name, stage.took.as_secs()));
        }
        if let Some(moved) = self.moved_per_client {
            say(&format!("✓ {moved:.2} reconnects per client in the rollout"));
        }
        for fault in &faults {
            say(&format!("✗ {fault}"));
        }
        if faults.is_empty() {
            say("✓ nothing was lost, nothing was cut");
        }
        faults.is_empty()
    }

    /// What makes the demo fail.
    fn faults(&self) -> Vec<String> {
        let mut faults = self.failures.clone();
        if let Some(report) = &self.clients {
            let counts = report.verdict.counts;
            let missing = report.sockets.target.saturating_sub(report.sockets.joined);
            let counted = [
                (counts.lost, "messages were lost"),
                (counts.late, "messages arrived late"),
                (counts.duplicated, "messages arrived twice"),
                (counts.out_of_order, "messages arrived out of order"),
                (counts.repeated, "messages were in their room twice"),
                (
                    counts.contradicted,
                    "messages were told with the place of another",
                ),
                (counts.gapped, "messages were told to be missing"),
                (report.verdict.cut, "sockets were cut without a close code"),
                (missing, "clients were not connected at the end"),
            ];
            let bad = counted.into_iter().filter(|(count, _)| *count > 0);
            faults.extend(bad.map(|(count, what)| format!("{count} {what}")));
        }
        let cut = self.pods.iter().filter(|(_, pod)| pod.cut_short());
        faults.extend(cut.map(|(name, _)| format!("gateway {name} was deleted before its drain had ended")));
        faults
    }

    /// The fleet whenever the number of pods changed, and at least every 20 seconds.
    fn over_time(&self) -> Table {
        let head = ["time", "pods", "ready", "accepting", "leaving", "clients", ""];
        let mut table = Table::new("Gateways over time", &head);
        let mut last: Option<Moment> = None;
        for moment in &self.moments {
            let changed = last.is_none_or(|last| last.counts.pods != moment.counts.pods);
            let due = last.is_none_or(|last| moment.at.saturating_sub(last.at) >= Duration::from_secs(20));
            if !changed && !due {
                continue;
            }
            last = Some(*moment);
            table.row(vec![
                clock(moment.at),
                moment.counts.pods.to_string(),
                moment.counts.ready.to_string(),
                moment.counts.accepting.to_string(),
                moment.counts.leaving.to_string(),
                thousands(moment.clients),
                "▪".repeat(moment.counts.pods as usize),
            ]);
        }
        table
    }

    fn gateways(&self) -> Table {
        let head = [
            "gateway",
            "revision",
            "ready after",
            "left because of",
            "sockets then",
            "drained in",
        ];
        let mut table = Table::new("Gateways", &head);
        let seconds = |value: Option<i64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value} s"));
        let mut pods: Vec<_> = self.pods.iter().collect();
        pods.sort_by_key(|(name, pod)| (pod.created, name.to_owned()));
        for (name, pod) in pods {
            let started = pod
                .created
                .zip(pod.ready)
                .map(|(from, to)| to.as_second() - from.as_second());
            table.row(vec![
                name.clone(),
                pod.revision.clone(),
                seconds(started),
                pod.reason.clone().unwrap_or_default(),
                pod.initial.map_or_else(|| "–".to_owned(), thousands),
                seconds(pod.drain_seconds()),
            ]);
        }
        table
    }

    fn noticed(&self) -> Table {
        let mut table = Table::new("What the clients noticed", &["", ""]);
        let Some(report) = &self.clients else { return table };
        let mut line = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
        let (counts, reconnects) = (report.verdict.counts, &report.reconnects);
        let latency = report.deliveries.latency_ms;
        line("sockets opened", thousands(report.handshakes.accepted));
        line("messages acknowledged", thousands(report.publishes.acked));
        line("deliveries", thousands(report.deliveries.total));
        line(
            "latency p50, p99",
            format!("{:.1} ms, {:.1} ms", latency.p50, latency.p99),
        );
        line("messages lost", counts.lost.to_string());
        line(
            "twice, out of order",
            format!("{}, {}", counts.duplicated, counts.out_of_order),
        );
        line("sockets cut without a code", report.verdict.cut.to_string());
        line("sockets closed by gateways", closes(report));
        line(
            "closes in the busiest second",
            report.closes.busiest_second.to_string(),
        );
        line(
            "reconnects per client",
            format!(
                "{:.2}, at most {}",
                reconnects.mean_per_client, reconnects.max_per_client
            ),
        );
        line(
            "away while moving, p50, p99",
            format!(
                "{:.0} ms, {:.0} ms",
                reconnects.offline.ms.p50, reconnects.offline.ms.p99
            ),
        );
        line(
            "came back to where they were",
            format!(
                "{:.2} %, with {} messages",
                reconnects.resumes.share() * 100.0,
                thousands(reconnects.resumes.messages)
            ),
        );
        line("missed while away", thousands(reconnects.offline.missed));
        table
    }
}

/// Closes that the clients did not begin, by code.
fn closes(report: &Report) -> String {
    let kinds = report
        .closes
        .by_code
        .iter()
        .filter(|kind| kind.initiator != Initiator::Client);
    let texts: Vec<String> = kinds
        .map(|kind| format!("{} × {}", thousands(kind.count), kind.code))
        .collect();
    if texts.is_empty() {
        "–".to_owned()
    } else {
        texts.join(", ")
    }
}

fn clock(at: Duration) -> String {
    format!("{:02}:{:02}", at.as_secs() / 60, at.as_secs() % 60)
}
