//! Where the fleet is on its way to the specification.

use wsfleet_crds::condition::{ConditionType, reason};
use wsfleet_crds::labels::DrainReason;
use wsfleet_crds::v1alpha1::{RolloutPhase, RolloutStatus, RolloutStrategy};

use super::conditions;
use super::draft::{Draft, Pass};
use super::fleet::{Fleet, Member, State};
use super::gate::Gate;
use super::remake;
use super::revision::beyond_history;
use super::rollout::{Stage, deadline, late};
use super::time::text;

/// Where the fleet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// As many pods as wanted are available and stay, and no pod is left that must go for another revision.
    pub(crate) settled: bool,
    /// Settled, and no other revision lives.
    pub(crate) uniform: bool,
    /// Settled, and so many pods of other revisions may stay.
    pub(crate) held: u32,
    /// A pod that did not become available in time, and what the kubelet says of it.
    pub(crate) stuck: Option<String>,
    /// Why the wanted revision failed: reason and text.
    pub(crate) failed: Option<(String, String)>,
    /// Phase of the rollout.
    pub(crate) rollout: RolloutStatus,
}

impl Progress {
    /// Everything is as specified.
    pub(crate) fn complete(&self) -> bool {
        self.settled && self.failed.is_none()
    }
}

/// Finds out where the fleet is, and when a pod will have taken too long.
pub(crate) fn progress(pass: &Pass<'_>, draft: &mut Draft) -> Progress {
    let is_new = |member: &Member<'_>| member.pod.revision == pass.target.hash;
    let ready = |member: &Member<'_>| member.is_good() && member.available;
    let new = pass.fleet.count(|member| ready(member) && is_new(member));
    let old = pass.fleet.count(|member| ready(member) && !is_new(member));
    let settled = !pass.fleet.moving && new >= pass.split.new && new + old >= pass.size.desired;
    let others = pass.fleet.count(|member| member.is_live() && !is_new(member));
    let held = pass.fleet.count(|member| member.is_good() && !is_new(member));
    let failed = pass.course.markers.failed.as_deref().map(|text| {
        let (reason, text) = text.split_once(": ").unwrap_or(("Failed", text));
        (reason.to_owned(), text.to_owned())
    });
    let mut progress = Progress {
        settled,
        uniform: settled && others == 0,
        held: if settled { held } else { 0 },
        stuck: stuck(pass, draft).or_else(|| again(pass, settled)),
        failed,
        rollout: RolloutStatus::default(),
    };
    progress.rollout = rollout(pass, draft, &progress);
    progress
}

fn rollout(pass: &Pass<'_>, draft: &Draft, progress: &Progress) -> RolloutStatus {
    let phase = phase(pass, progress, draft.unclear.is_some());
    let at_rest = matches!(phase, RolloutPhase::Idle) && progress.failed.is_none();
    let started_at = pass.course.markers.started_at.filter(|_| !at_rest);
    let failed_revision = progress.failed.is_some().then(|| pass.course.wanted.hash.clone());
    let paused_reason = (phase == RolloutPhase::Paused).then(|| match &progress.failed {
        _ if pass.cluster.spec.paused => "spec.paused is true".to_owned(),
        Some((reason, text)) => format!("the revision failed, {reason}: {text}"),
        None if draft.unclear.is_some() => draft.unclear.clone().unwrap_or_default(),
        None => held_back(pass, progress.held),
    });
    RolloutStatus {
        phase,
        started_at: started_at.map(text),
        paused_reason,
        failed_revision,
        waiting_for: waiting_for(pass, draft, phase, progress.stuck.as_deref()),
        // see `status`, which knows the sockets
        disconnects_per_client: None,
    }
}

/// Why pods of the revision before stay.
pub(crate) fn held_back(pass: &Pass<'_>, pods: u32) -> String {
    if pass.stage == Stage::OnDelete {
        format!(
            "{pods} gateways are of the revision before until they are deleted: rollout.strategy is OnDelete"
        )
    } else {
        format!("rollout.partition holds {pods} gateways on the revision before")
    }
}

fn stuck(pass: &Pass<'_>, draft: &mut Draft) -> Option<String> {
    for member in pass.fleet.filter(|member| member.is_good() && !member.available) {
        let at = deadline(pass, member);
        if at > pass.now {
            draft.wake_at(at, pass.now);
        }
    }
    late(pass, |_| true)
}

/// What was said of a pod that did not come up, while the one that was made in its place has not come up either.
fn again(pass: &Pass<'_>, settled: bool) -> Option<String> {
    let status = pass.cluster.status.as_ref()?;
    let said = status.conditions.iter().find(|condition| {
        condition.type_ == ConditionType::Progressing.as_str()
            && condition.reason == reason::PROGRESS_DEADLINE_EXCEEDED
            && condition.observed_generation == pass.cluster.metadata.generation
    })?;
    let is_remade = !settled && remake::applies(pass);
    let text = said.message.split(conditions::STAY).next().unwrap_or_default();
    is_remade.then(|| text.to_owned())
}

fn phase(pass: &Pass<'_>, progress: &Progress, unclear: bool) -> RolloutPhase {
    let blocked = matches!(pass.gate, Gate::SecretMissing(_) | Gate::Rejected(_)) || progress.stuck.is_some();
    let previous = pass
        .cluster
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_deref());
    let changing = pass.fleet.moving || previous != Some(pass.target.hash.as_str());
    if pass.cluster.spec.paused {
        return RolloutPhase::Paused;
    }
    match pass.stage {
        Stage::RollingBack if progress.uniform => RolloutPhase::Idle,
        Stage::RollingBack => RolloutPhase::RollingBack,
        Stage::Halted => RolloutPhase::Paused,
        Stage::Baking if unclear => RolloutPhase::Paused,
        _ if progress.uniform => finalising(pass),
        _ if progress.held > 0 => RolloutPhase::Paused,
        _ if blocked => RolloutPhase::Blocked,
        _ if *pass.gate == Gate::Validating => RolloutPhase::Validating,
        Stage::Canary => RolloutPhase::Canary,
        Stage::Baking => RolloutPhase::Baking,
        _ if changing => RolloutPhase::Progressing,
        _ => RolloutPhase::Idle,
    }
}

/// Idle, unless old revisions are still to be removed.
fn finalising(pass: &Pass<'_>) -> RolloutPhase {
    let in_use = pass.fleet.revisions();
    let beyond = beyond_history(pass.cluster, &pass.observed.revisions, pass.course, &in_use);
    if beyond.is_empty() {
        RolloutPhase::Idle
    } else {
        RolloutPhase::Finalising
    }
}

fn waiting_for(pass: &Pass<'_>, draft: &Draft, phase: RolloutPhase, stuck: Option<&str>) -> Option<String> {
    match (phase, pass.gate) {
        (RolloutPhase::Blocked, Gate::SecretMissing(text) | Gate::Rejected(text)) => Some(text.clone()),
        (RolloutPhase::Blocked, _) => stuck.map(str::to_owned),
        (RolloutPhase::Canary, _) => Some("the canary's pods to become available".to_owned()),
        (RolloutPhase::Baking, _) => Some("rollout.canary.bakeSeconds to pass".to_owned()),
        (RolloutPhase::Progressing, _) if is_green_fleet_incomplete(pass) => {
            Some("the whole second fleet to become available".to_owned())
        }
        (RolloutPhase::Progressing | RolloutPhase::RollingBack, _) => Some(next_step(pass.fleet, draft)),
        _ => None,
    }
}

fn is_green_fleet_incomplete(pass: &Pass<'_>) -> bool {
    pass.cluster.spec.rollout.strategy == RolloutStrategy::BlueGreen
        && pass.split.is_beside(pass.size.desired)
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
