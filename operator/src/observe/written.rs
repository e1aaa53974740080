//! What this process wrote and its watch has not delivered yet.
//!
//! A plan made from a cache that lags behind one's own writes would choose again what it chose already, perhaps
//! otherwise: two pods cordoned where one was meant. So the answers of writes are laid over the cache until the cache
//! has caught up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long the cache may take to show an object that was created; after that it must have come and gone.
const CREATION_GRACE: Duration = Duration::from_secs(10);

/// After that no watch is behind any more.
const EXPIRY: Duration = Duration::from_mins(5);

#[derive(Debug)]
struct Entry<K> {
    object: Arc<K>,
    written_at: Instant,
    created: bool,
}

/// Answers of writes by UID.
#[derive(Debug)]
pub struct Written<K> {
    entries: Mutex<HashMap<String, Entry<K>>>,
}

impl<K> Default for Written<K> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
        }
    }
}

impl<K: Resource> Written<K> {
    /// Keeps the answer to a create.
    pub fn created(&self, object: K) {
        self.put(object, true);
    }

    /// Keeps the answer to a patch or to a graceful delete.
    pub fn changed(&self, object: K) {
        self.put(object, false);
    }

    /// The object was deleted at once.
    pub fn deleted(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    /// Forgets answers so old that the cache has them or never will: those of resources that are gone.
    pub fn expire(&self) {
        self.entries
            .lock()
            .retain(|_, entry| entry.written_at.elapsed() < EXPIRY);
    }

    fn put(&self, object: K, created: bool) {
        let Some(uid) = object.uid() else { return };
        let mut entries = self.entries.lock();
        // a change of an object that was just created does not make the cache know it sooner
        let created = created || entries.get(&uid).is_some_and(|entry| entry.created);
        entries.insert(
            uid,
            Entry {
                object: Arc::new(object),
                written_at: Instant::now(),
                created,
            },
        );
    }

    /// The cached objects with newer answers in their place, and created ones that the cache does not have yet.
    /// `belongs` says which of the latter are meant.
    pub fn over(&self, cached: Vec<Arc<K>>, belongs: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.over_at(Instant::now(), cached, belongs)
    }

    fn over_at(&self, now: Instant, cached: Vec<Arc<K>>, belongs: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let mut entries = self.entries.lock();
        if entries.is_empty() {
            return cached;
        }
        let mut objects: Vec<Arc<K>> = Vec::with_capacity(cached.len());
        let mut seen = std::collections::HashSet::new();
        for object in cached {
            let uid = object.uid().unwrap_or_default();
            let newer = entries
                .get(&uid)
                .filter(|entry| version(&*entry.object) > version(&*object));
            if let Some(entry) = newer {
                objects.push(Arc::clone(&entry.object));
            } else {
                entries.remove(&uid);
                objects.push(object);
            }
            seen.insert(uid);
        }
        entries.retain(|uid, entry| {
            if seen.contains(uid) || !belongs(&entry.object) {
                return true;
            }
            // once known and no longer there: gone
            let awaited = entry.created && now < entry.written_at + CREATION_GRACE;
            if awaited {
                objects.push(Arc::clone(&entry.object));
            }
            awaited
        });
        objects
    }
}

/// Resource versions of one kind grow (KEP-5504); one that is no number is older than any.
fn version<K: Resource>(object: &K) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::ObjectMeta;

    use super::*;

    fn pod(uid: &str, version: &str) -> Pod {
        Pod {
            metadata: ObjectMeta {
                uid: Some(uid.into()),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }

    fn versions(pods: &[Arc<Pod>]) -> Vec<String> {
        let mut all: Vec<_> = pods.iter().filter_map(|pod| pod.resource_version()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_patch_is_seen_before_the_watch_delivers_it_and_not_after() {
        let written = Written::default();
        written.changed(pod("a", "10"));
        assert_eq!(
            versions(&written.over(vec![pod("a", "9").into()], |_| true)),
            ["10"]
        );
        assert_eq!(
            versions(&written.over(vec![pod("a", "11").into()], |_| true)),
            ["11"]
        );
        assert_eq!(
            versions(&written.over(vec![pod("a", "9").into()], |_| true)),
            ["9"],
            "caught up is forgotten"
        );
    }

    #[test]
    fn a_created_pod_is_seen_at_once_and_not_for_ever() {
        let written = Written::default();
        written.created(pod("a", "1"));
        assert_eq!(written.over(vec![], |_| true).len(), 1);
        assert!(written.over(vec![], |_| false).is_empty(), "another resource's");
        let later = Instant::now() + CREATION_GRACE;
        assert!(
            written.over_at(later, vec![], |_| true).is_empty(),
            "it came and went between two lists"
        );
    }

    #[test]
    fn a_patched_pod_that_the_cache_lost_is_gone() {
        let written = Written::default();
        written.changed(pod("a", "10"));
        assert!(written.over(vec![], |_| true).is_empty());
    }
}
