//! What goes wrong in a cluster, and what people do to it.

use super::leader::Crash;
use super::time::{stamp, whole};
use super::world::{Event, World};

impl World {
    /// Names of the pods that are there, in order.
    pub(crate) fn pod_at(&self, index: usize) -> Option<String> {
        let count = self.api.pods.len();
        (count > 0).then(|| self.api.pods.keys().nth(index % count).cloned())?
    }

    /// The process in a pod ends and is started again by the kubelet.
    pub(crate) fn crash_gateway(&mut self, index: usize) {
        let Some(name) = self.pod_at(index) else { return };
        let number = self.api.pods[&name].gateway;
        if !self.gateways[number].alive {
            return;
        }
        self.lose_sockets(number);
        let now = self.now;
        let deleting = self.api.pods[&name].view.deleting_since.is_some();
        self.api.change(&name, now, |view| {
            view.ready_since = None;
            view.restarts += 1;
            view.restarted_at = Some(whole(now));
        });
        let next = if deleting {
            Event::Gone(number)
        } else {
            Event::Ready(number)
        };
        self.at(now + self.settings.start, next);
        self.notify();
    }

    /// A node, and everything on it, is not heard of any more, or is back.
    pub(crate) fn lose_node(&mut self, name: &str, lost: bool) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if lost == node.not_ready_since.is_some() {
            return;
        }
        node.not_ready_since = lost.then(|| stamp(now));
        let on_it: Vec<_> = self
            .api
            .pods
            .iter()
            .filter(|(_, object)| object.node == name)
            .map(|(name, object)| (name.clone(), object.gateway, object.view.deleting_since.is_some()))
            .collect();
        for (pod, number, deleting) in on_it {
            if lost {
                self.lose_sockets(number);
                self.api.change(&pod, now, |view| view.ready_since = None);
            } else if deleting {
                self.at(now, Event::Gone(number));
            } else {
                self.at(now + self.settings.start, Event::Ready(number));
            }
        }
        self.notify();
    }

    /// A node is cordoned for maintenance, or taken back.
    pub(crate) fn drain_node(&mut self, name: &str, draining: bool) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.draining = draining;
        }
        self.notify();
    }

    /// The name of a node.
    pub(crate) fn node_at(&self, index: usize) -> String {
        self.nodes
            .keys()
            .nth(index % self.nodes.len().max(1))
            .cloned()
            .unwrap_or_default()
    }

    /// Every leader's process ends after so many actions.
    pub(crate) fn crash_in(&mut self, actions: u32, with_effect: bool) {
        for leader in &mut self.leaders {
            leader.crash_in.get_or_insert(Crash { actions, with_effect });
        }
    }

    /// New clients, all at once.
    pub(crate) fn arrive(&mut self, clients: u64) {
        for _ in 0..clients {
            self.clients.arrive(self.now);
        }
    }

    /// Another image.
    pub(crate) fn roll_to(&mut self, image: &str) {
        let image = image.to_owned();
        self.edit(|spec| spec.gateway.image = Some(image));
    }
}
