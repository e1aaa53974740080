//! How long the drain of a node may take: since when it is noticed is written on each pod there, and when the time is
//! nearly over the pod goes, whatever room the others have.
//!
//! A pod that waits for room would else keep the node for as long as there is none, since its budget refuses the eviction.
//! The drain begins so early that it can end in time; what is left then is deleted, and drains itself on SIGTERM.

use jiff::Timestamp;
use wsfleet_crds::event;
use wsfleet_crds::labels::{self, DrainReason};

use super::action::Action;
use super::draft::{Draft, Marks, Pass, marks};
use super::fleet::Member;
use super::time::{after, text};

/// Writes down since when the nodes of pods are being drained, and takes that back from pods whose nodes are not any more.
pub(crate) fn note(pass: &Pass<'_>, draft: &mut Draft) {
    for member in pass.fleet.filter(Member::is_live) {
        let since = match (is_on_drained_node(member), member.pod.node_drain_since) {
            (true, None) => Some(text(pass.now)),
            (false, Some(_)) => None,
            _ => continue,
        };
        let deleted =
            |action: &Action| matches!(action, Action::DeletePod { name, .. } if *name == member.pod.name);
        if draft.actions.iter().any(deleted) {
            continue;
        }
        if since.is_some() {
            let node = member
                .pod
                .node
                .as_ref()
                .map_or("its node", |node| node.name.as_str());
            let message = format!("{} leaves: {node} is being drained", member.pod.name);
            draft.event(false, event::NODE_DRAIN_DETECTED, "Cordon", message);
        }
        annotate(member, marks([(labels::NODE_DRAIN_SINCE, since)]), draft);
    }
}

/// Into the patch that this pass makes of the pod anyway, if there is one.
fn annotate(member: &Member<'_>, marks: Marks, draft: &mut Draft) {
    let patch = draft.actions.iter_mut().find_map(|action| match action {
        Action::MarkPod {
            name, annotations, ..
        } if *name == member.pod.name => Some(annotations),
        _ => None,
    });
    match patch {
        Some(annotations) => annotations.extend(marks),
        None => draft.mark(member.pod, Marks::new(), marks),
    }
}

fn is_on_drained_node(member: &Member<'_>) -> bool {
    member.must_go == Some(DrainReason::NodeDrain)
}

/// Since when its node is being drained, as far as that is written.
fn since(member: &Member<'_>) -> Option<Timestamp> {
    member.pod.node_drain_since.filter(|_| is_on_drained_node(member))
}

/// When the node's time is over for `member`; `None` while its node is not being drained, or that was not written yet.
pub(crate) fn end(pass: &Pass<'_>, member: &Member<'_>) -> Option<Timestamp> {
    Some(after(
        since(member)?,
        pass.cluster.spec.disruption.node_drain_timeout_seconds,
    ))
}

/// Whether `member` must go now, if its drain shall end in its node's time.
pub(crate) fn is_urgent(pass: &Pass<'_>, member: &Member<'_>) -> bool {
    urgent_from(pass, member).is_some_and(|at| at <= pass.now)
}

/// Plans again when `member` becomes urgent.
pub(crate) fn wake(pass: &Pass<'_>, member: &Member<'_>, draft: &mut Draft) {
    if let Some(at) = urgent_from(pass, member).filter(|at| *at > pass.now) {
        draft.wake_at(at, pass.now);
    }
}

fn urgent_from(pass: &Pass<'_>, member: &Member<'_>) -> Option<Timestamp> {
    let drain = &pass.cluster.spec.drain;
    let needed = drain.timeout_seconds.saturating_add(drain.settle_seconds);
    let limit = pass.cluster.spec.disruption.node_drain_timeout_seconds;
    Some(after(since(member)?, limit.saturating_sub(needed)))
}
