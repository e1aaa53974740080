//! How many gateways are wanted.

use wsfleet_crds::v1alpha1::{AutoscalingMode, WebSocketCluster};

use super::autoscale::{self, Verdict};
use super::fleet::Fleet;
use crate::observe::model::Observed;

/// The wanted size, and how it came about.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// Gateways wanted.
    pub(crate) desired: u32,
    /// What the built-in autoscaler found; `None` when it is off.
    pub(crate) verdict: Option<Verdict>,
}

impl Size {
    /// No gateway: the resource is on its way out.
    pub(crate) const NONE: Self = Self {
        desired: 0,
        verdict: None,
    };
}

/// The wanted size: `spec.replicas`, or the built-in autoscaler's choice.
pub(crate) fn size(
    cluster: &WebSocketCluster,
    observed: &Observed,
    fleet: &Fleet<'_>,
    now: jiff::Timestamp,
) -> Size {
    if cluster.spec.autoscaling.mode == AutoscalingMode::Builtin {
        let verdict = autoscale::decide(cluster, observed, fleet, now);
        Size {
            desired: verdict.desired,
            verdict: Some(verdict),
        }
    } else {
        Size {
            desired: cluster.spec.replicas,
            verdict: None,
        }
    }
}
