//! Room for the sockets of pods that go on the pods that stay (decision D9).

use super::draft::Pass;
use super::fleet::{Member, State};

/// Sockets that one gateway may be planned to hold: `maxUtilization` of its capacity, or the fleet's average where that
/// is more already, since moving sockets between equal pods then changes nothing; never more than its capacity.
fn ceiling(pass: &Pass<'_>) -> u64 {
    let capacity = u64::from(pass.cluster.spec.gateway.capacity.max_connections);
    let planned = capacity * u64::from(pass.cluster.spec.autoscaling.max_utilization) / 100;
    let average = pass
        .fleet
        .connections()
        .div_ceil(u64::from(pass.size.desired.max(1)));
    planned.max(average).min(capacity)
}

/// Whether `member` can take new sockets: it takes them now, or does again as soon as the others hold as many.
pub(crate) fn is_recipient(member: &Member<'_>) -> bool {
    member.state == State::Staying && member.available
}

/// Sockets that the recipients for which `predicate` holds still have room for. One whose sockets are not known has
/// none.
pub(crate) fn room<'a>(pass: &Pass<'a>, predicate: impl Fn(&Member<'a>) -> bool) -> u64 {
    let ceiling = ceiling(pass);
    pass.fleet
        .filter(is_recipient)
        .filter(|member| predicate(member))
        .map(|member| member.connections.map_or(0, |held| ceiling.saturating_sub(held)))
        .sum()
}

/// Sockets that pods under drain, and pods on their way out, will still give back.
pub(crate) fn returning(pass: &Pass<'_>) -> u64 {
    pass.fleet
        .filter(|member| matches!(member.state, State::Draining | State::Terminating))
        .map(Member::known_connections)
        .sum()
}

/// Sockets that the recipients for which `predicate` holds could take before they refuse: their capacity, not what they
/// are planned to hold. One whose sockets are not known counts as empty: what is unknown is no reason to change who accepts.
pub(crate) fn places<'a>(pass: &Pass<'a>, predicate: impl Fn(&Member<'a>) -> bool) -> u64 {
    let capacity = u64::from(pass.cluster.spec.gateway.capacity.max_connections);
    pass.fleet
        .filter(is_recipient)
        .filter(|member| predicate(member))
        .map(|member| capacity.saturating_sub(member.connections.unwrap_or(0)))
        .sum()
}
