//! Every gateway pod that ever was, told by a watch: nothing that happens between two looks is missed.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use wsfleet_crds::labels;

use crate::cluster::Namespace;

/// A running watch; ends when dropped.
#[derive(Debug)]
pub struct RollCall {
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

/// Pods by UID.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// All that ever were.
    pub ever: BTreeSet<String>,
    /// Those that are there and not being deleted.
    pub living: BTreeSet<String>,
    /// The largest number of them at once.
    pub most: usize,
}

impl RollCall {
    /// Watches the pods of that resource.
    pub fn start(namespace: &Namespace, name: &str) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let config = watcher::Config::default().labels(&format!("{}={name}", labels::CLUSTER));
        let events = watcher(namespace.api::<Pod>(), config).default_backoff();
        let writing = Arc::clone(&book);
        let task = tokio::spawn(events.for_each(move |event| {
            if let Ok(event) = event {
                writing.lock().write(&event);
            }
            std::future::ready(())
        }));
        Self { book, task }
    }

    /// What was told until now.
    pub fn book(&self) -> Book {
        self.book.lock().clone()
    }
}

impl Drop for RollCall {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Book {
    fn write(&mut self, event: &Event<Pod>) {
        let (pod, gone) = match event {
            Event::Apply(pod) | Event::InitApply(pod) => (pod, pod.metadata.deletion_timestamp.is_some()),
            Event::Delete(pod) => (pod, true),
            Event::Init | Event::InitDone => return,
        };
        let uid = pod.uid().unwrap_or_default();
        if gone {
            self.living.remove(&uid);
        } else {
            self.living.insert(uid.clone());
        }
        self.ever.insert(uid);
        self.most = self.most.max(self.living.len());
    }
}
