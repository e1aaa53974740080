//! A gateway pod: the revision's frozen template with a name, a slot, and the drain times in force.

use k8s_openapi::api::core::v1::{EnvVar, Pod, PodSpec, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wsfleet_crds::labels::{self, PodPhase};
use wsfleet_crds::v1alpha1::{Spread, WebSocketCluster};

use super::template::CONTAINER;
use super::{cluster_name, owned_meta};
use crate::plan::revision::RevisionData;

/// Name of the pod in `slot`: the same for every pass, so that a repeated create is a harmless 409.
pub(crate) fn pod_name(cluster: &WebSocketCluster, hash: &str, slot: u32) -> String {
    format!("{}-{hash}-{slot}", cluster_name(cluster))
}

/// The pod of revision `hash` in `slot`.
pub(crate) fn pod(cluster: &WebSocketCluster, hash: &str, data: &RevisionData, slot: u32) -> Pod {
    let mut metadata = owned_meta(cluster, pod_name(cluster, hash, slot));
    let template_meta = data.template.metadata.clone().unwrap_or_default();
    let mut all_labels = template_meta.labels.unwrap_or_default();
    all_labels.extend(metadata.labels.take().unwrap_or_default());
    all_labels.extend(
        [
            (labels::APP_NAME, labels::APP_NAME_VALUE.to_owned()),
            (labels::REVISION, hash.to_owned()),
            (labels::SLOT, slot.to_string()),
            (labels::PHASE, PodPhase::Pending.as_str().to_owned()),
            // from the start: a pod serves as soon as it is Ready, also while no operator runs
            (labels::ACCEPTING, "true".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    metadata.labels = Some(all_labels);
    metadata.annotations = template_meta.annotations;
    let mut spec = data.template.spec.clone().unwrap_or_default();
    set_drain_times(cluster, &mut spec);
    if spec.topology_spread_constraints.is_none() {
        spec.topology_spread_constraints = spread(cluster);
    }
    Pod {
        metadata,
        spec: Some(spec),
        status: None,
    }
}

/// The grace period is the whole drain and a margin; SIGTERM spreads its closes over the drain's time.
fn set_drain_times(cluster: &WebSocketCluster, spec: &mut PodSpec) {
    let drain = &cluster.spec.drain;
    spec.termination_grace_period_seconds =
        Some(i64::from(drain.timeout_seconds) + i64::from(drain.termination_margin_seconds));
    if let Some(gateway) = spec
        .containers
        .iter_mut()
        .find(|container| container.name == CONTAINER)
    {
        let environment = gateway.env.get_or_insert_default();
        if !environment
            .iter()
            .any(|variable| variable.name == "WSFLEET_DRAIN_WINDOW")
        {
            environment.push(EnvVar {
                name: "WSFLEET_DRAIN_WINDOW".to_owned(),
                value: Some(drain.timeout_seconds.to_string()),
                value_from: None,
            });
        }
    }
}

fn spread(cluster: &WebSocketCluster) -> Option<Vec<TopologySpreadConstraint>> {
    let keys: &[&str] = match cluster.spec.topology.spread {
        Spread::None => return None,
        Spread::Node => &["kubernetes.io/hostname"],
        Spread::Zone => &["topology.kubernetes.io/zone", "kubernetes.io/hostname"],
    };
    let selector = LabelSelector {
        match_labels: Some([(labels::CLUSTER.to_owned(), cluster_name(cluster).to_owned())].into()),
        match_expressions: None,
    };
    let constraint = |key: &&str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: (*key).to_owned(),
        // a fleet that cannot be spread is better than one that does not start
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector.clone()),
        // old and new pods are spread each for themselves, or a rollout would fill one node with the new
        match_label_keys: Some(vec![labels::REVISION.to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    Some(keys.iter().map(constraint).collect())
}
