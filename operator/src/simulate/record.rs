//! What a run was like: sums, and a frame a second for the picture.

use std::collections::BTreeMap;

use wsfleet_crds::labels::{DrainReason, PodPhase};

use super::time::Millis;
use super::world::World;
use crate::plan::EventDraft;

/// Why a socket was closed by somebody else than its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// By a drain, under a lease.
    Drain(DrainReason),
    /// By a gateway after SIGTERM, paced by itself.
    Terminated,
    /// Cut, because the process ended.
    Lost,
}

impl Cause {
    /// For the table.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Drain(reason) => reason.as_str(),
            Self::Terminated => "SIGTERM",
            Self::Lost => "cut",
        }
    }
}

/// The fleet at one second.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) at: Millis,
    /// Pods by state: starting, serving, cordoned, draining, terminating.
    pub(crate) pods: [u32; 5],
    /// Sockets of each gateway that runs.
    pub(crate) sockets: Vec<(u32, u32)>,
    /// Closed by drains, by SIGTERM, and cut, in the second before.
    pub(crate) closed: [u64; 3],
    /// What `spec.drain` allows to close in a second.
    pub(crate) budget: u64,
}

/// Sums and frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) frames: Vec<Frame>,
    /// Frames are kept.
    pub(crate) filming: bool,
    pub(crate) closes: BTreeMap<Cause, u64>,
    second: [u64; 3],
    pub(crate) left: u64,
    pub(crate) refused: u64,
    pub(crate) passes: u64,
    pub(crate) writes: u64,
    pub(crate) crashes: u64,
    pub(crate) most_pods: usize,
    pub(crate) fullest: usize,
    pub(crate) most_homeless: u64,
    pub(crate) events: Vec<(Millis, EventDraft)>,
}

impl Record {
    /// `count` sockets were closed.
    pub(crate) fn closed(&mut self, cause: Cause, count: usize) {
        *self.closes.entry(cause).or_default() += count as u64;
        let kind = match cause {
            Cause::Drain(_) => 0,
            Cause::Terminated => 1,
            Cause::Lost => 2,
        };
        self.second[kind] += count as u64;
    }

    /// Forgets everything before now.
    pub(crate) fn restart(&mut self) {
        *self = Self {
            filming: self.filming,
            ..Self::default()
        };
    }
}

impl World {
    /// Keeps how the fleet is now.
    pub(crate) fn keep_frame(&mut self) {
        let running = self
            .gateways
            .iter()
            .enumerate()
            .filter(|(_, gateway)| gateway.alive);
        let mut fullest = 0;
        let mut sockets = Vec::new();
        for (number, gateway) in running {
            fullest = fullest.max(gateway.sockets.len());
            if self.record.filming {
                sockets.push((number as u32, gateway.sockets.len() as u32));
            }
        }
        let closed = std::mem::take(&mut self.record.second);
        self.record.fullest = self.record.fullest.max(fullest);
        self.record.most_pods = self.record.most_pods.max(self.api.pods.len());
        self.record.most_homeless = self.record.most_homeless.max(self.clients.homeless);
        if !self.record.filming {
            return;
        }
        let mut pods = [0; 5];
        for object in self.api.pods.values() {
            let view = &object.view;
            let state = match (&view.drain, view.phase) {
                _ if view.deleting_since.is_some() => 4,
                (Some(_), PodPhase::Draining) => 3,
                (Some(_), _) => 2,
                (None, _) if view.ready_since.is_some() => 1,
                (None, _) => 0,
            };
            pods[state] += 1;
        }
        let budget =
            super::checks::budget(&self.cluster.spec.drain, self.connected() + self.clients.homeless);
        self.record.frames.push(Frame {
            at: self.now,
            pods,
            sockets,
            closed,
            budget,
        });
    }
}
