//! The contracts of wsfleet, without I/O: what the gateway, the operator, the chart and the tests agree on.
//!
//! * [`admin`]: the drain and state types of the gateway's admin API, shared by gateway and operator.
//! * [`labels`]: every label and annotation that wsfleet writes on an object.
//! * `v1alpha1` (feature `resource`): the `WebSocketCluster` resource; `condition` and `event`: what is said of it.

pub mod admin;
#[cfg(feature = "resource")]
pub mod condition;
#[cfg(feature = "resource")]
pub mod event;
pub mod labels;
#[cfg(feature = "resource")]
pub mod v1alpha1;
