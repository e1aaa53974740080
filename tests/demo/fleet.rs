//! The fleet as the API server tells it: every gateway pod from its first to its last watch event.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use wsfleet_crds::labels;

/// One gateway pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodRecord {
    /// Revision label.
    pub(crate) revision: String,
    /// `metadata.creationTimestamp`.
    pub(crate) created: Option<Timestamp>,
    /// When it was first seen Ready.
    pub(crate) ready: Option<Timestamp>,
    /// Ready now.
    pub(crate) is_ready: bool,
    /// The managed Service sends new sockets to it.
    pub(crate) accepting: bool,
    /// Its drain has begun.
    pub(crate) draining: bool,
    /// Why it was cordoned.
    pub(crate) reason: Option<String>,
    /// When it was cordoned.
    pub(crate) cordoned: Option<Timestamp>,
    /// Until when its drain may last.
    pub(crate) deadline: Option<Timestamp>,
    /// Sockets that it held when the drain began.
    pub(crate) initial: Option<u64>,
    /// When its last socket had gone.
    pub(crate) drained: Option<Timestamp>,
    /// When its deletion was asked for.
    pub(crate) deleting: Option<Timestamp>,
    /// When the object had gone.
    pub(crate) gone: Option<Timestamp>,
}

impl PodRecord {
    fn update(&mut self, pod: &Pod, now: Timestamp) {
        let label = |key: &str| pod.labels().get(key).map_or("", String::as_str);
        let annotation = |key: &str| pod.annotations().get(key).cloned();
        let time = |key: &str| annotation(key).and_then(|text| text.parse::<Timestamp>().ok());
        label(labels::REVISION).clone_into(&mut self.revision);
        self.created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let since = ready_since(pod);
        self.is_ready = since.is_some();
        self.ready = self.ready.or(since);
        self.accepting = label(labels::ACCEPTING) == "true";
        self.draining = labels::PodPhase::parse(label(labels::PHASE)) == Some(labels::PodPhase::Draining);
        self.reason = annotation(labels::DRAIN_REASON).or(self.reason.take());
        self.cordoned = time(labels::CORDONED_AT).or(self.cordoned);
        self.deadline = time(labels::DRAIN_DEADLINE).or(self.deadline);
        self.initial = annotation(labels::DRAIN_INITIAL)
            .and_then(|text| text.parse().ok())
            .or(self.initial);
        self.drained = time(labels::DRAINED_AT).or(self.drained);
        if pod.metadata.deletion_timestamp.is_some() && self.deleting.is_none() {
            self.deleting = Some(now);
        }
    }

    /// Cordoned, draining or being deleted.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.draining || (self.cordoned.is_some() && !self.accepting) || self.deleting.is_some()
    }

    /// Seconds from the cordon to the last socket's end (or to the deletion, when nobody saw it end).
    pub(crate) fn drain_seconds(&self) -> Option<i64> {
        let end = self.drained.or(self.deleting)?;
        Some(end.as_second() - self.cordoned?.as_second())
    }

    /// It was deleted without its drain having ended, before the deadline: its sockets were cut short.
    pub(crate) fn cut_short(&self) -> bool {
        let early = |deleted: Timestamp| self.deadline.is_none_or(|deadline| deleted < deadline);
        self.ready.is_some() && self.drained.is_none() && self.deleting.is_some_and(early)
    }
}

/// Since when the pod is Ready, if it is.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// How many pods there are, of which kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Objects that exist.
    pub(crate) pods: u32,
    /// Ready ones.
    pub(crate) ready: u32,
    /// Ready ones that new sockets go to.
    pub(crate) accepting: u32,
    /// Cordoned, draining or terminating ones.
    pub(crate) leaving: u32,
}

/// All gateway pods of one cluster, past and present, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet {
    pods: Arc<Mutex<BTreeMap<String, PodRecord>>>,
}

impl Fleet {
    /// Follows the pods of the WebSocketCluster `name` until the process ends.
    pub(crate) fn watch(client: Client, namespace: &str, name: &str) -> Self {
        let fleet = Self::default();
        let api: Api<Pod> = Api::namespaced(client, namespace);
        let selector = format!(
            "{}={name},{}={}",
            labels::CLUSTER,
            labels::APP_NAME,
            labels::APP_NAME_VALUE
        );
        let config = watcher::Config::default().labels(&selector);
        let watching = fleet.clone();
        tokio::spawn(async move {
            let mut events = watcher(api, config).default_backoff().boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => watching.record(&event, Timestamp::now()),
                    Err(error) => tracing::warn!(%error, "watch of pods"),
                }
            }
        });
        fleet
    }

    fn record(&self, event: &watcher::Event<Pod>, now: Timestamp) {
        let mut pods = self.pods.lock();
        match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                pods.entry(pod.name_any()).or_default().update(pod, now);
            }
            watcher::Event::Delete(pod) => {
                let record = pods.entry(pod.name_any()).or_default();
                record.update(pod, now);
                record.gone = Some(now);
                record.is_ready = false;
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }

    /// A copy of all records.
    pub(crate) fn records(&self) -> BTreeMap<String, PodRecord> {
        self.pods.lock().clone()
    }

    /// The present state in numbers.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for pod in self.pods.lock().values().filter(|pod| pod.gone.is_none()) {
            counts.pods += 1;
            counts.ready += u32::from(pod.is_ready);
            counts.accepting += u32::from(pod.is_ready && pod.accepting && pod.deleting.is_none());
            counts.leaving += u32::from(pod.is_leaving());
        }
        counts
    }

    /// Revisions of the pods that exist.
    pub(crate) fn revisions(&self) -> Vec<String> {
        let pods = self.pods.lock();
        let mut revisions: Vec<String> = pods
            .values()
            .filter(|pod| pod.gone.is_none())
            .map(|pod| pod.revision.clone())
            .collect();
        revisions.sort();
        revisions.dedup();
        revisions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_deleted_before_its_drain_ended_was_cut_short() {
        let at = |second| Timestamp::from_second(second).ok();
        let drained = PodRecord {
            ready: at(1),
            cordoned: at(10),
            drained: at(20),
            deleting: at(22),
            ..PodRecord::default()
        };
        assert!(!drained.cut_short());
        assert_eq!(drained.drain_seconds(), Some(10));
        let cut = PodRecord {
            drained: None,
            deadline: at(100),
            ..drained.clone()
        };
        assert!(cut.cut_short());
        let late = PodRecord {
            deadline: at(15),
            ..cut
        };
        assert!(!late.cut_short(), "the deadline had passed");
    }
}
