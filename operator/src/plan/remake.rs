//! Pods that do not come up in their time are made again, in the hope of another node.
//!
//! Only where the whole fleet is of one revision: in a rollout a new pod that does not come up speaks against its revision
//! ([`super::rollout`]). One that no node has room for would not fare better, and one that has served is not in question.
//! One of a revision that has never been complete has nothing to show yet: that it does not come up stays to be seen.
//! The next one has as much time, which is the pause between two attempts.

use wsfleet_crds::event;

use super::draft::{Draft, Pass};
use super::fleet::Member;
use super::rollout::deadline;

/// Deletes what is late; it is missing in the next pass.
pub(crate) fn remake(pass: &Pass<'_>, draft: &mut Draft) {
    if !applies(pass) {
        return;
    }
    let is_late = |member: &Member<'_>| {
        member.is_good()
            && member.never_served()
            && member.pod.node.is_some()
            && deadline(pass, member) <= pass.now
    };
    for member in pass.fleet.filter(is_late) {
        if !draft.changed.contains(&member.pod.name) {
            let why = member.pod.waiting.as_deref().unwrap_or("not Ready");
            let note = format!(
                "{} did not come up within rollout.progressDeadlineSeconds and is made again: {why}",
                member.pod.name
            );
            draft.delete_unserved(member);
            draft.event(true, event::POD_REMADE, "Replace", note);
        }
    }
}

/// Whether the whole fleet is of one revision that has come up before.
pub(crate) fn applies(pass: &Pass<'_>) -> bool {
    let status = pass.cluster.status.as_ref();
    let has_been_complete = status.is_some_and(|status| status.current_revision.is_some());
    pass.course.stable.is_none() && has_been_complete && pass.gate.is_open()
}
