//! What must hold whatever happens; a breach is kept with the time at which it happened.

use std::collections::VecDeque;

use wsfleet_crds::v1alpha1::{DrainSpec, WebSocketClusterSpec};

use super::gateway::ClientId;
use super::time::{Millis, SECOND, seconds, stamp};
use super::world::{TICK, World};
use crate::observe::model::PodView;
use crate::plan::{MIN_AGE_SECONDS, surge};
use wsfleet_crds::admin::GatewayPhase;
use wsfleet_crds::labels::DrainReason;

/// Breaches that are kept; the first ones tell the most.
const KEPT: usize = 20;
/// A lease that was granted when the fleet was larger may be in force so long.
const MEMORY: Millis = 36 * SECOND;
/// A plan that was made for a larger fleet may still be carried out.
const PLAN: Millis = 25 * SECOND;

/// Breaches, and what is needed to see them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    pub(crate) breaches: Vec<String>,
    /// Closes under leases and by SIGTERM in the last ticks, a second of them.
    window: VecDeque<(u64, u64)>,
    now: (u64, u64),
    fleet: VecDeque<(Millis, u64)>,
    pub(crate) bounds: VecDeque<(Millis, u32)>,
    /// Most closes under leases in a second, and most beside the budget of then, in thousandths of it.
    pub(crate) busiest: u64,
    pub(crate) busiest_share: f64,
    pub(crate) most_of_budget: f64,
}

impl Checks {
    /// Something that must not happen has happened.
    pub(crate) fn breach(&mut self, now: Millis, what: &str) {
        if self.breaches.len() < KEPT {
            self.breaches.push(format!("at {} s: {what}", now / SECOND));
        }
    }

    /// Sockets closed in this tick under a lease.
    pub(crate) fn closed(&mut self, count: usize) {
        self.now.0 += count as u64;
    }

    /// Sockets closed in this tick by gateways that were deleted.
    pub(crate) fn terminated(&mut self, count: usize) {
        self.now.1 += count as u64;
    }

    /// A plan is made for `desired` pods.
    pub(crate) fn wanted(&mut self, spec: &WebSocketClusterSpec, desired: u32, now: Millis) {
        let bound = desired + surge(&spec.rollout, desired);
        self.bounds.push_back((now, bound));
        while self.bounds.len() > 1 && self.bounds.front().is_some_and(|(at, _)| at + PLAN < now) {
            self.bounds.pop_front();
        }
    }
}

impl World {
    /// No pod goes with sockets before its deadline, but one that is gone already or cannot be told.
    pub(crate) fn check_delete(&mut self, index: usize, name: &str) {
        let Some(object) = self.api.pods.get(name) else {
            return;
        };
        let (view, gateway) = (&object.view, &self.gateways[object.gateway]);
        let sockets = gateway.sockets.len();
        let drain = view.drain.as_ref();
        let late = drain
            .and_then(|drain| drain.deadline)
            .is_some_and(|deadline| deadline <= stamp(self.now));
        let unreachable = self.leaders[index]
            .samples
            .get(&view.uid)
            .is_some_and(|sample| sample.unreachable_since.is_some());
        let over = view.deleting_since.is_some() || view.finished || !gateway.alive;
        if sockets > 0 && !late && !unreachable && !over {
            let text = format!("{name} is deleted with {sockets} sockets before its deadline");
            self.checks.breach(self.now, &text);
        }
    }

    /// No pod is made above the wanted number and the surge; pods that leave because the fleet shrinks are beside it.
    pub(crate) fn check_surge(&mut self, name: &str) {
        let shrinks = |view: &PodView| {
            view.drain
                .as_ref()
                .is_some_and(|drain| drain.reason == DrainReason::ScaleIn)
        };
        let lost = |node: &str| {
            self.nodes
                .get(node)
                .is_some_and(|node| node.not_ready_since.is_some())
        };
        let counted = self.api.pods.values().filter(|object| {
            let view = &object.view;
            view.deleting_since.is_none() && !view.finished && !shrinks(view) && !lost(&object.node)
        });
        let counted = counted.count() as u32;
        let bound = self
            .checks
            .bounds
            .iter()
            .map(|(_, bound)| *bound)
            .max()
            .unwrap_or(0);
        if counted >= bound {
            let text = format!("{name} is made beside {counted} pods, {bound} are allowed");
            self.checks.breach(self.now, &text);
        }
    }

    /// A socket that moved just now is not closed to even gateways out.
    pub(crate) fn check_age(&mut self, id: ClientId) {
        let age = self.now - self.clients.since(id);
        if age < seconds(MIN_AGE_SECONDS) {
            let text = format!("a socket is closed to even gateways out {age} ms after it was opened");
            self.checks.breach(self.now, &text);
        }
    }

    /// No pod is in two disruption budgets, since nothing could ever evict it then.
    pub(crate) fn check_budgets(&mut self, name: &str) {
        let Some(object) = self.api.pods.get(name) else {
            return;
        };
        let cluster = self.cluster.metadata.name.as_deref().unwrap_or_default();
        let budgets = self.api.budgets_of(cluster, &object.view);
        if budgets > 1 {
            let text = format!("{name} is in {budgets} disruption budgets");
            self.checks.breach(self.now, &text);
        }
    }

    /// The drains close no more in any second than the budget of the largest fleet that a lease in force may know.
    pub(crate) fn check_rates(&mut self) {
        let (now, connected) = (self.now, self.connected());
        let fleet = connected + self.clients.homeless;
        let checks = &mut self.checks;
        if checks
            .fleet
            .back()
            .is_none_or(|(at, most)| at + SECOND <= now || *most < fleet)
        {
            checks.fleet.push_back((now, fleet));
        }
        while checks.fleet.len() > 1 && checks.fleet.front().is_some_and(|(at, _)| at + MEMORY < now) {
            checks.fleet.pop_front();
        }
        let closed = std::mem::take(&mut checks.now);
        checks.window.push_back(closed);
        if checks.window.len() > (SECOND / TICK) as usize {
            checks.window.pop_front();
        }
        let leased: u64 = checks.window.iter().map(|(leased, _)| leased).sum();
        if leased == 0 {
            return;
        }
        let most = checks.fleet.iter().map(|(_, fleet)| *fleet).max().unwrap_or(0);
        let budget = budget(&self.cluster.spec.drain, most);
        let draining = self
            .gateways
            .iter()
            .filter(|gateway| gateway.phase == GatewayPhase::Draining)
            .count() as u64;
        checks.busiest = checks.busiest.max(leased);
        checks.busiest_share = checks.busiest_share.max(leased as f64 / fleet.max(1) as f64);
        checks.most_of_budget = checks.most_of_budget.max(leased as f64 / budget as f64);
        // a fraction of a socket may wait at each gateway
        if leased > budget + draining + 1 {
            let text =
                format!("{leased} sockets of {fleet} are closed within a second, the budget is {budget}");
            self.checks.breach(now, &text);
        }
    }
}

/// Closes per second that `spec.drain` allows a fleet of so many sockets.
pub(crate) fn budget(drain: &DrainSpec, fleet: u64) -> u64 {
    let share = (fleet * u64::from(drain.max_disconnect_permille)).div_ceil(1_000);
    let ceiling = drain.max_disconnects_per_second.map_or(u64::MAX, u64::from);
    share
        .max(drain.min_disconnects_per_second.into())
        .min(ceiling)
        .max(1)
}
