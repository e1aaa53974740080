//! `spec.rebalance`: what is done when some gateways hold many more sockets than others.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::default::{int, yes};

/// What is done when some gateways hold many more sockets than others, as after a scale-out or the loss of a node. They
/// stop accepting first, so that new sockets go to the others; what is still uneven after
/// drain.passiveSeconds.rebalance is closed slowly, with code 4200, and no socket that is younger than 60 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.stopSkew < self.maxSkew", "stopSkew must be below maxSkew, or sockets would go back and forth: for example rebalance.maxSkew 20 and rebalance.stopSkew 8"),
    validation = ("self.maxConnectionAgeSeconds == 0 || self.maxConnectionAgeSeconds >= 600", "rebalance.maxConnectionAgeSeconds must be 0 (no such age) or at least 600")
)]
pub struct RebalanceSpec {
    /// Whether sockets are moved to even the gateways out. Default true. Without it they even out only as clients come and
    /// go.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Per cent above the average that a gateway holds, for a minute, before it is relieved. Default 20.
    #[serde(default = "int::<20>")]
    #[schemars(range(min = 5, max = 100))]
    pub max_skew: u32,
    /// Per cent above the average down to which it is relieved. Default 8; less than maxSkew.
    #[serde(default = "int::<8>")]
    #[schemars(range(max = 99))]
    pub stop_skew: u32,
    /// Sockets above the average that a gateway must hold, too, before it is relieved. Default 100: in small fleets a few
    /// sockets are many per cent.
    #[serde(default = "int::<100>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_excess: u32,
    /// Share of the fleet's sockets that may be closed per second for this, in thousandths, by all gateways together, one
    /// a second at least. Default 2; never more than what drain.maxDisconnectPermille leaves.
    #[serde(default = "int::<2>")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_disconnect_permille: u32,
    /// Seconds after which a gateway closes a socket with code 4200, each socket at its own time (10 % around it), so that
    /// a fleet evens out all the time. Default 0: never. At least 600. Changing it rolls the fleet.
    #[serde(default = "int::<0>")]
    #[schemars(range(max = 2_592_000))]
    pub max_connection_age_seconds: u32,
}

impl Default for RebalanceSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            max_skew: 20,
            stop_skew: 8,
            min_excess: 100,
            max_disconnect_permille: 2,
            max_connection_age_seconds: 0,
        }
    }
}
