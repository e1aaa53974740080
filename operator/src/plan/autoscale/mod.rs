//! The built-in autoscaler: how many gateways the sockets ask for, and how far the fleet may go towards that now.
//!
//! It grows on what is known, and shrinks only when nothing is missing: every gateway that should have a fresh number
//! has one, the smaller size was enough for the whole window, the sockets fit it with room to spare, and no rollout is
//! under way. Its decisions are remembered on the resource before they are carried out.

mod load;
mod memory;

use jiff::Timestamp;
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::{AutoscalingSpec, WebSocketCluster};

pub(crate) use load::{Load, granted_rate, load};
pub(crate) use memory::Memory;

use super::fleet::Fleet;
use crate::observe::model::Observed;

/// Share of a gateway's handshake limit that is planned with.
pub(crate) const HANDSHAKE_SHARE: f64 = 0.7;
/// The sockets must fill a smaller fleet to at most this share of the target, in hundredths, or it would grow again.
const SHRINK_MARGIN: u64 = 95;

/// What the autoscaler decided.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// Gateways wanted now.
    pub(crate) desired: u32,
    /// Gateways that the sockets ask for, before limits; `None` when nothing is known.
    pub(crate) raw: Option<u32>,
    /// The most that was asked for within the window, when the history reaches back that far.
    pub(crate) window_maximum: Option<u32>,
    /// What keeps the fleet from the size that the sockets ask for.
    pub(crate) limited_by: Option<&'static str>,
    /// The memory, when it must be written.
    pub(crate) memory: Option<Memory>,
    /// When the size last changed.
    pub(crate) changed: Option<Timestamp>,
    /// When to look again, beside the interval.
    pub(crate) wake_at: Option<Timestamp>,
}

/// Decides on the size.
pub(crate) fn decide(
    cluster: &WebSocketCluster,
    observed: &Observed,
    fleet: &Fleet<'_>,
    now: Timestamp,
) -> Verdict {
    let spec = &cluster.spec.autoscaling;
    let remembered = Memory::parse(
        cluster
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(labels::RECOMMENDATIONS)),
    );
    let bounds = spec.min_replicas..=spec.max_replicas.max(spec.min_replicas);
    let previous = current(cluster, &remembered);
    let bounded = previous.clamp(*bounds.start(), *bounds.end());
    let load = load(cluster, observed, fleet, now);
    let raw = (load.known > 0).then(|| needed(cluster, &load));
    let wanted = raw.map_or(bounded, |raw| raw.clamp(*bounds.start(), *bounds.end()));

    let mut memory = remembered.clone();
    let complete = load.is_complete();
    let window = spec.scale_down.stabilization_seconds;
    // While numbers are missing, or before there is a history, what is in force counts as wanted: else the time
    // without numbers would count as time in which less was enough.
    let credible = if complete && (window == 0 || !memory.wanted.is_empty()) {
        wanted.min(bounded)
    } else {
        bounded
    };
    let wake_at = memory.record(window, credible, now);
    let window_maximum = memory.window_maximum(window, credible, now);

    let (desired, limited_by) = if wanted > bounded {
        grow(spec, &memory, bounded, wanted, now)
    } else {
        let frozen = Frozen {
            incomplete: !complete,
            rollout: fleet.moving,
        };
        shrink(
            cluster,
            &memory,
            &load,
            bounded,
            wanted,
            window_maximum,
            frozen,
            now,
        )
    };
    let limited_by = limited_by.or(match raw {
        Some(raw) if raw > *bounds.end() => Some("maxReplicas"),
        Some(raw) if raw < *bounds.start() => Some("minReplicas"),
        _ => None,
    });
    note_step(&mut memory, previous, desired, now);
    let changed = memory.changed;
    let memory = (memory != remembered).then(|| {
        memory.forget_steps(spec.scale_up.period_seconds, spec.scale_down.period_seconds, now);
        memory
    });
    Verdict {
        desired,
        raw,
        window_maximum,
        limited_by,
        memory,
        changed,
        wake_at,
    }
}

/// The size in force: remembered, else reported, else specified.
fn current(cluster: &WebSocketCluster, memory: &Memory) -> u32 {
    let reported = cluster
        .status
        .as_ref()
        .map(|status| status.desired_replicas)
        .filter(|size| *size > 0);
    memory.target.or(reported).unwrap_or(cluster.spec.replicas)
}

/// Gateways that the load asks for (operator.md §6, step 4).
fn needed(cluster: &WebSocketCluster, load: &Load) -> u32 {
    let spec = &cluster.spec.autoscaling;
    let capacity = &cluster.spec.gateway.capacity;
    let per_gateway = |percent: u32| (u64::from(capacity.max_connections) * u64::from(percent)).max(1);
    let for_share = |percent: u32| (load.connections * 100).div_ceil(per_gateway(percent)) as u32;
    let at_ceiling = for_share(spec.max_utilization);
    let handshakes =
        load.handshakes / (HANDSHAKE_SHARE * f64::from(capacity.max_handshakes_per_second.max(1)));
    for_share(spec.target_utilization)
        .max(at_ceiling.saturating_add(spec.reserve.round_up(at_ceiling)))
        .max(handshakes.ceil() as u32)
}

fn grow(
    spec: &AutoscalingSpec,
    memory: &Memory,
    from: u32,
    wanted: u32,
    now: Timestamp,
) -> (u32, Option<&'static str>) {
    let policy = &spec.scale_up;
    let start = from.saturating_sub(Memory::recent(&memory.ups, policy.period_seconds, now));
    let by_share = (u64::from(start) * u64::from(100 + policy.max_percent)).div_ceil(100) as u32;
    let ceiling = by_share.max(start.saturating_add(policy.max_pods)).max(from);
    (wanted.min(ceiling), (wanted > ceiling).then_some("scaleUp rate"))
}

/// Why the fleet may not shrink at all.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    incomplete: bool,
    rollout: bool,
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is one input of one rule; a struct for one call hides that"
)]
fn shrink(
    cluster: &WebSocketCluster,
    memory: &Memory,
    load: &Load,
    from: u32,
    wanted: u32,
    window_maximum: Option<u32>,
    frozen: Frozen,
    now: Timestamp,
) -> (u32, Option<&'static str>) {
    let policy = &cluster.spec.autoscaling.scale_down;
    let limited = |by| (from, (wanted < from).then_some(by));
    if frozen.incomplete {
        return limited("missing metrics");
    }
    if frozen.rollout {
        return limited("rollout");
    }
    let Some(maximum) = window_maximum.filter(|maximum| *maximum < from) else {
        return limited("scaleDown stabilization");
    };
    let roomy = with_room(cluster, load).max(maximum);
    if roomy >= from {
        return limited("scaleDown margin");
    }
    let taken = Memory::recent(&memory.downs, policy.period_seconds, now);
    let allowed = policy
        .max_pods
        .round_up(from.saturating_add(taken))
        .max(1)
        .saturating_sub(taken);
    let floor = from.saturating_sub(allowed);
    (roomy.max(floor), (roomy < floor).then_some("scaleDown rate"))
}

/// The smallest size that the sockets fill to at most 95 % of the target.
fn with_room(cluster: &WebSocketCluster, load: &Load) -> u32 {
    let target = u64::from(cluster.spec.autoscaling.target_utilization);
    let per_gateway = u64::from(cluster.spec.gateway.capacity.max_connections) * target * SHRINK_MARGIN;
    (load.connections * 10_000).div_ceil(per_gateway.max(1)) as u32
}

fn note_step(memory: &mut Memory, previous: u32, desired: u32, now: Timestamp) {
    match desired.cmp(&previous) {
        std::cmp::Ordering::Greater => memory.ups.push((now, desired - previous)),
        std::cmp::Ordering::Less => memory.downs.push((now, previous - desired)),
        std::cmp::Ordering::Equal => {}
    }
    if desired != previous {
        memory.changed = Some(now);
    }
    memory.target = Some(desired);
}
