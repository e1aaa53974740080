//! `spec.drain`: how a pod is emptied before it goes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IntOrPercent;
use super::default::{int, percent, yes};
use crate::admin::{DrainOrder, default_close_code};

/// How a pod is emptied before it goes. A pod first stops accepting, then has its sockets closed at the fleet's rate,
/// and is deleted when none is left or its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainSpec {
    /// Seconds from the start of forced closes until the pod is deleted with whatever it still holds. Default 300.
    /// Raise it with the number of sockets: fleet sockets / (sockets x maxDisconnectPermille / 1000) seconds are needed
    /// for a whole rollout. Pods made after a change have the new value in their grace period too.
    #[serde(default = "int::<300>")]
    #[schemars(range(min = 10, max = 86400))]
    pub timeout_seconds: u32,
    /// Seconds added to timeoutSeconds for the pods' grace period. Default 30. The sum should stay within what ends pods
    /// from outside: 600 seconds for the Cluster Autoscaler.
    #[serde(default = "int::<30>")]
    #[schemars(range(min = 10, max = 3600))]
    pub termination_margin_seconds: u32,
    /// Seconds between a pod's last new socket and its first forced close, for load balancers to notice. Default 10. 0
    /// in tests and where nothing but kube-proxy stands before the pods.
    #[serde(default = "int::<10>")]
    #[schemars(range(max = 300))]
    pub settle_seconds: u32,
    /// Share of the fleet's sockets that may be closed per second, in thousandths, by all drains together. Default 10:
    /// one per cent a second. Lower it when the back end suffers from reconnects.
    #[serde(default = "int::<10>")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_disconnect_permille: u32,
    /// Sockets closed per second at most, whatever the share says. Default: no such ceiling. Set it to what a shared
    /// login service can take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_disconnects_per_second: Option<u32>,
    /// Sockets closed per second at least, so that small fleets do not wait. Default 10.
    #[serde(default = "int::<10>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_disconnects_per_second: u32,
    /// Pods whose sockets are closed at the same time; a count, or a share of the wanted replicas, rounded up. Default
    /// "25%".
    #[serde(default = "percent::<25>")]
    #[x_kube(validation = ("self != 0 && self != '0%'", "drain.maxConcurrent must be at least 1, or 1%: otherwise no pod could ever be drained"))]
    pub max_concurrent: IntOrPercent,
    /// Whose socket is closed first: IdleFirst (default; longest without a message), OldestFirst, NewestFirst, Random.
    #[serde(default)]
    pub order: DrainOrder,
    /// Close code that clients see. Default 1012 (service restart). 1001 (going away) for clients that know only
    /// RFC 6455's codes, 1013, or one of your own from 4000 to 4999.
    #[serde(default = "default_close_code")]
    #[x_kube(validation = ("self in [1001, 1012, 1013] || (self >= 4000 && self <= 4999)", "drain.closeCode must be 1001, 1012, 1013, or from 4000 to 4999"))]
    pub close_code: u16,
    /// How clients are told to come back.
    #[serde(default)]
    pub reconnect: ReconnectSpec,
    /// Close sockets more slowly while the gateways that take the clients back fail handshakes, turn clients away, or take
    /// longer than a second for more than one in a hundred of them. Default true: the rate is halved then, and grows by a
    /// tenth every 5 seconds while they are well. False: always the full rate.
    #[serde(default = "yes")]
    pub adaptive: bool,
    /// What happens to a pod that still holds sockets after timeoutSeconds. Delete (default): it is deleted, and closes
    /// the rest within its grace period. Hold: it stays and goes on closing at the fleet's rate, and the condition Draining
    /// says so. A pod on a node that is being drained is deleted after disruption.nodeDrainTimeoutSeconds in any case.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// Seconds that a gateway under drain may be out of reach before its pod is deleted, which makes it drain by itself.
    /// Default 30.
    #[serde(default = "int::<30>")]
    #[schemars(range(min = 5, max = 3600))]
    pub unreachable_seconds: u32,
    /// Seconds in which sockets of a pod that no longer accepts may leave by themselves before the first is closed.
    #[serde(default)]
    pub passive_seconds: PassiveSpec,
}

impl Default for DrainSpec {
    fn default() -> Self {
        Self {
            timeout_seconds: 300,
            termination_margin_seconds: 30,
            settle_seconds: 10,
            max_disconnect_permille: 10,
            max_disconnects_per_second: None,
            min_disconnects_per_second: 10,
            max_concurrent: IntOrPercent::Percent(25),
            order: DrainOrder::IdleFirst,
            close_code: 1012,
            reconnect: ReconnectSpec::default(),
            adaptive: true,
            on_timeout: OnTimeout::default(),
            unreachable_seconds: 30,
            passive_seconds: PassiveSpec::default(),
        }
    }
}

/// What happens to a pod that still holds sockets when its drain's time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnTimeout {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    Delete,
    #[allow(missing_docs, reason = "as above")]
    Hold,
}

/// How clients are told to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReconnectSpec {
    /// Seconds over which the delays sent to the clients are spread, each client its own. Default 15.
    #[serde(default = "int::<15>")]
    #[schemars(range(max = 600))]
    pub window_seconds: u32,
}

impl Default for ReconnectSpec {
    fn default() -> Self {
        Self { window_seconds: 15 }
    }
}

/// Time to leave by themselves, by the reason of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassiveSpec {
    /// Seconds when a new revision replaces the pod. Default 0.
    #[serde(default = "int::<0>")]
    #[schemars(range(max = 86400))]
    pub rollout: u32,
    /// Seconds when the fleet shrinks. Default 600: short-lived sockets never notice. The pod can be taken back at once
    /// as long as it waits.
    #[serde(default = "int::<600>")]
    #[schemars(range(max = 86400))]
    pub scale_down: u32,
    /// Seconds when a gateway holds many more sockets than the others, see rebalance. Default 300: where clients come and
    /// go, it is even by then and no socket is closed.
    #[serde(default = "int::<300>")]
    #[schemars(range(max = 86400))]
    pub rebalance: u32,
}

impl Default for PassiveSpec {
    fn default() -> Self {
        Self {
            rollout: 0,
            scale_down: 600,
            rebalance: 300,
        }
    }
}
