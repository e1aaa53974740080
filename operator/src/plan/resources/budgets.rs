//! The two PodDisruptionBudgets. Their selectors are disjoint by the phase label, since an eviction of a pod that two
//! budgets match fails for good.

use std::collections::BTreeMap;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wsfleet_crds::labels::{self, PodPhase};
use wsfleet_crds::v1alpha1::{DisruptionMode, WebSocketCluster};

use super::{applied_hash, cluster_name, owned_meta};

/// More pods than there will ever be: no eviction is allowed, `kubectl drain` waits.
const NEVER: i32 = 1_000_000;

/// Budget of all pods that are not being drained. Integer `minAvailable`, because that needs no look at the owner's
/// scale.
pub(crate) fn active(cluster: &WebSocketCluster, desired: u32) -> PodDisruptionBudget {
    let disruption = &cluster.spec.disruption;
    let min_available = match disruption.mode {
        DisruptionMode::Cooperative => desired.saturating_sub(disruption.max_unavailable) as i32,
        DisruptionMode::Strict => NEVER,
    };
    let selector = LabelSelector {
        match_labels: Some(of_cluster(cluster)),
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: labels::PHASE.to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(vec![PodPhase::Draining.as_str().to_owned()]),
        }]),
    };
    // a gateway that is not Ready holds no sockets that the budget could save: it must not block a node's drain
    budget(cluster, "active", min_available, selector, "AlwaysAllow")
}

/// Guard of the pods that are being drained: they go when they are empty, not before.
pub(crate) fn draining(cluster: &WebSocketCluster) -> PodDisruptionBudget {
    let mut labels_of_draining = of_cluster(cluster);
    labels_of_draining.insert(labels::PHASE.to_owned(), PodPhase::Draining.as_str().to_owned());
    let selector = LabelSelector {
        match_labels: Some(labels_of_draining),
        match_expressions: None,
    };
    budget(cluster, "draining", NEVER, selector, "IfHealthyBudget")
}

fn of_cluster(cluster: &WebSocketCluster) -> BTreeMap<String, String> {
    BTreeMap::from([(labels::CLUSTER.to_owned(), cluster_name(cluster).to_owned())])
}

fn budget(
    cluster: &WebSocketCluster,
    suffix: &str,
    min_available: i32,
    selector: LabelSelector,
    unhealthy: &str,
) -> PodDisruptionBudget {
    let mut budget = PodDisruptionBudget {
        metadata: owned_meta(cluster, format!("{}-{suffix}", cluster_name(cluster))),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(min_available)),
            selector: Some(selector),
            unhealthy_pod_eviction_policy: Some(unhealthy.to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    let hash = applied_hash(&budget);
    budget.metadata.annotations = Some(BTreeMap::from([(labels::APPLIED_HASH.to_owned(), hash)]));
    budget
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strict_allows_no_eviction_at_all_and_cooperative_some() {
        let least = |disruption: serde_json::Value| {
            let spec = json!({"auth": {"anonymous": {}}, "disruption": disruption});
            let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
            active(&cluster, 5).spec.unwrap().min_available
        };
        assert_eq!(least(json!({})), Some(IntOrString::Int(4)));
        assert_eq!(least(json!({"maxUnavailable": 2})), Some(IntOrString::Int(3)));
        assert_eq!(
            least(json!({"mode": "Strict", "maxUnavailable": 2})),
            Some(IntOrString::Int(NEVER))
        );
    }
}
