//! How loaded the fleet is, and how much of that is known.

use jiff::Timestamp;
use wsfleet_crds::admin::GatewayState;
use wsfleet_crds::v1alpha1::WebSocketCluster;

use crate::observe::model::{Lease, Observed};
use crate::plan::fleet::{Fleet, Member, State, counted};
use crate::plan::time::after;

/// Seconds for which the last number of a pod is kept when no new one comes.
const KEEP_SECONDS: u32 = 120;

/// How loaded the fleet is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// Open sockets, where numbers are missing the last ones.
    pub(crate) connections: u64,
    /// Handshakes per second that are not the return of sockets that a drain closed.
    pub(crate) handshakes: f64,
    /// Pods of which the source or the gateway itself told a number lately: 0 when nothing is known.
    pub(crate) known: u32,
    /// Pods whose number is fresh.
    pub(crate) fresh: u32,
    /// Pods whose number should be fresh.
    pub(crate) expected: u32,
}

impl Load {
    /// Whether nothing is missing: only then may the fleet shrink.
    pub(crate) fn is_complete(&self) -> bool {
        self.expected > 0 && self.fresh >= self.expected
    }
}

/// The load by the source that the specification names.
pub(crate) fn load(
    cluster: &WebSocketCluster,
    observed: &Observed,
    fleet: &Fleet<'_>,
    now: Timestamp,
) -> Load {
    let stale = cluster.spec.autoscaling.metrics.stale_seconds;
    let mut load = Load {
        connections: 0,
        handshakes: 0.0,
        known: 0,
        fresh: 0,
        expected: 0,
    };
    for member in fleet.filter(|member| member.state != State::Gone) {
        let sample = counted(member.pod, observed);
        let fresh = sample.is_some_and(|(at, _)| after(at, stale) > now);
        let kept = sample.filter(|(at, _)| after(*at, KEEP_SECONDS.max(stale)) > now);
        let kept = kept.map(|(_, connections)| connections);
        // while the source is silent the gateways' own numbers may make the fleet grow, but never shrink: it is not fresh
        let itself = told(member, stale, now);
        let instead = itself.filter(|_| !fresh).map(|state| state.connections);
        load.connections += kept.max(instead).unwrap_or(0);
        load.known += u32::from(fresh || instead.is_some());
        if is_expected(member, stale, now) {
            load.expected += 1;
            load.fresh += u32::from(fresh);
        }
        if let Some(state) = itself {
            load.handshakes += state.handshakes_per_second.max(0.0);
        }
    }
    load.handshakes = (load.handshakes - granted_rate(observed, now)).max(0.0);
    load
}

/// What the gateway itself said lately.
fn told<'a>(member: &Member<'a>, stale: u32, now: Timestamp) -> Option<&'a GatewayState> {
    let (at, answer) = member.pod.gateway.as_ref()?;
    (after(*at, stale) > now).then_some(answer)
}

/// Ready for so long that the source must have seen it.
fn is_expected(member: &Member<'_>, stale: u32, now: Timestamp) -> bool {
    member.is_live()
        && member
            .pod
            .ready_since
            .is_some_and(|since| after(since, stale) <= now)
}

/// Closes per second that leases allow now.
pub(crate) fn granted_rate(observed: &Observed, now: Timestamp) -> f64 {
    let in_force = |lease: &&Lease| lease.until > now;
    observed
        .leases
        .values()
        .filter(in_force)
        .map(|lease| lease.rate_millis as f64 / 1000.0)
        .sum()
}
