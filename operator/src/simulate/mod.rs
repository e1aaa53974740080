//! The simulator: the real planner against a model of a cluster, in virtual time.
//!
//! ```text
//! world (event queue) -> turn (the operator's processes: leader, plan, actions)
//!                     -> life (kubelets, gateways, clients), faults
//!                     -> checks (what must hold), record (what it was like)
//! scenario -> world -> table, picture
//! ```
//!
//! Nothing here reads a clock, opens a file but the one that it is given, or draws a number that does not follow from
//! the seed: the same command line gives the same picture.

mod api;
mod checks;
mod clients;
mod command;
mod faults;
mod file;
mod gateway;
mod leader;
mod life;
mod picture;
mod record;
mod report;
mod scenario;
mod settings;
#[cfg(test)]
mod tests;
mod time;
mod turn;
mod world;

pub use command::{SimulateArgs, SimulateError, simulate};
pub use file::FileError;
pub use scenario::{Scenario, ScenarioError};
