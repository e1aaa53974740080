//! From cordoned to gone, one marker at a time; every marker is on the pod before its side effect happens.

mod gone;

use std::collections::BTreeSet;

use wsfleet_crds::admin::{DrainMode, GatewayPhase, GatewayState};
use wsfleet_crds::event;
use wsfleet_crds::labels::{self, DrainReason, PodPhase};
use wsfleet_crds::v1alpha1::OnTimeout;

use super::deletion;
use super::draft::{Draft, Marks, Pass, marks};
use super::fleet::{Member, State};
use super::headroom::{returning, room};
use super::node_drain;
use super::replace::{concurrency, spare};
use super::steer;
use super::time::{after, has_passed, text, until};
use crate::observe::model::{DrainMarkers, PodView};

/// Seconds between the two looks that must both find no socket.
const EMPTY_SECONDS: u32 = 2;

/// Phase labels, pods that are gone, drains that begin, go on, and end.
pub(crate) fn drain(pass: &Pass<'_>, draft: &mut Draft) {
    let full = steer::full(pass, draft);
    for member in &pass.fleet.members {
        if draft.changed.contains(&member.pod.name) {
            continue;
        }
        match member.state {
            State::Staying => settle_in(pass, member, &full, draft),
            State::Cordoned => keep_cordoned(pass, member, draft),
            // does not leave: see `rebalance`
            State::Donor => {}
            State::Draining => advance(pass, member, draft),
            State::Terminating => gone::terminating(pass, member, draft),
            State::Gone => gone::remove(pass, member, draft),
        }
    }
    admit(pass, draft);
}

/// A pod without markers is active once it is available, and accepts unless it is `full`. Labels that say otherwise are put
/// right.
fn settle_in(pass: &Pass<'_>, member: &Member<'_>, full: &BTreeSet<String>, draft: &mut Draft) {
    let pod = member.pod;
    let mut labels = Marks::new();
    let right = if member.available {
        PodPhase::Active
    } else {
        pod.phase
    };
    let right = if right == PodPhase::Draining {
        PodPhase::Active
    } else {
        right
    };
    if pod.phase != right {
        labels.insert(labels::PHASE.to_owned(), Some(right.as_str().to_owned()));
    }
    let accepts = !full.contains(&pod.name);
    if pod.accepting != accepts {
        labels.insert(labels::ACCEPTING.to_owned(), Some(accepts.to_string()));
    }
    if !labels.is_empty() {
        draft.mark(pod, labels, Marks::new());
    }
    resume(pass, member, draft);
}

/// Tells the gateway of a pod without markers to accept again, when it does not.
pub(super) fn resume(pass: &Pass<'_>, member: &Member<'_>, draft: &mut Draft) {
    let pod = member.pod;
    if let Some((_, state)) = &pod.gateway
        && matches!(state.phase, GatewayPhase::Cordoned | GatewayPhase::Draining)
    {
        let drain_id = state.drain_id.clone().unwrap_or_else(|| pod.uid.clone());
        draft.call(pass, pod, pass.request(&drain_id, DrainMode::Resume));
    }
}

/// Tells a cordoned pod's gateway so until it confirms; ends the wait for one that does not answer.
fn keep_cordoned(pass: &Pass<'_>, member: &Member<'_>, draft: &mut Draft) {
    let (pod, Some(markers)) = (member.pod, &member.pod.drain) else {
        return;
    };
    if pod.accepting {
        draft.mark(
            pod,
            marks([(labels::ACCEPTING, Some("false".to_owned()))]),
            Marks::new(),
        );
    }
    if gone::give_up(pass, member, pod.unreachable_since, draft) {
        return;
    }
    let confirmed = pod.gateway.as_ref().is_some_and(|(_, state)| {
        !state.accepting
            && state.drain_id.as_deref() == Some(markers.drain_id.as_str())
            && state.epoch >= pass.observed.epoch
    });
    if !confirmed && !has_ended(pod) {
        draft.call(pass, pod, pass.request(&markers.drain_id, DrainMode::Cordon));
    }
}

/// A drain under way: empty, out of time, out of reach, or going on.
fn advance(pass: &Pass<'_>, member: &Member<'_>, draft: &mut Draft) {
    let (pod, Some(markers)) = (member.pod, &member.pod.drain) else {
        return;
    };
    if pod.accepting {
        draft.mark(
            pod,
            marks([(labels::ACCEPTING, Some("false".to_owned()))]),
            Marks::new(),
        );
    }
    let deadline = markers
        .deadline
        .unwrap_or_else(|| after(markers.cordoned_at, pass.cluster.spec.drain.timeout_seconds));
    let empty = is_empty(pod, markers);
    match markers.drained_at {
        Some(first) if empty => {
            let second_look = after(first, EMPTY_SECONDS);
            if pod.gateway.as_ref().is_some_and(|(at, _)| *at >= second_look) {
                draft.delete(member, false);
                let note = format!("{} holds no socket any more and is deleted", pod.name);
                draft.event(false, event::DRAIN_COMPLETED, "Delete", note);
                return;
            }
            draft.wake_in(until(second_look, pass.now).max(std::time::Duration::from_secs(1)));
        }
        // a socket came after all
        Some(_)
            if pod
                .gateway
                .as_ref()
                .is_some_and(|(_, state)| state.connections > 0) =>
        {
            draft.mark(pod, Marks::new(), marks([(labels::DRAINED_AT, None)]));
        }
        None if empty => {
            let drained = marks([(labels::DRAINED_AT, Some(text(pass.now)))]);
            draft.mark(pod, Marks::new(), drained);
            // gives the rate of its lease back, which would else be idle until the lease runs out
            draft.call(pass, pod, pass.request(&markers.drain_id, DrainMode::Cordon));
            draft.changed.insert(pod.name.clone());
            return;
        }
        _ => {}
    }
    if deadline <= pass.now && !is_kept(pass, member) {
        draft.delete(member, false);
        let left = member
            .connections
            .map_or_else(|| "an unknown number of".to_owned(), |left| left.to_string());
        let note = format!(
            "{} still holds {left} sockets after drain.timeoutSeconds and is deleted; raise drain.timeoutSeconds or \
             drain.maxDisconnectPermille",
            pod.name
        );
        draft.event(true, event::DRAIN_TIMED_OUT, "Delete", note);
        return;
    }
    let next = if deadline > pass.now {
        Some(deadline)
    } else {
        node_drain::end(pass, member)
    };
    if let Some(next) = next {
        draft.wake_at(next, pass.now);
    }
    gone::give_up(pass, member, pod.silent_since, draft);
}

/// Whether a pod whose time is over stays until its last socket is closed: when the user wants it so, and when the whole fleet
/// goes, which takes longer than the drain of one pod. The time of its node is not ours to extend.
fn is_kept(pass: &Pass<'_>, member: &Member<'_>) -> bool {
    let wanted = pass.cluster.spec.drain.on_timeout == OnTimeout::Hold;
    (wanted || deletion::is_deleted(pass.cluster))
        && node_drain::end(pass, member).is_none_or(|end| end > pass.now)
}

/// Pods under drain that still hold sockets though their time is over, and are kept, by name.
pub(crate) fn overdue<'a>(pass: &Pass<'a>) -> Vec<&'a str> {
    let is_overdue = |member: &Member<'_>| {
        let markers = member.pod.drain.as_ref();
        member.state == State::Draining
            && !deletion::is_deleted(pass.cluster)
            && member.connections != Some(0)
            && markers.is_some_and(|markers| has_passed(markers.deadline, pass.now))
            && is_kept(pass, member)
    };
    let members = pass.fleet.members.iter();
    members
        .filter(|member| is_overdue(member))
        .map(|member| member.pod.name.as_str())
        .collect()
}

/// Lets cordoned pods begin to drain, most urgent first, as far as every rule allows.
fn admit(pass: &Pass<'_>, draft: &mut Draft) {
    let mut waiting: Vec<_> = pass
        .fleet
        .filter(|member| member.state == State::Cordoned)
        .collect();
    waiting.sort_by_key(|member| {
        (
            urgency(member),
            member.connections.unwrap_or(u64::MAX),
            member.pod.name.clone(),
        )
    });
    let mut admitted = Admitted {
        draining: pass.fleet.count(closes),
        available: 0,
        sockets: 0,
    };
    for member in waiting {
        let Some(markers) = &member.pod.drain else {
            continue;
        };
        let blocked = member.must_go == Some(DrainReason::Rollout)
            && !pass.gate.is_open()
            && !deletion::is_deleted(pass.cluster);
        if blocked || draft.changed.contains(&member.pod.name) {
            continue;
        }
        if passive_is_over(pass, member, markers, draft) {
            admit_one(pass, member, markers, &mut admitted, draft);
        }
    }
}

/// Whether it closes sockets under a drain: as it is told, or by itself because it refuses to be told.
fn closes(member: &Member<'_>) -> bool {
    let pod = member.pod;
    let refuses = pod.silent_since.is_some() && pod.unreachable_since.is_none();
    let is_asked = member.state == State::Draining || member.state == State::Terminating && refuses;
    is_asked
        && pod
            .drain
            .as_ref()
            .is_some_and(|markers| markers.drained_at.is_none())
}

fn urgency(member: &Member<'_>) -> u8 {
    match member.must_go.or(member.reason()) {
        Some(DrainReason::NodeDrain) => 0,
        Some(DrainReason::Rollout | DrainReason::Replace) => 1,
        Some(DrainReason::ScaleIn | DrainReason::Rebalance) | None => 2,
    }
}

/// What this pass has admitted, and what drains already.
struct Admitted {
    draining: u32,
    available: u32,
    sockets: u64,
}

fn passive_is_over(pass: &Pass<'_>, member: &Member<'_>, markers: &DrainMarkers, draft: &mut Draft) -> bool {
    let drain = &pass.cluster.spec.drain;
    let passive = match markers.reason {
        DrainReason::ScaleIn => drain.passive_seconds.scale_down,
        DrainReason::Rollout => drain.passive_seconds.rollout,
        DrainReason::NodeDrain | DrainReason::Replace => 0,
        DrainReason::Rebalance => drain.passive_seconds.rebalance,
    };
    let settled = after(markers.cordoned_at, drain.settle_seconds);
    if settled > pass.now {
        draft.wake_at(settled, pass.now);
        return false;
    }
    if deletion::is_deleted(pass.cluster) {
        return true;
    }
    let over = after(settled, passive);
    if over > pass.now && !is_empty(member.pod, markers) {
        draft.wake_at(over, pass.now);
        return false;
    }
    true
}

fn admit_one(
    pass: &Pass<'_>,
    member: &Member<'_>,
    markers: &DrainMarkers,
    admitted: &mut Admitted,
    draft: &mut Draft,
) {
    let empty = is_empty(member.pod, markers);
    if !empty && member.connections.is_some() && node_drain::is_urgent(pass, member) {
        return begin(pass, member, empty, draft);
    }
    node_drain::wake(pass, member, draft);
    if member.available && spare(pass, markers.reason) <= admitted.available {
        return;
    }
    if !empty {
        let is_given_up = has_passed(gone::given_up_at(pass, member.pod.silent_since), pass.now);
        let Some(sockets) = member.connections.or(is_given_up.then_some(0)) else {
            // never asked, or never answered: the time or an answer decides
            draft.wake_in(std::time::Duration::from_secs(1));
            return;
        };
        if admitted.draining >= concurrency(pass) {
            return;
        }
        if must_fit(pass, markers.reason)
            && room(pass, |_| true) < returning(pass) + admitted.sockets + sockets
        {
            draft.too_full.get_or_insert_with(|| member.pod.name.clone());
            return;
        }
        admitted.draining += 1;
        admitted.sockets += sockets;
    }
    admitted.available += u32::from(member.available);
    begin(pass, member, empty, draft);
}

/// Without surge, or without a fleet to stay, there is nobody to take the sockets, and the user chose so.
fn must_fit(pass: &Pass<'_>, reason: DrainReason) -> bool {
    pass.size.desired > 0 && (reason == DrainReason::ScaleIn || pass.surge() > 0)
}

fn begin(pass: &Pass<'_>, member: &Member<'_>, empty: bool, draft: &mut Draft) {
    let deadline = after(pass.now, pass.cluster.spec.drain.timeout_seconds);
    let deadline = node_drain::end(pass, member).map_or(deadline, |end| deadline.min(end));
    let mut annotations = marks([
        (labels::DRAIN_DEADLINE, Some(text(deadline))),
        (
            labels::DRAIN_INITIAL,
            Some(member.known_connections().to_string()),
        ),
    ]);
    if empty {
        annotations.insert(labels::DRAINED_AT.to_owned(), Some(text(pass.now)));
    } else {
        let note = format!(
            "{} begins to close its {} sockets",
            member.pod.name,
            member.known_connections()
        );
        draft.event(false, event::DRAIN_STARTED, "Drain", note);
    }
    let labels = marks([(labels::PHASE, Some(PodPhase::Draining.as_str().to_owned()))]);
    draft.mark(member.pod, labels, annotations);
}

/// Whether the gateway said, after it stopped accepting, that it holds no socket.
fn is_empty(pod: &PodView, markers: &DrainMarkers) -> bool {
    let proof = |state: &GatewayState| state.connections == 0 && !state.accepting;
    pod.gateway
        .as_ref()
        .is_some_and(|(at, state)| *at >= markers.cordoned_at && proof(state))
        && !has_passed(pod.unreachable_since, markers.cordoned_at)
}

fn has_ended(pod: &PodView) -> bool {
    pod.gateway
        .as_ref()
        .is_some_and(|(_, state)| state.phase == GatewayPhase::Terminating)
}
