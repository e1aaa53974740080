//! The conditions of the status. Their messages hold nothing that changes while nothing happens.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use wsfleet_crds::condition::{ConditionType, reason};
use wsfleet_crds::v1alpha1::AutoscalingMode;

use super::autoscale::{self, Load};
use super::deletion;
use super::draft::{Draft, Pass};
use super::drain;
use super::fleet::{Member, State};
use super::gate::Gate;
use super::progress::{Progress, held_back};

/// What becomes of the other pods when one does not come up.
pub(crate) const STAY: &str = "; pods of the revision before stay as they are";

/// Value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    True,
    False,
    Unknown,
}

/// What a condition says: value, reason, message.
type Finding = (Value, &'static str, String);

fn holds(holds: bool) -> Value {
    if holds { Value::True } else { Value::False }
}

/// All conditions; the time of one whose value has not changed is kept.
pub(crate) fn conditions(pass: &Pass<'_>, draft: &Draft, progress: &Progress) -> Vec<Condition> {
    let load = autoscale::load(pass.cluster, pass.observed, pass.fleet, pass.now);
    let previous = pass
        .cluster
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    ConditionType::ALL
        .into_iter()
        .map(|kind| {
            let finding = match kind {
                ConditionType::Ready => ready(pass, progress),
                ConditionType::Available => available(pass),
                ConditionType::Progressing => progressing(pass, progress),
                ConditionType::Draining => draining(pass),
                ConditionType::TemplateValid => template_valid(pass.gate),
                ConditionType::ReferencesResolved => references_resolved(pass.gate),
                ConditionType::HeadroomSufficient => headroom(draft),
                ConditionType::MetricsAvailable => metrics(pass, &load),
                ConditionType::ScalingActive => scaling_active(pass, &load),
                ConditionType::ScalingLimited => scaling_limited(pass),
                ConditionType::RolloutHealthy => healthy(progress, draft),
                ConditionType::Paused => paused(pass.cluster.spec.paused),
            };
            condition(
                kind,
                finding,
                previous,
                pass.cluster.metadata.generation,
                pass.now,
            )
        })
        .collect()
}

fn condition(
    kind: ConditionType,
    (value, reason, message): Finding,
    previous: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = match value {
        Value::True => "True",
        Value::False => "False",
        Value::Unknown => "Unknown",
    };
    let since = previous
        .iter()
        .find(|old| old.type_ == kind.as_str() && old.status == status);
    // Kubernetes keeps whole seconds; more would make the status differ from what is stored
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since.map_or(Time(now), |old| old.last_transition_time.clone()),
    }
}

fn ready(pass: &Pass<'_>, progress: &Progress) -> Finding {
    let good = pass.fleet.count(|member| member.is_good() && member.available);
    let wanted = pass.fleet.count(|member| {
        member.is_good() && member.available && member.pod.revision == pass.course.wanted.hash
    });
    let message = format!(
        "{good} of {} gateways are available, {wanted} in the wanted revision",
        pass.size.desired
    );
    if progress.complete() {
        (Value::True, reason::AS_WANTED, message)
    } else if progress.settled && pass.course.back {
        (Value::False, reason::ROLLED_BACK, message)
    } else if is_available(pass) {
        (Value::False, reason::CHANGING, message)
    } else {
        (Value::False, reason::TOO_FEW_AVAILABLE, message)
    }
}

fn is_available(pass: &Pass<'_>) -> bool {
    let available = pass.fleet.count(|member| member.available);
    let needed = pass.size.desired.saturating_sub(pass.max_unavailable());
    available >= needed.max(u32::from(pass.size.desired > 0))
}

fn available(pass: &Pass<'_>) -> Finding {
    let available = pass.fleet.count(|member| member.available);
    let message = format!(
        "{available} gateways are available, {} are wanted",
        pass.size.desired
    );
    if is_available(pass) {
        (Value::True, reason::AS_WANTED, message)
    } else {
        (Value::False, reason::TOO_FEW_AVAILABLE, message)
    }
}

fn progressing(pass: &Pass<'_>, progress: &Progress) -> Finding {
    if deletion::is_deleted(pass.cluster) {
        let text = "the resource goes when its gateways hold no socket any more (deletionPolicy: Drain)";
        return (Value::True, reason::DELETING, text.to_owned());
    }
    if pass.cluster.spec.paused {
        return (
            Value::Unknown,
            reason::PAUSED_BY_SPEC,
            "set spec.paused to false to go on".to_owned(),
        );
    }
    let size = format!("{} gateways wanted", pass.size.desired);
    match (pass.gate, &progress.stuck) {
        _ if progress.failed.is_some() => failed(pass, progress),
        _ if progress.held > 0 => (Value::True, reason::HELD_BACK, held_back(pass, progress.held)),
        _ if progress.settled && pass.fleet.count(|member| member.state == State::Donor) > 0 => {
            let text = "gateways that hold too many sockets do not accept until the others have caught up";
            (Value::True, reason::REBALANCING, text.to_owned())
        }
        _ if progress.settled && pass.fleet.count(Member::is_leaving) == 0 => {
            (Value::True, reason::COMPLETE, size)
        }
        (Gate::SecretMissing(text), _) => (Value::False, reason::SECRET_NOT_FOUND, text.clone()),
        (Gate::Rejected(text), _) => (Value::False, reason::TEMPLATE_REJECTED, text.clone()),
        (_, Some(text)) => (
            Value::False,
            reason::PROGRESS_DEADLINE_EXCEEDED,
            format!("{text}{STAY}"),
        ),
        _ if pass.fleet.moving => (
            Value::True,
            reason::REPLACING_PODS,
            progress.rollout.waiting_for.clone().unwrap_or(size),
        ),
        _ => (Value::True, reason::SCALING, size),
    }
}

/// What became of a revision that failed.
fn failed(pass: &Pass<'_>, progress: &Progress) -> Finding {
    let (why, text) = progress.failed.clone().unwrap_or_default();
    if pass.course.back {
        let to = &pass.target.hash;
        let text =
            format!("{why}: {text}; the fleet goes back to revision {to}; change the template to go on");
        (Value::False, reason::ROLLED_BACK, text)
    } else {
        (
            Value::False,
            known(&why),
            format!("{text}{STAY}; change the template to go on"),
        )
    }
}

/// Whether the wanted revision has failed.
fn healthy(progress: &Progress, draft: &Draft) -> Finding {
    match (&progress.failed, &draft.unclear) {
        (Some((why, text)), _) => (Value::False, known(why), text.clone()),
        (None, Some(text)) => (Value::Unknown, reason::ANALYSIS_INCONCLUSIVE, text.clone()),
        (None, None) => (
            Value::True,
            reason::AS_WANTED,
            "the wanted revision has not failed".to_owned(),
        ),
    }
}

/// The reason that a marker names; a marker may have been written by hand.
fn known(text: &str) -> &'static str {
    [reason::PROGRESS_DEADLINE_EXCEEDED, reason::ANALYSIS_FAILED]
        .into_iter()
        .find(|reason| *reason == text)
        .unwrap_or(reason::FAILED)
}

fn draining(pass: &Pass<'_>) -> Finding {
    let any = pass.fleet.count(|member| member.state == State::Draining) > 0;
    let overdue = drain::overdue(pass);
    let (reason, message) = if !overdue.is_empty() {
        let (first, count) = (overdue[0], overdue.len());
        let text = format!(
            "{count} pods, {first} first, still hold sockets after drain.timeoutSeconds and are kept (drain.onTimeout: Hold); raise \
             drain.maxDisconnectPermille, or delete them"
        );
        (reason::DEADLINE_PASSED, text)
    } else if any && pass.pace.is_slowed() {
        let text = "clients have trouble to connect to the gateways that stay, so sockets are closed more slowly \
                    (drain.adaptive); more gateways, or a higher gateway.capacity.maxHandshakesPerSecond, take more";
        (reason::SLOWED_DOWN, text.to_owned())
    } else if any {
        (reason::CLOSING_SOCKETS, "see status.drain".to_owned())
    } else {
        (reason::NO_DRAIN, "no pod is drained".to_owned())
    };
    (holds(any), reason, message)
}

fn template_valid(gate: &Gate) -> Finding {
    match gate {
        Gate::Rejected(text) => (Value::False, reason::TEMPLATE_REJECTED, text.clone()),
        Gate::Validating => (
            Value::Unknown,
            reason::VALIDATING,
            "the API server has not been asked yet".to_owned(),
        ),
        Gate::Open => (
            Value::True,
            reason::AS_WANTED,
            "the API server takes pods made from the template".to_owned(),
        ),
        Gate::SecretMissing(_) => (
            Value::Unknown,
            reason::VALIDATING,
            "asked when the missing Secret is there".to_owned(),
        ),
    }
}

fn references_resolved(gate: &Gate) -> Finding {
    match gate {
        Gate::SecretMissing(text) => (Value::False, reason::SECRET_NOT_FOUND, text.clone()),
        _ => (
            Value::True,
            reason::AS_WANTED,
            "every Secret that the specification names exists".to_owned(),
        ),
    }
}

fn headroom(draft: &Draft) -> Finding {
    match &draft.too_full {
        Some(pod) => (
            Value::False,
            reason::OTHERS_TOO_FULL,
            format!(
                "{pod} waits: the pods that stay have no room for its sockets; raise replicas, rollout.maxSurge or \
                 gateway.capacity.maxConnections"
            ),
        ),
        None => (
            Value::True,
            reason::AS_WANTED,
            "no drain waits for room".to_owned(),
        ),
    }
}

fn metrics(pass: &Pass<'_>, load: &Load) -> Finding {
    let error = pass
        .observed
        .metrics
        .error
        .as_ref()
        .map(|error| format!(": {error}"))
        .unwrap_or_default();
    if load.expected == 0 {
        (
            Value::Unknown,
            reason::STALE,
            format!("no gateway has been Ready for long enough{error}"),
        )
    } else if load.is_complete() {
        (
            Value::True,
            reason::FRESH,
            "every gateway's number is fresh".to_owned(),
        )
    } else {
        let (fresh, expected) = (load.fresh, load.expected);
        (
            Value::False,
            reason::STALE,
            format!("{fresh} of {expected} gateways have a fresh number{error}"),
        )
    }
}

fn scaling_active(pass: &Pass<'_>, load: &Load) -> Finding {
    if pass.cluster.spec.autoscaling.mode != AutoscalingMode::Builtin {
        return (
            Value::False,
            reason::NOT_BUILTIN,
            "autoscaling.mode is not Builtin".to_owned(),
        );
    }
    if load.is_complete() {
        (
            Value::True,
            reason::ACTIVE,
            "the sockets choose the size".to_owned(),
        )
    } else {
        (
            Value::False,
            reason::STALE,
            "numbers are missing: the fleet may grow, it does not shrink".to_owned(),
        )
    }
}

fn scaling_limited(pass: &Pass<'_>) -> Finding {
    match pass.size.verdict.as_ref().and_then(|verdict| verdict.limited_by) {
        Some(by) => (Value::True, reason::LIMITED, format!("limited by {by}")),
        None => (
            Value::False,
            reason::WITHIN_LIMITS,
            "nothing stands in the way".to_owned(),
        ),
    }
}

fn paused(paused: bool) -> Finding {
    if paused {
        (
            Value::True,
            reason::PAUSED_BY_SPEC,
            "spec.paused is true: nothing is changed".to_owned(),
        )
    } else {
        (
            Value::False,
            reason::NOT_PAUSED,
            "spec.paused is false".to_owned(),
        )
    }
}
