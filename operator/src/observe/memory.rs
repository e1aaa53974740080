//! What the operator remembers of a resource between two passes. All of it may be lost at any time: after a restart it
//! is made again, and nothing that must survive is kept here.

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::model::{DryRun, Lease};

/// Memory of one resource.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The API server's last verdict on a new template.
    pub dry_run: Option<DryRun>,
    /// Rates granted to gateways, by pod name.
    pub leases: BTreeMap<String, Lease>,
    /// Passes that failed since the last that did not.
    pub failures: u32,
    /// When the status was last written.
    pub status_written_at: Option<Instant>,
    /// Why the object could not be read, as it was reported last.
    pub malformed: Option<String>,
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

    /// Forgets all but these.
    pub fn retain(&self, uids: &HashSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }
}
