//! What the operator remembers of a resource between two passes. All of it may be lost at any time: after a restart it
//! is made again, and nothing that must survive is kept here.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;
use wsfleet_crds::labels::DrainReason;

use super::model::{DryRun, Lease};

/// Memory of one resource.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The API server's last verdict on a new template.
    pub dry_run: Option<DryRun>,
    /// Rates granted to gateways, by pod name.
    pub leases: BTreeMap<String, Lease>,
    /// Pods that hold too many sockets, by UID, and since when.
    pub crowded: BTreeMap<String, Timestamp>,
    /// What the rollout under way, or the last one, has cost.
    pub cost: RolloutCost,
    /// Passes that failed since the last that did not.
    pub failures: u32,
    /// When the status was last written.
    pub status_written_at: Option<Instant>,
    /// Why the object could not be read, as it was reported last.
    pub malformed: Option<String>,
}

/// What a rollout costs its clients. A new leader counts from where it took over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutCost {
    revision: Option<String>,
    clients: u64,
    closed: u64,
}

impl RolloutCost {
    /// So many sockets were closed because of it.
    pub fn add(&mut self, closed: u64) {
        self.closed += closed;
    }

    /// Sockets closed per client, when the fleet goes to `revision` and has `clients`. Another revision counts anew.
    pub fn per_client(&mut self, revision: Option<&str>, clients: u64) -> f64 {
        if self.revision.as_deref() != revision {
            *self = Self {
                revision: revision.map(str::to_owned),
                ..Self::default()
            };
        }
        // those under way from one gateway to another are not among the sockets for a moment
        self.clients = self.clients.max(clients);
        self.closed as f64 / self.clients.max(1) as f64
    }
}

/// Memory of all resources, by UID.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

impl Memory {
    /// Reads what is remembered of `uid`.
    pub fn get(&self, uid: &str) -> Remembered {
        self.0.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes it.
    pub fn update<T>(&self, uid: &str, change: impl FnOnce(&mut Remembered) -> T) -> T {
        change(self.0.lock().entry(uid.to_owned()).or_default())
    }

    /// A drain of the resource's closed so many sockets.
    pub fn closed(&self, uid: &str, reason: DrainReason, sockets: u64) {
        if reason == DrainReason::Rollout && sockets > 0 {
            self.update(uid, |remembered| remembered.cost.add(sockets));
        }
    }

    /// Forgets all but these.
    pub fn retain(&self, uids: &HashSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_rollout_is_counted_per_client_and_anew_for_the_next() {
        let mut cost = RolloutCost::default();
        assert!(cost.per_client(Some("a"), 100) < 0.01);
        cost.add(50);
        assert!(
            (cost.per_client(Some("a"), 60) - 0.5).abs() < 0.01,
            "40 are on their way"
        );
        assert!(cost.per_client(Some("b"), 100) < 0.01);
    }
}
