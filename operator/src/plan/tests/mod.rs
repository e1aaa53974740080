//! Tests of the planner as a whole: scenarios and properties in a small model of a cluster.

mod autoscaling;
mod lifecycle;
mod properties;
mod rollout;
mod world;
