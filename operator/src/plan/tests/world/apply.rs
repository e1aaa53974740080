//! What the planner's actions do to the model, and what they must never do.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use wsfleet_crds::admin::{DrainMode, DrainRequest, GatewayPhase};
use wsfleet_crds::labels::{self, DrainReason, PodPhase};
use wsfleet_crds::v1alpha1::RolloutStrategy;

use super::{SimPod, Timestamp, World};
use crate::observe::model::{
    Applied, DrainMarkers, DryRun, OwnedKind, OwnedView, PodView, RevisionView, Shedding,
};
use crate::plan::{Action, CLOSE_CODE, MIN_AGE_SECONDS, budget};

impl World {
    /// Revisions of the pods that are not being deleted.
    pub(in crate::plan::tests) fn images(&self) -> BTreeSet<&str> {
        self.pods.iter().map(|pod| pod.image.as_str()).collect()
    }

    /// Whether no gateway holds, or has held, too many sockets.
    pub(in crate::plan::tests) fn is_even(&self) -> bool {
        self.observed.crowded.is_empty() && self.pods.iter().all(|pod| pod.view.drain.is_none())
    }

    /// Sets the sockets of the pods, in the order of their names.
    pub(in crate::plan::tests) fn set_sockets(&mut self, sockets: &[u64]) {
        self.pods.sort_by(|a, b| a.view.name.cmp(&b.view.name));
        for (pod, sockets) in self.pods.iter_mut().zip(sockets) {
            pod.sockets = *sockets;
        }
    }

    pub(super) fn apply(&mut self, action: Action) {
        let is_call = matches!(action, Action::Drain { .. } | Action::DryRunPod { .. });
        self.writes += u64::from(!is_call);
        match action {
            Action::ApplyService(object) => self.own(OwnedKind::Service, &*object),
            Action::ApplyBudget(object) => self.own(OwnedKind::PodDisruptionBudget, &*object),
            Action::CreateAdminToken(_) => self.observed.admin_token = true,
            Action::CreateRevision(object) => {
                self.observed
                    .revisions
                    .push(RevisionView::try_from(&*object).unwrap());
            }
            Action::RenumberRevision { name, number } => {
                self.observed
                    .revisions
                    .iter_mut()
                    .find(|it| it.name == name)
                    .unwrap()
                    .number = number;
            }
            Action::MarkRevision { name, annotations } => {
                let found = self.observed.revisions.iter_mut().find(|it| it.name == name);
                let rollout = &mut found.unwrap().rollout;
                for (key, value) in annotations {
                    let time = value.as_ref().and_then(|text| text.parse().ok());
                    match key.as_str() {
                        labels::ROLLOUT_STARTED_AT => rollout.started_at = time,
                        labels::BAKING_SINCE => rollout.baking_since = time,
                        labels::CANARY_PASSED_AT => rollout.canary_passed_at = time,
                        labels::ROLLOUT_FAILED => rollout.failed = value,
                        other => panic!("{other}"),
                    }
                }
            }
            Action::DeleteRevision { name } => self.observed.revisions.retain(|it| it.name != name),
            Action::DryRunPod { hash, pod } => {
                let refused = pod
                    .metadata
                    .annotations
                    .unwrap_or_default()
                    .contains_key("refuse");
                let verdict = if refused {
                    Err("admission refuses".to_owned())
                } else {
                    Ok(())
                };
                self.observed.dry_run = Some(DryRun {
                    hash,
                    at: self.now,
                    verdict,
                });
            }
            Action::CreatePod(pod) => self.create(&pod),
            Action::MarkPod {
                name,
                uid,
                labels,
                annotations,
            } => self.mark(&name, &uid, &labels, &annotations),
            Action::Drain {
                name, port, request, ..
            } => {
                self.called.push(port);
                self.call(&name, &request);
            }
            Action::DeletePod {
                name,
                uid,
                connections,
                ..
            } => self.delete(&name, &uid, connections),
            Action::RecordRecommendations(text) => {
                let annotations = self.cluster.metadata.annotations.get_or_insert_default();
                annotations.insert(labels::RECOMMENDATIONS.to_owned(), text);
            }
            Action::SetFinalizers { finalizers, .. } => self.cluster.metadata.finalizers = Some(finalizers),
        }
    }

    fn own<K: Resource + Serialize>(&mut self, kind: OwnedKind, object: &K) {
        let key = (kind, object.name_any());
        let applied = Applied {
            at: self.now,
            left: None,
        };
        self.observed.applied.insert(key.clone(), applied);
        self.observed.owned.insert(key, OwnedView::of(object));
    }

    fn create(&mut self, pod: &Pod) {
        let name = pod.metadata.name.clone().unwrap();
        if self.pods.iter().any(|other| other.view.name == name) {
            return; // 409
        }
        let spec = &self.cluster.spec;
        let desired = self.cluster.status.as_ref().unwrap().desired_replicas;
        let counted = self.pods.iter().filter(|pod| {
            let view = &pod.view;
            let shrinking = view
                .drain
                .as_ref()
                .is_some_and(|drain| drain.reason == DrainReason::ScaleIn);
            let lost = view
                .node
                .as_ref()
                .is_some_and(|node| node.not_ready_since.is_some());
            view.deleting_since.is_none() && !view.finished && !shrinking && !lost
        });
        let whole = if spec.rollout.strategy == RolloutStrategy::BlueGreen {
            desired
        } else {
            0
        };
        let bound = desired + spec.rollout.max_surge.round_up(desired).max(whole);
        assert!(
            (counted.count() as u32) < bound,
            "surge bound {bound} exceeded by {name}"
        );
        self.serial += 1;
        let node = self
            .nodes
            .values()
            .filter(|node| !node.draining && node.not_ready_since.is_none());
        let usable: Vec<_> = node.cloned().collect();
        let labels = pod.metadata.labels.clone().unwrap();
        let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        self.pods.push(SimPod {
            view: PodView {
                name,
                uid: format!("uid-{}", self.serial),
                version: None,
                slot: labels[labels::SLOT].parse().unwrap(),
                revision: labels[labels::REVISION].clone(),
                phase: PodPhase::parse(&labels[labels::PHASE]).unwrap(),
                accepting: labels[labels::ACCEPTING] == "true",
                created_at: self.now,
                deleting_since: None,
                ready_since: None,
                finished: false,
                restarts: 0,
                restarted_at: None,
                health: Vec::new(),
                counted_before: None,
                waiting: None,
                node: usable.get(self.serial as usize % usable.len().max(1)).cloned(),
                ip: None,
                node_drain_since: None,
                drain: None,
                gateway: None,
                unreachable_since: None,
                silent_since: None,
            },
            sockets: 0,
            image,
            gateway: GatewayPhase::Serving,
            drain_id: None,
            epoch: 0,
            lease: None,
            keep: 0,
            credit: 0,
            health: wsfleet_crds::admin::GatewayHealth::default(),
        });
    }

    fn mark(
        &mut self,
        name: &str,
        uid: &str,
        labels: &BTreeMap<String, Option<String>>,
        annotations: &BTreeMap<String, Option<String>>,
    ) {
        let view = &mut self
            .pods
            .iter_mut()
            .find(|pod| pod.view.name == name)
            .unwrap()
            .view;
        assert_eq!(view.uid, uid);
        if let Some(Some(phase)) = labels.get(labels::PHASE) {
            view.phase = PodPhase::parse(phase).unwrap();
        }
        if let Some(Some(accepting)) = labels.get(labels::ACCEPTING) {
            view.accepting = accepting == "true";
        }
        let time = |text: &Option<String>| text.as_ref().map(|text| text.parse::<Timestamp>().unwrap());
        for (key, value) in annotations {
            if key == labels::NODE_DRAIN_SINCE {
                view.node_drain_since = time(value);
            }
            match (key.as_str(), &mut view.drain) {
                (labels::CORDONED_AT, drain) => {
                    *drain = time(value).map(|cordoned_at| DrainMarkers {
                        cordoned_at,
                        reason: DrainReason::parse(annotations[labels::DRAIN_REASON].as_ref().unwrap())
                            .unwrap(),
                        drain_id: annotations[labels::DRAIN_ID].clone().unwrap(),
                        deadline: None,
                        initial: None,
                        drained_at: None,
                        shedding: None,
                    });
                }
                (labels::DRAIN_DEADLINE, Some(drain)) => drain.deadline = time(value),
                (labels::DRAINED_AT, Some(drain)) => drain.drained_at = time(value),
                (labels::SHEDDING_SINCE, Some(drain)) => {
                    let keep = annotations[labels::SHED_TO].as_ref();
                    drain.shedding = time(value)
                        .zip(keep.map(|text| text.parse().unwrap()))
                        .map(|(since, keep)| Shedding { since, keep });
                }
                (labels::DRAIN_INITIAL, Some(drain)) => {
                    drain.initial = value.as_ref().map(|text| text.parse().unwrap());
                }
                _ => {}
            }
        }
    }

    fn call(&mut self, name: &str, request: &DrainRequest) {
        let (now, is_heard) = (self.now, self.hears(name));
        let pod = self.pods.iter_mut().find(|pod| pod.view.name == name).unwrap();
        if !is_heard || request.epoch < pod.epoch {
            return;
        }
        pod.epoch = request.epoch;
        pod.drain_id = Some(request.drain_id.clone());
        pod.gateway = match request.mode {
            DrainMode::Cordon => GatewayPhase::Cordoned,
            DrainMode::Drain => GatewayPhase::Draining,
            DrainMode::Resume => GatewayPhase::Serving,
        };
        pod.keep = request.keep_connections.unwrap_or(0);
        if request.keep_connections.is_some() {
            assert_eq!(request.close_code, CLOSE_CODE);
            assert_eq!(request.min_age_seconds, Some(MIN_AGE_SECONDS));
        }
        pod.lease = match (request.rate_per_second, request.lease_seconds) {
            (Some(rate), Some(seconds)) => Some(budget::lease(rate, seconds, now)),
            _ => None,
        };
        match pod.lease {
            Some(lease) => self.observed.leases.insert(name.to_owned(), lease),
            None => self.observed.leases.remove(name),
        };
    }

    fn delete(&mut self, name: &str, uid: &str, connections: Option<u64>) {
        let now = self.now;
        let pod = self.pods.iter_mut().find(|pod| pod.view.name == name).unwrap();
        assert_eq!(pod.view.uid, uid);
        let deadline = pod.view.drain.as_ref().and_then(|drain| drain.deadline);
        let lost = pod.view.finished
            || pod
                .view
                .node
                .as_ref()
                .is_some_and(|node| node.not_ready_since.is_some())
            || pod.view.silent_since.is_some();
        let in_time = deadline.is_none_or(|deadline| deadline > now);
        assert!(
            pod.sockets == 0 || lost || !in_time,
            "{name} is deleted with {} sockets (planner: {connections:?}) before its deadline",
            pod.sockets
        );
        self.deleted.push((name.to_owned(), pod.sockets));
        pod.view.deleting_since.get_or_insert(now);
        self.observed.leases.remove(name);
    }
}
