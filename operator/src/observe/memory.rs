//! What the operator remembers of a resource between two passes. All of it may be lost at any time: after a restart it
//! is made again, and nothing that must survive is kept here.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;
use wsfleet_crds::labels::DrainReason;
use wsfleet_crds::v1alpha1::{RolloutPhase, RolloutStatus, WebSocketClusterStatus};

use super::model::{Applied, DryRun, Lease, OwnedKind};
use crate::plan::pace::Pace;

/// Memory of one resource.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The API server's last verdict on a new template.
    pub dry_run: Option<DryRun>,
    /// Rates granted to gateways, by pod name.
    pub leases: BTreeMap<String, Lease>,
    /// Pods that hold too many sockets, by UID, and since when.
    pub crowded: BTreeMap<String, Timestamp>,
    /// How much of the budget drains may use.
    pub pace: Pace,
    /// What came of the last apply of an owned object.
    pub applied: BTreeMap<(OwnedKind, String), Applied>,
    /// What the rollout under way, or the last one, has cost.
    pub cost: RolloutCost,
    /// Passes that failed since the last that did not.
    pub failures: u32,
    /// When the status was last written.
    pub status_written_at: Option<Instant>,
    /// Why the object could not be read, as it was reported last.
    pub malformed: Option<String>,
}

/// What a rollout costs its clients. A new leader takes up what the status says.
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

    /// The same when the fleet goes to `revision` and has `clients`. Another revision counts anew; clients that come when
    /// the rollout is no longer `under_way` change nothing.
    #[must_use]
    fn at(&self, revision: Option<&str>, clients: u64, under_way: bool) -> Self {
        if self.revision.as_deref() != revision {
            return Self {
                revision: revision.map(str::to_owned),
                clients,
                closed: 0,
            };
        }
        // those under way from one gateway to another are not among the sockets for a moment
        let clients = if under_way {
            self.clients.max(clients)
        } else {
            self.clients
        };
        Self {
            clients,
            ..self.clone()
        }
    }

    /// The same as of `status`.
    #[must_use]
    pub fn as_of(&self, status: &WebSocketClusterStatus) -> Self {
        let clients = status.connections.map_or(0, |connections| connections.total);
        let phase = status.rollout.as_ref().map(|rollout| rollout.phase);
        let under_way = phase.is_some_and(|phase| phase != RolloutPhase::Idle);
        self.at(status.update_revision.as_deref(), clients, under_way)
    }

    /// Sockets closed per client; `None` while none was.
    pub fn per_client(&self) -> Option<f64> {
        (self.closed > 0).then(|| self.closed as f64 / self.clients.max(1) as f64)
    }

    /// Takes up what the process before had counted, when this one has just begun.
    pub fn restore(&mut self, status: &WebSocketClusterStatus) {
        if self.revision.is_some() || status.update_revision.is_none() {
            return;
        }
        let told = status.rollout.as_ref().and_then(RolloutStatus::per_client);
        let clients = status.connections.map_or(0, |connections| connections.total);
        self.revision.clone_from(&status.update_revision);
        self.clients = clients;
        self.closed += (told.unwrap_or(0.0) * clients as f64).round() as u64;
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
    use wsfleet_crds::v1alpha1::ConnectionsStatus;

    use super::*;

    fn is_about(cost: &RolloutCost, expected: f64) -> bool {
        (cost.per_client().unwrap_or(0.0) - expected).abs() < 0.01
    }

    #[test]
    fn the_cost_of_a_rollout_is_counted_per_client_and_anew_for_the_next() {
        let mut cost = RolloutCost::default().at(Some("a"), 100, true);
        assert_eq!(cost.per_client(), None);
        cost.add(50);
        let cost = cost.at(Some("a"), 60, true);
        assert!(is_about(&cost, 0.5), "40 are on their way: {cost:?}");
        let cost = cost.at(Some("a"), 1000, false);
        assert!(is_about(&cost, 0.5), "those came afterwards: {cost:?}");
        assert_eq!(cost.at(Some("b"), 100, true).per_client(), None);
    }

    #[test]
    fn a_new_process_takes_up_what_the_status_says_once() {
        let rollout = RolloutStatus {
            disconnects_per_client: Some("0.50".to_owned()),
            ..RolloutStatus::default()
        };
        let status = WebSocketClusterStatus {
            update_revision: Some("a".to_owned()),
            rollout: Some(rollout),
            connections: Some(ConnectionsStatus {
                total: 200,
                ..ConnectionsStatus::default()
            }),
            ..WebSocketClusterStatus::default()
        };
        let mut cost = RolloutCost::default();
        cost.restore(&status);
        cost.add(20);
        cost.restore(&status);
        assert!(is_about(&cost.at(Some("a"), 200, true), 0.6), "{cost:?}");
    }
}
