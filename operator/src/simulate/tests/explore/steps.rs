//! What can come next in a state, and what must never be.

use wsfleet_crds::admin::{DrainMode, GatewayPhase};

use super::state::{Base, NOW, Pod, State};
use crate::observe::model::RevisionView;
use crate::plan::{Action, budget, plan};
use crate::simulate::api;
use crate::simulate::gateway::Gateway;
use crate::simulate::time::{Millis, SECOND, stamp, whole};

/// How far the clock moves at once: the time after which a lease is renewed.
const SPAN: Millis = 5 * SECOND;
/// Spans for which a process goes on that does not know that another leads.
const OVERLAP: u8 = 3;

/// Something that can come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A leader plans on what is, or on what it knew before.
    Plan { leader: usize, stale: bool },
    /// It carries out its next action.
    Act(usize),
    /// Its process ends, before its next action or after it, and another leads.
    Crash { leader: usize, with_effect: bool },
    /// Another leads beside it for a while.
    Usurp,
    /// A pod is Ready.
    Ready(usize),
    /// A socket is left by its client.
    Depart(usize),
    /// A gateway closes a socket, which comes back somewhere else.
    Close(usize),
    /// A gateway that was told to end has ended.
    End(usize),
    /// The processes of a pod are gone.
    Lose(usize),
    /// Time passes.
    Wait,
}

impl State {
    /// Everything that can come next.
    pub(super) fn steps(&self) -> Vec<Step> {
        let [losses, crashes, usurpers] = self.faults;
        let mut steps = Vec::new();
        for (leader, process) in self.leaders.iter().enumerate() {
            if process.pending.is_empty() {
                steps.push(Step::Plan { leader, stale: false });
                steps.push(Step::Plan { leader, stale: true });
            } else {
                steps.push(Step::Act(leader));
                if crashes > 0 {
                    let crash = |with_effect| Step::Crash { leader, with_effect };
                    steps.extend([false, true].map(crash));
                }
            }
        }
        if usurpers > 0 && self.leaders.len() == 1 {
            steps.push(Step::Usurp);
        }
        for (index, pod) in self.pods.values().enumerate() {
            let (gateway, view) = (&pod.gateway, &pod.view);
            if !gateway.alive && !view.finished && view.deleting_since.is_none() {
                steps.push(Step::Ready(index));
            }
            if !gateway.sockets.is_empty() {
                steps.push(Step::Depart(index));
                let granted = gateway.granted(NOW) > 0.0 && gateway.surplus() > 0;
                if granted || gateway.phase == GatewayPhase::Terminating {
                    steps.push(Step::Close(index));
                }
            }
            if view.deleting_since.is_some() && gateway.sockets.is_empty() {
                steps.push(Step::End(index));
            }
            if losses > 0 && gateway.alive && view.deleting_since.is_none() {
                steps.push(Step::Lose(index));
            }
        }
        steps.push(Step::Wait);
        steps
    }

    /// The state after `step`, or what must not be.
    pub(super) fn after(&self, step: Step) -> Result<Self, String> {
        let mut next = self.clone();
        next.take(step)?;
        next.check()?;
        Ok(next)
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Plan { leader, stale } => self.plan(leader, stale),
            Step::Act(leader) => self.act(leader)?,
            Step::Crash { leader, with_effect } => {
                if with_effect {
                    self.act(leader)?;
                }
                self.faults[1] -= 1;
                self.leaders.remove(leader);
                if self.leaders.iter().all(|other| other.spans_left.is_some()) {
                    self.lead();
                }
            }
            Step::Usurp => {
                self.faults[2] -= 1;
                self.leaders[0].spans_left = Some(OVERLAP);
                self.lead();
            }
            Step::Ready(index) => {
                let pod = self.pod(index)?;
                pod.gateway.start();
                pod.view.ready_since = Some(whole(NOW));
                pod.view.version = Some("ready".to_owned());
                pod.view.ip = Some("10.0.0.1".to_owned());
            }
            Step::Depart(index) => {
                self.pod(index)?.gateway.sockets.pop();
            }
            Step::Close(index) => {
                self.pod(index)?.gateway.sockets.pop();
                self.come_back();
            }
            Step::End(index) => {
                let name = self.pod(index)?.view.name.clone();
                self.pods.remove(&name);
            }
            Step::Lose(index) => {
                self.faults[0] -= 1;
                let pod = self.pod(index)?;
                pod.gateway.alive = false;
                pod.gateway.sockets.clear();
                pod.view.finished = true;
                pod.view.ready_since = None;
            }
            Step::Wait => self.pass_time(SPAN),
        }
        Ok(())
    }

    fn pod(&mut self, index: usize) -> Result<&mut Pod, String> {
        self.pods
            .values_mut()
            .nth(index)
            .ok_or_else(|| "no such pod".to_owned())
    }

    /// A client connects to the emptiest endpoint of the Service, if there is one that accepts.
    fn come_back(&mut self) {
        let open = self.pods.values_mut().filter(|pod| {
            let view = &pod.view;
            view.accepting
                && view.ready_since.is_some()
                && view.deleting_since.is_none()
                && pod.gateway.accepts()
        });
        if let Some(pod) = open.min_by_key(|pod| pod.gateway.sockets.len()) {
            pod.gateway.sockets.push(0);
        }
    }

    fn plan(&mut self, leader: usize, stale: bool) {
        if !stale {
            self.refresh(leader);
        }
        let observed = self.observed(leader);
        let Base {
            cluster, defaults, ..
        } = &*self.base;
        let made = plan(cluster, &observed, defaults, stamp(NOW));
        self.leaders[leader].pending = made.actions;
        self.leaders[leader].crowded = made.crowded;
    }

    fn act(&mut self, leader: usize) -> Result<(), String> {
        let action = self.leaders[leader].pending.remove(0);
        match action {
            Action::CreatePod(pod) => {
                let name = pod.metadata.name.clone().unwrap_or_default();
                // another pod of the same name has another UID
                self.born = (self.born + 1) % 4;
                let uid = format!("{name}.{}", self.born);
                let mut view = api::created(&pod, uid.clone(), NOW).ok_or("not a gateway's pod")?;
                view.version = Some("new".to_owned());
                if !self.pods.contains_key(&name) {
                    let gateway = Gateway::new(name.clone(), uid, view.revision.clone());
                    self.pods.insert(name.clone(), Pod { view, gateway });
                }
                self.wrote(leader, &name);
            }
            Action::MarkRevision { name, annotations } => {
                let base = &self.base;
                let is_wanted = |it: &RevisionView| it.name == name && it.hash == base.wanted;
                if base.observed.revisions.iter().any(is_wanted) {
                    api::mark_rollout(&mut self.rollout, &annotations);
                    self.leaders[leader].rollout = self.rollout.clone();
                }
            }
            Action::MarkPod {
                name,
                uid,
                labels,
                annotations,
            } => {
                let found = self.pods.get_mut(&name).filter(|pod| pod.view.uid == uid);
                let Some(pod) = found else {
                    self.leaders[leader].pending.clear();
                    return Ok(());
                };
                api::mark(&mut pod.view, &labels, &annotations);
                self.wrote(leader, &name);
            }
            Action::DeletePod {
                name,
                uid,
                version,
                grace_period,
                ..
            } => {
                let is_it =
                    |pod: &Pod| pod.view.uid == uid && (version.is_none() || version == pod.view.version);
                if self.pods.get(&name).is_some_and(is_it) {
                    self.delete(&name, grace_period == Some(0))?;
                    self.wrote(leader, &name);
                }
            }
            Action::Drain {
                name, mut request, ..
            } => {
                request.epoch = self.leaders[leader].epoch;
                let rate = request.rate_per_second.unwrap_or(0.0);
                let time = request.lease_seconds.unwrap_or(30);
                let lends = request.mode == DrainMode::Drain;
                let answers = |pod: &&mut Pod| pod.gateway.alive;
                let told = self.pods.get_mut(&name).filter(answers);
                let told = told.map(|pod| pod.gateway.told(&request, NOW));
                let leases = &mut self.leaders[leader].leases;
                match told {
                    Some(Err(_)) => {}
                    _ if lends => {
                        leases.insert(name, budget::lease(rate, time, stamp(NOW)));
                    }
                    _ => {
                        leases.remove(&name);
                    }
                }
            }
            // the objects beside the pods are there already, and nothing depends on them
            _ => {}
        }
        Ok(())
    }

    /// What a leader wrote is in its cache at once.
    fn wrote(&mut self, leader: usize, name: &str) {
        let cache = &mut self.leaders[leader].cache;
        let known = cache.get(name).and_then(|view| view.gateway.clone());
        match self.pods.get(name) {
            Some(pod) => {
                let mut view = pod.view.clone();
                view.gateway = known.filter(|_| cache.get(name).is_some_and(|old| old.uid == view.uid));
                cache.insert(name.to_owned(), view);
            }
            None => {
                cache.remove(name);
            }
        }
    }

    fn delete(&mut self, name: &str, forced: bool) -> Result<(), String> {
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(());
        };
        let deadline = pod.view.drain.as_ref().and_then(|drain| drain.deadline);
        let late = deadline.is_some_and(|deadline| deadline <= stamp(NOW));
        let sockets = pod.gateway.sockets.len();
        if sockets > 0 && !late && pod.view.deleting_since.is_none() {
            return Err(format!(
                "{name} is deleted with {sockets} sockets before its deadline"
            ));
        }
        if forced || !pod.gateway.alive {
            self.pods.remove(name);
        } else {
            pod.view.deleting_since.get_or_insert(whole(NOW));
            pod.gateway.terminate(60 * SECOND, NOW);
        }
        Ok(())
    }

    /// What holds in every state.
    fn check(&self) -> Result<(), String> {
        let spec = &self.base.cluster.spec;
        let live = self.pods.values().filter(|pod| {
            let view = &pod.view;
            let shrinks = view.drain.as_ref().is_some_and(|drain| drain.reason == SCALE_IN);
            view.deleting_since.is_none() && !view.finished && !shrinks
        });
        let live = live.count() as u32;
        let bound = (spec.replicas + spec.rollout.max_surge.round_up(spec.replicas)).max(self.base.started);
        if live > bound {
            return Err(format!("{live} pods, {bound} are allowed"));
        }
        let granted: u64 = self
            .pods
            .values()
            .filter_map(|pod| pod.gateway.lease(NOW))
            .map(|(rate, _)| rate)
            .sum();
        let budget = u64::from(spec.drain.min_disconnects_per_second) * 1_000;
        if granted > budget + self.pods.len() as u64 {
            return Err(format!(
                "{granted} closes are granted, the budget is {budget} (thousandths a second)"
            ));
        }
        Ok(())
    }

    /// Whether nothing is left to do.
    pub(super) fn is_at_rest(&self, target: &str) -> bool {
        let replicas = self.base.cluster.spec.replicas as usize;
        let right = |pod: &Pod| {
            pod.view.revision == target && pod.view.drain.is_none() && pod.view.ready_since.is_some()
        };
        self.pods.len() == replicas && self.pods.values().all(right)
    }
}

const SCALE_IN: wsfleet_crds::labels::DrainReason = wsfleet_crds::labels::DrainReason::ScaleIn;
