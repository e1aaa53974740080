//! Everything that the planner is told, read once per pass.

pub mod model;
