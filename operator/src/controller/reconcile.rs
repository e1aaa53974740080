//! One pass over one resource: observe, plan, apply, status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::controller::Action;
use thiserror::Error;
use tokio::time::Instant;
use tracing::{debug, warn};
use wsfleet_crds::event;
use wsfleet_crds::v1alpha1::{WebSocketCluster, WebSocketClusterStatus};

use super::{Context, backoff, malformed};
use crate::apply::ApplyError;
use crate::observe::model::{Observed, PodView};
use crate::observe::secrets::RECHECK_MISSING;
use crate::observe::stores::Root;
use crate::observe::{Identity, ObserveError};
use crate::plan::action::{EventDraft, Plan};
use crate::plan::{deletion, plan};
use crate::status::{self, Decision, StatusError};

/// A resource is looked at this often even if nothing happens.
const RESYNC: Duration = Duration::from_mins(5);
/// No pass follows another of the same resource sooner by its own wish.
const SOONEST: Duration = Duration::from_millis(50);

/// Why a pass failed; it is repeated after a while.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// Something could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// An action failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written.
    #[error(transparent)]
    Status(#[from] StatusError),
}

impl ReconcileError {
    /// Bounded label for metrics.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Apply(error) => error.category(),
            Self::Status(_) => "status",
        }
    }
}

/// The pass. Level-triggered: why it was asked for does not matter.
pub(super) async fn reconcile(root: Arc<Root>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let Some(term) = context.leadership().term() else {
        // whoever leads acts; a new term looks at everything
        return Ok(Action::await_change());
    };
    let id = Identity::of(&*root)?;
    let cluster = match &root.0 {
        Ok(cluster) => context.newest(cluster),
        Err(invalid) => {
            malformed::report(&context, &id, &root, invalid).await;
            let is_done = malformed::release(&context, &id, invalid).await;
            return Ok(if is_done {
                Action::await_change()
            } else {
                Action::requeue(malformed::AGAIN)
            });
        }
    };
    if deletion::is_deleted(&cluster) && !deletion::is_held(&cluster) {
        // the garbage collector deletes what the resource owns; each gateway drains itself
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let observed = context.observer().observe(&cluster, term, now).await?;
    let Plan {
        actions,
        status,
        events,
        next_wakeup,
        crowded,
        pace,
    } = plan(&cluster, &observed, &context.defaults, now);
    context.observer().memory.update(&id.uid, |remembered| {
        remembered.crowded = crowded;
        remembered.pace = pace;
    });
    let applied = context.applier.apply(&cluster, &id, &observed, actions).await;
    show(&context, &id, &observed, &status);
    tell(&context, &cluster, &applied, events).await;
    // also after a failure: whoever looks must see how far it came
    let wait = settle(&context, &id, &cluster, status).await?;
    let again = applied?;
    context
        .observer()
        .memory
        .update(&id.uid, |remembered| remembered.failures = 0);
    context.applier.metrics.reconciled(began.elapsed());
    let missing = (!observed.missing_references.is_empty()).then_some(RECHECK_MISSING);
    let soonest = [wait, missing]
        .into_iter()
        .flatten()
        .fold(next_wakeup.min(RESYNC), Duration::min);
    Ok(Action::requeue(if again {
        SOONEST
    } else {
        soonest.max(SOONEST)
    }))
}

/// Publishes the plan's events, and, at the first failure in a row, what stands in the way.
async fn tell(
    context: &Context,
    cluster: &WebSocketCluster,
    applied: &Result<bool, ApplyError>,
    events: Vec<EventDraft>,
) {
    let regarding: ObjectReference = cluster.object_ref(&());
    for draft in events {
        context.events.publish(draft, &regarding).await;
    }
    let Err(error) = applied else { return };
    let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
    let ours = matches!(error, ApplyError::Stale(_) | ApplyError::Deposed);
    if !ours && context.observer().memory.get(uid).failures == 0 {
        let draft = EventDraft {
            warning: true,
            reason: event::APPLY_FAILED,
            action: "Apply",
            note: error.to_string(),
        };
        context.events.publish(draft, &regarding).await;
    }
}

/// Writes the status if it is due; else says how long to wait for that.
async fn settle(
    context: &Context,
    id: &Identity,
    cluster: &WebSocketCluster,
    new: WebSocketClusterStatus,
) -> Result<Option<Duration>, ReconcileError> {
    let memory = &context.observer().memory;
    let now = Instant::now();
    match status::decide(
        cluster.status.as_ref(),
        &new,
        memory.get(&id.uid).status_written_at,
        now,
    ) {
        Decision::Skip => Ok(None),
        Decision::Wait(wait) => Ok(Some(wait)),
        Decision::Write => {
            if context.leadership().term().is_none() {
                return Err(ApplyError::Deposed.into());
            }
            if let Some(written) = status::write(&context.client, id, &new).await? {
                context.observer().written_clusters.changed(written);
            }
            memory.update(&id.uid, |remembered| remembered.status_written_at = Some(now));
            Ok(None)
        }
    }
}

fn show(context: &Context, id: &Identity, observed: &Observed, status: &WebSocketClusterStatus) {
    context.observer().memory.update(&id.uid, |remembered| {
        remembered.cost = remembered.cost.as_of(status);
    });
    let runs = |pod: &&PodView| pod.ip.is_some() && !pod.finished;
    let running = observed.pods.iter().filter(runs).count() as u32;
    context
        .applier
        .metrics
        .show_cluster(&id.namespace, &id.name, status, running);
}

/// When to try again.
pub(super) fn error_policy(root: &Root, error: &ReconcileError, context: &Context) -> Action {
    let uid = root.meta().uid.clone().unwrap_or_default();
    let failures = context.observer().memory.update(&uid, |remembered| {
        remembered.failures = remembered.failures.saturating_add(1);
        remembered.failures
    });
    context.applier.metrics.failed(error.category());
    let wait = backoff::wait(failures);
    let (namespace, cluster) = (root.meta().namespace.as_deref(), root.meta().name.as_deref());
    if matches!(
        error,
        ReconcileError::Apply(ApplyError::Stale(_) | ApplyError::Deposed)
    ) {
        debug!(namespace, cluster, %error, ?wait, "pass ended early");
    } else {
        warn!(namespace, cluster, %error, failures, ?wait, "pass failed");
    }
    Action::requeue(wait)
}
