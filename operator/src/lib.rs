//! The operator: observe, plan, apply, status.
//!
//! * [`run`]: the process, with [`args`] and [`telemetry`]. [`controller`]: watches, queue, and passes.
//! * [`leader`]: one replica writes.
//! * [`gateway`], [`prometheus`]: the two sources that are not the API server.
//! * [`metrics`]: what the operator tells of itself.
//! * [`observe`]: what is read. [`plan`]: pure, what to do about it.
//! * [`apply`], [`mod@status`], [`events`]: everything that is written.
//! * [`simulate`]: the planner against a model of a cluster in virtual time.

pub mod apply;
pub mod args;
pub mod controller;
pub mod events;
pub mod gateway;
pub mod leader;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod prometheus;
pub mod run;
pub mod simulate;
pub mod status;
pub mod telemetry;
