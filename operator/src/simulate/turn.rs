//! What a process of the operator does: it plans, carries out one action after the other, and asks the gateways. Each
//! call takes its time, so that two processes can come between each other's.

use wsfleet_crds::labels;

use super::api::{created, mark_rollout};
use super::gateway::Gateway;
use super::time::{Millis, SECOND, seconds, stamp, whole};
use super::world::{Event, World, millis};
use crate::observe::model::{DryRun, OwnedKind, RevisionView};

use crate::plan::{Action, budget, plan};
use rand::Rng;

/// What a call takes.
const CALL: Millis = 5;
/// From a change to the pass that has heard of it.
pub(crate) const ECHO: Millis = 100;
/// Wait after a failure.
const BACKOFF: Millis = SECOND;
/// How often gateways under drain are asked.
const ASK_LEAVING: Millis = 2 * SECOND;
/// From the end of a process to the end of its Lease.
const LEASE: Millis = 15 * SECOND;

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The API server did it: a watch will tell.
    Written,
    /// A gateway was told, or not; the next pass decides.
    Told,
    /// The pass ends here.
    Failed,
}

impl World {
    /// The turn of the leader `index`: whatever of it is due.
    pub(crate) fn act(&mut self, index: usize) {
        let (now, leader) = (self.now, &mut self.leaders[index]);
        if leader.sample_at <= now {
            let interval = self.cluster.spec.autoscaling.metrics.interval_seconds;
            leader.sample_at = now + seconds(interval.max(1));
            leader.sample_leaving_at = now + ASK_LEAVING;
            self.ask(index, false);
        } else if leader.sample_leaving_at <= now {
            leader.sample_leaving_at = now + ASK_LEAVING;
            self.ask(index, true);
        } else if let Some(action) = leader.pending.pop_front() {
            self.go_on(index, action);
        } else {
            self.plan(index);
        }
    }

    /// Samples gateways, all or those that leave.
    fn ask(&mut self, index: usize, leaving: bool) {
        let asked: Vec<_> = self.leaders[index]
            .pods()
            .filter(|pod| pod.ip.is_some() && (!leaving || pod.drain.is_some()))
            .map(|pod| (pod.name.clone(), pod.uid.clone(), pod.drain.is_some()))
            .collect();
        let capacity = u64::from(self.cluster.spec.gateway.capacity.max_connections);
        let mut news = false;
        for (name, uid, is_leaving) in asked {
            let gateway = self.reach(&name, &uid);
            let state = gateway.map(|gateway| gateway.state(capacity));
            news |= self.leaders[index].heard(&uid, state, self.now) || is_leaving;
            self.leaders[index].measure(&uid, &self.cluster, self.now);
        }
        if news {
            let leader = &mut self.leaders[index];
            leader.plan_at = leader.plan_at.min(self.now);
            if leader.pending.is_empty() {
                leader.turn_at = leader.plan_at;
            }
        }
    }

    /// The gateway in a pod, when it answers.
    fn reach(&mut self, name: &str, uid: &str) -> Option<&mut Gateway> {
        let object = self.api.pods.get(name).filter(|object| object.view.uid == uid)?;
        let gateway = self.gateways.get_mut(object.gateway)?;
        (gateway.alive && !gateway.silent).then_some(gateway)
    }

    fn plan(&mut self, index: usize) {
        let (now, leader) = (self.now, &mut self.leaders[index]);
        let observed = leader.observe(&self.api, &self.nodes, now);
        let made = plan(&self.cluster, &observed, &self.defaults, stamp(now));
        self.record.passes += 1;
        leader.crowded = made.crowded;
        leader.pace = made.pace;
        leader.plan_at = now + millis(made.next_wakeup);
        leader.turn_at = if made.actions.is_empty() {
            leader.plan_at
        } else {
            now + CALL
        };
        leader.pending = made.actions.into();
        self.checks
            .wanted(&self.cluster.spec, made.status.desired_replicas, now);
        if self.cluster.status.as_ref() != Some(&made.status) {
            self.cluster.status = Some(made.status);
        }
        self.record
            .events
            .extend(made.events.into_iter().map(|event| (now, event)));
    }

    /// Carries out one action, unless the process ends before or after.
    fn go_on(&mut self, index: usize, action: Action) {
        if let Some(crash) = self.leaders[index].crash_in.as_mut() {
            if crash.actions == 0 {
                if crash.with_effect {
                    self.carry_out(index, action);
                }
                return self.crash(index);
            }
            crash.actions -= 1;
        }
        let outcome = self.carry_out(index, action);
        let (now, leader) = (self.now, &mut self.leaders[index]);
        match outcome {
            Outcome::Failed => {
                leader.pending.clear();
                leader.plan_at = now + BACKOFF;
            }
            Outcome::Written => leader.plan_at = leader.plan_at.min(now + ECHO),
            Outcome::Told => {}
        }
        leader.turn_at = if leader.pending.is_empty() {
            leader.plan_at.max(now + CALL)
        } else {
            now + CALL
        };
    }

    /// The process of leader `index` ends; another leads when its Lease has run out.
    pub(crate) fn crash(&mut self, index: usize) {
        self.leaders.remove(index);
        self.record.crashes += 1;
        self.at(self.now + LEASE, Event::Lead);
    }

    fn carry_out(&mut self, index: usize, action: Action) -> Outcome {
        let chaos = self.settings.chaos;
        let refused = chaos.refused > 0.0 && self.random.random_bool(chaos.refused);
        let unanswered = chaos.unanswered > 0.0 && self.random.random_bool(chaos.unanswered);
        if let Action::Drain { .. } = action {
            return self.call(index, action, refused, unanswered);
        }
        if refused {
            return Outcome::Failed;
        }
        self.record.writes += 1;
        let outcome = self.write(index, action, unanswered);
        self.notify();
        if unanswered { Outcome::Failed } else { outcome }
    }

    /// What the API server does.
    fn write(&mut self, index: usize, action: Action, unheard: bool) -> Outcome {
        let now = self.now;
        let mut written = None;
        match action {
            Action::ApplyService(object) => self.api.own(OwnedKind::Service, &*object),
            Action::ApplyBudget(object) => {
                self.api.own(OwnedKind::PodDisruptionBudget, &*object);
                let name = object.metadata.name.clone().unwrap_or_default();
                self.api.budgets.insert(name, *object);
            }
            Action::CreateAdminToken(_) => self.api.admin_token = true,
            Action::CreateRevision(object) => {
                let known = |view: &RevisionView| self.api.revisions.iter().any(|it| it.name == view.name);
                if let Some(view) = RevisionView::try_from(&*object).ok().filter(|view| !known(view)) {
                    self.api.revisions.push(view);
                }
            }
            Action::RenumberRevision { name, number } => {
                let mut revisions = self.api.revisions.iter_mut();
                if let Some(revision) = revisions.find(|it| it.name == name) {
                    revision.number = number;
                }
            }
            Action::MarkRevision { name, annotations } => {
                let mut revisions = self.api.revisions.iter_mut();
                if let Some(revision) = revisions.find(|it| it.name == name) {
                    mark_rollout(&mut revision.rollout, &annotations);
                }
            }
            Action::DeleteRevision { name } => self.api.revisions.retain(|it| it.name != name),
            Action::DryRunPod { hash, .. } => {
                self.leaders[index].dry_run = Some(DryRun {
                    hash,
                    at: stamp(now),
                    verdict: Ok(()),
                });
            }
            Action::CreatePod(pod) => {
                let uid = format!("u{}", self.gateways.len());
                if let Some(view) = created(&pod, uid, now) {
                    written = Some(view.name.clone());
                    self.create(view, pod.spec.as_ref());
                }
            }
            Action::MarkPod {
                name,
                uid,
                labels,
                annotations,
            } => {
                if !self.api.mark(&name, &uid, &labels, &annotations, now) {
                    return Outcome::Failed;
                }
                self.check_budgets(&name);
                written = Some(name);
            }
            Action::DeletePod {
                name,
                uid,
                version,
                grace_period,
                ..
            } => {
                if self.api.is(&name, &uid) && self.api.is_at(&name, version.as_deref()) {
                    self.check_delete(index, &name);
                    self.delete(&name, grace_period == Some(0));
                    written = Some(name);
                }
            }
            Action::RecordRecommendations(text) => {
                let annotations = self.cluster.metadata.annotations.get_or_insert_default();
                annotations.insert(labels::RECOMMENDATIONS.to_owned(), text);
            }
            Action::SetFinalizers { finalizers, .. } => self.cluster.metadata.finalizers = Some(finalizers),
            Action::Drain { .. } => {}
        }
        if let Some(name) = written.filter(|_| !unheard) {
            self.leaders[index].wrote(&self.api, &name);
        }
        Outcome::Written
    }

    /// `PUT drain`.
    fn call(&mut self, index: usize, action: Action, refused: bool, unanswered: bool) -> Outcome {
        let Action::Drain {
            name, mut request, ..
        } = action
        else {
            return Outcome::Told;
        };
        let now = self.now;
        request.epoch = self.leaders[index].epoch;
        let capacity = u64::from(self.cluster.spec.gateway.capacity.max_connections);
        let before = self.leaders[index].lend(&name, &request, now);
        let Some(uid) = self.api.pods.get(&name).map(|object| object.view.uid.clone()) else {
            return Outcome::Told;
        };
        let answer = self
            .reach(&name, &uid)
            .filter(|_| !refused)
            .map(|gateway| gateway.told(&request, now).map(|()| gateway.state(capacity)));
        let leader = &mut self.leaders[index];
        match answer {
            Some(Ok(state)) if !unanswered => {
                leader.heard(&uid, Some(state), now);
            }
            // it answers, so it is alive; what it had granted before stays in force
            Some(Err(_)) if !unanswered => {
                leader.put_lease(&name, before);
            }
            _ => {
                let asked = leader.put_lease(&name, before);
                leader.put_lease(&name, budget::unanswered(before, asked));
                leader.heard(&uid, None, now);
            }
        }
        Outcome::Told
    }

    /// A pod is gone for good: its record leaves the API server.
    pub(crate) fn remove(&mut self, gateway: usize) {
        let name = self.gateways[gateway].pod.clone();
        let uid = self.gateways[gateway].uid.clone();
        if self.api.is(&name, &uid) {
            self.api.remove(&name, self.now);
            self.notify();
        }
    }

    /// The pod of a gateway is Ready.
    pub(crate) fn become_ready(&mut self, gateway: usize) {
        let (name, uid) = (
            self.gateways[gateway].pod.clone(),
            self.gateways[gateway].uid.clone(),
        );
        let is_there = |view: &crate::observe::model::PodView| {
            view.uid == uid && view.deleting_since.is_none() && !view.finished
        };
        let node = self
            .api
            .pods
            .get(&name)
            .filter(|object| is_there(&object.view))
            .map(|object| object.node.clone());
        let runs = node.is_some_and(|node| {
            self.nodes
                .get(&node)
                .is_some_and(|node| node.not_ready_since.is_none())
        });
        if runs {
            self.gateways[gateway].start();
            let now = self.now;
            self.api.change(&name, now, |view| {
                view.ready_since = Some(whole(now));
                view.ip = Some("10.0.0.1".to_owned());
            });
            self.notify();
        }
    }
}
