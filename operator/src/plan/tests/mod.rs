//! Tests of the planner as a whole: scenarios and properties in a small model of a cluster.

mod analysis;
mod autoscaling;
mod course;
mod deletion;
mod lifecycle;
mod owned;
mod pace;
mod pause;
mod properties;
mod rebalance;
mod remake;
mod rollout;
mod steer;
mod trial;
mod world;
