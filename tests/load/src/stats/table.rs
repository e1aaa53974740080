//! The report as a table, for people.

use std::collections::BTreeMap;
use std::fmt;

use super::closes::{Closes, Initiator};
use super::report::{Deliveries, Handshakes, Percentiles, Publishes, Reconnects, Report, Sockets, Verdict};
use crate::ledger::Counts;

/// Width of the first column.
const NAMES: usize = 16;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Rows(Vec::new());
        rows.add("run", format!("{:.1} s", self.elapsed_seconds));
        rows.sockets(&self.sockets);
        rows.handshakes(&self.handshakes);
        rows.publishes(&self.publishes);
        rows.deliveries(&self.deliveries);
        rows.closes(&self.closes);
        rows.reconnects(&self.reconnects);
        if !self.errors.is_empty() {
            rows.add("errors", list(&self.errors));
        }
        rows.verdict(&self.verdict);
        rows.0
            .iter()
            .try_for_each(|(name, text)| writeln!(f, "{name:<NAMES$}{text}"))
    }
}

struct Rows(Vec<(String, String)>);

impl Rows {
    fn add(&mut self, name: &str, text: String) {
        self.0.push((name.into(), text));
    }

    fn sockets(&mut self, sockets: &Sockets) {
        let Sockets {
            target,
            connected,
            joined,
            stopped,
            by_server,
        } = sockets;
        self.add(
            "clients",
            format!(
                "{joined} of {target} joined, {connected} sockets{}",
                also("stopped", stopped)
            ),
        );
        self.add(
            "servers",
            if by_server.is_empty() {
                "-".into()
            } else {
                list(by_server)
            },
        );
    }

    fn handshakes(&mut self, handshakes: &Handshakes) {
        self.add(
            "handshakes",
            format!(
                "{} accepted{}",
                handshakes.accepted,
                also("refused", &handshakes.refused)
            ),
        );
        self.add("  upgrade", handshakes.latency_ms.to_string());
        self.add("  joined", handshakes.joined_ms.to_string());
    }

    fn publishes(&mut self, publishes: &Publishes) {
        let Publishes {
            sent,
            acked,
            acked_again,
            sent_again,
            errored,
            refused,
            unconfirmed,
            outstanding,
            skipped,
            latency_ms,
            ..
        } = publishes;
        let errored = also("errored", errored);
        let text = format!(
            "{sent} sent, {acked} acked, {unconfirmed} unconfirmed, {skipped} skipped{}{errored}",
            also("refused", refused)
        );
        self.add("publishes", text);
        if sent_again + outstanding > 0 {
            let accepted = format!("{acked_again} had been accepted");
            let text = format!("{sent_again} ({accepted}), {outstanding} without an answer yet");
            self.add("  again", text);
        }
        self.add("  ack", latency_ms.to_string());
    }

    fn deliveries(&mut self, deliveries: &Deliveries) {
        let Deliveries {
            total,
            mean_per_second,
            busiest_second,
            latency_ms,
            announcements,
            ..
        } = deliveries;
        let rates = format!("{mean_per_second:.0}/s mean, {busiest_second:.0}/s busiest");
        self.add(
            "deliveries",
            format!("{total} ({rates}), {announcements} announcements"),
        );
        self.add("  latency", latency_ms.to_string());
    }

    fn closes(&mut self, closes: &Closes) {
        for close in &closes.by_code {
            let by = match close.initiator {
                Initiator::Server => "by the server",
                Initiator::Client => "by the client",
                Initiator::None => "by nobody: cut",
            };
            let text = format!(
                "{} {by}, {} in the busiest second",
                close.count, close.busiest_second
            );
            self.add(&format!("closes {}", close.code), text);
        }
    }

    fn reconnects(&mut self, reconnects: &Reconnects) {
        let Reconnects {
            total,
            mean_per_client,
            max_per_client,
            histogram,
            resumes,
            offline,
        } = reconnects;
        let spread = histogram
            .iter()
            .map(|(times, clients)| (format!("{times}x"), *clients))
            .collect();
        let per_client = format!("{mean_per_client:.2} per client, at most {max_per_client}");
        self.add(
            "reconnects",
            format!("{total} ({per_client}){}", also("clients", &spread)),
        );
        if resumes.recovered > 0 || !resumes.not_recovered.is_empty() {
            let text = format!(
                "{:.2} %: {} recovered with {} messages{}",
                resumes.share() * 100.0,
                resumes.recovered,
                resumes.messages,
                also("not recovered", &resumes.not_recovered)
            );
            self.add("  resumed", text);
        }
        self.add("  offline", offline.ms.to_string());
        self.add(
            "  between",
            format!(
                "{} messages missed, {} taken back, {} came twice",
                offline.missed, offline.taken_back, offline.overlapped
            ),
        );
    }

    fn verdict(&mut self, verdict: &Verdict) {
        for room in &verdict.rooms {
            self.add(&format!("  {}", room.room), counts(&room.counts));
        }
        let word = if verdict.ok { "ok" } else { "NOT OK" };
        self.add(
            "verdict",
            format!("{word}: {}, {} cut", counts(&verdict.counts), verdict.cut),
        );
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("-");
        }
        write!(
            f,
            "p50 {:.1}, p99 {:.1}, max {:.1} ms",
            self.p50, self.p99, self.max
        )
    }
}

fn counts(counts: &Counts) -> String {
    let Counts {
        lost,
        late,
        duplicated,
        out_of_order,
        repeated,
        contradicted,
        gapped,
        taken_back,
        epoch_changes: _,
    } = counts;
    let always = format!("{lost} lost, {late} late, {duplicated} duplicated, {out_of_order} out of order");
    let seldom = [
        (repeated, "twice in their room"),
        (contradicted, "contradicted"),
        (gapped, "told to be missing"),
        (taken_back, "taken back"),
    ];
    let seldom = seldom.into_iter().filter(|(count, _)| **count > 0);
    let seldom = seldom.map(|(count, what)| format!("{count} {what}"));
    std::iter::once(always)
        .chain(seldom)
        .collect::<Vec<_>>()
        .join(", ")
}

fn list(map: &BTreeMap<String, u64>) -> String {
    map.iter()
        .map(|(name, count)| format!("{name}: {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn also(what: &str, map: &BTreeMap<String, u64>) -> String {
    if map.is_empty() {
        String::new()
    } else {
        format!("; {what} {}", list(map))
    }
}
