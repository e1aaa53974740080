//! The operator: observe, plan, apply, status.
//!
//! * [`args`], [`telemetry`]: the process's surroundings.
//! * [`leader`]: one replica writes.
//! * [`gateway`], [`prometheus`]: the two sources that are not the API server.
//! * [`metrics`]: what the operator tells of itself.

pub mod args;
pub mod gateway;
pub mod leader;
pub mod metrics;
pub mod prometheus;
pub mod telemetry;
