//! What goes wrong in the tests only.

use wsfleet_crds::labels::DrainReason;

use crate::simulate::record::{Cause, Record};
use crate::simulate::time::Millis;
use crate::simulate::world::{Event, World};

impl Record {
    /// Sockets closed for `reason` by drains.
    pub(super) fn drained(&self, reason: DrainReason) -> u64 {
        self.closes.get(&Cause::Drain(reason)).copied().unwrap_or(0)
    }
}

impl World {
    /// Another process leads from now on, and the one that led hears of it only after `overlap`.
    pub(super) fn depose(&mut self, overlap: Millis) {
        for leader in &mut self.leaders {
            leader.until.get_or_insert(self.now + overlap);
        }
        self.at(self.now, Event::Lead);
    }

    /// A pod fails for good (evicted by its node).
    pub(super) fn fail_pod(&mut self, index: usize) {
        let Some(name) = self.pod_at(index) else { return };
        self.lose_sockets(self.api.pods[&name].gateway);
        let now = self.now;
        self.api.change(&name, now, |view| {
            view.finished = true;
            view.ready_since = None;
        });
        self.notify();
    }

    /// Somebody else deletes a pod.
    pub(super) fn delete_foreign(&mut self, index: usize) {
        let Some(name) = self.pod_at(index) else { return };
        self.delete(&name, false);
        self.notify();
    }

    /// The operator cannot reach a gateway, or can again.
    pub(super) fn silence(&mut self, index: usize, silent: bool) {
        let Some(name) = self.pod_at(index) else { return };
        let number = self.api.pods[&name].gateway;
        self.gateways[number].silent = silent;
    }

    /// Pods for which no node was found get one when one is back.
    pub(super) fn schedule_rest(&mut self) {
        let usable = self
            .nodes
            .values()
            .find(|node| !node.draining && node.not_ready_since.is_none());
        let Some(node) = usable.map(|node| node.name.clone()) else {
            return;
        };
        let now = self.now;
        let mut started: Vec<(Millis, usize)> = Vec::new();
        for object in self.api.pods.values_mut().filter(|object| object.node.is_empty()) {
            object.node.clone_from(&node);
            started.push((now + self.settings.start, object.gateway));
        }
        for (at, number) in started {
            self.at(at, Event::Ready(number));
        }
    }
}
