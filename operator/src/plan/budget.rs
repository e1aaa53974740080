//! One budget of forced closes for the whole fleet (decision D7), granted to draining gateways as leases (decision D8).
//!
//! A gateway closes at most at the rate of its lease and stops when the lease ends, so whatever happens to the operator,
//! the leases that it gave bound what the fleet does. A raise is granted only out of what no lease in force holds; a new
//! leader first revokes what the leader before it may have granted, or waits until that has run out.

use jiff::Timestamp;
use wsfleet_crds::admin::DrainMode;
use wsfleet_crds::v1alpha1::DrainSpec;

use super::draft::{Draft, LEASE_SECONDS, Pass};
use super::fleet::{Fleet, Member, State};
use super::time::after;
use crate::observe::model::Lease;

/// Seconds after which a lease is renewed.
const RENEW_SECONDS: u32 = 5;

/// Closes per second, in thousandths, that the fleet may suffer: the share of its sockets within floor and ceiling. What a
/// gateway held that is not heard from any more does not count: its clients may be elsewhere already, and counted there.
pub(crate) fn budget_millis(drain: &DrainSpec, fleet: &Fleet<'_>) -> u64 {
    let heard_from =
        |member: &Member<'_>| member.state != State::Gone && member.pod.unreachable_since.is_none();
    let sockets: u64 = fleet.filter(heard_from).map(Member::known_connections).sum();
    let share = sockets.saturating_mul(u64::from(drain.max_disconnect_permille));
    let floor = u64::from(drain.min_disconnects_per_second) * 1000;
    let ceiling = drain
        .max_disconnects_per_second
        .map_or(u64::MAX, |ceiling| u64::from(ceiling) * 1000);
    share.max(floor).min(ceiling)
}

/// Grants and renews leases.
pub(crate) fn grant(pass: &Pass<'_>, draft: &mut Draft) {
    let changed = draft.changed.clone();
    let draining: Vec<_> = pass
        .fleet
        .filter(|member| {
            let empty = member
                .pod
                .drain
                .as_ref()
                .is_some_and(|markers| markers.drained_at.is_some());
            member.state == State::Draining && !empty && !changed.contains(&member.pod.name)
        })
        .collect();
    if draining.is_empty() || revoke_foreign(pass, draft) {
        return;
    }
    let budget = budget_millis(&pass.cluster.spec.drain, pass.fleet).saturating_sub(self_drained(pass));
    let in_force: u64 = pass
        .observed
        .leases
        .values()
        .filter(|lease| lease.until > pass.now)
        .map(|lease| lease.rate_millis)
        .sum();
    let mut free = budget.saturating_sub(in_force);
    let total: u64 = draining.iter().map(|member| weight(member)).sum();
    for member in draining {
        let share = u64::try_from(u128::from(budget) * u128::from(weight(member)) / u128::from(total.max(1)))
            .unwrap_or(budget);
        let lease = pass.observed.leases.get(&member.pod.name).filter(|lease| {
            // one from before the pod was made is of another pod that had its name
            lease.until > pass.now && lease.granted_at >= member.pod.created_at
        });
        if let Some(renewal) = lease.map(|lease| after(lease.granted_at, RENEW_SECONDS))
            && renewal > pass.now
        {
            draft.wake_at(renewal, pass.now);
            continue;
        }
        let held = lease.map_or(0, |lease| lease.rate_millis);
        let raise = share.saturating_sub(held).min(free);
        free -= raise;
        let rate = share.min(held + raise);
        if rate == 0 {
            draft.wake_in(std::time::Duration::from_secs(1));
        } else {
            lend(pass, member, rate, draft);
        }
    }
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

fn lend(pass: &Pass<'_>, member: &Member<'_>, rate_millis: u64, draft: &mut Draft) {
    let Some(markers) = &member.pod.drain else { return };
    let mut request = pass.request(&markers.drain_id, DrainMode::Drain);
    request.rate_per_second = Some(rate_millis as f64 / 1000.0);
    request.lease_seconds = Some(LEASE_SECONDS);
    request.deadline = markers
        .deadline
        .and_then(|deadline| u64::try_from(deadline.as_second()).ok());
    draft.call(pass, member.pod, request);
}

/// Whether leases of a former leader may be in force. Its gateways are cordoned under the new epoch, which ends them;
/// one that cannot be reached is waited for until its lease has run out.
fn revoke_foreign(pass: &Pass<'_>, draft: &mut Draft) -> bool {
    let run_out = after(pass.observed.leader_since, LEASE_SECONDS);
    if run_out <= pass.now {
        return false;
    }
    let foreign = |member: &Member<'_>| {
        member.state == State::Draining
            && member
                .pod
                .gateway
                .as_ref()
                .is_none_or(|(_, state)| state.epoch < pass.observed.epoch)
    };
    let mut any = false;
    for member in pass.fleet.filter(foreign) {
        any = true;
        if let Some(markers) = &member.pod.drain {
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
