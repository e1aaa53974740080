//! Condition types and reasons of the resource: the only place where these strings live.

use std::fmt;

/// Type of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// As many gateways as wanted are available, all of the wanted revision.
    Ready,
    /// Enough gateways are available, `rollout.maxUnavailable` allowed for.
    Available,
    /// The fleet is on its way to the specification, or there; False when it is stuck.
    Progressing,
    /// Sockets are being closed on at least one pod.
    Draining,
    /// The API server takes pods made from the template.
    TemplateValid,
    /// Every Secret that the specification names exists.
    ReferencesResolved,
    /// The pods that stay have room for the sockets of those that go.
    HeadroomSufficient,
    /// Socket counts are fresh.
    MetricsAvailable,
    /// The built-in autoscaler works.
    ScalingActive,
    /// The built-in autoscaler wants another size than it may choose.
    ScalingLimited,
    /// The wanted revision has not failed.
    RolloutHealthy,
    /// `spec.paused` is set.
    Paused,
}

impl ConditionType {
    /// All types, in the order in which the status has them.
    pub const ALL: [Self; 12] = [
        Self::Ready,
        Self::Available,
        Self::Progressing,
        Self::Draining,
        Self::TemplateValid,
        Self::ReferencesResolved,
        Self::HeadroomSufficient,
        Self::MetricsAvailable,
        Self::ScalingActive,
        Self::ScalingLimited,
        Self::RolloutHealthy,
        Self::Paused,
    ];

    /// The type as the status has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Available => "Available",
            Self::Progressing => "Progressing",
            Self::Draining => "Draining",
            Self::TemplateValid => "TemplateValid",
            Self::ReferencesResolved => "ReferencesResolved",
            Self::HeadroomSufficient => "HeadroomSufficient",
            Self::MetricsAvailable => "MetricsAvailable",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
            Self::RolloutHealthy => "RolloutHealthy",
            Self::Paused => "Paused",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reasons, by the condition that has them.
pub mod reason {
    /// Ready, Available, ReferencesResolved, TemplateValid, HeadroomSufficient: as it should be.
    pub const AS_WANTED: &str = "AsWanted";
    /// Ready, Available: too few pods are available.
    pub const TOO_FEW_AVAILABLE: &str = "TooFewAvailable";
    /// Ready: a rollout or a change of size is under way.
    pub const CHANGING: &str = "Changing";
    /// Progressing: everything is as specified.
    pub const COMPLETE: &str = "Complete";
    /// Progressing: pods are being replaced.
    pub const REPLACING_PODS: &str = "ReplacingPods";
    /// Progressing: pods are being added or taken away.
    pub const SCALING: &str = "Scaling";
    /// Progressing, RolloutHealthy: a new pod did not become available within `rollout.progressDeadlineSeconds`.
    pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
    /// Progressing, TemplateValid: the API server refuses pods made from the template.
    pub const TEMPLATE_REJECTED: &str = "TemplateRejected";
    /// TemplateValid: the API server has not been asked yet.
    pub const VALIDATING: &str = "Validating";
    /// Progressing, ReferencesResolved: a Secret, or a key in it, does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// Progressing: gateways that hold too many sockets do not accept until the others have caught up.
    pub const REBALANCING: &str = "Rebalancing";
    /// Progressing: the resource was deleted, and waits until its gateways hold no socket any more.
    pub const DELETING: &str = "Deleting";
    /// Draining: sockets are being closed.
    pub const CLOSING_SOCKETS: &str = "ClosingSockets";
    /// Draining: sockets are closed more slowly, since clients have trouble to connect to the other gateways.
    pub const SLOWED_DOWN: &str = "SlowedDown";
    /// Draining: a pod still holds sockets after `drain.timeoutSeconds`, and is kept.
    pub const DEADLINE_PASSED: &str = "DeadlinePassed";
    /// Draining: none.
    pub const NO_DRAIN: &str = "NoDrain";
    /// HeadroomSufficient: a pod waits because the others are too full to take its sockets.
    pub const OTHERS_TOO_FULL: &str = "OthersTooFull";
    /// MetricsAvailable: enough numbers are fresh.
    pub const FRESH: &str = "Fresh";
    /// MetricsAvailable, ScalingActive: too few numbers are fresh.
    pub const STALE: &str = "Stale";
    /// ScalingActive: `autoscaling.mode` is not Builtin.
    pub const NOT_BUILTIN: &str = "NotBuiltin";
    /// ScalingActive: the autoscaler works.
    pub const ACTIVE: &str = "Active";
    /// ScalingLimited: nothing in the way.
    pub const WITHIN_LIMITS: &str = "WithinLimits";
    /// ScalingLimited: `minReplicas`, `maxReplicas` or a rate stands in the way.
    pub const LIMITED: &str = "Limited";
    /// Progressing, Ready: the wanted revision failed and the fleet was given back to the one before.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// RolloutHealthy, Progressing: an analysis found the wanted revision worse than the one before.
    pub const ANALYSIS_FAILED: &str = "AnalysisFailed";
    /// RolloutHealthy: an analysis has had no answer for too long; the rollout waits.
    pub const ANALYSIS_INCONCLUSIVE: &str = "AnalysisInconclusive";
    /// RolloutHealthy, Progressing: the wanted revision failed for a reason that the message has.
    pub const FAILED: &str = "Failed";
    /// Progressing: `rollout.partition` or strategy OnDelete holds pods on the revision before.
    pub const HELD_BACK: &str = "HeldBack";
    /// Paused, Progressing: `spec.paused` is true.
    pub const PAUSED_BY_SPEC: &str = "PausedBySpec";
    /// Paused: `spec.paused` is false.
    pub const NOT_PAUSED: &str = "NotPaused";
    /// Ready: the resource cannot be read, and is left as it is.
    pub const MALFORMED: &str = "Malformed";
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Values of the string constants in a source.
    pub(crate) fn constants(source: &str) -> BTreeSet<&str> {
        let constants = source
            .lines()
            .filter(|line| line.trim().starts_with("pub const "));
        constants.filter_map(|line| line.split('"').nth(1)).collect()
    }

    /// The names in backticks in one column of the first table behind `heading`.
    pub(crate) fn words_in_column<'a>(text: &'a str, heading: &str, column: usize) -> BTreeSet<&'a str> {
        let behind = text.lines().skip_while(|line| *line != heading);
        let table = behind
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'));
        table
            .filter_map(|line| line.split('|').nth(column + 1))
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect()
    }

    #[test]
    fn the_documentation_lists_every_condition_and_reason_and_no_other() {
        let text = include_str!("../../docs/operations.md");
        let types: BTreeSet<_> = ConditionType::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words_in_column(text, "## Conditions", 0), types);
        assert_eq!(
            words_in_column(text, "## Conditions", 1),
            constants(include_str!("condition.rs"))
        );
    }

    #[test]
    fn every_type_is_listed_once_and_named_as_an_identifier() {
        let names: std::collections::BTreeSet<_> =
            ConditionType::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), ConditionType::ALL.len());
        assert!(names.iter().all(|name| name.chars().all(char::is_alphanumeric)));
    }
}
