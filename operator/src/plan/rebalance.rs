//! Evens out a fleet in which some gateways hold many more sockets than others, as after a scale-out or the loss of a node.
//!
//! Steer first, shed second. Gateways that hold too many ("donors") stop accepting, so that who comes, and who comes back,
//! goes to the others; where clients come and go that is all. What is uneven after `drain.passiveSeconds.rebalance` is
//! closed down to the average, slowly and within the fleet's one budget. A donor is no pod that leaves: it is Ready,
//! active, counts as available, and accepts again after one patch whenever something else is to be done: a rollout, a
//! drain, a change of size, a lost pod, missing numbers, or others without room end it at once.
//!
//! ```text
//! Staying -> Donor (accepting=false) -> shedding (marker, then leases) -> Staying
//!              \______ even by itself, or anything else to do ___________/
//! ```
//!
//! Remembered are only markers on pods, and since when a pod holds too many: a new leader waits that minute anew.

mod skew;

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use wsfleet_crds::admin::{DrainMode, GatewayPhase};
use wsfleet_crds::event;
use wsfleet_crds::labels::{self, DrainReason};

use super::autoscale;
use super::budget::budget_millis;
use super::draft::{Draft, Marks, Pass, Shed, marks};
use super::drain::resume;
use super::fleet::{Member, State};
use super::headroom::is_recipient;
use super::replace::{cordon, uncordon};
use super::time::{after, text};
use crate::observe::model::Shedding;
use skew::{Survey, survey};

/// Sockets that have been open for less are never closed: they came a moment ago, perhaps from another donor.
pub(crate) const MIN_AGE_SECONDS: u32 = 60;
/// What clients see: come back soon, and resume (4200, "rebalance", of the gateway's close codes).
pub(crate) const CLOSE_CODE: u16 = 4200;

/// Seconds for which a pod must hold too many without a break.
const CROWDED_SECONDS: u32 = 60;
/// Seconds after the passive time at the latest everybody accepts again.
const MOST_SHEDDING_SECONDS: u32 = 900;
/// Closes per second, in thousandths, of the smallest fleet.
const LEAST_MILLIS: u64 = 1_000;
/// Share of the others' handshake limit that may be asked for, in per cent: what the autoscaler plans with.
const HANDSHAKE_PERCENT: u64 = 70;

/// Steers new sockets away from the fullest gateways, and has them close what they have too many.
pub(crate) fn rebalance(pass: &Pass<'_>, draft: &mut Draft) {
    match survey(pass) {
        Err(obstacle) => end(pass, draft, obstacle),
        Ok(survey) if pass.fleet.count(is_donor) > 0 => go_on(pass, &survey, draft),
        Ok(survey) => begin(pass, &survey, draft),
    }
}

/// Ends it while everything else stands still: gateways that do not accept would be too few in the long run.
pub(crate) fn stop(pass: &Pass<'_>, draft: &mut Draft) {
    end(pass, draft, "spec.paused is true");
    for member in pass.fleet.filter(|member| member.state == State::Staying) {
        resume(pass, member, draft);
    }
}

fn is_donor(member: &Member<'_>) -> bool {
    member.state == State::Donor
}

/// Whether the Service sends new sockets to it.
fn accepts(member: &Member<'_>) -> bool {
    is_recipient(member) && member.pod.accepting
}

/// Gives all donors back. Their gateways hear of it in the next pass.
fn end(pass: &Pass<'_>, draft: &mut Draft, why: &str) {
    let mut any = false;
    for member in pass.fleet.filter(is_donor) {
        any = true;
        uncordon(member, draft);
    }
    if any {
        // whoever waits for room looks again when they accept
        draft.too_full = None;
        let note = format!("all gateways accept again: {why}");
        draft.event(false, event::REBALANCE_STOPPED, "Rebalance", note);
    }
}

/// Waits until some pods have held too many for a minute, and steers new sockets away from all that are above average by
/// as much.
fn begin(pass: &Pass<'_>, survey: &Survey<'_>, draft: &mut Draft) {
    let crowded: Vec<_> = survey
        .staying()
        .filter(|it| survey.is_crowded(pass, it))
        .collect();
    // with nobody to give to, waiting is no use
    if crowded.is_empty() || candidates(pass, survey, survey.least_accepting(), draft).is_empty() {
        return;
    }
    let mut due: Option<Timestamp> = None;
    for member in crowded {
        let uid = &member.pod.uid;
        let since = pass.observed.crowded.get(uid).copied().unwrap_or(pass.now);
        draft.crowded.insert(uid.clone(), since);
        let at = after(since, CROWDED_SECONDS);
        due = Some(due.map_or(at, |earlier| earlier.min(at)));
    }
    match due {
        Some(at) if at > pass.now => draft.wake_at(at, pass.now),
        _ => {
            let (full, mean) = (survey.fullest(), survey.mean());
            let donors = join(pass, survey, survey.least_accepting(), draft);
            let note = format!(
                "{donors} gateways do not accept until the others have caught up: the fullest holds {full} sockets, the \
                 average is {mean}"
            );
            draft.event(false, event::REBALANCE_STARTED, "Rebalance", note);
        }
    }
}

/// Lets the fullest pods stop accepting, as far as enough others go on; returns how many.
fn join(pass: &Pass<'_>, survey: &Survey<'_>, least: usize, draft: &mut Draft) -> usize {
    let joining = candidates(pass, survey, least, draft);
    for member in &joining {
        cordon(pass, member, DrainReason::Rebalance, draft);
    }
    joining.len()
}

/// The fullest pods that hold more than they should and accept, while at least `least` others do, with room.
fn candidates<'a>(pass: &Pass<'a>, survey: &Survey<'a>, least: usize, draft: &Draft) -> Vec<&'a Member<'a>> {
    let mut full: Vec<_> = survey
        .staying()
        .filter(|it| accepts(it) && !draft.changed.contains(&it.pod.name))
        .filter(|it| survey.gives(pass, it))
        .collect();
    full.sort_by_key(|it| (Reverse(it.known_connections()), it.pod.name.clone()));
    let mut accepting = Accepting::new(pass, survey);
    let stops = |member: &&Member<'_>| {
        accepting.gateways = accepting.gateways.saturating_sub(1);
        accepting.free = accepting.free.saturating_sub(accepting.free_of(member));
        accepting.gateways >= least.max(1) && accepting.has_room()
    };
    full.into_iter().take_while(stops).collect()
}

/// Gateways that accept.
struct Accepting {
    gateways: usize,
    /// Places that they have free.
    free: u64,
    capacity: u64,
}

impl Accepting {
    fn new(pass: &Pass<'_>, survey: &Survey<'_>) -> Self {
        let mut accepting = Self {
            gateways: 0,
            free: 0,
            capacity: u64::from(pass.cluster.spec.gateway.capacity.max_connections),
        };
        for member in survey.staying().filter(|it| accepts(it)) {
            accepting.gateways += 1;
            accepting.free += accepting.free_of(member);
        }
        accepting
    }

    fn free_of(&self, member: &Member<'_>) -> u64 {
        self.capacity.saturating_sub(member.known_connections())
    }

    /// Whether there are any, and a tenth of their places is free.
    fn has_room(&self) -> bool {
        self.gateways > 0 && self.free * 10 >= self.capacity * self.gateways as u64
    }
}

/// Some pods do not accept: for how long, and what comes then.
fn go_on(pass: &Pass<'_>, survey: &Survey<'_>, draft: &mut Draft) {
    let accepting = Accepting::new(pass, survey);
    if !accepting.has_room() {
        return end(pass, draft, "the others have no room left");
    }
    let drain = &pass.cluster.spec.drain;
    let markers = || pass.fleet.filter(is_donor).filter_map(|it| it.pod.drain.as_ref());
    let began = markers().map(|it| it.cordoned_at).min().unwrap_or(pass.now);
    let passive = drain
        .settle_seconds
        .saturating_add(drain.passive_seconds.rebalance);
    let (steered, over) = (
        after(began, passive),
        after(began, passive.saturating_add(MOST_SHEDDING_SECONDS)),
    );
    if over <= pass.now {
        return end(pass, draft, "it takes too long");
    }
    let sheds = steered <= pass.now || markers().any(|it| it.shedding.is_some());
    draft.wake_at(if sheds { over } else { steered }, pass.now);
    if sheds {
        shed(pass, survey, draft);
    } else {
        steer(pass, survey, draft);
    }
}

/// Whoever is even by itself accepts again; others may have become the fullest meanwhile.
fn steer(pass: &Pass<'_>, survey: &Survey<'_>, draft: &mut Draft) {
    let even = |it: &Member<'_>| is_donor(it) && !survey.is_above_stop(it);
    for member in pass.fleet.filter(even) {
        uncordon(member, draft);
    }
    let joining = join(pass, survey, survey.least_accepting(), draft);
    let uneven = |it: &Member<'_>| is_donor(it) && survey.is_above_stop(it);
    if joining == 0 && pass.fleet.count(uneven) == 0 {
        completed(survey, draft);
    }
    for member in pass.fleet.filter(uneven) {
        keep_steered(pass, member, draft);
    }
}

/// Whoever is still uneven closes what it has too many. Now all of them stop accepting, and those that are through do not
/// begin again before the last is: who is closed comes to one that has too few, and is not closed again.
fn shed(pass: &Pass<'_>, survey: &Survey<'_>, draft: &mut Draft) {
    let joining = join_rest(pass, survey, draft);
    let (going, done): (Vec<_>, Vec<_>) = pass
        .fleet
        .filter(is_donor)
        .partition(|it| survey.is_above_stop(it) && excess(survey, it) > 0);
    if going.is_empty() && joining == 0 {
        for member in &done {
            uncordon(member, draft);
        }
        return completed(survey, draft);
    }
    for member in &done {
        keep_steered(pass, member, draft);
    }
    let mut closing = Vec::new();
    for member in going {
        match &member.pod.drain {
            Some(markers) if markers.shedding.is_some() => {
                keep_out(member, draft);
                closing.push(member);
            }
            Some(markers) => {
                let settled = after(markers.cordoned_at, pass.cluster.spec.drain.settle_seconds);
                if settled <= pass.now {
                    mark_shedding(pass, survey, member, draft);
                } else {
                    draft.wake_at(settled, pass.now);
                    keep_steered(pass, member, draft);
                }
            }
            None => {}
        }
    }
    if joining == 0 {
        ask_for_leases(pass, survey, &closing, draft);
    }
}

/// The rest of those that hold too many, whether or not they were steered around: all but those that have room.
fn join_rest(pass: &Pass<'_>, survey: &Survey<'_>, draft: &mut Draft) -> usize {
    join(pass, &survey.to_the_end(), 1, draft)
}

fn mark_shedding(pass: &Pass<'_>, survey: &Survey<'_>, member: &Member<'_>, draft: &mut Draft) {
    let keep = survey.mean();
    let annotations = marks([
        (labels::SHEDDING_SINCE, Some(text(pass.now))),
        (labels::SHED_TO, Some(keep.to_string())),
        (
            labels::DRAIN_INITIAL,
            Some(member.known_connections().to_string()),
        ),
    ]);
    draft.mark(member.pod, Marks::new(), annotations);
    draft.changed.insert(member.pod.name.clone());
}

/// Sockets that `member` keeps: the average, of now or of when it began to close, whichever is more. Those that are closed
/// and not yet back are missing in the average of now.
fn keep(survey: &Survey<'_>, member: &Member<'_>) -> u64 {
    let markers = member.pod.drain.as_ref();
    let marked = markers
        .and_then(|it| it.shedding)
        .map(|Shedding { keep, .. }| keep);
    marked.unwrap_or(0).max(survey.mean())
}

fn excess(survey: &Survey<'_>, member: &Member<'_>) -> u64 {
    member.known_connections().saturating_sub(keep(survey, member))
}

/// What may be closed in a second, by all donors together in proportion to what each has too many.
fn ask_for_leases(pass: &Pass<'_>, survey: &Survey<'_>, closing: &[&Member<'_>], draft: &mut Draft) {
    let rate = rate_millis(pass, survey);
    let total: u64 = closing.iter().map(|it| excess(survey, it)).sum();
    for member in closing.iter().filter(|it| !draft.changed.contains(&it.pod.name)) {
        let share = u128::from(rate) * u128::from(excess(survey, member)) / u128::from(total.max(1));
        draft.sheds.push(Shed {
            pod: member.pod.name.clone(),
            keep: keep(survey, member),
            rate_millis: u64::try_from(share).unwrap_or(rate),
        });
    }
}

/// Closes per second, in thousandths: the gentler share of the fleet's sockets, never more than the fleet's budget, nor than
/// the others can take handshakes beside those that come anyway.
fn rate_millis(pass: &Pass<'_>, survey: &Survey<'_>) -> u64 {
    let spec = &pass.cluster.spec;
    let share = survey.total() * u64::from(spec.rebalance.max_disconnect_permille);
    let takers = survey.staying().filter(|it| accepts(it)).count() as u64;
    let handshakes =
        u64::from(spec.gateway.capacity.max_handshakes_per_second) * 10 * HANDSHAKE_PERCENT * takers;
    let load = autoscale::load(pass.cluster, pass.observed, pass.fleet, pass.now);
    let arrivals = (load.handshakes * 1_000.0) as u64;
    share
        .max(LEAST_MILLIS)
        .min(budget_millis(pass))
        .min(handshakes.saturating_sub(arrivals))
}

/// A label that says otherwise is put right.
fn keep_out(member: &Member<'_>, draft: &mut Draft) {
    if member.pod.accepting {
        let labels = marks([(labels::ACCEPTING, Some("false".to_owned()))]);
        draft.mark(member.pod, labels, Marks::new());
    }
}

/// Tells a donor's gateway that it does not accept, and closes nothing, until it confirms.
fn keep_steered(pass: &Pass<'_>, member: &Member<'_>, draft: &mut Draft) {
    let (pod, Some(markers)) = (member.pod, &member.pod.drain) else {
        return;
    };
    if draft.changed.contains(&pod.name) {
        return;
    }
    keep_out(member, draft);
    let confirmed = pod.gateway.as_ref().is_some_and(|(_, state)| {
        state.phase == GatewayPhase::Cordoned
            && state.drain_id.as_deref() == Some(markers.drain_id.as_str())
            && state.epoch >= pass.observed.epoch
    });
    if !confirmed {
        draft.call(pass, pod, pass.request(&markers.drain_id, DrainMode::Cordon));
    }
}

fn completed(survey: &Survey<'_>, draft: &mut Draft) {
    let note = format!(
        "all gateways accept again: the fullest holds {} sockets, the average is {}",
        survey.fullest(),
        survey.mean()
    );
    draft.event(false, event::REBALANCE_COMPLETED, "Rebalance", note);
    draft.wake_in(Duration::from_secs(1));
}
