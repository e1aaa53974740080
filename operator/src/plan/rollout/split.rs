//! How many pods of which revision are wanted now, and which of the old ones may stay.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;
use wsfleet_crds::labels::DrainReason;
use wsfleet_crds::v1alpha1::{RolloutSpec, RolloutStrategy};

use super::{Course, Stage};
use crate::plan::fleet::{Fleet, Member, State};

/// How many pods of which revision are wanted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// Of the target.
    pub(crate) new: u32,
    /// Of the revision before; made anew when there are fewer.
    pub(crate) old: u32,
    /// Old pods that stay although there are more than `old`.
    pub(crate) keep: u32,
}

impl Split {
    /// Whether the old pods stay beside the new ones.
    pub(crate) fn is_beside(self, desired: u32) -> bool {
        self.old > 0 && self.new + self.old > desired
    }
}

impl Split {
    /// What `stage` wants of `desired` pods.
    fn new(
        course: &Course,
        stage: Stage,
        spec: &RolloutSpec,
        fleet: &Fleet<'_>,
        desired: u32,
        now: Timestamp,
    ) -> Self {
        let held = if course.stable.is_some() && stage != Stage::RollingBack {
            spec.partition.round_up(desired).min(desired)
        } else {
            0
        };
        let (new_pods, old_pods) = (
            fleet.count(|member| is_new(member, course)),
            fleet.count(|member| is_old(member, course)),
        );
        match stage {
            Stage::Validating => Self::beside(0, desired),
            Stage::Canary | Stage::Baking => canary(spec, desired, held),
            Stage::Halted => halted(course, fleet, desired, now),
            Stage::OnDelete => {
                let keep = desired.saturating_sub(new_pods);
                let new = desired - old_pods.min(keep);
                Self { new, old: 0, keep }
            }
            Stage::Waves if waits_for_green(course, spec, fleet, desired, held) => {
                Self::beside(desired - held, desired)
            }
            Stage::Waves | Stage::RollingBack => Self::instead(desired - held, desired),
        }
    }

    /// `new` pods in the places of old ones.
    fn instead(new: u32, desired: u32) -> Self {
        let old = desired - new;
        Self { new, old, keep: old }
    }

    /// `new` pods beside a whole fleet of old ones.
    fn beside(new: u32, desired: u32) -> Self {
        Self {
            new,
            old: desired,
            // more would take the places of the new ones
            keep: desired,
        }
    }
}

/// Pods that may exist beyond `desired` ones while pods are replaced.
pub(crate) fn surge(spec: &RolloutSpec, desired: u32) -> u32 {
    let surge = spec.max_surge.round_up(desired);
    if spec.strategy == RolloutStrategy::BlueGreen {
        surge.max(desired)
    } else {
        surge
    }
}

fn is_new(member: &Member<'_>, course: &Course) -> bool {
    member.stays() && member.pod.revision == course.target().hash
}

/// Stays, and may: a pod that never served has a claim only where its revision is known to come up.
fn is_old(member: &Member<'_>, course: &Course) -> bool {
    let other = member.stays() && member.pod.revision != course.target().hash;
    let stable = course.stable.as_ref();
    let is_stable = stable.is_some_and(|stable| stable.hash == member.pod.revision);
    other && (is_stable || !member.never_served())
}

fn canary(spec: &RolloutSpec, desired: u32, held: u32) -> Split {
    let pods = spec.canary.weight.round_up(desired).max(1).min(desired - held);
    match surge(spec, desired) {
        0 => Split::instead(pods.min(spec.max_unavailable.round_down(desired).max(1)), desired),
        surge => Split::beside(pods.min(surge), desired),
    }
}

/// Everything stays where it is: no further pod of the new revision, and of the revision before all that are left. More of
/// those are made only when, with the new ones that serve, they are fewer than wanted: what failed is not to be relied upon
/// beyond that.
fn halted(course: &Course, fleet: &Fleet<'_>, desired: u32, now: Timestamp) -> Split {
    let on_sound_node = |member: &Member<'_>| member.must_go != Some(DrainReason::NodeDrain);
    let is_there = |member: &Member<'_>| is_new(member, course) && on_sound_node(member);
    let new = fleet.count(is_there).min(desired);
    let serving = fleet.count(|member| is_there(member) && member.available);
    let is_left = |member: &Member<'_>| {
        let returns = member.may_return(now) && member.reason() != Some(DrainReason::ScaleIn);
        on_sound_node(member)
            && (is_old(member, course) || returns && member.pod.revision != course.target().hash)
    };
    let left = fleet.count(is_left);
    Split {
        new,
        old: left.max(desired.saturating_sub(serving)).min(desired),
        keep: desired,
    }
}

/// Whether no pod of the first fleet may go because the second is not all there. Once one goes, it does not matter any
/// more.
fn waits_for_green(course: &Course, spec: &RolloutSpec, fleet: &Fleet<'_>, desired: u32, held: u32) -> bool {
    let leaves = |member: &Member<'_>| {
        let stable = course.stable.as_ref();
        member.reason() == Some(DrainReason::Rollout)
            && stable.is_some_and(|stable| stable.hash == member.pod.revision)
    };
    spec.strategy == RolloutStrategy::BlueGreen
        && course.stable.is_some()
        && fleet.count(leaves) == 0
        && fleet.count(|member| is_new(member, course) && member.available) < desired - held
}

/// Finds out how many pods of which revision are wanted, and lets as many old ones stay: those that have not begun to
/// leave first, then those of the stable revision, then the fullest. In a trial those of the stable revision come first,
/// and of a revision between it and the wanted one as many stay as are missing, so that nobody is moved for the trial's
/// sake; what has never served, or will not again, is missing.
pub(crate) fn hold(
    fleet: &mut Fleet<'_>,
    course: &Course,
    stage: Stage,
    spec: &RolloutSpec,
    desired: u32,
    now: Timestamp,
) -> Split {
    let split = Split::new(course, stage, spec, fleet, desired, now);
    let stable = course.stable.as_ref().map(|stable| stable.hash.as_str());
    let trial = matches!(stage, Stage::Canary | Stage::Baking);
    let target = course.target().hash.clone();
    let is_stable = |member: &Member<'_>| Some(member.pod.revision.as_str()) == stable;
    let may_stay = |member: &Member<'_>| {
        member.is_live()
            && member.pod.revision != target
            && member.must_go.is_none_or(|reason| reason == DrainReason::Rollout)
            && (is_stable(member) || !member.never_served())
            && (!trial || is_stable(member) || member.stays())
    };
    let mut candidates: Vec<_> = fleet.filter(may_stay).collect();
    candidates.sort_by_key(|member| {
        (
            trial && !serves(member, now),
            trial && !is_stable(member),
            match member.state {
                State::Staying | State::Donor => 0,
                State::Cordoned => 1,
                _ => 2,
            },
            !member.available,
            !is_stable(member),
            Reverse(member.connections),
            member.pod.name.clone(),
        )
    });
    candidates.truncate(split.keep as usize);
    let held: BTreeSet<String> = candidates
        .into_iter()
        .map(|member| member.pod.name.clone())
        .collect();
    for member in &mut fleet.members {
        let outdated = member.pod.revision != target && member.must_go != Some(DrainReason::NodeDrain);
        if outdated {
            member.must_go = (!held.contains(&member.pod.name)).then_some(DrainReason::Rollout);
        }
    }
    // a partition that holds everything is as far as the rollout goes
    let on_trial = stage.on_trial() && !(trial && split.new == 0);
    fleet.moving = on_trial || fleet.has_outdated() || waits(course, stage, split, desired);
    split
}

/// Whether it serves, or may again.
fn serves(member: &Member<'_>, now: Timestamp) -> bool {
    !member.never_served() && (member.stays() || member.may_return(now))
}

/// Whether a second fleet is being made beside the first.
fn waits(course: &Course, stage: Stage, split: Split, desired: u32) -> bool {
    course.stable.is_some() && stage == Stage::Waves && split.is_beside(desired)
}
