//! Events of the whole fleet: found by comparing the status with the one before, so that each transition is told once.

use wsfleet_crds::condition::{ConditionType, reason};
use wsfleet_crds::event;
use wsfleet_crds::v1alpha1::{RolloutPhase, WebSocketClusterStatus};

use super::draft::Draft;

/// Adds the events of the step from `before` to `now`.
pub(crate) fn transitions(
    before: Option<&WebSocketClusterStatus>,
    now: &WebSocketClusterStatus,
    draft: &mut Draft,
) {
    let Some(before) = before.filter(|status| status.observed_generation.is_some()) else {
        return;
    };
    rollout(before, now, draft);
    drains(before, now, draft);
    size(before, now, draft);
    for (kind, bad, warning, reason, action) in [
        (
            ConditionType::HeadroomSufficient,
            "False",
            true,
            event::HEADROOM_INSUFFICIENT,
            "Drain",
        ),
        (
            ConditionType::MetricsAvailable,
            "False",
            true,
            event::METRICS_LOST,
            "Observe",
        ),
        (
            ConditionType::MetricsAvailable,
            "True",
            false,
            event::METRICS_RECOVERED,
            "Observe",
        ),
        (
            ConditionType::TemplateValid,
            "False",
            true,
            event::TEMPLATE_REJECTED,
            "Validate",
        ),
        (
            ConditionType::ReferencesResolved,
            "False",
            true,
            event::SECRET_NOT_FOUND,
            "Validate",
        ),
        (
            ConditionType::Progressing,
            "False",
            true,
            event::ROLLOUT_BLOCKED,
            "Rollout",
        ),
        (
            ConditionType::RolloutHealthy,
            "Unknown",
            true,
            event::ROLLOUT_PAUSED,
            "Pause",
        ),
        (
            ConditionType::Paused,
            "True",
            false,
            event::ROLLOUT_PAUSED,
            "Pause",
        ),
        (
            ConditionType::Paused,
            "False",
            false,
            event::ROLLOUT_RESUMED,
            "Resume",
        ),
    ] {
        if kind == ConditionType::Progressing && failed_revision(now).is_some() {
            continue; // told by `failed`
        }
        let (old, new) = (value(before, kind), value(now, kind));
        // what begins as unknown has not recovered
        let recovered =
            bad != "True" || old.is_some_and(|(old, _)| old == "False" || kind == ConditionType::Paused);
        if let (Some((new, message)), true) = (new, recovered)
            && new == bad
            && old.is_some_and(|(old, _)| old != bad)
        {
            draft.event(warning, reason, action, message.to_owned());
        }
    }
}

fn value(status: &WebSocketClusterStatus, kind: ConditionType) -> Option<(&str, &str)> {
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())?;
    Some((&condition.status, &condition.message))
}

/// What slows a drain down, or keeps a pod beyond its time.
fn drains(before: &WebSocketClusterStatus, now: &WebSocketClusterStatus, draft: &mut Draft) {
    let reason_of = |status: &WebSocketClusterStatus| {
        let conditions = &mut status.conditions.iter();
        let draining = conditions.find(|it| it.type_ == ConditionType::Draining.as_str());
        draining.map(|it| (it.reason.clone(), it.message.clone()))
    };
    let old = reason_of(before).map(|(reason, _)| reason);
    let Some((new, message)) = reason_of(now).filter(|(new, _)| old.as_ref() != Some(new)) else {
        return;
    };
    match new.as_str() {
        reason::SLOWED_DOWN => draft.event(true, event::DRAIN_SLOWED_DOWN, "Drain", message),
        reason::DEADLINE_PASSED => draft.event(true, event::DRAIN_TIMED_OUT, "Hold", message),
        _ => {}
    }
}

fn rollout(before: &WebSocketClusterStatus, now: &WebSocketClusterStatus, draft: &mut Draft) {
    if let (Some(old), Some(new)) = (&before.update_revision, &now.update_revision)
        && old != new
    {
        draft.event(
            false,
            event::ROLLOUT_STARTED,
            "Rollout",
            format!("from revision {old} to {new}"),
        );
    }
    failed(before, now, draft);
    if let Some(new) = &now.current_revision
        && before.current_revision.as_ref() != Some(new)
    {
        draft.event(
            false,
            event::ROLLOUT_COMPLETED,
            "Rollout",
            format!("the whole fleet runs revision {new}"),
        );
    }
}

fn failed_revision(status: &WebSocketClusterStatus) -> Option<&str> {
    status.rollout.as_ref()?.failed_revision.as_deref()
}

fn failed(before: &WebSocketClusterStatus, now: &WebSocketClusterStatus, draft: &mut Draft) {
    let Some(revision) = failed_revision(now).filter(|new| failed_revision(before) != Some(new)) else {
        return;
    };
    let phase = now.rollout.as_ref().map(|rollout| rollout.phase);
    let why = value(now, ConditionType::RolloutHealthy).map_or("", |(_, message)| message);
    let (reason, action) = if phase == Some(RolloutPhase::Paused) {
        (event::ROLLOUT_PAUSED, "Pause")
    } else {
        (event::ROLLOUT_ROLLED_BACK, "Rollback")
    };
    draft.event(true, reason, action, format!("revision {revision} failed: {why}"));
}

fn size(before: &WebSocketClusterStatus, now: &WebSocketClusterStatus, draft: &mut Draft) {
    let (old, new) = (before.desired_replicas, now.desired_replicas);
    let because = now
        .autoscaling
        .as_ref()
        .and_then(|it| it.raw)
        .map(|raw| format!("; the sockets ask for {raw}"));
    let note = format!("from {old} to {new} gateways{}", because.unwrap_or_default());
    match new.cmp(&old) {
        std::cmp::Ordering::Greater => draft.event(false, event::SCALED_UP, "Scale", note),
        std::cmp::Ordering::Less => draft.event(false, event::SCALED_DOWN, "Scale", note),
        std::cmp::Ordering::Equal => {}
    }
}
