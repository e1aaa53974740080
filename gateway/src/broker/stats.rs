//! What happened on the links, as metrics.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};

use super::table::Seen;

/// Metrics of one broker; they are counted whether or not they are registered anywhere.
#[derive(Debug)]
pub struct Stats {
    /// Command links made.
    pub command_links: IntCounter,
    /// Subscription links made.
    pub subscription_links: IntCounter,
    /// Probes published on new and on silent subscription links.
    pub probes: IntCounter,
    /// Probes not seen in time: each cost a link.
    pub probes_missed: IntCounter,
    /// From a probe's publication to its arrival.
    pub probe_seconds: Histogram,
    /// Resubscription of everything after a reconnect, proof included.
    pub resubscribe_seconds: Histogram,
    /// Holes in what was delivered, by what came of reading them.
    pub repairs: IntCounterVec,
    /// Offsets of subscribed streams that did not come by the link; those of them that can be are read.
    pub missed: IntCounter,
    /// Deliveries dropped because their offset had been delivered.
    pub duplicates: IntCounter,
    /// Streams seen to begin a new epoch.
    pub epoch_changes: IntCounter,
    /// Payloads on our channels that are not ours.
    pub undecodable: IntCounter,
    /// Times that deliveries piled up beyond bounds: each cost a link.
    pub overflows: IntCounter,
    /// Members that were told of again, because the broker may have missed or lost them.
    pub presence_restored: IntCounter,
    /// Ended gateways whose members this one has cleared away.
    pub presence_cleared: IntCounter,
    /// Messages that no replica had in time, where one is to have them.
    pub unreplicated: IntCounter,
    /// Rooms and users subscribed to.
    pub subscriptions: IntGauge,
}

impl Stats {
    /// Fails only when a name is malformed.
    pub(in crate::broker) fn new() -> prometheus::Result<Self> {
        let counter = |name, help| IntCounter::new(name, help);
        let seconds = |name, help| {
            let buckets = vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0];
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
        };
        Ok(Self {
            command_links: counter("ws_broker_command_links_total", "Command links made.")?,
            subscription_links: counter("ws_broker_subscription_links_total", "Subscription links made.")?,
            probes: counter("ws_broker_probes_total", "Probes published.")?,
            probes_missed: counter(
                "ws_broker_probes_missed_total",
                "Probes that did not arrive in time.",
            )?,
            probe_seconds: seconds(
                "ws_broker_probe_seconds",
                "From a probe's publication to its arrival.",
            )?,
            resubscribe_seconds: seconds(
                "ws_broker_resubscribe_seconds",
                "Resubscription of everything after a reconnect.",
            )?,
            repairs: IntCounterVec::new(
                Opts::new(
                    "ws_gap_repairs_total",
                    "Holes in streams, filled or told as a gap.",
                ),
                &["result"],
            )?,
            missed: counter(
                "ws_broker_missed_total",
                "Messages of subscribed streams that did not come by themselves.",
            )?,
            duplicates: counter(
                "ws_broker_duplicates_total",
                "Messages that came twice and were dropped.",
            )?,
            epoch_changes: counter("ws_broker_epoch_changes_total", "Streams seen to begin anew.")?,
            undecodable: counter("ws_broker_undecodable_total", "Payloads that are not ours.")?,
            overflows: counter(
                "ws_broker_overflows_total",
                "Links given up because messages piled up.",
            )?,
            presence_restored: counter(
                "ws_presence_restored_total",
                "Members of rooms that the broker was told of again.",
            )?,
            presence_cleared: counter(
                "ws_presence_cleared_total",
                "Ended gateways whose members were cleared away.",
            )?,
            unreplicated: counter(
                "ws_broker_unreplicated_total",
                "Messages not acknowledged because no replica had them in time.",
            )?,
            subscriptions: IntGauge::new("ws_room_subscriptions", "Rooms and users subscribed to.")?,
        })
    }

    /// All of them, to be registered.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut all: Vec<Box<dyn Collector>> = [
            &self.command_links,
            &self.subscription_links,
            &self.probes,
            &self.probes_missed,
            &self.missed,
            &self.duplicates,
            &self.epoch_changes,
            &self.undecodable,
            &self.overflows,
            &self.presence_restored,
            &self.presence_cleared,
            &self.unreplicated,
        ]
        .into_iter()
        .map(|counter| Box::new(counter.clone()) as Box<dyn Collector>)
        .collect();
        all.push(Box::new(self.repairs.clone()));
        all.push(Box::new(self.probe_seconds.clone()));
        all.push(Box::new(self.resubscribe_seconds.clone()));
        all.push(Box::new(self.subscriptions.clone()));
        all
    }

    /// What was heard of subscribed streams.
    pub(super) fn count(&self, seen: &Seen) {
        self.missed.inc_by(seen.missed);
        self.duplicates.inc_by(seen.duplicates);
        self.epoch_changes.inc_by(seen.epoch_changes);
        self.undecodable.inc_by(seen.undecodable);
        if seen.missed > 0 {
            tracing::warn!(
                missed = seen.missed,
                "messages of subscribed streams did not come; they are read"
            );
        }
    }
}
