//! What a pass has decided so far.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use wsfleet_crds::admin::{DrainMode, DrainRequest};
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::action::{Action, EventDraft};
use super::fleet::{Fleet, Member};
use super::gate::Gate;
use super::pace::Pace;
use super::revision::Target;
use super::rollout::{Course, Split, Stage, surge};
use super::scale::Size;
use super::time::until;
use crate::observe::model::{Observed, PodView};

/// Seconds for which a rate is granted (decision D8): so long may gateways go on closing without an operator.
pub(crate) const LEASE_SECONDS: u32 = 30;

/// Everything that one pass knows; each step reads it and adds to a [`Draft`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) cluster: &'a WebSocketCluster,
    pub(crate) observed: &'a Observed,
    pub(crate) course: &'a Course,
    pub(crate) stage: Stage,
    pub(crate) split: Split,
    pub(crate) target: &'a Target,
    pub(crate) fleet: &'a Fleet<'a>,
    pub(crate) size: &'a Size,
    pub(crate) gate: &'a Gate,
    pub(crate) pace: Pace,
    pub(crate) now: Timestamp,
}

impl Pass<'_> {
    /// Pods that may exist beyond the wanted ones while pods are replaced.
    pub(crate) fn surge(&self) -> u32 {
        surge(&self.cluster.spec.rollout, self.size.desired)
    }

    /// Pods that may be missing while pods are replaced.
    pub(crate) fn max_unavailable(&self) -> u32 {
        self.cluster
            .spec
            .rollout
            .max_unavailable
            .round_down(self.size.desired)
    }

    /// Admin port of pods of revision `hash`.
    fn admin_port(&self, hash: &str) -> u16 {
        let revision = self
            .observed
            .revisions
            .iter()
            .find(|revision| revision.hash == hash);
        let port = revision.and_then(|revision| revision.data.admin_port());
        port.unwrap_or(self.cluster.spec.gateway.admin_port)
    }

    /// `drain.deadline` and the like for a call to the gateway of `pod`.
    pub(crate) fn request(&self, drain_id: &str, mode: DrainMode) -> DrainRequest {
        let drain = &self.cluster.spec.drain;
        DrainRequest {
            drain_id: drain_id.to_owned(),
            epoch: self.observed.epoch,
            mode,
            rate_per_second: None,
            lease_seconds: None,
            deadline: None,
            order: drain.order,
            close_code: drain.close_code,
            reconnect_window_seconds: drain.reconnect.window_seconds,
            keep_connections: None,
            min_age_seconds: None,
        }
    }
}

/// Labels or annotations to set or remove.
pub(crate) type Marks = BTreeMap<String, Option<String>>;

/// A gateway that closes some of its sockets, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shed {
    /// Name of the pod.
    pub(crate) pod: String,
    /// So many it keeps.
    pub(crate) keep: u64,
    /// Closes per second, in thousandths.
    pub(crate) rate_millis: u64,
}

/// Actions, events and waits of a pass.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) actions: Vec<Action>,
    pub(crate) events: Vec<EventDraft>,
    wakeup: Option<Duration>,
    /// Pods whose state this pass changes: no later step may decide on their old one.
    pub(crate) changed: BTreeSet<String>,
    /// Gateways that close what they have too many.
    pub(crate) sheds: Vec<Shed>,
    /// Pods that hold too many sockets, by UID, and since when.
    pub(crate) crowded: BTreeMap<String, Timestamp>,
    /// Why the analyses of a rollout say nothing, for longer than they may.
    pub(crate) unclear: Option<String>,
    /// A pod that waits because the others are too full to take its sockets.
    pub(crate) too_full: Option<String>,
}

impl Draft {
    /// Plan again after `wait`, if not before.
    pub(crate) fn wake_in(&mut self, wait: Duration) {
        self.wakeup = Some(self.wakeup.map_or(wait, |earlier| earlier.min(wait)));
    }

    /// Plan again at `at`, if not before.
    pub(crate) fn wake_at(&mut self, at: Timestamp, now: Timestamp) {
        self.wake_in(until(at, now));
    }

    /// The earliest wait, `otherwise` if there was none; never so short that passes would spin.
    pub(crate) fn next_wakeup(&self, otherwise: Duration) -> Duration {
        self.wakeup
            .map_or(otherwise, |wait| wait.min(otherwise))
            .max(Duration::from_millis(100))
    }

    /// Announce something that happened.
    pub(crate) fn event(&mut self, warning: bool, reason: &'static str, action: &'static str, note: String) {
        self.events.push(EventDraft {
            warning,
            reason,
            action,
            note,
        });
    }

    /// Patch labels and annotations of `pod`.
    pub(crate) fn mark(&mut self, pod: &PodView, labels: Marks, annotations: Marks) {
        self.actions.push(Action::MarkPod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            labels,
            annotations,
        });
    }

    /// Call the gateway in `pod`, when it has an address.
    pub(crate) fn call(&mut self, pass: &Pass<'_>, pod: &PodView, request: DrainRequest) {
        if let Some(ip) = &pod.ip {
            self.actions.push(Action::Drain {
                name: pod.name.clone(),
                ip: ip.clone(),
                port: pass.admin_port(&pod.revision),
                request,
            });
        }
        // an answer changes what is observed; without one the call is made again
        self.wake_in(Duration::from_secs(1));
    }

    /// Delete `member`'s pod, with its own grace period unless `force`.
    pub(crate) fn delete(&mut self, member: &Member<'_>, force: bool) {
        self.changed.insert(member.pod.name.clone());
        self.actions.push(Action::DeletePod {
            name: member.pod.name.clone(),
            uid: member.pod.uid.clone(),
            version: None,
            grace_period: force.then_some(0),
            connections: member.connections,
        });
    }

    /// Delete the pod of `member`, which has not served, unless it has changed since it was looked at: what a watch has
    /// not told yet may be that it is Ready, and has sockets.
    pub(crate) fn delete_unserved(&mut self, member: &Member<'_>) {
        self.changed.insert(member.pod.name.clone());
        self.actions.push(Action::DeletePod {
            name: member.pod.name.clone(),
            uid: member.pod.uid.clone(),
            version: member.pod.version.clone(),
            grace_period: None,
            connections: member.connections,
        });
    }
}

/// Marks from pairs.
pub(crate) fn marks<const N: usize>(pairs: [(&str, Option<String>); N]) -> Marks {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
