//! The markers of a rollout: each is written when what it says has come true, and acted upon when it is seen.

use wsfleet_crds::condition::reason::{ANALYSIS_FAILED, PROGRESS_DEADLINE_EXCEEDED};
use wsfleet_crds::event;
use wsfleet_crds::labels::{self, PodPhase};

use super::{Stage, Verdict, judge};
use crate::plan::action::Action;
use crate::plan::draft::{Draft, Marks, Pass, marks};
use crate::plan::fleet::Member;
use crate::plan::time::{after, text};

/// Characters that are kept of what somebody else says: it becomes an annotation and is shown in conditions.
pub(super) const MOST_TOLD: usize = 512;

/// Every marker of a rollout.
const MARKERS: [&str; 4] = [
    labels::ROLLOUT_STARTED_AT,
    labels::BAKING_SINCE,
    labels::CANARY_PASSED_AT,
    labels::ROLLOUT_FAILED,
];

/// Writes the next marker of the wanted revision, and removes those of all others.
pub(crate) fn advance(pass: &Pass<'_>, draft: &mut Draft) {
    for revision in &pass.observed.revisions {
        if revision.hash != pass.course.wanted.hash && revision.rollout.any() {
            let none: Marks = MARKERS.iter().map(|key| ((*key).to_owned(), None)).collect();
            mark(&revision.name, none, draft);
        }
    }
    let known = pass
        .observed
        .revisions
        .iter()
        .find(|revision| revision.hash == pass.course.wanted.hash);
    let (Some(revision), Some(_)) = (known, &pass.course.stable) else {
        return;
    };
    let rolling = matches!(pass.stage, Stage::Canary | Stage::Baking | Stage::Waves);
    if !rolling || !pass.gate.is_open() {
        return;
    }
    if revision.rollout.started_at.is_none() {
        return mark(&revision.name, at(labels::ROLLOUT_STARTED_AT, pass), draft);
    }
    let verdict = judge(pass, draft);
    if let Verdict::Unclear(text, true) = &verdict {
        draft.unclear = Some(text.clone());
    }
    if let Some(failure) = failure(pass, &verdict) {
        return mark(
            &revision.name,
            marks([(labels::ROLLOUT_FAILED, Some(failure))]),
            draft,
        );
    }
    match pass.stage {
        // a partition that holds everything leaves nothing to try
        Stage::Canary if pass.split.new > 0 && is_whole(pass) => {
            mark(&revision.name, at(labels::BAKING_SINCE, pass), draft);
        }
        Stage::Baking => {
            let since = revision.rollout.baking_since.unwrap_or(pass.now);
            let over = after(since, pass.cluster.spec.rollout.canary.bake_seconds);
            if over > pass.now {
                draft.wake_at(over, pass.now);
            } else if is_whole(pass) && verdict == Verdict::Good {
                mark(&revision.name, at(labels::CANARY_PASSED_AT, pass), draft);
                let note = format!(
                    "revision {} has passed as a canary, the others follow",
                    revision.hash
                );
                draft.event(false, event::CANARY_PASSED, "Rollout", note);
            }
        }
        _ => {}
    }
}

/// Whether the whole canary is available.
fn is_whole(pass: &Pass<'_>) -> bool {
    let canary =
        |member: &Member<'_>| member.is_good() && member.available && member.pod.revision == pass.target.hash;
    pass.fleet.count(canary) >= pass.split.new
}

/// Why the wanted revision must not go on.
fn failure(pass: &Pass<'_>, verdict: &Verdict) -> Option<String> {
    let (reason, text) = if let Verdict::Bad(text) = verdict {
        (ANALYSIS_FAILED, text.clone())
    } else {
        // for a pod that no node has room for, a revision that came up elsewhere is not to blame
        let tried = pass.course.markers.canary_passed_at.is_some();
        let blamed = |member: &Member<'_>| {
            member.pod.phase == PodPhase::Pending && !(tried && member.pod.node.is_none())
        };
        (PROGRESS_DEADLINE_EXCEEDED, late(pass, blamed)?)
    };
    let text: String = text.chars().take(MOST_TOLD).collect();
    Some(format!("{reason}: {text}"))
}

/// A pod of the target, for which `predicate` holds, that did not become available within the deadline, and what the
/// kubelet says of it.
pub(crate) fn late<'a>(pass: &Pass<'a>, predicate: impl Fn(&Member<'a>) -> bool) -> Option<String> {
    let mut waiting = pass.fleet.filter(|member| {
        member.is_good()
            && !member.available
            && member.pod.revision == pass.target.hash
            && deadline(pass, member) <= pass.now
            && predicate(member)
    });
    let member = waiting.next()?;
    let why = member
        .pod
        .waiting
        .as_deref()
        .unwrap_or("not Ready, and the kubelet gives no reason");
    Some(format!("{}: {why}", member.pod.name))
}

/// When `member` should be available at the latest. A rollout that began after the pod was made gives it its time again.
pub(crate) fn deadline(pass: &Pass<'_>, member: &Member<'_>) -> jiff::Timestamp {
    let began = pass.course.markers.started_at.unwrap_or(member.pod.created_at);
    let from = if pass.course.back {
        member.pod.created_at
    } else {
        began.max(member.pod.created_at)
    };
    after(from, pass.cluster.spec.rollout.progress_deadline_seconds)
}

fn at(key: &'static str, pass: &Pass<'_>) -> Marks {
    marks([(key, Some(text(pass.now)))])
}

fn mark(name: &str, annotations: Marks, draft: &mut Draft) {
    draft.actions.push(Action::MarkRevision {
        name: name.to_owned(),
        annotations,
    });
}
