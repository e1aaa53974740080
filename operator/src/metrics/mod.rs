//! The operator's own metrics (`wsc_*`), in the text format of Prometheus.
//!
//! Labels are bounded: namespace and name of resources that exist (their series go when they go), and the values of
//! enums. No object's name that the operator itself makes, no error's text.

pub mod requests;
pub mod server;

use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use wsfleet_crds::labels::DrainReason;

const RESOURCE: &[&str] = &["namespace", "name"];

/// All metrics of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    replicas: IntGaugeVec,
    connections: IntGaugeVec,
    utilization: GaugeVec,
    stale_pods: IntGaugeVec,
    drain_seconds: HistogramVec,
    forced: IntCounterVec,
    natural: IntCounterVec,
    deleted_with_connections: IntCounterVec,
    disconnects_per_client: GaugeVec,
    reconcile_seconds: Histogram,
    reconcile_errors: IntCounterVec,
    api_requests: IntCounterVec,
    leader: Gauge,
}

/// The numbers of one resource that are shown as gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClusterGauges {
    /// Pods wanted.
    pub desired: i64,
    /// Pods ready.
    pub ready: i64,
    /// Pods accepting.
    pub accepting: i64,
    /// Pods being drained.
    pub draining: i64,
    /// Open sockets, as far as known.
    pub connections: i64,
    /// Share of the fleet's capacity in use, 0 to 1.
    pub utilization: f64,
    /// Running pods without a fresh sample.
    pub stale_pods: i64,
    /// Sockets that the rollout's drains closed, per client.
    pub disconnects_per_client: f64,
}

/// The values of the label `state` of `wsc_replicas`.
const REPLICA_STATES: [&str; 4] = ["desired", "ready", "accepting", "draining"];

impl Metrics {
    /// Registers everything in a registry of its own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            replicas: int_gauges(
                "wsc_replicas",
                "Gateway pods by state",
                &["namespace", "name", "state"],
            )?,
            connections: int_gauges(
                "wsc_connections",
                "Open sockets of the fleet, as far as known",
                RESOURCE,
            )?,
            utilization: GaugeVec::new(
                Opts::new(
                    "wsc_utilization_ratio",
                    "Open sockets per capacity of the pods that accept",
                ),
                RESOURCE,
            )?,
            stale_pods: int_gauges(
                "wsc_metrics_stale_pods",
                "Running pods without a fresh sample",
                RESOURCE,
            )?,
            drain_seconds: HistogramVec::new(
                HistogramOpts::new("wsc_drain_seconds", "From the cordon of a pod to its deletion")
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
            disconnects_per_client: GaugeVec::new(
                Opts::new(
                    "wsc_disconnects_per_client_rollout",
                    "Sockets closed by the drains of the rollout under way, or of the last one, per client of the fleet",
                ),
                RESOURCE,
            )?,
            reconcile_seconds: Histogram::with_opts(
                HistogramOpts::new("wsc_reconcile_seconds", "Duration of a reconcile")
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
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let all: [Box<dyn prometheus::core::Collector>; 13] = [
            Box::new(self.replicas.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.utilization.clone()),
            Box::new(self.stale_pods.clone()),
            Box::new(self.drain_seconds.clone()),
            Box::new(self.forced.clone()),
            Box::new(self.natural.clone()),
            Box::new(self.deleted_with_connections.clone()),
            Box::new(self.disconnects_per_client.clone()),
            Box::new(self.reconcile_seconds.clone()),
            Box::new(self.reconcile_errors.clone()),
            Box::new(self.api_requests.clone()),
            Box::new(self.leader.clone()),
        ];
        for collector in all {
            self.registry.register(collector)?;
        }
        self.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }

    /// Shows the numbers of one resource.
    pub fn show_cluster(&self, namespace: &str, name: &str, gauges: &ClusterGauges) {
        let counts = [gauges.desired, gauges.ready, gauges.accepting, gauges.draining];
        for (state, count) in REPLICA_STATES.into_iter().zip(counts) {
            self.replicas
                .with_label_values(&[namespace, name, state])
                .set(count);
        }
        self.connections
            .with_label_values(&[namespace, name])
            .set(gauges.connections);
        self.utilization
            .with_label_values(&[namespace, name])
            .set(gauges.utilization);
        self.stale_pods
            .with_label_values(&[namespace, name])
            .set(gauges.stale_pods);
        self.disconnects_per_client
            .with_label_values(&[namespace, name])
            .set(gauges.disconnects_per_client);
        // a counter that must stay 0 has to be there before it counts
        self.deleted_with_connections
            .with_label_values(&[namespace, name]);
    }

    /// Removes the series of a resource that is gone. A series that was never made is no error.
    pub fn forget_cluster(&self, namespace: &str, name: &str) {
        for state in REPLICA_STATES {
            let _ = self.replicas.remove_label_values(&[namespace, name, state]);
        }
        let _ = self.connections.remove_label_values(&[namespace, name]);
        let _ = self.utilization.remove_label_values(&[namespace, name]);
        let _ = self.stale_pods.remove_label_values(&[namespace, name]);
        let _ = self
            .disconnects_per_client
            .remove_label_values(&[namespace, name]);
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

    /// Whether this replica leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(f64::from(u8::from(leads)));
    }
}

fn int_gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_resource_go_when_it_goes() {
        let metrics = Metrics::new().unwrap();
        metrics.show_cluster(
            "ns",
            "chat",
            &ClusterGauges {
                ready: 3,
                ..ClusterGauges::default()
            },
        );
        let shown = metrics.render().unwrap();
        assert!(
            shown.contains(r#"wsc_replicas{name="chat",namespace="ns",state="ready"} 3"#),
            "{shown}"
        );
        assert!(
            shown.contains(r#"wsc_deleted_with_connections_total{name="chat",namespace="ns"} 0"#),
            "{shown}"
        );
        metrics.forget_cluster("ns", "chat");
        let left = metrics.render().unwrap();
        assert!(!left.contains("chat"), "{left}");
    }
}
