//! A Pod, its node and its gateway's last words, as the planner sees them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::ResourceExt;
use wsfleet_crds::labels::{self, DrainReason, PodPhase};

use super::model::{DrainMarkers, NodeView, PodView, Shedding};
use super::samples::Sample;
use super::stores::NodeFact;

/// Name of the gateway's container in its pod.
pub const GATEWAY_CONTAINER: &str = "gateway";
/// Name of the admin port in that container.
const ADMIN_PORT_NAME: &str = "admin";
/// Taint of a cordoned node; the control plane adds it after `spec.unschedulable` is set.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Reasons of a waiting container that only say that it is being started.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// The pod as the planner sees it. A label that somebody broke falls back to what makes the planner mend it: no phase
/// is `pending`, no revision is an old one, the slot is in the name.
pub fn view(pod: &Pod, node: Option<NodeView>, sample: Option<Sample>) -> Option<PodView> {
    let name = pod.metadata.name.clone()?;
    let status = pod.status.as_ref();
    let label = |key: &str| pod.labels().get(key).map(String::as_str);
    let slot = label(labels::SLOT)
        .or_else(|| name.rsplit('-').next())
        .and_then(|slot| slot.parse().ok())?;
    let phase = status.and_then(|status| status.phase.as_deref());
    let gateway = gateway_status(pod);
    let sample = sample.unwrap_or_default();
    Some(PodView {
        uid: pod.metadata.uid.clone()?,
        version: pod.metadata.resource_version.clone(),
        slot,
        revision: label(labels::REVISION).unwrap_or_default().to_owned(),
        phase: label(labels::PHASE)
            .and_then(PodPhase::parse)
            .unwrap_or(PodPhase::Pending),
        accepting: label(labels::ACCEPTING) == Some("true"),
        created_at: pod.metadata.creation_timestamp.as_ref()?.0,
        deleting_since: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
        ready_since: condition_since(pod, "Ready"),
        finished: matches!(phase, Some("Failed" | "Succeeded")),
        restarts: gateway.map_or(0, |status| u32::try_from(status.restart_count).unwrap_or(0)),
        restarted_at: gateway.and_then(restarted_at),
        waiting: waiting(pod, gateway),
        node,
        ip: status.and_then(|status| status.pod_ip.clone()),
        node_drain_since: pod
            .annotations()
            .get(labels::NODE_DRAIN_SINCE)
            .and_then(|text| text.parse().ok()),
        drain: drain_markers(pod),
        gateway: sample.state,
        health: sample.health,
        counted_before: sample.counted_before,
        unreachable_since: sample.unreachable_since,
        silent_since: sample.silent_since,
        name,
    })
}

/// The node that a pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// The admin port that the pod was started with; the resource's may have changed since.
pub fn admin_port(pod: &Pod) -> Option<u16> {
    let containers = &pod.spec.as_ref()?.containers;
    let gateway = containers
        .iter()
        .find(|container| container.name == GATEWAY_CONTAINER)?;
    let ports = gateway.ports.as_ref()?;
    let port = ports
        .iter()
        .find(|port| port.name.as_deref() == Some(ADMIN_PORT_NAME))?;
    u16::try_from(port.container_port).ok()
}

/// The node as the planner sees it, for a resource with these drain taints.
pub fn node_view(name: &str, fact: &NodeFact, drain_taints: &[String]) -> NodeView {
    let (not_ready_since, draining) = match fact {
        NodeFact::Unwatched => (None, false),
        NodeFact::Gone(since) => (Some(*since), true),
        NodeFact::Present(node) => (not_ready_since(node), drains(node, drain_taints)),
    };
    NodeView {
        name: name.to_owned(),
        not_ready_since,
        draining,
    }
}

fn not_ready_since(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    if ready.status == "True" {
        return None;
    }
    ready.last_transition_time.as_ref().map(|time| time.0)
}

fn drains(node: &Node, drain_taints: &[String]) -> bool {
    let Some(spec) = &node.spec else { return false };
    let cordoned = spec.unschedulable == Some(true) && drain_taints.iter().any(|key| key == UNSCHEDULABLE);
    cordoned
        || spec
            .taints
            .iter()
            .flatten()
            .any(|taint| drain_taints.contains(&taint.key))
}

/// When the process before the present one ended.
fn restarted_at(status: &ContainerStatus) -> Option<Timestamp> {
    let ended = status.last_state.as_ref()?.terminated.as_ref()?;
    ended.finished_at.as_ref().map(|time| time.0)
}

fn gateway_status(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == GATEWAY_CONTAINER)
}

fn condition_since(pod: &Pod, kind: &str) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// Why the gateway does not run, in the words of the kubelet or the scheduler.
fn waiting(pod: &Pod, gateway: Option<&ContainerStatus>) -> Option<String> {
    let words = |reason: &str, message: Option<&str>| match message.map(str::trim) {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    };
    if let Some(waiting) = gateway.and_then(|status| status.state.as_ref()?.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        return (!STARTING.contains(&reason)).then(|| words(reason, waiting.message.as_deref()));
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let unscheduled = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    Some(words("Unschedulable", unscheduled.message.as_deref()))
}

fn drain_markers(pod: &Pod) -> Option<DrainMarkers> {
    let annotation = |key: &str| pod.annotations().get(key).map(String::as_str);
    let time = |key: &str| annotation(key).and_then(|text| text.parse::<Timestamp>().ok());
    Some(DrainMarkers {
        cordoned_at: time(labels::CORDONED_AT)?,
        reason: annotation(labels::DRAIN_REASON)
            .and_then(DrainReason::parse)
            .unwrap_or(DrainReason::Replace),
        drain_id: annotation(labels::DRAIN_ID).map_or_else(|| pod.uid().unwrap_or_default(), str::to_owned),
        deadline: time(labels::DRAIN_DEADLINE),
        initial: annotation(labels::DRAIN_INITIAL).and_then(|text| text.parse().ok()),
        drained_at: time(labels::DRAINED_AT),
        shedding: time(labels::SHEDDING_SINCE)
            .zip(annotation(labels::SHED_TO).and_then(|text| text.parse().ok()))
            .map(|(since, keep)| Shedding { since, keep }),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        let mut base = json!({
            "metadata": {"name": "chat-abc-2", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"}
        });
        merge(&mut base, value);
        serde_json::from_value(base).unwrap()
    }

    fn merge(base: &mut serde_json::Value, over: serde_json::Value) {
        match (base, over) {
            (serde_json::Value::Object(base), serde_json::Value::Object(over)) => {
                for (key, value) in over {
                    merge(base.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (base, over) => *base = over,
        }
    }

    #[test]
    fn a_pod_without_labels_is_an_old_pending_one_in_the_slot_of_its_name() {
        let view = view(&pod(json!({})), None, None).unwrap();
        assert_eq!(
            (view.slot, view.phase, view.accepting),
            (2, PodPhase::Pending, false)
        );
        assert_eq!(view.revision, "");
        assert!(
            view.gateway.is_none() && view.unreachable_since.is_none(),
            "unknown, not zero"
        );
    }

    #[test]
    fn readiness_and_waiting_are_read_from_the_status() {
        let crashing = view(
            &pod(json!({"status": {
                "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:09Z"}],
                "containerStatuses": [{"name": "gateway", "image": "i", "imageID": "i", "ready": false,
                    "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}]
            }})),
            None,
            None,
        )
        .unwrap();
        assert_eq!((crashing.ready_since, crashing.restarts), (None, 3));
        assert_eq!(crashing.waiting.as_deref(), Some("CrashLoopBackOff: back-off"));

        let starting = view(
            &pod(
                json!({"status": {"containerStatuses": [{"name": "gateway", "image": "i", "imageID": "i",
                "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]}}),
            ),
            None,
            None,
        )
        .unwrap();
        assert_eq!(starting.waiting, None, "being started is not being stuck");
    }

    #[test]
    fn drain_markers_survive_without_the_optional_ones() {
        let annotations = json!({
            "wsfleet.dev/cordoned-at": "2026-01-01T00:00:00Z",
            "wsfleet.dev/drain-reason": "scale-in"
        });
        let markers = drain_markers(&pod(json!({"metadata": {"annotations": annotations}}))).unwrap();
        assert_eq!(
            (markers.reason, markers.drain_id.as_str()),
            (DrainReason::ScaleIn, "u1")
        );
        assert_eq!(
            (markers.deadline, markers.initial, markers.drained_at),
            (None, None, None)
        );
        assert_eq!(drain_markers(&pod(json!({}))), None);
    }

    #[test]
    fn a_cordoned_a_tainted_and_a_lost_node_drain_and_an_unwatched_one_does_not() {
        let taints = [UNSCHEDULABLE.to_owned(), "karpenter.sh/disrupted".to_owned()];
        let node = |spec| {
            NodeFact::Present(Arc::new(
                serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap(),
            ))
        };
        let drains = |fact: &NodeFact| node_view("n", fact, &taints).draining;
        assert!(drains(&node(json!({"unschedulable": true}))));
        assert!(drains(&node(
            json!({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]})
        )));
        assert!(!drains(&node(
            json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}]})
        )));
        assert!(drains(&NodeFact::Gone(Timestamp::UNIX_EPOCH)));
        assert!(!drains(&NodeFact::Unwatched));
        assert!(
            !node_view("n", &node(json!({"unschedulable": true})), &[]).draining,
            "no taint asks for it"
        );
    }
}
