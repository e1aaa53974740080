//! The model's API server: the objects, and the journal of changes that watches deliver.
//!
//! Creates, patches and deletes mean what they mean to the real one: a name that exists is kept, a patch or delete with
//! another UID changes nothing. What a pod's labels and annotations mean is read as the operator reads them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use wsfleet_crds::labels::{self, DrainReason, PodPhase};

use super::time::{Millis, whole};
use crate::observe::model::{DrainMarkers, OwnedKind, OwnedView, PodView, RevisionView, Shedding};
use crate::plan::RolloutMarkers;

/// Labels or annotations of a patch.
pub(crate) type Marks = BTreeMap<String, Option<String>>;

/// A change of a pod, as a watch tells it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Millis,
    pub(crate) name: String,
    pub(crate) version: u64,
    /// `None`: the object is gone.
    pub(crate) view: Option<PodView>,
}

/// A pod as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) version: u64,
    pub(crate) view: PodView,
    /// Its process, by number.
    pub(crate) gateway: usize,
    /// The node that it runs on.
    pub(crate) node: String,
}

/// The objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Api {
    pub(crate) pods: BTreeMap<String, Object>,
    pub(crate) revisions: Vec<RevisionView>,
    pub(crate) owned: BTreeMap<(OwnedKind, String), OwnedView>,
    pub(crate) budgets: BTreeMap<String, PodDisruptionBudget>,
    pub(crate) admin_token: bool,
    pub(crate) journal: Vec<Change>,
    version: u64,
}

impl Api {
    /// Stores a new pod; false when the name is taken.
    pub(crate) fn create(&mut self, view: PodView, gateway: usize, node: String, now: Millis) -> bool {
        if self.pods.contains_key(&view.name) {
            return false;
        }
        let name = view.name.clone();
        let object = Object {
            version: 0,
            view,
            gateway,
            node,
        };
        self.pods.insert(name.clone(), object);
        self.change(&name, now, |_| {});
        true
    }

    /// Changes a pod that exists, and tells the watches.
    pub(crate) fn change(&mut self, name: &str, now: Millis, change: impl FnOnce(&mut PodView)) {
        let Some(object) = self.pods.get_mut(name) else {
            return;
        };
        change(&mut object.view);
        self.version += 1;
        object.version = self.version;
        object.view.version = Some(self.version.to_string());
        self.journal.push(Change {
            at: now,
            name: name.to_owned(),
            version: self.version,
            view: Some(object.view.clone()),
        });
    }

    /// A patch of labels and annotations; false when there is no such pod.
    pub(crate) fn mark(
        &mut self,
        name: &str,
        uid: &str,
        labels: &Marks,
        annotations: &Marks,
        now: Millis,
    ) -> bool {
        if !self.is(name, uid) {
            return false;
        }
        self.change(name, now, |view| mark(view, labels, annotations));
        true
    }

    /// Whether the pod `name` is the one that `uid` names.
    pub(crate) fn is(&self, name: &str, uid: &str) -> bool {
        self.pods.get(name).is_some_and(|object| object.view.uid == uid)
    }

    /// Whether the pod `name` has not changed since `version`, if one is given.
    pub(crate) fn is_at(&self, name: &str, version: Option<&str>) -> bool {
        let found = self
            .pods
            .get(name)
            .and_then(|object| object.view.version.as_deref());
        version.is_none() || version == found
    }

    /// Removes the record of a pod.
    pub(crate) fn remove(&mut self, name: &str, now: Millis) {
        if self.pods.remove(name).is_some() {
            self.version += 1;
            self.journal.push(Change {
                at: now,
                name: name.to_owned(),
                version: self.version,
                view: None,
            });
        }
    }

    /// Remembers what was applied of an owned object.
    pub(crate) fn own<K: Resource + Serialize>(&mut self, kind: OwnedKind, object: &K) {
        self.owned
            .insert((kind, object.name_any()), OwnedView::of(object));
    }

    /// How many budgets the pod `view` of cluster `cluster` matches: an eviction fails for good at two.
    pub(crate) fn budgets_of(&self, cluster: &str, view: &PodView) -> usize {
        let labels = [
            (labels::CLUSTER, cluster),
            (labels::PHASE, view.phase.as_str()),
            (labels::REVISION, &view.revision),
        ];
        self.budgets
            .values()
            .filter(|budget| selects(budget, &labels))
            .count()
    }
}

fn selects(budget: &PodDisruptionBudget, labels: &[(&str, &str)]) -> bool {
    let value = |key: &str| {
        labels
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    };
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
        return false;
    };
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, wanted)| value(key) == Some(wanted));
    let holds = |requirement: &LabelSelectorRequirement| {
        let listed = requirement
            .values
            .iter()
            .flatten()
            .any(|listed| value(&requirement.key) == Some(listed));
        (requirement.operator == "In") == listed
    };
    equal && selector.match_expressions.iter().flatten().all(holds)
}

/// What the operator reads of a pod that was just created.
pub(crate) fn created(pod: &Pod, uid: String, now: Millis) -> Option<PodView> {
    let labels = pod.metadata.labels.as_ref()?;
    Some(PodView {
        name: pod.metadata.name.clone()?,
        uid,
        version: None,
        slot: labels.get(labels::SLOT)?.parse().ok()?,
        revision: labels.get(labels::REVISION)?.clone(),
        phase: PodPhase::parse(labels.get(labels::PHASE)?)?,
        accepting: labels.get(labels::ACCEPTING)? == "true",
        created_at: whole(now),
        deleting_since: None,
        ready_since: None,
        finished: false,
        restarts: 0,
        restarted_at: None,
        waiting: None,
        node: None,
        ip: None,
        node_drain_since: None,
        drain: None,
        gateway: None,
        health: Vec::new(),
        counted_before: None,
        unreachable_since: None,
        silent_since: None,
    })
}

/// Carries out a patch of the annotations of a revision.
pub(crate) fn mark_rollout(rollout: &mut RolloutMarkers, annotations: &Marks) {
    for (key, value) in annotations {
        let time = value.as_ref().and_then(|text| text.parse().ok());
        match key.as_str() {
            labels::ROLLOUT_STARTED_AT => rollout.started_at = time,
            labels::BAKING_SINCE => rollout.baking_since = time,
            labels::CANARY_PASSED_AT => rollout.canary_passed_at = time,
            labels::ROLLOUT_FAILED => rollout.failed.clone_from(value),
            _ => {}
        }
    }
}

/// Carries out a patch of labels and annotations of a pod.
pub(crate) fn mark(view: &mut PodView, labels: &Marks, annotations: &Marks) {
    if let Some(phase) = labels.get(labels::PHASE).and_then(Option::as_deref) {
        view.phase = PodPhase::parse(phase).unwrap_or(view.phase);
    }
    if let Some(Some(accepting)) = labels.get(labels::ACCEPTING) {
        view.accepting = accepting == "true";
    }
    let text = |key: &str| annotations.get(key).and_then(Option::as_deref);
    let time = |key: &str| text(key).and_then(|text| text.parse::<Timestamp>().ok());
    if annotations.contains_key(labels::NODE_DRAIN_SINCE) {
        view.node_drain_since = time(labels::NODE_DRAIN_SINCE);
    }
    if annotations.contains_key(labels::CORDONED_AT) {
        // what a patch does not name stays
        let before = view.drain.take();
        view.drain = time(labels::CORDONED_AT).map(|cordoned_at| DrainMarkers {
            cordoned_at,
            reason: text(labels::DRAIN_REASON)
                .and_then(DrainReason::parse)
                .unwrap_or(DrainReason::Replace),
            drain_id: text(labels::DRAIN_ID).unwrap_or_default().to_owned(),
            deadline: before.as_ref().and_then(|drain| drain.deadline),
            initial: before.as_ref().and_then(|drain| drain.initial),
            drained_at: before.as_ref().and_then(|drain| drain.drained_at),
            shedding: before.as_ref().and_then(|drain| drain.shedding),
        });
    }
    let Some(drain) = &mut view.drain else { return };
    if annotations.contains_key(labels::DRAIN_DEADLINE) {
        drain.deadline = time(labels::DRAIN_DEADLINE);
    }
    if annotations.contains_key(labels::DRAINED_AT) {
        drain.drained_at = time(labels::DRAINED_AT);
    }
    if annotations.contains_key(labels::SHEDDING_SINCE) {
        let keep = text(labels::SHED_TO).and_then(|text| text.parse().ok());
        drain.shedding = time(labels::SHEDDING_SINCE)
            .zip(keep)
            .map(|(since, keep)| Shedding { since, keep });
    }
    if let Some(initial) = annotations.get(labels::DRAIN_INITIAL) {
        drain.initial = initial.as_ref().and_then(|text| text.parse().ok());
    }
}
