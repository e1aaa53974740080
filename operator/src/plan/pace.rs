//! How much of the budget drains may use: less while the gateways that take the clients back do not serve them well.
//!
//! Additive increase, multiplicative decrease, which comes to rest where many senders share what is not known in advance (Chiu
//! and Jain 1989; TCP does so, RFC 5681): the rate is halved when handshakes suffer, and grows by a tenth of the budget
//! every five seconds while they do not. Whether they suffer is judged by what the gateways counted between their last two
//! answers, beside what was usual in the whole fleet before the rate was first halved: clients that are slow, or come too
//! fast, on every day slow down no drain. No more than a tenth is usual, but for slow handshakes where there is much to tell it by.

use jiff::Timestamp;
use wsfleet_crds::admin::GatewayHealth;
use wsfleet_crds::v1alpha1::DrainSpec;

use super::fleet::{Fleet, Member, State};
use super::headroom::is_recipient;
use super::time::after;
use super::wilson;
use crate::observe::model::Observed;

/// All of the budget.
const FULL_PERMILLE: u16 = 1_000;
/// A sixteenth: a drain that is slowed down goes on.
const LEAST_PERMILLE: u16 = 62;
/// What is added at a time.
const STEP_PERMILLE: u16 = 100;
/// Seconds between two changes.
const STEP_SECONDS: u32 = 5;
/// Share of handshakes that may fail, or be turned away by the gateway's pace, beyond what is usual.
const FAILED_EXCESS: f64 = 0.05;
/// What is usual counts up to this share: it may be the trouble itself. Of slow handshakes only where the past is short.
const MOST_USUAL: f64 = 0.1;
/// The past is long when it has so many times the handshakes that are judged by it.
const LONG_PAST: u64 = 20;
/// Share of handshakes that may take longer than `SLOW_HANDSHAKE_SECONDS` beyond what is usual: the 99th percentile.
const SLOW_EXCESS: f64 = 0.01;

/// How much of the budget drains may use, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    permille: u16,
    since: Timestamp,
    /// What was usual when it was first halved.
    usual: Option<Usual>,
}

/// Shares of the handshakes, in thousandths, that fare badly when nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usual {
    failed: u16,
    slow: u16,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            permille: FULL_PERMILLE,
            since: Timestamp::UNIX_EPOCH,
            usual: None,
        }
    }
}

impl Pace {
    /// That part of `budget`.
    pub(crate) fn of(self, budget: u64) -> u64 {
        if self.is_slowed() {
            budget.saturating_mul(u64::from(self.permille)) / u64::from(FULL_PERMILLE)
        } else {
            budget
        }
    }

    /// Whether it is less than all.
    pub(crate) fn is_slowed(self) -> bool {
        self.permille < FULL_PERMILLE
    }

    fn halved(self, usual: Usual, now: Timestamp) -> Self {
        Self {
            permille: (self.permille / 2).max(LEAST_PERMILLE),
            since: now,
            usual: Some(usual),
        }
    }

    fn raised(self, now: Timestamp) -> Self {
        let permille = (self.permille + STEP_PERMILLE).min(FULL_PERMILLE);
        Self {
            permille,
            since: now,
            usual: self.usual.filter(|_| permille < FULL_PERMILLE),
        }
    }
}

/// The pace from `now` on.
///
/// `may_fill`: the user has chosen that there is no room for all while pods are replaced. Full gateways are no trouble then
/// that closing more slowly would mend: the sooner the next pods come, the better.
pub(crate) fn next(
    drain: &DrainSpec,
    observed: &Observed,
    fleet: &Fleet<'_>,
    may_fill: bool,
    now: Timestamp,
) -> Pace {
    let pace = observed.pace;
    let closes =
        fleet.moving || fleet.count(|member| member.is_leaving() || member.state == State::Donor) > 0;
    if !drain.adaptive || !closes {
        return Pace::default();
    }
    if after(pace.since, STEP_SECONDS) > now {
        return pace;
    }
    let failed = if may_fill { failed_with_room } else { failed };
    let usual = pace.usual.unwrap_or_else(|| usual(fleet, failed));
    // what was counted before the last change says nothing of the rate since
    if suffers(&lately(fleet, |began| began >= pace.since), failed, usual) {
        pace.halved(usual, now)
    } else if pace.is_slowed()
        && is_news(fleet, pace.since)
        && !suffers(&lately(fleet, |_| true), failed, usual)
    {
        pace.raised(now)
    } else {
        pace
    }
}

/// What the gateways that accept have counted in their last spans, of those whose beginning `counts`.
fn lately(fleet: &Fleet<'_>, counts: impl Fn(Timestamp) -> bool) -> GatewayHealth {
    let spans = fleet.filter(takes).filter_map(last_span);
    spans
        .filter(|(began, _)| counts(*began))
        .fold(GatewayHealth::default(), |sum, (_, counted)| sum.plus(&counted))
}

/// What the whole fleet had counted before.
fn usual(fleet: &Fleet<'_>, failed: Share) -> Usual {
    let told = fleet
        .members
        .iter()
        .filter_map(|member| member.pod.gateway.as_ref());
    let all = told.fold(GatewayHealth::default(), |sum, (_, state)| {
        sum.plus(&state.health)
    });
    let lately = lately(fleet, |_| true);
    let before = all.since(&lately);
    let found = |share: Share| ratio(share(&before)).unwrap_or(0.0);
    // many were turned away in the last storm, too; who is slow has a slow network
    let is_long = before.handshakes >= lately.handshakes.saturating_mul(LONG_PAST);
    let most_slow = if is_long { 1.0 } else { MOST_USUAL };
    let permille = |share: f64| (share * 1000.0).round() as u16;
    Usual {
        failed: permille(found(failed).min(MOST_USUAL)),
        slow: permille(found(slow).min(most_slow)),
    }
}

/// Whether those who were counted fare worse than is usual.
fn suffers(counted: &GatewayHealth, failed: Share, usual: Usual) -> bool {
    let shares: [(Share, u16, f64); 2] = [
        (failed, usual.failed, FAILED_EXCESS),
        (slow, usual.slow, SLOW_EXCESS),
    ];
    shares.into_iter().any(|(share, usual, excess)| {
        let (part, whole) = share(counted);
        let usual = f64::from(usual) / 1000.0;
        ratio((part, whole)).is_some_and(|found| wilson::lower_bound(found, whole as f64) - usual > excess)
    })
}

/// Whether a gateway that accepts has answered after `since`, or there is none.
fn is_news(fleet: &Fleet<'_>, since: Timestamp) -> bool {
    let answered = |member: &Member<'_>| member.pod.gateway.as_ref().is_some_and(|(at, _)| *at > since);
    fleet.count(takes) == 0 || fleet.filter(takes).any(answered)
}

fn takes(member: &Member<'_>) -> bool {
    is_recipient(member) && member.pod.accepting && member.pod.unreachable_since.is_none()
}

/// What a gateway counted between its last two answers, and when that began.
fn last_span(member: &Member<'_>) -> Option<(Timestamp, GatewayHealth)> {
    let (_, state) = member.pod.gateway.as_ref()?;
    let (began, before) = member.pod.counted_before.as_ref()?;
    Some((*began, state.health.since(before)))
}

/// A part, and the whole.
type Share = fn(&GatewayHealth) -> (u64, u64);

/// Those that the gateways failed or had no time for, of all that came.
fn failed(health: &GatewayHealth) -> (u64, u64) {
    let paced = health.handshakes_paced;
    (health.handshakes_failed + paced, health.handshakes + paced)
}

/// The same of those that there was room for.
fn failed_with_room(health: &GatewayHealth) -> (u64, u64) {
    let (part, whole) = failed(health);
    let full = health.handshakes_full;
    (part.saturating_sub(full), whole.saturating_sub(full))
}

fn slow(health: &GatewayHealth) -> (u64, u64) {
    (health.handshakes_slow, health.handshakes)
}

fn ratio((part, whole): (u64, u64)) -> Option<f64> {
    (whole > 0).then(|| part.min(whole) as f64 / whole as f64)
}
