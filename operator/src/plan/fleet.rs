//! The pods of a fleet, each with the state that its markers put it in.

use std::collections::BTreeSet;

use jiff::Timestamp;
use wsfleet_crds::labels::{DrainReason, PodPhase};
use wsfleet_crds::v1alpha1::WebSocketClusterSpec;

use super::time::{after, has_passed};
use crate::observe::model::{Observed, PodView};

/// Seconds that a node may be not Ready before its pods are taken for lost.
const LOST_NODE_SECONDS: u32 = 60;

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Serves, or is on its way to.
    Staying,
    /// Does not accept; its sockets may leave by themselves. Can be taken back.
    Cordoned,
    /// Holds many more sockets than the others and does not accept; stays, and accepts again when they have caught up.
    Donor,
    /// Does not accept; its sockets are closed at the granted rate.
    Draining,
    /// Somebody, perhaps the operator, deleted it.
    Terminating,
    /// Its processes are gone, or its node has not been heard of.
    Gone,
}

/// One pod and what follows from what was observed of it.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) pod: &'a PodView,
    pub(crate) state: State,
    /// Why it cannot stay, whether or not it has been told yet. An old pod that the rollout keeps has no reason.
    pub(crate) must_go: Option<DrainReason>,
    /// Ready for `minReadySeconds`, and not on its way out for good.
    pub(crate) available: bool,
    /// Open sockets, as far as known, however old the number.
    pub(crate) connections: Option<u64>,
}

impl Member<'_> {
    /// Nobody has told it to go, whether or not it accepts at the moment.
    pub(crate) fn stays(&self) -> bool {
        matches!(self.state, State::Staying | State::Donor)
    }

    /// Staying, and nothing speaks against it.
    pub(crate) fn is_good(&self) -> bool {
        self.stays() && self.must_go.is_none()
    }

    /// Cordoned or draining.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Cordoned | State::Draining)
    }

    /// Leaving, and can be had back with one patch: it is well, holds sockets or may again, and its time is not over.
    pub(crate) fn may_return(&self, now: Timestamp) -> bool {
        let markers = self.pod.drain.as_ref();
        self.is_leaving()
            && self.pod.ready_since.is_some()
            && markers
                .is_some_and(|markers| markers.drained_at.is_none() && !has_passed(markers.deadline, now))
    }

    /// Neither gone nor on its way out by a delete.
    pub(crate) fn is_live(&self) -> bool {
        self.stays() || self.is_leaving()
    }

    /// Why it is leaving, by its markers.
    pub(crate) fn reason(&self) -> Option<DrainReason> {
        self.pod.drain.as_ref().map(|markers| markers.reason)
    }

    /// It was never Ready and never answered: no client was ever sent to it.
    pub(crate) fn never_served(&self) -> bool {
        self.pod.phase == PodPhase::Pending && self.pod.ready_since.is_none() && self.pod.gateway.is_none()
    }

    /// Sockets for sums: unknown ones count as none, which is right only where more would be the safe side's error.
    pub(crate) fn known_connections(&self) -> u64 {
        self.connections.unwrap_or(0)
    }
}

/// All pods of the fleet, by name.
#[derive(Clone, Debug)]
pub(crate) struct Fleet<'a> {
    pub(crate) members: Vec<Member<'a>>,
    /// When the next pod will have been Ready for long enough, or a node will be taken for lost.
    pub(crate) next_change: Option<Timestamp>,
    /// A rollout is under way.
    pub(crate) moving: bool,
}

impl<'a> Fleet<'a> {
    /// Puts each observed pod into its state.
    pub(crate) fn new(
        spec: &WebSocketClusterSpec,
        target: &str,
        observed: &'a Observed,
        now: Timestamp,
    ) -> Self {
        let mut next_change: Option<Timestamp> = None;
        let mut wake = |at: Timestamp| {
            if at > now {
                next_change = Some(next_change.map_or(at, |earlier: Timestamp| earlier.min(at)));
            }
        };
        let mut members: Vec<_> = observed
            .pods
            .iter()
            .map(|pod| {
                let state = state(pod, now, &mut wake);
                let available_from = pod
                    .ready_since
                    .map(|since| after(since, spec.rollout.min_ready_seconds));
                let may_serve = matches!(state, State::Staying | State::Cordoned | State::Donor);
                if let (Some(at), true) = (available_from, may_serve) {
                    wake(at);
                }
                Member {
                    pod,
                    state,
                    must_go: must_go(pod, target),
                    available: may_serve && available_from.is_some_and(|at| at <= now),
                    connections: connections(pod, observed),
                }
            })
            .collect();
        members.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
        Self {
            members,
            next_change,
            moving: false,
        }
    }

    /// Members for which `predicate` holds.
    pub(crate) fn filter<'b>(
        &'b self,
        predicate: impl Fn(&Member<'a>) -> bool + 'b,
    ) -> impl Iterator<Item = &'b Member<'a>> + 'b {
        self.members.iter().filter(move |member| predicate(member))
    }

    /// How many members `predicate` holds for.
    pub(crate) fn count(&self, predicate: impl Fn(&Member<'a>) -> bool) -> u32 {
        self.members.iter().filter(|member| predicate(member)).count() as u32
    }

    /// Open sockets of the whole fleet, pods on their way out included: their clients come back.
    pub(crate) fn connections(&self) -> u64 {
        self.filter(|member| member.state != State::Gone)
            .map(Member::known_connections)
            .sum()
    }

    /// Pods that are still alive and must go for another revision.
    pub(crate) fn has_outdated(&self) -> bool {
        self.count(|member| member.is_live() && member.must_go == Some(DrainReason::Rollout)) > 0
    }

    /// Revision hashes that pods have.
    pub(crate) fn revisions(&self) -> BTreeSet<&'a str> {
        self.members
            .iter()
            .map(|member| member.pod.revision.as_str())
            .collect()
    }

    /// The lowest slots of revision `hash` that no pod has, terminating pods included.
    pub(crate) fn free_slots(&self, hash: &str, wanted: u32) -> Vec<u32> {
        let taken: BTreeSet<u32> = self
            .members
            .iter()
            .filter(|member| member.pod.revision == hash)
            .map(|member| member.pod.slot)
            .collect();
        (0..)
            .filter(|slot| !taken.contains(slot))
            .take(wanted as usize)
            .collect()
    }
}

fn state(pod: &PodView, now: Timestamp, wake: &mut impl FnMut(Timestamp)) -> State {
    let lost_at = pod
        .node
        .as_ref()
        .and_then(|node| node.not_ready_since)
        .map(|since| after(since, LOST_NODE_SECONDS));
    if let Some(at) = lost_at {
        wake(at);
    }
    if pod.deleting_since.is_some() {
        State::Terminating
    } else if pod.finished || has_passed(lost_at, now) {
        State::Gone
    } else if let Some(markers) = &pod.drain {
        drain_state(pod, markers.reason)
    } else {
        State::Staying
    }
}

/// What the markers of a drain make of a pod. One that only evens out stays, whatever its phase label says.
fn drain_state(pod: &PodView, reason: DrainReason) -> State {
    if reason == DrainReason::Rebalance {
        State::Donor
    } else if pod.phase == PodPhase::Draining {
        State::Draining
    } else {
        State::Cordoned
    }
}

/// A node on its way out comes before a revision on its way out: its time is not ours to choose.
fn must_go(pod: &PodView, target: &str) -> Option<DrainReason> {
    if pod.node.as_ref().is_some_and(|node| node.draining) {
        Some(DrainReason::NodeDrain)
    } else if pod.revision == target {
        None
    } else {
        Some(DrainReason::Rollout)
    }
}

fn connections(pod: &PodView, observed: &Observed) -> Option<u64> {
    let told = pod.gateway.as_ref().map(|(at, state)| (*at, state.connections));
    let counted = counted(pod, observed);
    told.into_iter()
        .chain(counted)
        .max_by_key(|(at, _)| *at)
        .map(|(_, connections)| connections)
}

/// What the metrics source counted on `pod`. A number from before the pod was made is of another pod that had its name.
pub(crate) fn counted(pod: &PodView, observed: &Observed) -> Option<(Timestamp, u64)> {
    observed
        .metrics
        .connections
        .get(&pod.name)
        .copied()
        .filter(|(at, _)| *at >= pod.created_at)
}
