//! Who takes new sockets while pods are replaced (decision D10): when the old pods stop, and which of the new ones go on.
//!
//! New pods come up one after another, and the Service sends to all alike: those that were there for every drain would end
//! with several times the sockets of the last. So a pod that holds its share of the fleet leaves the Service while others
//! hold less. Only the Service's label says so: its gateway refuses nobody, nothing is closed, and it counts as one that
//! can take sockets, since one patch brings it back.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::action::Action;
use super::autoscale::{self, HANDSHAKE_SHARE};
use super::budget::budget_millis;
use super::draft::{Draft, Pass};
use super::fleet::{Member, State};
use super::headroom::{is_recipient, places, returning, room};
use super::replace::{arrivals, is_successor};
use super::time::after;

/// Seconds of arrivals for which the new pods must have room before the old ones stop accepting.
pub(crate) const STEER_SECONDS: f64 = 60.0;
/// Seconds for which a new pod that starts is waited for before the first old ones go without its room.
const START_SECONDS: u32 = 60;
/// Percent of the share below which a pod that has left the Service takes sockets again: so much less than the share that
/// it does not come and go with every client.
const AGAIN_PERCENT: u64 = 90;
/// Seconds of what comes for which those that are left in the Service must have places: until the next numbers.
const NEXT_SECONDS: f64 = 5.0;

/// Whether all `victims`, of which there is one at least, may stop accepting: those that stay have room for the drains under
/// way, or for the first one, and for a minute's arrivals. The drains after it are admitted as room comes, and wait cordoned
/// until then.
pub(crate) fn is_clear(pass: &Pass<'_>, victims: &[&Member<'_>]) -> bool {
    let first = victims.first().map_or(0, |member| member.known_connections());
    let needed = returning(pass).max(first) + arrivals(pass, STEER_SECONDS);
    room(pass, |member| is_successor(pass, member)) > needed
}

/// Whether another new pod is on its way: with its room, no client may have to be moved onto a pod that goes next.
pub(crate) fn awaits_successor(pass: &Pass<'_>, draft: &mut Draft) -> bool {
    if pass.surge() == 0 {
        return false;
    }
    let created = |action: &Action| matches!(action, Action::CreatePod(_));
    let mut comes = draft.actions.iter().any(created);
    let starts = |member: &Member<'_>| is_successor(pass, member) && !member.available;
    for member in pass.fleet.filter(starts) {
        let until = after(member.pod.created_at, START_SECONDS);
        if until > pass.now {
            draft.wake_at(until, pass.now);
            comes = true;
        }
    }
    comes
}

/// Names of the pods that hold their share while none but pods that stay take sockets, pods that go have some to give back,
/// and those below their share can take what comes. Empty when all shall take sockets.
pub(crate) fn full(pass: &Pass<'_>) -> BTreeSet<String> {
    let is_not_moving = !pass.fleet.moving || pass.stage.on_trial() || pass.surge() == 0;
    if is_not_moving || is_open_to_all(pass) || !gives_back(pass) {
        return BTreeSet::new();
    }
    let share = pass
        .fleet
        .connections()
        .div_ceil(u64::from(pass.size.desired.max(1)));
    let (full, open): (Vec<_>, Vec<_>) = pass
        .fleet
        .filter(is_recipient)
        .partition(|member| holds(member, pass.now) * 100 >= share * from_percent(member));
    let full: BTreeSet<_> = full.iter().map(|member| member.pod.name.clone()).collect();
    if can_take(pass, &full, open.len()) {
        full
    } else {
        BTreeSet::new()
    }
}

/// Whether pods that go take sockets still: what one that stays does not take may come to them.
fn is_open_to_all(pass: &Pass<'_>) -> bool {
    let goes = |member: &Member<'_>| member.state == State::Staying && member.must_go.is_some();
    pass.fleet.count(goes) > 0
}

/// Whether sockets are on pods that go.
fn gives_back(pass: &Pass<'_>) -> bool {
    let goes = |member: &Member<'_>| {
        let leaves = member.is_live() && member.must_go.is_some();
        (leaves || member.state == State::Terminating) && member.connections != Some(0)
    };
    pass.fleet.count(goes) > 0
}

/// The percentage of its share from which on a pod is full.
fn from_percent(member: &Member<'_>) -> u64 {
    if member.pod.accepting { 100 } else { AGAIN_PERCENT }
}

/// Sockets that it holds by now: the last number, and what came since at its rate.
fn holds(member: &Member<'_>, now: Timestamp) -> u64 {
    let since = member.pod.gateway.as_ref().map_or(0.0, |(at, state)| {
        let seconds = now.duration_since(*at).as_secs_f64().clamp(0.0, NEXT_SECONDS);
        seconds * state.handshakes_per_second.max(0.0)
    });
    member.known_connections() + since as u64
}

/// Whether the `open` pods that are not `full` have places for what drains close and what comes besides, and let it in as
/// fast.
fn can_take(pass: &Pass<'_>, full: &BTreeSet<String>, open: usize) -> bool {
    let load = autoscale::load(pass.cluster, pass.observed, pass.fleet, pass.now);
    let closes = budget_millis(&pass.cluster.spec.drain, pass.fleet) as f64 / 1000.0;
    let comes = load.handshakes + closes;
    let handshakes = f64::from(pass.cluster.spec.gateway.capacity.max_handshakes_per_second);
    let is_open = |member: &Member<'_>| !full.contains(&member.pod.name);
    comes <= HANDSHAKE_SHARE * handshakes * open as f64
        && comes * NEXT_SECONDS <= places(pass, is_open) as f64
}
