//! Kubelets, gateways and clients: pods come and go, sockets are opened, closed and left.

use k8s_openapi::api::core::v1::PodSpec;
use rand::Rng;
use wsfleet_crds::admin::GatewayPhase;
use wsfleet_crds::labels::DrainReason;

use super::clients::{jittered, poisson};
use super::gateway::{ClientId, Gateway};
use super::record::Cause;
use super::time::{Millis, SECOND, seconds, whole};
use super::world::{Event, TICK, World};
use crate::observe::model::PodView;

/// From the end of a process to the end of its pod's record.
const REMOVAL: Millis = 300;
/// A gateway that refuses a client tells it to come again after about so long.
const RETRY: Millis = SECOND;
/// An image with this text in its name cannot be pulled.
const BROKEN: &str = "broken";
/// One with this text comes up, and fails a fifth of the handshakes.
const FAULTY: &str = "faulty";
/// That share.
const FAULTY_SHARE: f64 = 0.2;

impl World {
    /// Stores a pod, puts it on the node with the fewest, and starts its process.
    pub(crate) fn create(&mut self, view: PodView, spec: Option<&PodSpec>) {
        let (name, now) = (view.name.clone(), self.now);
        if self.api.pods.contains_key(&name) {
            return;
        }
        self.check_surge(&name);
        let usable = self
            .nodes
            .values()
            .filter(|node| !node.draining && node.not_ready_since.is_none());
        let pods_on = |node: &str| {
            self.api
                .pods
                .values()
                .filter(|object| object.node == node)
                .count()
        };
        let node = usable
            .min_by_key(|node| pods_on(&node.name))
            .map(|node| node.name.clone())
            .unwrap_or_default();
        let image = spec.and_then(|spec| spec.containers.first()?.image.clone());
        let is = |kind: &str| image.as_ref().is_some_and(|image| image.contains(kind));
        let (broken, faulty) = (is(BROKEN), is(FAULTY));
        let mut gateway = Gateway::new(name.clone(), view.uid.clone(), view.revision.clone());
        gateway.fails = if faulty { FAULTY_SHARE } else { 0.0 };
        self.gateways.push(gateway);
        let number = self.gateways.len() - 1;
        let unscheduled = node.is_empty();
        self.api.create(view, number, node, now);
        if broken {
            let waiting = "ImagePullBackOff: cannot pull the image".to_owned();
            self.api.change(&name, now, |view| view.waiting = Some(waiting));
        } else if !unscheduled {
            let start = self.settings.start;
            let jitter = self.random.random_range(0..=start / 5);
            self.at(now + start - start / 10 + jitter, Event::Ready(number));
        }
        self.check_budgets(&name);
    }

    /// Deletes a pod: SIGTERM, or at once when it is forced or no process is left.
    pub(crate) fn delete(&mut self, name: &str, forced: bool) {
        let now = self.now;
        let Some(object) = self.api.pods.get(name) else {
            return;
        };
        let (number, deleting) = (object.gateway, object.view.deleting_since.is_some());
        let nodes_up = self
            .nodes
            .get(&object.node)
            .is_none_or(|node| node.not_ready_since.is_none());
        let gateway = &mut self.gateways[number];
        if forced || (nodes_up && (!gateway.alive || object.view.finished)) {
            self.lose_sockets(number);
            if forced {
                self.api.remove(name, now);
            } else {
                self.api.change(name, now, |view| {
                    view.deleting_since.get_or_insert(whole(now));
                });
                self.at(now + REMOVAL, Event::Gone(number));
            }
            return;
        }
        if deleting {
            return;
        }
        let drain = &self.cluster.spec.drain;
        let window = seconds(drain.timeout_seconds);
        let grace = window + seconds(drain.termination_margin_seconds);
        if gateway.alive {
            gateway.terminate(window, now);
        }
        self.api
            .change(name, now, |view| view.deleting_since = Some(whole(now)));
        self.at(now + grace, Event::Kill(number));
    }

    /// SIGKILL at the end of the grace period; a lost node does not hear of it.
    pub(crate) fn kill(&mut self, number: usize) {
        let (name, uid) = (
            self.gateways[number].pod.clone(),
            self.gateways[number].uid.clone(),
        );
        let node = self.api.pods.get(&name).filter(|object| object.view.uid == uid);
        let Some(node) = node.map(|object| object.node.clone()) else {
            return;
        };
        self.lose_sockets(number);
        if self
            .nodes
            .get(&node)
            .is_none_or(|node| node.not_ready_since.is_none())
        {
            self.at(self.now + REMOVAL, Event::Gone(number));
        }
    }

    /// The process ends without a word: its clients come back within the window of the resource.
    pub(crate) fn lose_sockets(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        gateway.alive = false;
        let dropped = std::mem::take(&mut gateway.sockets);
        self.record.closed(Cause::Lost, dropped.len());
        let window = seconds(self.cluster.spec.drain.reconnect.window_seconds);
        for id in dropped {
            let at = jittered(self.now, window, &mut self.random);
            self.clients.come_back(id, at);
        }
    }

    /// Gateways and clients for one tick.
    pub(crate) fn tick(&mut self) {
        for number in 0..self.gateways.len() {
            if self.gateways[number].alive {
                self.churn(number);
                self.pace(number);
            }
        }
        let new = poisson(
            self.settings.arrivals * TICK as f64 / SECOND as f64,
            &mut self.random,
        );
        for _ in 0..new {
            self.clients.arrive(self.now);
        }
        self.place();
        self.check_rates();
        if self.now.is_multiple_of(SECOND) {
            self.keep_frame();
        }
    }

    /// Clients that leave by themselves.
    fn churn(&mut self, number: usize) {
        let life = self.settings.mean_life;
        if life <= 0.0 {
            return;
        }
        let gateway = &mut self.gateways[number];
        let mean = gateway.sockets.len() as f64 * TICK as f64 / SECOND as f64 / life;
        let leaving = poisson(mean, &mut self.random).min(gateway.sockets.len() as u64);
        for _ in 0..leaving {
            let index = self.random.random_range(0..gateway.sockets.len());
            let id = gateway.sockets.swap_remove(index);
            gateway.natural_closed += 1;
            gateway.health.closes += 1;
            self.clients.leave(id);
        }
        self.record.left += leaving;
    }

    /// Sockets that a drain or SIGTERM closes; their clients have been told when to come, and come at once.
    fn pace(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        let count = gateway.due(TICK, self.now);
        let terminating = gateway.phase == GatewayPhase::Terminating;
        if count > 0 {
            let view = self.api.pods.get(&gateway.pod).map(|object| &object.view);
            let reason = view
                .and_then(|view| view.drain.as_ref())
                .map(|drain| drain.reason);
            let cause = match reason {
                _ if terminating => Cause::Terminated,
                Some(reason) => Cause::Drain(reason),
                None => Cause::Drain(DrainReason::Replace),
            };
            let mut closed = 0;
            while closed < count
                && let Some(index) = self.old_enough(number)
            {
                closed += 1;
                let gateway = &mut self.gateways[number];
                let id = gateway.sockets.swap_remove(index);
                gateway.forced_closed += 1;
                if reason == Some(DrainReason::Rebalance) {
                    self.check_age(id);
                }
                if reason == Some(DrainReason::Rollout) {
                    self.clients.moved(id);
                }
                self.clients.come_back(id, self.now);
            }
            self.record.closed(cause, closed);
            if terminating {
                self.checks.terminated(closed);
            } else {
                self.checks.closed(closed);
            }
        }
        if terminating && self.gateways[number].sockets.is_empty() {
            self.gateways[number].alive = false;
            self.at(self.now + REMOVAL, Event::Gone(number));
        }
    }

    /// A socket by chance that the drain of the gateway may close.
    fn old_enough(&mut self, number: usize) -> Option<usize> {
        let gateway = &self.gateways[number];
        let count = gateway.sockets.len();
        let start = self.random.random_range(0..count.max(1));
        let age = if gateway.phase == GatewayPhase::Draining {
            gateway.min_age
        } else {
            0
        };
        let clients = &self.clients;
        let is_old = |index: &usize| age == 0 || clients.since(gateway.sockets[*index]) + age <= self.now;
        (0..count).map(|index| (start + index) % count).find(is_old)
    }

    /// Gateways that the Service sends clients to.
    fn endpoints(&self) -> Vec<usize> {
        self.api
            .pods
            .values()
            .filter(|object| {
                let view = &object.view;
                let is_up = view.ready_since.is_some() && !view.finished;
                view.accepting && is_up && view.deleting_since.is_none()
            })
            .map(|object| object.gateway)
            .collect()
    }

    /// Clients whose attempt is due connect to any endpoint, and come again when it refuses them.
    fn place(&mut self) {
        let due = self.clients.due(self.now);
        let endpoints = if due.is_empty() {
            Vec::new()
        } else {
            self.endpoints()
        };
        let capacity = &self.cluster.spec.gateway.capacity;
        let most = capacity.max_connections as usize;
        let burst = (u64::from(capacity.max_handshakes_per_second) * TICK).div_ceil(SECOND) as u32;
        for id in due {
            let chosen =
                (!endpoints.is_empty()).then(|| endpoints[self.random.random_range(0..endpoints.len())]);
            let taken = chosen.is_some_and(|number| {
                let gateway = &mut self.gateways[number];
                if !gateway.accepts() {
                    return false;
                }
                if gateway.accepted >= burst {
                    gateway.health.handshakes_paced += 1;
                    return false;
                }
                gateway.health.handshakes += 1;
                let fails = gateway.fails > 0.0 && self.random.random_bool(gateway.fails);
                let takes = !fails && gateway.sockets.len() < most;
                if takes {
                    gateway.sockets.push(id);
                    gateway.accepted += 1;
                    self.clients.connected(id, self.now);
                } else {
                    gateway.health.handshakes_failed += 1;
                    gateway.health.handshakes_full += u64::from(!fails);
                }
                takes
            });
            if !taken {
                self.refuse(id);
            }
        }
        let share = TICK as f64 / (10.0 * SECOND as f64);
        for gateway in self.gateways.iter_mut().filter(|gateway| gateway.alive) {
            let rate = f64::from(std::mem::take(&mut gateway.accepted)) * SECOND as f64 / TICK as f64;
            gateway.handshakes += (rate - gateway.handshakes) * share;
        }
    }

    fn refuse(&mut self, id: ClientId) {
        self.record.refused += 1;
        let wait = self.random.random_range(RETRY / 2..=RETRY * 3 / 2);
        self.clients.come_back(id, self.now + wait);
    }
}
