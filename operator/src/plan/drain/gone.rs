//! Pods that somebody deleted, and pods that are gone.

use jiff::Timestamp;
use wsfleet_crds::event;
use wsfleet_crds::labels::{self, DrainReason};

use crate::plan::draft::{Draft, Pass, marks};
use crate::plan::fleet::Member;
use crate::plan::replace::FAILED_SECONDS;
use crate::plan::time::{after, text};

/// A pod that somebody else deleted: taken out of the Service at once, announced once.
pub(super) fn terminating(pass: &Pass<'_>, member: &Member<'_>, draft: &mut Draft) {
    let pod = member.pod;
    let stayed = member
        .reason()
        .is_none_or(|reason| reason == DrainReason::Rebalance);
    if stayed && !member.never_served() {
        let annotations = marks([
            (labels::CORDONED_AT, Some(text(pass.now))),
            (
                labels::DRAIN_REASON,
                Some(DrainReason::Replace.as_str().to_owned()),
            ),
            (
                labels::DRAIN_ID,
                Some(format!("{}-{}", pod.uid, pass.now.as_second())),
            ),
            (labels::SHEDDING_SINCE, None),
            (labels::SHED_TO, None),
        ]);
        draft.mark(
            pod,
            marks([(labels::ACCEPTING, Some("false".to_owned()))]),
            annotations,
        );
        let held = member
            .connections
            .map_or_else(|| "?".to_owned(), |held| held.to_string());
        let note = format!(
            "{} was deleted by somebody else while it held {held} sockets; it is replaced",
            pod.name
        );
        draft.event(true, event::FOREIGN_TERMINATION, "Replace", note);
    }
    let drain = &pass.cluster.spec.drain;
    let node_lost = pod
        .node
        .as_ref()
        .is_some_and(|node| node.not_ready_since.is_some());
    if let (Some(since), true) = (pod.deleting_since, node_lost) {
        // nobody is there to end the grace period
        let over = after(
            since,
            drain
                .timeout_seconds
                .saturating_add(drain.termination_margin_seconds),
        );
        if over <= pass.now {
            draft.delete(member, true);
        } else {
            draft.wake_at(over, pass.now);
        }
    }
}

/// Deletes the record of a pod that is gone; one that failed as soon as it was made keeps its place for a while.
pub(super) fn remove(pass: &Pass<'_>, member: &Member<'_>, draft: &mut Draft) {
    let keep_until = after(member.pod.created_at, FAILED_SECONDS);
    if member.pod.finished && keep_until > pass.now {
        draft.wake_at(keep_until, pass.now);
    } else {
        draft.delete(member, false);
    }
}

/// Deletes a leaving pod whose gateway has been told nothing since `silent`, for too long: SIGTERM makes it drain by itself
/// within its grace period. One that can be reached but refuses the token may have many sockets, and has its turn like any
/// other: only when it may drain is it given up.
pub(super) fn give_up(
    pass: &Pass<'_>,
    member: &Member<'_>,
    silent: Option<Timestamp>,
    draft: &mut Draft,
) -> bool {
    let Some(at) = given_up_at(pass, silent) else {
        return false;
    };
    if at > pass.now {
        draft.wake_at(at, pass.now);
        return false;
    }
    draft.delete(member, false);
    let why = if member.pod.unreachable_since.is_some() {
        "it does not answer"
    } else {
        "it refuses the admin token, or the Secret that holds the token is missing"
    };
    let note = format!(
        "{} could not be told to drain for {} seconds and is deleted; it drains by itself: {why}",
        member.pod.name, pass.cluster.spec.drain.unreachable_seconds
    );
    draft.event(true, event::DRAIN_TIMED_OUT, "Delete", note);
    true
}

/// When a gateway that has been told nothing since `silent` is given up.
pub(super) fn given_up_at(pass: &Pass<'_>, silent: Option<Timestamp>) -> Option<Timestamp> {
    let limit = pass.cluster.spec.drain.unreachable_seconds;
    silent.map(|since| after(since, limit))
}
