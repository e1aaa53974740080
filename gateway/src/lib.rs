//! One WebSocket gateway: sockets, rooms and direct messages, alone or as one of many.
//!
//! The way of a message: [`listener`] accepts, [`handshake`] upgrades, [`session`] reads ([`websocket`] frames,
//! [`protocol`] messages) and publishes to the [`broker`], which hands every message to [`room`], and that to the
//! members' connections. [`drain`] decides who is closed when; [`admin`] and [`api`] are the interfaces for machines.

pub mod access;
pub mod admin;
pub mod admission;
pub mod api;
pub mod auth;
pub mod broker;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod drain;
pub mod fleet;
pub mod gateway;
pub mod handshake;
pub mod limits;
pub mod listener;
pub mod metrics;
mod pattern;
pub mod protocol;
pub mod room;
pub mod routing;
mod run;
pub mod session;
mod shutdown;
pub mod start;
pub mod stream;
pub mod telemetry;
#[cfg(test)]
mod test_support;
pub mod tls;
pub mod websocket;

pub use run::{Listeners, RunError, run};
pub use shutdown::{ShutdownSignal, ShutdownTrigger};
