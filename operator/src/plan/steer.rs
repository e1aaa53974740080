//! Who takes new sockets while pods are replaced (decision D10): when the old pods stop, and which of the new ones go on.
//!
//! New pods come up one after another, and the Service sends to all alike: those that were there for every drain would end
//! with several times the sockets of the last. So a pod that holds its share of the fleet leaves the Service while others
//! hold less. Only the Service's label says so: its gateway refuses nobody, nothing is closed, and it counts as one that
//! can take sockets, since one patch brings it back.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::action::Action;
use super::autoscale::{self, HANDSHAKE_SHARE};
use super::budget::budget_millis;
use super::draft::{Draft, Pass};
use super::fleet::{Member, State};
use super::headroom::{is_recipient, returning, room};
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
/// Seconds in which what comes goes to the same pods, when it is worked out who holds how much by now.
const STEP_SECONDS: f64 = 0.25;

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
pub(crate) fn full(pass: &Pass<'_>, draft: &mut Draft) -> BTreeSet<String> {
    let is_not_moving = !pass.fleet.moving || pass.stage.on_trial() || pass.surge() == 0;
    if is_not_moving || is_open_to_all(pass) || !gives_back(pass) {
        return BTreeSet::new();
    }
    let flow = Flow::of(pass);
    let takers = flow.takers(pass);
    let (full, open): (Vec<_>, Vec<_>) = takers.iter().partition(|taker| taker.is_full(flow.share));
    if !flow.fits(pass, &open) {
        return BTreeSet::new();
    }
    if let Some(wait) = flow.next_full(&open) {
        draft.wake_in(wait);
    }
    full.iter().map(|taker| taker.member.pod.name.clone()).collect()
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

/// A pod that takes sockets, or does again.
#[derive(Clone, Copy, Debug)]
struct Taker<'a> {
    member: &'a Member<'a>,
    /// Sockets that it holds by now: the last number, and what came since.
    holds: f64,
    /// Seconds since that number.
    age: f64,
}

impl Taker<'_> {
    /// Whether it holds its share; one that has left the Service comes back only when it holds clearly less.
    fn is_full(&self, share: f64) -> bool {
        let percent = if self.member.pod.accepting {
            100
        } else {
            AGAIN_PERCENT
        };
        self.holds * 100.0 >= share * percent as f64
    }
}

/// How fast sockets come. A number is seconds old, and when few pods take what drains close, seconds are a good part of a
/// share.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Sockets per second that drains close, as far as leases let them.
    closes: f64,
    /// Sockets per second that come besides.
    others: f64,
    /// Sockets of a pod when all hold the same.
    share: f64,
}

impl Flow {
    fn of(pass: &Pass<'_>) -> Self {
        let load = autoscale::load(pass.cluster, pass.observed, pass.fleet, pass.now);
        let closes = autoscale::granted_rate(pass.observed, pass.now);
        // pods under drain are asked more often: their numbers lack already what those of others lack still
        let oldest = |is_one: fn(&Member<'_>) -> bool| {
            let ages = pass.fleet.filter(is_one).map(|it| age(it, pass.now));
            ages.fold(0.0, f64::max)
        };
        let between = (oldest(is_recipient) - oldest(|it| it.state == State::Draining)).max(0.0);
        let all = between.mul_add(closes, pass.fleet.connections() as f64);
        Self {
            closes,
            others: load.handshakes,
            share: (all / f64::from(pass.size.desired.max(1))).ceil(),
        }
    }

    /// Those that take sockets, with what they hold by now. What came since they told it went evenly to those that were
    /// below their share: who reaches it leaves the Service. Which of them accept at the moment does not count, or the plan
    /// would follow from itself.
    fn takers<'a>(self, pass: &Pass<'a>) -> Vec<Taker<'a>> {
        let taker = |member: &'a Member<'a>| Taker {
            member,
            holds: member.known_connections() as f64,
            age: age(member, pass.now),
        };
        let mut takers: Vec<_> = pass.fleet.filter(is_recipient).map(taker).collect();
        let mut ago = takers.iter().map(|it| it.age).fold(0.0, f64::max);
        while ago > 0.0 {
            let step = STEP_SECONDS.min(ago);
            let below = takers.iter().filter(|it| it.holds < self.share).count();
            let each = (self.closes + self.others) * step / below.max(1) as f64;
            for taker in &mut takers {
                if taker.holds < self.share && taker.age >= ago {
                    taker.holds += each;
                }
            }
            ago -= step;
        }
        takers
    }

    /// Time until the first of the `open` pods holds its share, if that is before their next numbers.
    fn next_full(self, open: &[&Taker<'_>]) -> Option<Duration> {
        let each = (self.closes + self.others) / open.len().max(1) as f64;
        let most = open.iter().map(|it| it.holds).fold(0.0, f64::max);
        let seconds = (self.share - most).max(0.0) / each;
        (seconds < NEXT_SECONDS).then(|| Duration::from_secs_f64(seconds))
    }

    /// Whether the `open` pods have places for what comes until the next numbers, and let it in as fast: what pods under drain
    /// may close of what they hold, and what comes besides.
    fn fits(self, pass: &Pass<'_>, open: &[&Taker<'_>]) -> bool {
        // what is not granted yet may be soon
        let closes = (budget_millis(pass) as f64 / 1000.0).max(self.closes);
        let spec = &pass.cluster.spec.gateway.capacity;
        let handshakes = f64::from(spec.max_handshakes_per_second);
        let free = |taker: &&Taker<'_>| (f64::from(spec.max_connections) - taker.holds).max(0.0);
        let places: f64 = open.iter().map(free).sum();
        let back = (closes * NEXT_SECONDS).min(returning(pass) as f64);
        closes + self.others <= HANDSHAKE_SHARE * handshakes * open.len() as f64
            && self.others.mul_add(NEXT_SECONDS, back) <= places
    }
}

/// Seconds since a gateway told how many sockets it holds, or could take the first, as far as they count: up to the time
/// between two numbers. One that does not tell for longer may take none.
fn age(member: &Member<'_>, now: Timestamp) -> f64 {
    let told = member.pod.gateway.as_ref().map(|(at, _)| *at);
    let since = told.or(member.pod.ready_since).unwrap_or(now);
    now.duration_since(since).as_secs_f64().clamp(0.0, NEXT_SECONDS)
}
