//! The operator's own metrics (`wsc_*`), in the text format of Prometheus; docs/metrics.md says what each means.
//!
//! Labels are bounded: namespace and name of resources that exist (their series go when they go), and the values of
//! enums. No object's name that the operator itself makes, no error's text.

mod cluster;
pub mod requests;
pub mod server;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};
use wsfleet_crds::labels::DrainReason;
use wsfleet_crds::v1alpha1::WebSocketClusterStatus;

use cluster::ClusterGauges;

/// Labels of the series of one resource.
const RESOURCE: &[&str] = &["namespace", "name"];

/// All metrics of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    clusters: ClusterGauges,
    drain_seconds: HistogramVec,
    forced: IntCounterVec,
    natural: IntCounterVec,
    deleted_with_connections: IntCounterVec,
    reconcile_seconds: Histogram,
    reconcile_errors: IntCounterVec,
    api_requests: IntCounterVec,
    leader: Gauge,
}

impl Metrics {
    /// Registers everything in a registry of its own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            clusters: ClusterGauges::new()?,
            drain_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "wsc_drain_seconds",
                    "Seconds from the cordon of a pod to its deletion",
                )
                .buckets(vec![5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0]),
                &["reason"],
            )?,
            forced: counters(
                "wsc_forced_disconnects_total",
                "Sockets closed by gateways in drains",
                &["reason"],
            )?,
            natural: counters(
                "wsc_natural_disconnects_total",
                "Sockets closed by their clients in drains",
                &["reason"],
            )?,
            deleted_with_connections: counters(
                "wsc_deleted_with_connections_total",
                "Pods deleted by the operator while they held sockets, after their deadline or unreachable",
                RESOURCE,
            )?,
            reconcile_seconds: Histogram::with_opts(
                HistogramOpts::new("wsc_reconcile_seconds", "Seconds that a reconcile took")
                    .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0]),
            )?,
            reconcile_errors: counters(
                "wsc_reconcile_errors_total",
                "Reconciles that failed",
                &["category"],
            )?,
            api_requests: counters(
                "wsc_api_requests_total",
                "Requests to the API server",
                &["verb", "kind", "code"],
            )?,
            leader: Gauge::new("wsc_leader", "1 while this replica leads")?,
            registry: Registry::new(),
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        for collector in self.collectors() {
            self.registry.register(collector)?;
        }
        self.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))
    }

    /// Every metric of the operator's own.
    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut all = self.clusters.collectors();
        all.push(Box::new(self.drain_seconds.clone()));
        all.push(Box::new(self.forced.clone()));
        all.push(Box::new(self.natural.clone()));
        all.push(Box::new(self.deleted_with_connections.clone()));
        all.push(Box::new(self.reconcile_seconds.clone()));
        all.push(Box::new(self.reconcile_errors.clone()));
        all.push(Box::new(self.api_requests.clone()));
        all.push(Box::new(self.leader.clone()));
        all
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }

    /// Shows the numbers of one resource, of whose pods `running` run.
    pub fn show_cluster(&self, namespace: &str, name: &str, status: &WebSocketClusterStatus, running: u32) {
        self.clusters.show([namespace, name], status, running);
        // a counter that must stay 0 has to be there before it counts
        self.deleted_with_connections
            .with_label_values(&[namespace, name]);
    }

    /// Removes the series of a resource that is gone. A series that was never made is no error.
    pub fn forget_cluster(&self, namespace: &str, name: &str) {
        self.clusters.forget([namespace, name]);
        let _ = self
            .deleted_with_connections
            .remove_label_values(&[namespace, name]);
    }

    /// A drained pod was deleted, `took` after it was cordoned.
    pub fn drained(&self, reason: DrainReason, took: Duration) {
        self.drain_seconds
            .with_label_values(&[reason.as_str()])
            .observe(took.as_secs_f64());
    }

    /// A drain closed `forced` sockets and lost `natural` since the last answer.
    pub fn disconnected(&self, reason: DrainReason, forced: u64, natural: u64) {
        self.forced.with_label_values(&[reason.as_str()]).inc_by(forced);
        self.natural.with_label_values(&[reason.as_str()]).inc_by(natural);
    }

    /// A pod was deleted while it held sockets.
    pub fn deleted_with_connections(&self, namespace: &str, name: &str) {
        self.deleted_with_connections
            .with_label_values(&[namespace, name])
            .inc();
    }

    /// A reconcile ended.
    pub fn reconciled(&self, took: Duration) {
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// A reconcile failed.
    pub fn failed(&self, category: &'static str) {
        self.reconcile_errors.with_label_values(&[category]).inc();
    }

    /// A request to the API server was answered; `code` is `error` when it was not.
    pub fn requested(&self, verb: &str, kind: &str, code: &str) {
        self.api_requests.with_label_values(&[verb, kind, code]).inc();
    }

    /// Whether this replica leads. One that does not has no numbers of resources: those that it had would stay as they were.
    pub fn set_leader(&self, leads: bool) {
        if !leads {
            self.clusters.clear();
        }
        self.leader.set(f64::from(u8::from(leads)));
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wsfleet_crds::v1alpha1::{AutoscalingStatus, ConnectionsStatus};

    use super::*;

    fn status() -> WebSocketClusterStatus {
        WebSocketClusterStatus {
            desired_replicas: 4,
            ready_replicas: 3,
            accepting_replicas: 2,
            draining_replicas: 1,
            connections: Some(ConnectionsStatus {
                total: 300,
                skew_percent: 25,
                utilization_percent: 1,
                fresh_pods: 2,
                ..ConnectionsStatus::default()
            }),
            autoscaling: Some(AutoscalingStatus {
                raw: Some(6),
                ..AutoscalingStatus::default()
            }),
            ..WebSocketClusterStatus::default()
        }
    }

    #[test]
    fn the_numbers_of_a_resource_are_shown_and_its_series_go_when_it_goes() {
        let metrics = Metrics::new().unwrap();
        metrics.show_cluster("ns", "chat", &status(), 3);
        let shown = metrics.render().unwrap();
        for (name, value) in [
            ("wsc_desired_replicas", "4"),
            ("wsc_ready_replicas", "3"),
            ("wsc_accepting_replicas", "2"),
            ("wsc_draining_replicas", "1"),
            ("wsc_connections", "300"),
            ("wsc_skew_ratio", "0.25"),
            ("wsc_utilization_ratio", "0.01"),
            ("wsc_metrics_stale_pods", "1"),
            ("wsc_autoscaler_raw_replicas", "6"),
            ("wsc_autoscaler_limited_replicas", "4"),
            ("wsc_deleted_with_connections_total", "0"),
        ] {
            let line = format!("{name}{{name=\"chat\",namespace=\"ns\"}} {value}\n");
            assert!(shown.contains(&line), "{line} is not in\n{shown}");
        }
        metrics.forget_cluster("ns", "chat");
        let left = metrics.render().unwrap();
        assert!(!left.contains("chat"), "{left}");
    }

    #[test]
    fn a_replica_that_does_not_lead_any_more_has_no_numbers_of_resources() {
        let metrics = Metrics::new().unwrap();
        metrics.show_cluster("ns", "chat", &status(), 3);
        metrics.set_leader(true);
        let series = |metrics: &Metrics| metrics.render().unwrap().contains("wsc_ready_replicas{");
        assert!(series(&metrics));
        metrics.set_leader(false);
        assert!(!series(&metrics));
    }

    #[test]
    fn what_is_not_known_is_not_shown_as_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.show_cluster("ns", "chat", &status(), 3);
        let unknown = WebSocketClusterStatus {
            connections: None,
            autoscaling: None,
            ..status()
        };
        metrics.show_cluster("ns", "chat", &unknown, 3);
        let shown = metrics.render().unwrap();
        for name in [
            "wsc_connections",
            "wsc_skew_ratio",
            "wsc_utilization_ratio",
            "wsc_autoscaler_",
        ] {
            let is_series = |line: &str| line.starts_with(name);
            assert!(!shown.lines().any(is_series), "{name} is shown:\n{shown}");
        }
        assert!(
            shown.contains("wsc_metrics_stale_pods{name=\"chat\",namespace=\"ns\"} 3"),
            "{shown}"
        );
    }

    /// Names, kinds and labels, as docs/metrics.md has them in a table: `| name | kind | labels | …`.
    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let metrics = Metrics::new().unwrap();
        let registered: BTreeSet<(String, String)> = metrics
            .collectors()
            .iter()
            .flat_map(|collector| {
                let of =
                    |desc: &&prometheus::core::Desc| (desc.fq_name.clone(), desc.variable_labels.join(", "));
                collector.desc().iter().map(of).collect::<Vec<_>>()
            })
            .collect();
        let text = include_str!("../../../docs/metrics.md");
        let documented: BTreeSet<(String, String)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| `wsc_"))
            .map(|line| {
                let mut cells = line.split('|').map(str::trim);
                let name = cells.next().unwrap_or_default().trim_end_matches('`');
                let labels = cells.nth(1).unwrap_or_default().replace('`', "");
                (format!("wsc_{name}"), labels)
            })
            .collect();
        assert_eq!(documented, registered);
    }
}
