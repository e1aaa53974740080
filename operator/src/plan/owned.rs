//! The objects beside the pods: Service, budgets, admin token, revisions. Written only when they differ from what is
//! there, whoever made the difference.

use kube::{Resource, ResourceExt};
use serde::Serialize;

use super::action::Action;
use super::draft::{Draft, Pass};
use super::drift;
use super::resources::{budgets, secret, service};
use super::revision::keep_history;
use super::time::after;
use crate::observe::model::{OwnedKind, OwnedView};

/// Seconds between two applies of an object that somebody edits: who edits it again and again gets no more of them, and a
/// watch that is behind none.
const REPAIR_SECONDS: u32 = 5;

/// Adds what is missing or outdated.
pub(crate) fn keep(pass: &Pass<'_>, draft: &mut Draft) {
    if !pass.observed.admin_token && pass.cluster.spec.gateway.admin_token_secret_ref.is_none() {
        draft
            .actions
            .push(Action::CreateAdminToken(Box::new(secret::admin_token(
                pass.cluster,
            ))));
    }
    let service = service::service(pass.cluster);
    if differs(pass, OwnedKind::Service, &service, draft) {
        draft.actions.push(Action::ApplyService(Box::new(service)));
    }
    for budget in [
        budgets::active(pass.cluster, pass.size.desired),
        budgets::draining(pass.cluster),
    ] {
        if differs(pass, OwnedKind::PodDisruptionBudget, &budget, draft) {
            draft.actions.push(Action::ApplyBudget(Box::new(budget)));
        }
    }
    if let Some(memory) = pass
        .size
        .verdict
        .as_ref()
        .and_then(|verdict| verdict.memory.as_ref())
    {
        draft.actions.push(Action::RecordRecommendations(memory.print()));
    }
    if pass.gate.is_open() {
        let in_use = pass.fleet.revisions();
        draft.actions.extend(keep_history(
            pass.cluster,
            &pass.observed.revisions,
            pass.course,
            &in_use,
        ));
    }
}

fn differs<K: Resource + Serialize>(pass: &Pass<'_>, kind: OwnedKind, wanted: &K, draft: &mut Draft) -> bool {
    let key = (kind, wanted.name_any());
    let wanted = OwnedView::of(wanted);
    let Some(live) = pass
        .observed
        .owned
        .get(&key)
        .filter(|live| live.hash == wanted.hash)
    else {
        return true;
    };
    if drift::covers(&wanted.object, &live.object) {
        return false;
    }
    let Some(applied) = pass.observed.applied.get(&key) else {
        return true;
    };
    if applied.left.as_ref() == Some(&drift::digest(&live.object)) {
        return false;
    }
    let due = after(applied.at, REPAIR_SECONDS);
    if due > pass.now {
        draft.wake_at(due, pass.now);
    }
    due <= pass.now
}
