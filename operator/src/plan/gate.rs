//! Whether pods of the wanted revision may be made: its Secrets exist, and the API server takes its pods.

use jiff::Timestamp;

use super::action::Action;
use super::draft::{Draft, Pass};
use super::resources::pod::pod;
use super::revision::Target;
use super::time::after;
use crate::observe::model::{MissingReference, Observed};

/// Seconds after which a refused template is tried again: what refused it may be a quota or a policy.
const RETRY_SECONDS: u32 = 60;

/// Whether pods may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They may.
    Open,
    /// A Secret or a key is missing; the text names it and the field.
    SecretMissing(String),
    /// The API server has not been asked yet.
    Validating,
    /// The template does not fit a pod, or the API server refuses it; the text says why.
    Rejected(String),
}

impl Gate {
    /// What holds for `target`, of whose Secrets some are `missing`. `running` tells whether pods of it exist: then the
    /// API server took them.
    pub(crate) fn new(
        target: &Target,
        observed: &Observed,
        missing: &[MissingReference],
        running: bool,
    ) -> Self {
        if let Err(error) = &target.data {
            return Self::Rejected(error.to_string());
        }
        if !missing.is_empty() {
            let missing: Vec<_> = missing
                .iter()
                .map(|missing| {
                    format!(
                        "{}: there is no Secret {:?} with key {:?}",
                        missing.field, missing.secret, missing.key
                    )
                })
                .collect();
            return Self::SecretMissing(format!("{}; create it in this namespace", missing.join(", ")));
        }
        if running {
            return Self::Open;
        }
        match observed
            .dry_run
            .as_ref()
            .filter(|run| run.hash == target.hash)
            .map(|run| &run.verdict)
        {
            None => Self::Validating,
            Some(Ok(())) => Self::Open,
            Some(Err(message)) => Self::Rejected(message.clone()),
        }
    }

    /// Whether pods may be made.
    pub(crate) fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

/// Asks the API server about the target's pods when it has not been asked, or again after a while.
pub(crate) fn validate(pass: &Pass<'_>, draft: &mut Draft) {
    let Ok(data) = &pass.target.data else { return };
    let due = match pass.gate {
        Gate::Validating => true,
        Gate::Rejected(_) => retry(pass.observed, pass.now, draft),
        Gate::Open | Gate::SecretMissing(_) => false,
    };
    if due {
        let hash = pass.target.hash.clone();
        let pod = Box::new(pod(pass.cluster, &hash, data, 0));
        draft.actions.push(Action::DryRunPod { hash, pod });
        draft.wake_in(std::time::Duration::from_secs(1));
    }
}

fn retry(observed: &Observed, now: Timestamp, draft: &mut Draft) -> bool {
    let Some(run) = &observed.dry_run else { return true };
    let at = after(run.at, RETRY_SECONDS);
    if at > now {
        draft.wake_at(at, now);
    }
    at <= now
}
