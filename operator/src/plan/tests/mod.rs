//! Tests of the planner as a whole: scenarios and properties in a small model of a cluster.

mod analysis;
mod autoscaling;
mod course;
mod lifecycle;
mod owned;
mod pause;
mod properties;
mod rebalance;
mod rollout;
mod steer;
mod trial;
mod world;
