//! Reasons of the Kubernetes events about the resource: the only place where these strings live. Each is told on a
//! transition; docs/operations.md says what to do about it.

/// Another revision is wanted.
pub const ROLLOUT_STARTED: &str = "RolloutStarted";
/// The rollout waits for somebody, or for the source of an analysis.
pub const ROLLOUT_PAUSED: &str = "RolloutPaused";
/// `spec.paused` is no longer set.
pub const ROLLOUT_RESUMED: &str = "RolloutResumed";
/// The wanted revision failed, and the fleet goes back to the one before.
pub const ROLLOUT_ROLLED_BACK: &str = "RolloutRolledBack";
/// The whole fleet runs the revision.
pub const ROLLOUT_COMPLETED: &str = "RolloutCompleted";
/// No pod of the wanted revision can be made, or comes up.
pub const ROLLOUT_BLOCKED: &str = "RolloutBlocked";
/// The canary has held out; the waves follow.
pub const CANARY_PASSED: &str = "CanaryPassed";
/// A pod begins to close its sockets.
pub const DRAIN_STARTED: &str = "DrainStarted";
/// A pod holds no socket any more, and is deleted.
pub const DRAIN_COMPLETED: &str = "DrainCompleted";
/// Sockets are closed more slowly, since clients have trouble to connect to the other gateways.
pub const DRAIN_SLOWED_DOWN: &str = "DrainSlowedDown";
/// A pod is deleted with sockets, or kept with them beyond its time, or deleted because it does not answer.
pub const DRAIN_TIMED_OUT: &str = "DrainTimedOut";
/// A pod that did not come up in its time is deleted and made again.
pub const POD_REMADE: &str = "PodRemade";
/// More gateways are wanted.
pub const SCALED_UP: &str = "ScaledUp";
/// Fewer gateways are wanted.
pub const SCALED_DOWN: &str = "ScaledDown";
/// A pod that was leaving stays after all.
pub const RECLAIMED: &str = "Reclaimed";
/// A drain waits for room on the others.
pub const HEADROOM_INSUFFICIENT: &str = "HeadroomInsufficient";
/// Fresh numbers are missing.
pub const METRICS_LOST: &str = "MetricsLost";
/// Every number is fresh again.
pub const METRICS_RECOVERED: &str = "MetricsRecovered";
/// A pod leaves because its node is being drained.
pub const NODE_DRAIN_DETECTED: &str = "NodeDrainDetected";
/// Somebody else deleted a pod.
pub const FOREIGN_TERMINATION: &str = "ForeignTermination";
/// The fullest gateways stop accepting until the others have caught up.
pub const REBALANCE_STARTED: &str = "RebalanceStarted";
/// The sockets are even.
pub const REBALANCE_COMPLETED: &str = "RebalanceCompleted";
/// Something more urgent came.
pub const REBALANCE_STOPPED: &str = "RebalanceStopped";
/// The API server refuses pods made from the template.
pub const TEMPLATE_REJECTED: &str = "TemplateRejected";
/// A Secret, or a key in it, does not exist.
pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
/// Something could not be written; it is tried again.
pub const APPLY_FAILED: &str = "ApplyFailed";
/// The resource cannot be read, and is left as it is.
pub const MALFORMED: &str = "Malformed";

#[cfg(test)]
mod tests {
    use crate::condition::tests::{constants, words_in_column};

    #[test]
    fn the_documentation_lists_every_event_and_no_other() {
        let told = words_in_column(include_str!("../../docs/operations.md"), "## Events", 0);
        assert_eq!(told, constants(include_str!("event.rs")));
    }
}
