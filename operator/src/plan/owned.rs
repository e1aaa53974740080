//! The objects beside the pods: Service, budgets, admin token, revisions. Written only when they differ from what is
//! there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wsfleet_crds::labels;

use super::action::Action;
use super::draft::{Draft, Pass};
use super::resources::{budgets, secret, service};
use super::revision::keep_history;
use crate::observe::model::OwnedKind;

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
    if differs(pass, OwnedKind::Service, &service.metadata) {
        draft.actions.push(Action::ApplyService(Box::new(service)));
    }
    for budget in [
        budgets::active(pass.cluster, pass.size.desired),
        budgets::draining(pass.cluster),
    ] {
        if differs(pass, OwnedKind::PodDisruptionBudget, &budget.metadata) {
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

fn differs(pass: &Pass<'_>, kind: OwnedKind, wanted: &ObjectMeta) -> bool {
    let name = wanted.name.clone().unwrap_or_default();
    let hash = wanted
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(labels::APPLIED_HASH));
    pass.observed.owned.get(&(kind, name)) != hash
}
