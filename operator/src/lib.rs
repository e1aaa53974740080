//! The operator: observe, plan, apply, status.
//!
//! * [`args`], [`telemetry`]: the surroundings of the process.
//! * [`leader`]: one replica writes.
//! * [`gateway`], [`prometheus`]: the two sources that are not the API server.
//! * [`metrics`]: what the operator tells of itself.
//! * [`observe`]: what is read. [`plan`]: pure, what to do about it.
//! * [`apply`], [`mod@status`], [`events`]: everything that is written.

pub mod apply;
pub mod args;
pub mod events;
pub mod gateway;
pub mod leader;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod prometheus;
pub mod status;
pub mod telemetry;
