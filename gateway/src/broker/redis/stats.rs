//! Counts of what happened on the links; read by the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Monotonic counts unless said otherwise. Relaxed: each is read for itself.
#[derive(Debug, Default)]
pub struct Stats {
    /// Command links made.
    pub command_links: AtomicU64,
    /// Subscription links made.
    pub subscription_links: AtomicU64,
    /// Probes published on silent subscription links.
    pub probes: AtomicU64,
    /// Probes not seen in time: each cost a link.
    pub probes_missed: AtomicU64,
    /// Microseconds that the last probe took (gauge).
    pub probe_micros: AtomicU64,
    /// Microseconds that the last resubscription of everything took, proof included (gauge).
    pub resubscribe_micros: AtomicU64,
    /// Offsets of subscribed streams that were never delivered.
    pub missed: AtomicU64,
    /// Deliveries dropped because their offset had been delivered.
    pub duplicates: AtomicU64,
    /// Streams seen to begin a new epoch.
    pub epoch_changes: AtomicU64,
    /// Payloads on our channels that are not ours.
    pub undecodable: AtomicU64,
    /// Times that deliveries piled up beyond bounds: each cost a link.
    pub overflows: AtomicU64,
    /// Streams subscribed to (gauge).
    pub subscriptions: AtomicU64,
}

impl Stats {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn set(gauge: &AtomicU64, value: u64) {
        gauge.store(value, Ordering::Relaxed);
    }
}
