//! What to look at when a scenario fails: pods, events, and the logs that may say why.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, LogParams};

use super::Cluster;

/// Pods of the operator, in whatever namespace.
const OPERATOR: &str = "app.kubernetes.io/name=wsfleet-operator";
const EVENTS: usize = 25;
const LOG_LINES: i64 = 40;

impl Cluster {
    /// The namespace's pods and last events, logs of its pods that are not ready or restarted, and the operator's. Never
    /// fails: what can't be had is said in the text.
    pub async fn report(&self, namespace: &str) -> String {
        let mut text = format!("--- pods of {namespace}\n");
        let pods = Api::<Pod>::namespaced(self.client(), namespace)
            .list(&ListParams::default())
            .await;
        let mut suspects = Vec::new();
        match pods {
            Ok(pods) => {
                for pod in pods.items {
                    describe(&mut text, &pod);
                    if is_suspect(&pod) {
                        suspects.push(pod);
                    }
                }
            }
            Err(error) => _ = writeln!(text, "{error}"),
        }
        self.add_events(&mut text, namespace).await;
        match Api::<Pod>::all(self.client())
            .list(&ListParams::default().labels(OPERATOR))
            .await
        {
            Ok(pods) => suspects.extend(pods.items),
            Err(error) => _ = writeln!(text, "{error}"),
        }
        for pod in suspects {
            self.add_logs(&mut text, &pod).await;
        }
        text
    }

    async fn add_events(&self, text: &mut String, namespace: &str) {
        _ = writeln!(text, "--- last events of {namespace}");
        match Api::<Event>::namespaced(self.client(), namespace)
            .list(&ListParams::default())
            .await
        {
            Ok(events) => {
                let mut events = events.items;
                events.sort_by_key(ResourceExt::creation_timestamp);
                for event in events.iter().skip(events.len().saturating_sub(EVENTS)) {
                    let object = &event.involved_object;
                    let part = |field: &Option<String>| field.clone().unwrap_or_default();
                    let (kind, name) = (part(&object.kind), part(&object.name));
                    _ = writeln!(
                        text,
                        "{} {} {kind}/{name}: {}",
                        part(&event.type_),
                        part(&event.reason),
                        part(&event.message)
                    );
                }
            }
            Err(error) => _ = writeln!(text, "{error}"),
        }
    }

    async fn add_logs(&self, text: &mut String, pod: &Pod) {
        let api = Api::<Pod>::namespaced(self.client(), &pod.namespace().unwrap_or_default());
        let restarted = statuses(pod).iter().any(|s| s.restart_count > 0);
        for previous in [true, false] {
            if previous && !restarted {
                continue;
            }
            let params = LogParams {
                tail_lines: Some(LOG_LINES),
                previous,
                ..LogParams::default()
            };
            let title = if previous { "log before the restart" } else { "log" };
            match api.logs(&pod.name_any(), &params).await {
                Ok(log) => _ = writeln!(text, "--- {title} of {}\n{}", pod.name_any(), log.trim_end()),
                Err(error) => _ = writeln!(text, "--- {title} of {}: {error}", pod.name_any()),
            }
        }
    }
}

fn statuses(pod: &Pod) -> &[ContainerStatus] {
    pod.status
        .as_ref()
        .and_then(|s| s.container_statuses.as_deref())
        .unwrap_or_default()
}

fn is_suspect(pod: &Pod) -> bool {
    statuses(pod).iter().any(|s| !s.ready || s.restart_count > 0)
}

fn describe(text: &mut String, pod: &Pod) {
    let status = pod.status.clone().unwrap_or_default();
    let node = pod
        .spec
        .as_ref()
        .and_then(|s| s.node_name.clone())
        .unwrap_or_else(|| "no node".to_owned());
    _ = write!(
        text,
        "{} {} on {node}",
        pod.name_any(),
        status.phase.unwrap_or_default()
    );
    if pod.metadata.deletion_timestamp.is_some() {
        text.push_str(", terminating");
    }
    for label in [
        "wsfleet.dev/phase",
        "wsfleet.dev/accepting",
        "wsfleet.dev/revision",
    ] {
        if let Some(value) = pod.labels().get(label) {
            _ = write!(text, ", {label}={value}");
        }
    }
    for container in statuses(pod) {
        let ready = if container.ready { "ready" } else { "not ready" };
        _ = write!(
            text,
            ", {} {ready}, {} restarts",
            container.name, container.restart_count
        );
        let state = container.state.clone().unwrap_or_default();
        if let Some(waiting) = state.waiting {
            let (reason, message) = (
                waiting.reason.unwrap_or_default(),
                waiting.message.unwrap_or_default(),
            );
            _ = write!(text, ", waiting: {reason} {message}");
        }
        if let Some(ended) = state.terminated {
            _ = write!(
                text,
                ", ended with {} {}",
                ended.exit_code,
                ended.reason.unwrap_or_default()
            );
        }
    }
    text.push('\n');
}
