//! The status of the resource: numbers and conditions, nothing that changes by itself.

use wsfleet_crds::admin::GatewayState;
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::{
    AutoscalingStatus, ConnectionsStatus, DrainStatus, MAX_DRAINING_PODS, WebSocketClusterStatus,
};

use super::budget::budget_millis;
use super::conditions::conditions;
use super::draft::{Draft, Pass};
use super::fleet::{Member, State, counted};
use super::progress::Progress;
use super::resources::cluster_name;
use super::time::after;

/// The whole status.
pub(crate) fn status(pass: &Pass<'_>, draft: &Draft, progress: &Progress) -> WebSocketClusterStatus {
    let fleet = pass.fleet;
    let live = fleet.count(Member::is_live);
    let shrinking =
        fleet.count(|member| member.is_leaving() && member.reason() == Some(labels::DrainReason::ScaleIn));
    let wanted = pass.course.wanted.hash.clone();
    let mut status = WebSocketClusterStatus {
        observed_generation: pass.cluster.metadata.generation,
        desired_replicas: pass.size.desired,
        scale_replicas: live.saturating_sub(shrinking).min(pass.size.desired),
        replicas: live,
        ready_replicas: fleet.count(|member| member.is_live() && member.pod.ready_since.is_some()),
        accepting_replicas: fleet.count(|member| {
            member.state == State::Staying && member.pod.ready_since.is_some() && member.pod.accepting
        }),
        updated_replicas: fleet.count(|member| member.is_live() && member.pod.revision == wanted),
        cordoned_replicas: fleet.count(|member| matches!(member.state, State::Cordoned | State::Donor)),
        draining_replicas: fleet.count(|member| member.state == State::Draining),
        selector: Some(format!("{}={}", labels::CLUSTER, cluster_name(pass.cluster))),
        current_revision: current_revision(pass, progress),
        update_revision: Some(wanted),
        connections: connections(pass),
        drain: drain(pass),
        rollout: Some(progress.rollout.clone()),
        autoscaling: autoscaling(pass),
        conditions: conditions(pass, draft, progress),
    };
    let cost = pass.observed.cost.as_of(&status).per_client();
    if let Some(rollout) = &mut status.rollout {
        rollout.disconnects_per_client = cost.map(|cost| format!("{cost:.2}"));
    }
    status
}

/// The revision that the last whole fleet ran. A fleet of none proves nothing of another one.
fn current_revision(pass: &Pass<'_>, progress: &Progress) -> Option<String> {
    let previous = pass.cluster.status.as_ref();
    let before = previous.and_then(|status| status.current_revision.clone());
    if progress.uniform && (pass.size.desired > 0 || before.is_none()) {
        Some(pass.target.hash.clone())
    } else {
        before
    }
}

fn connections(pass: &Pass<'_>) -> Option<ConnectionsStatus> {
    let stale = pass.cluster.spec.autoscaling.metrics.stale_seconds;
    let held: Vec<u64> = pass
        .fleet
        .filter(Member::is_live)
        .filter_map(|member| member.connections)
        .collect();
    let (total, max) = (held.iter().sum::<u64>(), held.iter().copied().max()?);
    let mean = total / held.len() as u64;
    let capacity = u64::from(pass.cluster.spec.gateway.capacity.max_connections);
    let fresh = |member: &Member<'_>| {
        let told = member.pod.gateway.as_ref().map(|(at, _)| *at);
        let counted = counted(member.pod, pass.observed).map(|(at, _)| at);
        member.is_live() && told.max(counted).is_some_and(|at| after(at, stale) > pass.now)
    };
    Some(ConnectionsStatus {
        total,
        max,
        mean,
        skew_percent: (max.saturating_sub(mean) * 100).checked_div(mean).unwrap_or(0) as u32,
        utilization_percent: (total * 100 / (capacity * held.len() as u64).max(1)) as u32,
        fresh_pods: pass.fleet.count(fresh),
    })
}

fn drain(pass: &Pass<'_>) -> Option<DrainStatus> {
    let draining: Vec<_> = pass
        .fleet
        .filter(|member| member.state == State::Draining)
        .collect();
    if draining.is_empty() {
        return None;
    }
    let initial = |member: &&Member<'_>| member.pod.drain.as_ref().and_then(|markers| markers.initial);
    let remaining: u64 = draining.iter().map(|member| member.known_connections()).sum();
    let rate = budget_millis(pass);
    let told = || draining.iter().filter_map(|member| of_this_drain(member));
    Some(DrainStatus {
        initial: draining.iter().filter_map(initial).sum(),
        remaining,
        rate_per_second: rate / 1000,
        forced_total: told().map(|state| state.forced_closed).sum(),
        natural_total: told().map(|state| state.natural_closed).sum(),
        eta_seconds: (rate > 0).then(|| (remaining * 1000).div_ceil(rate)),
        pods: draining
            .iter()
            .take(MAX_DRAINING_PODS)
            .map(|member| member.pod.name.clone())
            .collect(),
    })
}

/// What the gateway says, when it says it of the drain that it is under.
fn of_this_drain<'a>(member: &Member<'a>) -> Option<&'a GatewayState> {
    let (_, state) = member.pod.gateway.as_ref()?;
    let markers = member.pod.drain.as_ref()?;
    (state.drain_id.as_deref() == Some(markers.drain_id.as_str())).then_some(state)
}

fn autoscaling(pass: &Pass<'_>) -> Option<AutoscalingStatus> {
    let verdict = pass.size.verdict.as_ref()?;
    Some(AutoscalingStatus {
        raw: verdict.raw,
        window_maximum: verdict.window_maximum,
        limited_by: verdict.limited_by.map(str::to_owned),
        last_scale_time: verdict.changed.map(|at| at.to_string()),
    })
}
