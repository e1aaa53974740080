//! Who comes and who goes: taking back, creating, and choosing whom to cordon.
//!
//! Order of precedence (operator.md §4): repair and growth by taking back, then by creating; node drains; rollout;
//! scale-in, which waits for the rollout. Nothing here closes a socket: pods that go are cordoned, and `drain` does the
//! rest.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use wsfleet_crds::event;
use wsfleet_crds::labels::{self, DrainReason, PodPhase};

use super::action::Action;
use super::autoscale;
use super::deletion;
use super::draft::{Draft, Marks, Pass, marks};
use super::fleet::{Member, State};
use super::headroom::{is_recipient, places, returning, room};
use super::node_drain;
use super::resources::pod::pod;
use super::steer;
use super::time::{after, text};

/// Seconds that a pod whose processes ended keeps its place, so that one that fails at once is not made again at once.
pub(crate) const FAILED_SECONDS: u32 = 10;
/// Seconds of arrivals below which the old pods that wait for their drain accept again; so much less than
/// [`steer::STEER_SECONDS`] that they do not turn back and forth.
const REOPEN_SECONDS: f64 = 5.0;

/// Takes back, creates, and cordons, in this order.
pub(crate) fn replace(pass: &Pass<'_>, draft: &mut Draft) {
    let missing = [Age::Old, Age::New].map(|age| {
        let (wanted, is_one) = match age {
            Age::Old => (pass.split.old, is_old as fn(&Pass<'_>, &Member<'_>) -> bool),
            Age::New => (pass.split.new, is_new as fn(&Pass<'_>, &Member<'_>) -> bool),
        };
        let there = pass
            .fleet
            .count(|member| member.is_good() && is_one(pass, member));
        let shortage = wanted.saturating_sub(there);
        (age, shortage - take_back(pass, shortage, is_one, draft))
    });
    accept_again(pass, draft);
    create(pass, missing, draft);
    cordon_outgoing(pass, draft);
    scale_in(pass, draft);
}

/// Of the revision that the fleet goes to, or of one that the rollout lets stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    New,
    Old,
}

fn is_new(pass: &Pass<'_>, member: &Member<'_>) -> bool {
    member.pod.revision == pass.target.hash
}

fn is_old(pass: &Pass<'_>, member: &Member<'_>) -> bool {
    !is_new(pass, member)
}

/// Takes leaving pods back that may stay after all: the fullest first, the not yet draining before the draining.
fn take_back(
    pass: &Pass<'_>,
    shortage: u32,
    is_one: fn(&Pass<'_>, &Member<'_>) -> bool,
    draft: &mut Draft,
) -> u32 {
    let reclaimable =
        |member: &Member<'_>| member.may_return(pass.now) && is_one(pass, member) && member.must_go.is_none();
    let mut candidates: Vec<_> = pass.fleet.filter(reclaimable).collect();
    candidates.sort_by_key(|member| (member.state == State::Draining, Reverse(member.connections)));
    candidates.truncate(shortage as usize);
    for member in &candidates {
        uncordon(member, draft);
        let note = format!("{} stays after all and accepts again", member.pod.name);
        draft.event(false, event::RECLAIMED, "Reclaim", note);
    }
    candidates.len() as u32
}

/// When nobody is left to take new sockets, since the new pods failed or are full, the old ones that wait accept again.
fn accept_again(pass: &Pass<'_>, draft: &mut Draft) {
    if pass.surge() == 0 || pass.size.desired == 0 {
        return;
    }
    let full = has_successor(pass) && places(pass, |_| true) <= arrivals(pass, REOPEN_SECONDS);
    if pass.fleet.count(is_recipient) > 0 && !full {
        return;
    }
    // an empty one may go whatever comes: see `partial`
    let waiting = |member: &Member<'_>| {
        let is_spent = full && member.connections == Some(0);
        let may_wait = !is_spent && !node_drain::is_urgent(pass, member);
        member.state == State::Cordoned && member.available && member.must_go.is_some() && may_wait
    };
    for member in pass.fleet.filter(waiting) {
        uncordon(member, draft);
    }
}

/// Whether a pod that stays takes new sockets.
fn has_successor(pass: &Pass<'_>) -> bool {
    pass.fleet
        .count(|member| is_successor(pass, member) && is_recipient(member))
        > 0
}

/// Whether those who leave may be steered to `member`: it stays, and is of the revision that the fleet goes to, unless
/// that one is still on trial.
pub(crate) fn is_successor(pass: &Pass<'_>, member: &Member<'_>) -> bool {
    member.is_good() && (is_new(pass, member) || pass.stage.on_trial())
}

/// Sockets that arrive in so many seconds, at the rate of now.
pub(crate) fn arrivals(pass: &Pass<'_>, seconds: f64) -> u64 {
    let load = autoscale::load(pass.cluster, pass.observed, pass.fleet, pass.now);
    (load.handshakes * seconds) as u64
}

/// Takes all markers of a drain from a pod; its gateway is told when that is seen.
pub(super) fn uncordon(member: &Member<'_>, draft: &mut Draft) {
    let keys = [
        labels::CORDONED_AT,
        labels::DRAIN_REASON,
        labels::DRAIN_ID,
        labels::DRAIN_DEADLINE,
        labels::DRAIN_INITIAL,
        labels::DRAINED_AT,
        labels::SHEDDING_SINCE,
        labels::SHED_TO,
    ];
    let annotations: Marks = keys.into_iter().map(|key| (key.to_owned(), None)).collect();
    let labels = marks([
        (labels::ACCEPTING, Some("true".to_owned())),
        (labels::PHASE, Some(PodPhase::Active.as_str().to_owned())),
    ]);
    draft.mark(member.pod, labels, annotations);
    draft.changed.insert(member.pod.name.clone());
}

/// Creates what is missing, as far as the surge allows. Pods that leave because the fleet shrinks are beyond the wanted
/// number anyway and do not count against it.
fn create(pass: &Pass<'_>, missing: [(Age, u32); 2], draft: &mut Draft) {
    let failed = pass.fleet.count(|member| {
        member.state == State::Gone
            && member.pod.finished
            && after(member.pod.created_at, FAILED_SECONDS) > pass.now
    });
    // those that were just taken back count again
    let shrinks = |member: &Member<'_>| {
        member.is_leaving()
            && member.reason() == Some(DrainReason::ScaleIn)
            && !draft.changed.contains(&member.pod.name)
    };
    let counted = pass.fleet.count(|member| member.is_live() && !shrinks(member));
    let mut room = (pass.size.desired + pass.surge()).saturating_sub(counted);
    for (age, missing) in missing {
        let revision = match age {
            Age::New if pass.gate.is_open() => Some(pass.target),
            Age::New => None,
            Age::Old => pass.course.stable.as_ref(),
        };
        let Some((hash, Ok(data))) = revision.map(|it| (&it.hash, &it.data)) else {
            continue;
        };
        for slot in pass
            .fleet
            .free_slots(hash, missing.saturating_sub(failed).min(room))
        {
            room -= 1;
            let pod = pod(pass.cluster, hash, data, slot);
            draft.actions.push(Action::CreatePod(Box::new(pod)));
        }
    }
}

/// Cordons pods that must go. All of them as soon as those that stay have room for what the first drains and a minute's
/// arrivals bring: then no client is moved onto a pod that goes next (decision D10). Otherwise as few as the drains need.
fn cordon_outgoing(pass: &Pass<'_>, draft: &mut Draft) {
    cordon_urgent(pass, draft);
    let outgoing = |member: &Member<'_>| member.state == State::Staying && member.must_go.is_some();
    let mut victims: Vec<_> = pass.fleet.filter(outgoing).collect();
    victims.retain(|member| !draft.changed.contains(&member.pod.name));
    if !pass.gate.is_open() {
        // what leaves its node is replaced by the revision before, if there is one
        let is_node = |member: &&Member<'_>| member.must_go == Some(DrainReason::NodeDrain);
        victims.retain(|member| pass.course.stable.is_some() && is_node(member));
    }
    if victims.is_empty() {
        return;
    }
    let idle: BTreeSet<_> = victims
        .iter()
        .filter(|member| member.never_served())
        .map(|member| member.pod.name.clone())
        .collect();
    for member in victims.iter().filter(|member| idle.contains(&member.pod.name)) {
        draft.delete_unserved(member);
    }
    victims.retain(|member| !idle.contains(&member.pod.name));
    sort_outgoing(pass, &mut victims);

    let has_successor = has_successor(pass);
    if !has_successor && pass.surge() > 0 && pass.size.desired > 0 {
        return cordon_surplus(pass, &victims, draft);
    }
    let count = if has_successor && steer::is_clear(pass, &victims) {
        victims.len()
    } else if is_node_first(&victims) || !steer::awaits_successor(pass, draft) {
        partial(pass, &victims, draft)
    } else {
        0
    };
    for member in victims.into_iter().take(count) {
        cordon(
            pass,
            member,
            member.must_go.unwrap_or(DrainReason::Rollout),
            draft,
        );
    }
}

/// Cordons what must leave its node now, whatever room there is.
fn cordon_urgent(pass: &Pass<'_>, draft: &mut Draft) {
    for member in pass.fleet.filter(|member| member.state == State::Staying) {
        if node_drain::is_urgent(pass, member) && !member.never_served() {
            cordon(pass, member, DrainReason::NodeDrain, draft);
        } else {
            node_drain::wake(pass, member, draft);
        }
    }
}

/// Whether the most urgent of `victims` leaves its node.
fn is_node_first(victims: &[&Member<'_>]) -> bool {
    let first = victims.first();
    first.is_some_and(|member| member.must_go == Some(DrainReason::NodeDrain))
}

/// Without a successor only those go that nobody misses: what is more than wanted in any revision, and what is broken.
/// They would otherwise take the room that the first new pod needs.
fn cordon_surplus(pass: &Pass<'_>, victims: &[&Member<'_>], draft: &mut Draft) {
    let is_broken = |member: &&&Member<'_>| member.pod.ready_since.is_none();
    let going = pass
        .fleet
        .count(|member| member.state == State::Cordoned && member.available);
    let surplus = spare(pass, DrainReason::ScaleIn).saturating_sub(going) as usize;
    let broken = victims.iter().filter(is_broken);
    let surplus = victims.iter().filter(|member| member.available).take(surplus);
    for member in broken.chain(surplus) {
        cordon(
            pass,
            member,
            member.must_go.unwrap_or(DrainReason::Rollout),
            draft,
        );
    }
}

/// Node drains first; then pods that serve nobody, then intermediate revisions, then the emptiest.
fn sort_outgoing(pass: &Pass<'_>, victims: &mut [&Member<'_>]) {
    let complete = pass
        .cluster
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_deref());
    victims.sort_by_key(|member| {
        (
            member.must_go != Some(DrainReason::NodeDrain),
            member.available,
            complete == Some(member.pod.revision.as_str()),
            member.connections.unwrap_or(u64::MAX),
            member.pod.name.clone(),
        )
    });
}

/// How many of `victims` to cordon when the others cannot take all: as many as may be drained now and have room.
fn partial(pass: &Pass<'_>, victims: &[&Member<'_>], draft: &mut Draft) -> usize {
    let next = concurrency(pass)
        .saturating_sub(pass.fleet.count(|member| member.state == State::Draining))
        .max(1);
    let cordoned = pass
        .fleet
        .count(|member| member.state == State::Cordoned && member.must_go.is_some());
    let spare = spare(
        pass,
        if is_node_first(victims) {
            DrainReason::NodeDrain
        } else {
            DrainReason::Rollout
        },
    );
    let allowed = next.min(spare).saturating_sub(cordoned) as usize;
    if pass.surge() == 0 || pass.size.desired == 0 {
        return allowed;
    }
    let mut taken = returning(pass);
    let reserve = arrivals(pass, REOPEN_SECONDS);
    let mut going = BTreeSet::new();
    let fits = |member: &&&Member<'_>| {
        taken += member.connections.unwrap_or(u64::MAX / 2);
        going.insert(member.pod.name.clone());
        let stays = |other: &Member<'_>| !going.contains(&other.pod.name);
        // without places for those who come, it would have to accept again at once
        let can_miss = member.connections == Some(0) || places(pass, stays) > reserve;
        room(pass, stays) >= taken && can_miss
    };
    let fitting = victims.iter().take(allowed).take_while(fits).count();
    if fitting == 0
        && allowed > 0
        && let Some(first) = victims.first()
    {
        draft.too_full = Some(first.pod.name.clone());
    }
    fitting
}

/// Available pods beyond those that must stay available.
pub(crate) fn spare(pass: &Pass<'_>, reason: DrainReason) -> u32 {
    let missing_allowed = match reason {
        DrainReason::NodeDrain => pass
            .max_unavailable()
            .max(pass.cluster.spec.disruption.max_unavailable),
        DrainReason::Rollout | DrainReason::Replace => pass.max_unavailable(),
        DrainReason::ScaleIn | DrainReason::Rebalance => 0,
    };
    let available = pass.fleet.count(|member| member.available);
    available.saturating_sub(pass.size.desired.saturating_sub(missing_allowed))
}

/// Pods that may be drained at the same time: all of them when none is to stay, since their rate is the fleet's anyway.
pub(crate) fn concurrency(pass: &Pass<'_>) -> u32 {
    if deletion::is_deleted(pass.cluster) {
        return u32::MAX;
    }
    pass.cluster
        .spec
        .drain
        .max_concurrent
        .round_up(pass.size.desired)
        .max(1)
}

/// Cordons the pods with the fewest sockets when there are more than wanted; waits for a rollout to end.
fn scale_in(pass: &Pass<'_>, draft: &mut Draft) {
    let new = |member: &Member<'_>| member.is_good() && is_new(pass, member);
    let mut candidates: Vec<_> = pass.fleet.filter(new).collect();
    let excess = (candidates.len() as u32).saturating_sub(pass.split.new) as usize;
    // one that evens out is given back first, and has its turn then
    candidates.retain(|member| member.state == State::Staying);
    candidates.sort_by_key(|member| {
        (
            !member.never_served(),
            member.pod.ready_since.is_some(),
            // what is not known is kept: it may be the fullest
            member.connections.unwrap_or(u64::MAX),
            Reverse(member.pod.created_at),
            member.pod.name.clone(),
        )
    });
    for member in candidates.into_iter().take(excess) {
        if member.never_served() {
            draft.delete_unserved(member);
        } else if !pass.fleet.moving {
            cordon(pass, member, DrainReason::ScaleIn, draft);
        }
    }
}

/// Writes the markers of a cordon; the call to the gateway follows when they are seen.
pub(super) fn cordon(pass: &Pass<'_>, member: &Member<'_>, reason: DrainReason, draft: &mut Draft) {
    let pod = member.pod;
    // the same for a pass that is repeated after a crash, another for another drain of the same pod
    let drain_id = format!("{}-{}", pod.uid, pass.now.as_second());
    draft.mark(
        pod,
        marks([(labels::ACCEPTING, Some("false".to_owned()))]),
        marks([
            (labels::CORDONED_AT, Some(text(pass.now))),
            (labels::DRAIN_REASON, Some(reason.as_str().to_owned())),
            (labels::DRAIN_ID, Some(drain_id)),
        ]),
    );
    draft.changed.insert(pod.name.clone());
}
