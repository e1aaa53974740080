//! Watches the gateway pods of a fleet from outside and writes down what became of each: an account of its own, made
//! from the API server and the gateways' gauges, that owes nothing to what the operator says of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::core::{Selector, SelectorExt as _};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use wsfleet_crds::labels;

use crate::http::Ask;
use crate::scenario::{Fleet, NAME, label};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(250);

/// `spec.gateway.adminPort` of the scenarios.
const ADMIN_PORT: u16 = 9090;

/// What became of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// Revision label.
    pub revision: String,
    /// Node it ran on.
    pub node: String,
    /// Last gauge read before somebody deleted the pod, or until now.
    pub connections: Option<u64>,
    /// Largest gauge read.
    pub most_connections: u64,
    /// When the operator stopped new sockets.
    pub cordoned_at: Option<Timestamp>,
    /// The drain's deadline.
    pub deadline: Option<Timestamp>,
    /// When the operator saw no socket.
    pub drained_at: Option<Timestamp>,
    /// When somebody deleted it: the deletion timestamp less the grace period.
    pub deleted_at: Option<Timestamp>,
    /// No longer there.
    pub gone: bool,
    /// The largest number of PodDisruptionBudgets that applied to it at once; with two, every eviction fails.
    pub budgets: usize,
}

impl Story {
    /// Whether it was deleted while it held sockets, before its drain's deadline.
    pub fn cut_short(&self) -> bool {
        let held = self.connections.unwrap_or(0) > 0;
        let early = match (self.deleted_at, self.deadline) {
            (Some(deleted), Some(deadline)) => deleted < deadline,
            (Some(_), None) => true,
            (None, _) => false,
        };
        held && early
    }
}

/// Pod name -> story.
pub type Stories = BTreeMap<String, Story>;

/// A running witness; ends when dropped.
#[derive(Debug)]
pub struct Witness {
    stories: Arc<Mutex<Stories>>,
    most_pods: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Starts to watch.
    pub fn start(fleet: &Fleet) -> Self {
        let stories = Arc::new(Mutex::new(Stories::new()));
        let most_pods = Arc::new(Mutex::new(0));
        let (seen, most) = (Arc::clone(&stories), Arc::clone(&most_pods));
        let (api, budgets) = (fleet.namespace.api(), fleet.namespace.api());
        let task = tokio::spawn(async move {
            let mut tick = interval(PERIOD);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                look(&api, &budgets, &seen, &most).await;
            }
        });
        Self {
            stories,
            most_pods,
            task,
        }
    }

    /// What was seen until now.
    pub fn stories(&self) -> Stories {
        self.stories.lock().clone()
    }

    /// The largest number of pods that were there at once without being deleted.
    pub fn most_pods(&self) -> usize {
        *self.most_pods.lock()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(
    api: &Api<Pod>,
    budgets: &Api<PodDisruptionBudget>,
    stories: &Mutex<Stories>,
    most: &Mutex<usize>,
) {
    let selector = ListParams::default().labels(&format!("{}={NAME}", labels::CLUSTER));
    let (Ok(pods), Ok(budgets)) = (
        api.list(&selector).await,
        budgets.list(&ListParams::default()).await,
    ) else {
        return;
    };
    let selectors: Vec<_> = budgets.items.into_iter().filter_map(selector_of).collect();
    let gauges = pods.items.iter().map(|pod| async move {
        let address = SocketAddr::new(pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?, ADMIN_PORT);
        let answer = timeout(PERIOD * 4, Ask::get("/metrics").send(address))
            .await
            .ok()?
            .ok()?;
        gauge(&answer.body, "ws_active_connections")
    });
    let gauges = futures::future::join_all(gauges).await;
    let mut stories = stories.lock();
    for (name, story) in stories.iter_mut() {
        story.gone |= !pods.items.iter().any(|pod| pod.name_any() == *name);
    }
    let living = pods
        .items
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .count();
    let mut most = most.lock();
    *most = living.max(*most);
    for (pod, gauge) in pods.items.iter().zip(gauges) {
        let story = stories.entry(pod.name_any()).or_default();
        write_down(story, pod, gauge);
        let budgets = selectors
            .iter()
            .filter(|selector| selector.matches(pod.labels()))
            .count();
        story.budgets = story.budgets.max(budgets);
    }
}

/// Which pods a budget is about.
fn selector_of(budget: PodDisruptionBudget) -> Option<Selector> {
    budget.spec?.selector?.try_into().ok()
}

fn write_down(story: &mut Story, pod: &Pod, gauge: Option<u64>) {
    let annotation = |key: &str| pod.annotations().get(key).and_then(|text| text.parse().ok());
    label(pod, labels::REVISION).clone_into(&mut story.revision);
    story.node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.clone())
        .unwrap_or_default();
    story.cordoned_at = annotation(labels::CORDONED_AT);
    story.deadline = annotation(labels::DRAIN_DEADLINE);
    story.drained_at = annotation(labels::DRAINED_AT);
    if let Some(deleted) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        story.deleted_at = Some(deleted.0 - Duration::from_secs(grace.unsigned_abs()));
    } else if let Some(gauge) = gauge {
        story.connections = Some(gauge);
        story.most_connections = story.most_connections.max(gauge);
    }
}

/// The value of an unlabelled or single gauge in Prometheus' text format.
pub fn gauge(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    })?;
    let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
    Some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_found_by_its_whole_name() {
        let text = "# HELP x y\nws_active_connections_max 9\nws_active_connections{server_id=\"a\"} 7\n";
        assert_eq!(gauge(text, "ws_active_connections"), Some(7));
        assert_eq!(gauge(text, "ws_active"), None);
    }

    #[test]
    fn a_pod_that_is_deleted_with_sockets_before_its_deadline_was_cut_short() {
        let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
        let mut story = Story {
            connections: Some(3),
            deleted_at: at(10),
            deadline: at(20),
            ..Story::default()
        };
        assert!(story.cut_short());
        story.deleted_at = at(20);
        assert!(!story.cut_short(), "at the deadline the drain is over");
        story = Story {
            connections: Some(0),
            deleted_at: at(10),
            ..Story::default()
        };
        assert!(!story.cut_short(), "an empty pod may go");
        story = Story {
            connections: Some(1),
            deleted_at: at(10),
            ..Story::default()
        };
        assert!(story.cut_short(), "no drain, no deadline");
    }
}
