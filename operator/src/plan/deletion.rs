//! The end of a resource: with `deletionPolicy: Drain` a finalizer keeps it until its gateways hold no socket any more.
//!
//! All gateways are cordoned at once and drained within the fleet's budget; nobody stays to take their clients. Without it
//! the garbage collector deletes the pods together, and each closes its sockets over `drain.timeoutSeconds` by itself.

use kube::ResourceExt;
use wsfleet_crds::labels::{DRAIN_FINALIZER, DrainReason};
use wsfleet_crds::v1alpha1::{DeletionPolicy, WebSocketCluster};

use super::action::Action;
use super::draft::{Draft, Pass};
use super::fleet::Member;
use super::{budget, drain, node_drain, replace};

/// The API server's finalizer of a resource whose dependents stay.
const ORPHAN: &str = "orphan";

/// Whether somebody deleted the resource.
pub(crate) fn is_deleted(cluster: &WebSocketCluster) -> bool {
    cluster.metadata.deletion_timestamp.is_some()
}

/// Whether the resource waits for its gateways before it goes.
pub(crate) fn is_held(cluster: &WebSocketCluster) -> bool {
    cluster.finalizers().iter().any(|it| it == DRAIN_FINALIZER)
}

/// Holds the resource, or no longer, as its policy says.
pub(crate) fn keep_policy(pass: &Pass<'_>, draft: &mut Draft) {
    let wanted = pass.cluster.spec.deletion_policy == DeletionPolicy::Drain;
    if wanted != is_held(pass.cluster) {
        hold(pass, wanted, draft);
    }
}

/// Empties the fleet, and lets the resource go when no pod is left.
pub(crate) fn empty(pass: &Pass<'_>, draft: &mut Draft) {
    let graceful = pass.cluster.spec.deletion_policy == DeletionPolicy::Graceful;
    // with --cascade=orphan the pods are to stay as they are
    let orphans = pass.cluster.finalizers().iter().any(|it| it == ORPHAN);
    if pass.fleet.members.is_empty() || graceful || orphans {
        return hold(pass, false, draft);
    }
    for member in pass.fleet.filter(Member::stays) {
        if member.never_served() {
            draft.delete_unserved(member);
        } else {
            replace::cordon(pass, member, DrainReason::ScaleIn, draft);
        }
    }
    drain::drain(pass, draft);
    node_drain::note(pass, draft);
    budget::grant(pass, draft);
}

fn hold(pass: &Pass<'_>, held: bool, draft: &mut Draft) {
    let others = pass
        .cluster
        .finalizers()
        .iter()
        .filter(|it| *it != DRAIN_FINALIZER);
    let ours = held.then(|| DRAIN_FINALIZER.to_owned());
    draft.actions.push(Action::SetFinalizers {
        finalizers: others.cloned().chain(ours).collect(),
        version: pass.cluster.resource_version(),
    });
}
