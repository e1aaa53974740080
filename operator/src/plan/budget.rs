//! One budget of forced closes for the whole fleet (decision D7), granted to draining gateways as leases (decision D8).
//!
//! A gateway closes at most at the rate of its lease and stops when the lease ends, so whatever happens to the operator,
//! the leases that it gave bound what the fleet does. A raise is granted only out of what no lease in force holds; a new
//! leader first revokes what the leader before it may have granted, or waits until that has run out.

use jiff::Timestamp;
use wsfleet_crds::admin::{DrainMode, GatewayPhase};
use wsfleet_crds::labels::PodPhase;

use super::draft::{Draft, LEASE_SECONDS, Pass, Shed};
use super::fleet::{Member, State};
use super::rebalance;
use super::time::after;
use crate::observe::model::Lease;

/// Seconds after which a lease is renewed.
const RENEW_SECONDS: u32 = 5;

/// Closes per second, in thousandths, that the fleet may suffer: the share of its sockets within floor and ceiling. What a
/// gateway held that is not heard from any more does not count: its clients may be elsewhere already, and counted there.
/// While those that come back are not served well it is less ([`Pace`](super::pace::Pace)).
pub(crate) fn budget_millis(pass: &Pass<'_>) -> u64 {
    let drain = &pass.cluster.spec.drain;
    let heard_from =
        |member: &Member<'_>| member.state != State::Gone && member.pod.unreachable_since.is_none();
    let sockets: u64 = pass.fleet.filter(heard_from).map(Member::known_connections).sum();
    let share = sockets.saturating_mul(u64::from(drain.max_disconnect_permille));
    let floor = u64::from(drain.min_disconnects_per_second) * 1000;
    let ceiling = drain
        .max_disconnects_per_second
        .map_or(u64::MAX, |ceiling| u64::from(ceiling) * 1000);
    pass.pace.of(share.max(floor).min(ceiling))
}

/// Grants and renews leases.
pub(crate) fn grant(pass: &Pass<'_>, draft: &mut Draft) {
    let budget = budget_millis(pass).saturating_sub(self_drained(pass));
    let claims = claims(pass, draft, budget);
    if claims.is_empty() || revoke_foreign(pass, draft) {
        return;
    }
    let in_force: u64 = pass
        .observed
        .leases
        .values()
        .filter(|lease| lease.until > pass.now)
        .map(|lease| lease.rate_millis)
        .sum();
    // those that even out have a part of the budget only, whoever of them had how much of it before
    let part: u64 = claims
        .iter()
        .filter(|it| it.keep.is_some())
        .map(|it| it.share)
        .sum();
    let limit = if part > 0 { part.min(budget) } else { budget };
    let mut free = limit.saturating_sub(in_force);
    for claim in claims {
        let Claim { member, share, .. } = claim;
        let lease = pass.observed.leases.get(&member.pod.name).filter(|lease| {
            // one from before the pod was made is of another pod that had its name
            lease.until > pass.now && lease.granted_at >= member.pod.created_at
        });
        let held = lease.map_or(0, |lease| lease.rate_millis);
        if let Some(renewal) = lease.map(|lease| after(lease.granted_at, RENEW_SECONDS))
            && renewal > pass.now
            // what has become much less must not wait
            && share.saturating_mul(4) >= held.saturating_mul(3)
        {
            draft.wake_at(renewal, pass.now);
            continue;
        }
        let raise = share.saturating_sub(held).min(free);
        free -= raise;
        let rate = share.min(held + raise);
        if rate == 0 {
            if let (Some(markers), true) = (&member.pod.drain, held > 0) {
                // ends the lease
                draft.call(
                    pass,
                    member.pod,
                    pass.request(&markers.drain_id, DrainMode::Cordon),
                );
            }
            draft.wake_in(std::time::Duration::from_secs(1));
        } else {
            lend(pass, &claim, rate, draft);
        }
    }
}

/// A gateway that shall close sockets.
struct Claim<'a> {
    member: &'a Member<'a>,
    /// Its part of the budget, in thousandths per second.
    share: u64,
    /// Sockets that it keeps; `None`: it closes all of them.
    keep: Option<u64>,
}

/// Who shares `budget`: gateways under drain, and where there is none those that hold too many sockets.
fn claims<'a>(pass: &Pass<'a>, draft: &Draft, budget: u64) -> Vec<Claim<'a>> {
    let members = &pass.fleet.members;
    let draining: Vec<_> = members
        .iter()
        .filter(|member| {
            let empty = member
                .pod
                .drain
                .as_ref()
                .is_some_and(|markers| markers.drained_at.is_some());
            member.state == State::Draining && !empty && !draft.changed.contains(&member.pod.name)
        })
        .collect();
    if draining.is_empty() {
        return shedding(pass, draft);
    }
    let total: u64 = draining.iter().map(|member| weight(member)).sum();
    let share = |member: &Member<'_>| {
        u64::try_from(u128::from(budget) * u128::from(weight(member)) / u128::from(total.max(1)))
            .unwrap_or(budget)
    };
    draining
        .into_iter()
        .map(|member| Claim {
            member,
            share: share(member),
            keep: None,
        })
        .collect()
}

fn shedding<'a>(pass: &Pass<'a>, draft: &Draft) -> Vec<Claim<'a>> {
    let claim = |shed: &Shed| {
        let mut members = pass.fleet.members.iter();
        let member = members.find(|member| member.pod.name == shed.pod)?;
        Some(Claim {
            member,
            share: shed.rate_millis,
            keep: Some(shed.keep),
        })
    };
    draft.sheds.iter().filter_map(claim).collect()
}

fn weight(member: &Member<'_>) -> u64 {
    member.known_connections().max(1)
}

/// Closes per second, in thousandths, of pods that were deleted and drain by themselves over `drain.timeoutSeconds`.
fn self_drained(pass: &Pass<'_>) -> u64 {
    let window = u64::from(pass.cluster.spec.drain.timeout_seconds.max(1));
    pass.fleet
        .filter(|member| member.state == State::Terminating)
        .map(|member| member.known_connections() * 1000 / window)
        .sum()
}

fn lend(pass: &Pass<'_>, claim: &Claim<'_>, rate_millis: u64, draft: &mut Draft) {
    let member = claim.member;
    let Some(markers) = &member.pod.drain else { return };
    let mut request = pass.request(&markers.drain_id, DrainMode::Drain);
    request.rate_per_second = Some(rate_millis as f64 / 1000.0);
    request.lease_seconds = Some(LEASE_SECONDS);
    request.deadline = markers
        .deadline
        .and_then(|deadline| u64::try_from(deadline.as_second()).ok());
    if let Some(keep) = claim.keep {
        request.keep_connections = Some(keep);
        request.min_age_seconds = Some(rebalance::MIN_AGE_SECONDS);
        request.close_code = rebalance::CLOSE_CODE;
    }
    draft.call(pass, member.pod, request);
}

/// Whether leases of a former leader may be in force. Its gateways are cordoned under the new epoch, which ends them;
/// one that cannot be reached is waited for until its lease has run out.
fn revoke_foreign(pass: &Pass<'_>, draft: &mut Draft) -> bool {
    let run_out = after(pass.observed.leader_since, LEASE_SECONDS);
    if run_out <= pass.now {
        return false;
    }
    let may_close = |member: &Member<'_>| {
        let told = member.pod.gateway.as_ref().map(|(_, state)| state);
        let is_old = told.is_none_or(|state| state.epoch < pass.observed.epoch);
        is_old
            && match member.state {
                State::Draining | State::Donor => true,
                // it may have been given back, and not have heard of it
                State::Staying | State::Cordoned => told
                    .map_or(member.pod.phase == PodPhase::Active, |state| {
                        state.phase == GatewayPhase::Draining
                    }),
                State::Terminating | State::Gone => false,
            }
    };
    let mut any = false;
    for member in pass.fleet.filter(may_close) {
        any = true;
        // the others are told to accept, or not to, anyway
        let is_told_here = matches!(member.state, State::Draining | State::Donor);
        if let Some(markers) = member.pod.drain.as_ref().filter(|_| is_told_here) {
            draft.call(
                pass,
                member.pod,
                pass.request(&markers.drain_id, DrainMode::Cordon),
            );
        }
    }
    if any {
        draft.wake_at(run_out, pass.now);
    }
    any
}

/// What may be in force after a call without an answer: nobody knows whether it was heard, so the more of both.
pub fn unanswered(before: Option<Lease>, asked: Option<Lease>) -> Option<Lease> {
    match (before, asked) {
        (Some(before), Some(asked)) => Some(Lease {
            rate_millis: before.rate_millis.max(asked.rate_millis),
            granted_at: before.granted_at,
            until: before.until.max(asked.until),
        }),
        (before, asked) => before.or(asked),
    }
}

/// The lease that carrying out `rate_per_second` for `lease_seconds` from `now` on gives; for `apply` to remember.
pub fn lease(rate_per_second: f64, lease_seconds: u32, now: Timestamp) -> Lease {
    Lease {
        rate_millis: (rate_per_second * 1000.0).round().max(0.0) as u64,
        granted_at: now,
        until: after(now, lease_seconds),
    }
}
