//! The gauges of each resource: its status as numbers.

use prometheus::core::Collector;
use prometheus::{GaugeVec, Opts};
use wsfleet_crds::v1alpha1::{RolloutStatus, WebSocketClusterStatus};

use super::RESOURCE;

/// One gauge: name, help, and its value in a status; `None` when it is not known, or there is none.
type Row = (
    &'static str,
    &'static str,
    fn(&WebSocketClusterStatus) -> Option<f64>,
);

const ROWS: [Row; 10] = [
    ("wsc_desired_replicas", "Gateway pods wanted", |status| {
        Some(status.desired_replicas.into())
    }),
    ("wsc_ready_replicas", "Gateway pods that are Ready", |status| {
        Some(status.ready_replicas.into())
    }),
    (
        "wsc_accepting_replicas",
        "Gateway pods that are Ready and accept new sockets",
        |status| Some(status.accepting_replicas.into()),
    ),
    (
        "wsc_draining_replicas",
        "Gateway pods whose sockets are being closed",
        |status| Some(status.draining_replicas.into()),
    ),
    (
        "wsc_connections",
        "Open sockets of the fleet, as far as known",
        |status| status.connections.map(|connections| connections.total as f64),
    ),
    (
        "wsc_skew_ratio",
        "How far the fullest pod is above the average, as a share of the average",
        |status| {
            status
                .connections
                .map(|connections| ratio(connections.skew_percent))
        },
    ),
    (
        "wsc_utilization_ratio",
        "Open sockets as a share of gateway.capacity.maxConnections, on average",
        |status| {
            status
                .connections
                .map(|connections| ratio(connections.utilization_percent))
        },
    ),
    (
        "wsc_disconnects_per_client_rollout",
        "Sockets closed by the drains of the rollout under way, or of the last one, per client of the fleet",
        |status| {
            let rollout = status.rollout.as_ref();
            Some(rollout.and_then(RolloutStatus::per_client).unwrap_or(0.0))
        },
    ),
    (
        "wsc_autoscaler_raw_replicas",
        "Gateway pods that the sockets ask for, before limits",
        |status| status.autoscaling.as_ref()?.raw.map(f64::from),
    ),
    (
        "wsc_autoscaler_limited_replicas",
        "Gateway pods that the autoscaler chose, within minReplicas, maxReplicas and its rates",
        |status| {
            status
                .autoscaling
                .as_ref()
                .map(|_| status.desired_replicas.into())
        },
    ),
];

fn ratio(percent: u32) -> f64 {
    f64::from(percent) / 100.0
}

/// The gauges of all resources; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ClusterGauges {
    gauges: Vec<GaugeVec>,
    stale: GaugeVec,
}

impl ClusterGauges {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), RESOURCE);
        Ok(Self {
            gauges: ROWS
                .iter()
                .map(|(name, help, _)| gauge(name, help))
                .collect::<Result<_, _>>()?,
            stale: gauge("wsc_metrics_stale_pods", "Running pods without a fresh number")?,
        })
    }

    /// What there is to register.
    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let all = self.gauges.iter().chain([&self.stale]);
        all.map(|gauge| -> Box<dyn Collector> { Box::new(gauge.clone()) })
            .collect()
    }

    /// Shows `status`; a number that is not known any more goes.
    pub(super) fn show(&self, resource: [&str; 2], status: &WebSocketClusterStatus, running: u32) {
        for (gauge, (_, _, value)) in self.gauges.iter().zip(ROWS) {
            match value(status) {
                Some(value) => gauge.with_label_values(&resource).set(value),
                None => drop(gauge.remove_label_values(&resource)),
            }
        }
        let fresh = status.connections.map_or(0, |connections| connections.fresh_pods);
        self.stale
            .with_label_values(&resource)
            .set(running.saturating_sub(fresh).into());
    }

    /// Removes all series.
    pub(super) fn clear(&self) {
        for gauge in self.gauges.iter().chain([&self.stale]) {
            gauge.reset();
        }
    }

    /// Removes the series of a resource; one that was never made is no error.
    pub(super) fn forget(&self, resource: [&str; 2]) {
        for gauge in self.gauges.iter().chain([&self.stale]) {
            let _ = gauge.remove_label_values(&resource);
        }
    }
}
