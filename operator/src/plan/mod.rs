//! The planner: a pure function of the resource, what was observed, and the time.

pub mod action;
pub mod revision;
