//! Where the fleet is on its way to the specification.

use wsfleet_crds::labels::DrainReason;
use wsfleet_crds::v1alpha1::{RolloutPhase, RolloutStatus};

use super::draft::{Draft, Pass};
use super::fleet::{Fleet, State};
use super::gate::Gate;
use super::time::after;

/// Where the fleet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// As many pods as wanted are available and stay, and no other revision lives.
    pub(crate) complete: bool,
    /// A pod that did not become available in time, and what the kubelet says of it.
    pub(crate) stuck: Option<String>,
    /// Phase of the rollout.
    pub(crate) rollout: RolloutStatus,
}

/// Finds out where the fleet is, and when a pod will have taken too long.
pub(crate) fn progress(pass: &Pass<'_>, draft: &mut Draft) -> Progress {
    let good = pass.fleet.count(|member| member.is_good() && member.available);
    let complete = good >= pass.size.desired && !pass.fleet.has_outdated();
    let stuck = stuck(pass, draft);
    let rollout = RolloutStatus {
        phase: phase(pass, complete, stuck.is_some()),
        waiting_for: None,
    };
    let waiting_for = waiting_for(pass, draft, rollout.phase, stuck.as_deref());
    Progress {
        complete,
        stuck,
        rollout: RolloutStatus {
            waiting_for,
            ..rollout
        },
    }
}

fn stuck(pass: &Pass<'_>, draft: &mut Draft) -> Option<String> {
    let deadline = pass.cluster.spec.rollout.progress_deadline_seconds;
    let mut late = None;
    for member in pass.fleet.filter(|member| member.is_good() && !member.available) {
        let at = after(member.pod.created_at, deadline);
        if at > pass.now {
            draft.wake_at(at, pass.now);
        } else if late.is_none() {
            let waiting = member
                .pod
                .waiting
                .as_deref()
                .unwrap_or("not Ready, and the kubelet gives no reason");
            late = Some(format!("{}: {waiting}", member.pod.name));
        }
    }
    late
}

fn phase(pass: &Pass<'_>, complete: bool, stuck: bool) -> RolloutPhase {
    let blocked = matches!(pass.gate, Gate::SecretMissing(_) | Gate::Rejected(_)) || stuck;
    let previous = pass
        .cluster
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_deref());
    let changing = pass.fleet.has_outdated() || previous != Some(pass.target.hash.as_str());
    if pass.cluster.spec.paused {
        RolloutPhase::Paused
    } else if complete {
        RolloutPhase::Idle
    } else if blocked {
        RolloutPhase::Blocked
    } else if *pass.gate == Gate::Validating {
        RolloutPhase::Validating
    } else if changing {
        RolloutPhase::Progressing
    } else {
        RolloutPhase::Idle
    }
}

fn waiting_for(pass: &Pass<'_>, draft: &Draft, phase: RolloutPhase, stuck: Option<&str>) -> Option<String> {
    match (phase, pass.gate) {
        (RolloutPhase::Blocked, Gate::SecretMissing(text) | Gate::Rejected(text)) => Some(text.clone()),
        (RolloutPhase::Blocked, _) => stuck.map(str::to_owned),
        (RolloutPhase::Progressing, _) => Some(next_step(pass.fleet, draft)),
        _ => None,
    }
}

fn next_step(fleet: &Fleet<'_>, draft: &Draft) -> String {
    let draining = fleet.count(|member| member.state == State::Draining);
    let starting = fleet.count(|member| member.is_good() && !member.available);
    if let Some(pod) = &draft.too_full {
        format!("room for the sockets of {pod}")
    } else if draining > 0 {
        "drains".to_owned()
    } else if starting > 0 {
        "new pods to become available".to_owned()
    } else if fleet
        .count(|member| member.state == State::Cordoned && member.reason() == Some(DrainReason::Rollout))
        > 0
    {
        "load balancers to notice that pods no longer accept".to_owned()
    } else {
        "pods to be created".to_owned()
    }
}
