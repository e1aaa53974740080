//! The planner: a pure function of the resource, what was observed, and the time.
//!
//! It sees no client and no clock, and remembers nothing: every decision can be made again from what is written on the
//! resource and its pods. Each step adds actions to a draft, in the order in which `apply` carries them out; a marker is
//! written in one pass, and what it announces is done in a later one that has seen it. Every wait is a `next_wakeup`.
//!
//! ```text
//! rollout (which revisions) -> fleet (states) -> scale, autoscale (how many) -> gate (may pods be made)
//!    -> owned, replace (who comes, who is cordoned), drain (markers, deletes; steer: who takes sockets), rebalance, budget
//!    (leases)
//!    -> progress, status, conditions, events
//! ```

pub mod action;
mod autoscale;
pub mod budget;
mod conditions;
pub(crate) mod deletion;
mod draft;
mod drain;
pub(crate) mod drift;
mod events;
mod fleet;
mod gate;
mod headroom;
mod node_drain;
mod owned;
pub mod pace;
mod progress;
mod rebalance;
mod remake;
mod replace;
pub mod resources;
pub mod revision;
mod rollout;
mod scale;
mod status;
mod steer;
#[cfg(test)]
mod tests;
mod time;
mod wilson;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use wsfleet_crds::v1alpha1::WebSocketCluster;

pub use action::{Action, EventDraft, Plan};
#[cfg(test)]
pub(crate) use rebalance::CLOSE_CODE;
pub(crate) use rebalance::MIN_AGE_SECONDS;
pub use revision::{Defaults, RevisionData};
pub use rollout::RolloutMarkers;
pub(crate) use rollout::surge;

use crate::observe::model::Observed;
use draft::{Draft, Pass};
use fleet::Fleet;
use gate::Gate;
use rollout::Course;
use scale::Size;

/// Wait when nothing is under way: a look for what a watch may have missed.
const RESYNC: Duration = Duration::from_mins(5);

/// What to do about `cluster` now.
pub fn plan(cluster: &WebSocketCluster, observed: &Observed, defaults: &Defaults, now: Timestamp) -> Plan {
    let deleted = deletion::is_deleted(cluster);
    if deleted && !deletion::is_held(cluster) {
        // the garbage collector deletes what the resource owns; gateways drain by themselves on SIGTERM
        let status = cluster.status.clone().unwrap_or_default();
        return Plan {
            actions: Vec::new(),
            status,
            events: Vec::new(),
            next_wakeup: RESYNC,
            crowded: BTreeMap::new(),
            pace: observed.pace,
        };
    }
    let wanted = revision::target(cluster, &observed.revisions, defaults);
    let course = Course::new(cluster, observed, wanted);
    let target = course.target();
    let mut fleet = Fleet::new(&cluster.spec, &target.hash, observed, now);
    let running = fleet.count(|member| member.pod.revision == target.hash) > 0;
    // the specification names the Secrets of the revision that it asks for
    let missing = if course.back {
        &[][..]
    } else {
        &observed.missing_references
    };
    let gate = Gate::new(target, observed, missing, running);
    let stage = course.stage(cluster, &fleet, &gate);
    let rollout = &cluster.spec.rollout;
    // how many pods may stay is a question of the size, and the size of whether pods are on the move
    let last = cluster.status.as_ref().map(|status| status.desired_replicas);
    let last = last.unwrap_or(cluster.spec.replicas);
    rollout::hold(&mut fleet, &course, stage, rollout, last, now);
    let size = if deleted {
        Size::NONE
    } else {
        scale::size(cluster, observed, &fleet, now)
    };
    let split = rollout::hold(&mut fleet, &course, stage, rollout, size.desired, now);
    let pass = Pass {
        cluster,
        observed,
        course: &course,
        stage,
        split,
        target,
        fleet: &fleet,
        size: &size,
        gate: &gate,
        pace: pace::next(
            &cluster.spec.drain,
            observed,
            &fleet,
            surge(rollout, size.desired) == 0,
            now,
        ),
        now,
    };

    let mut draft = Draft::default();
    if deleted {
        deletion::empty(&pass, &mut draft);
    } else if cluster.spec.paused {
        rebalance::stop(&pass, &mut draft);
    } else {
        gate::validate(&pass, &mut draft);
        owned::keep(&pass, &mut draft);
        deletion::keep_policy(&pass, &mut draft);
        rollout::advance(&pass, &mut draft);
        replace::replace(&pass, &mut draft);
        remake::remake(&pass, &mut draft);
        drain::drain(&pass, &mut draft);
        rebalance::rebalance(&pass, &mut draft);
        node_drain::note(&pass, &mut draft);
        budget::grant(&pass, &mut draft);
    }
    finish(&pass, draft)
}

fn finish(pass: &Pass<'_>, mut draft: Draft) -> Plan {
    let progress = progress::progress(pass, &mut draft);
    let status = status::status(pass, &draft, &progress);
    events::transitions(pass.cluster.status.as_ref(), &status, &mut draft);
    if let Some(at) = pass.fleet.next_change {
        draft.wake_at(at, pass.now);
    }
    if let Some(at) = pass.size.verdict.as_ref().and_then(|verdict| verdict.wake_at) {
        draft.wake_at(at, pass.now);
    }
    let interval = u64::from(pass.cluster.spec.autoscaling.metrics.interval_seconds);
    let otherwise = if pass.fleet.members.is_empty() {
        RESYNC
    } else {
        Duration::from_secs(interval)
    };
    let next_wakeup = draft.next_wakeup(otherwise);
    Plan {
        actions: draft.actions,
        status,
        events: draft.events,
        next_wakeup,
        crowded: draft.crowded,
        pace: pass.pace,
    }
}
