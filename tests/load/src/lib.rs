//! Load generator and judge for WebSocket gateways that speak the JSON protocol of wsfleet.
//!
//! [`Load::start`] opens sockets at a rate, joins rooms, publishes, reconnects as the server tells it to, and keeps a
//! ledger of what every member of every room must have got. The same engine drives the `wsfleet-load` program and the
//! scenarios, which run it in their own process and steer it through the [`Load`] handle.
//!
//! What it promises: a message counts as *lost* for a member that was joined when the message was acknowledged, stayed
//! joined for the grace period after it, and did not get it. Members are checked by offsets alone, in constant memory:
//! from the offset of its `joined` on, a member must see every offset once and in order. A client that comes back says where it
//! was; when the server says that it has recovered, it must see every offset after that. What was not acknowledged is sent
//! again with the same `msgId`, and must be in its room once.
//!
//! The client side of RFC 6455 is its own (`wire`, about 200 lines): frames of a server are unmasked, so they are read
//! in place from one buffer per worker thread, and an idle socket holds no buffer at all. Thousands of deliveries per
//! read cost the generator less than they cost the gateway, which is what a load generator is for.

mod client;
mod config;
mod control;
mod engine;
mod ledger;
mod policy;
mod retry;
mod stats;
mod target;
mod token;
pub mod wire;

pub use client::Sources;
pub use config::{ConfigError, LoadConfig, Reconnect, RoomLayout, TokenMode};
pub use control::{ControlError, serve_control};
pub use engine::{Load, LoadError};
pub use ledger::Counts;
pub use policy::{Decision, Event, Policy, PolicySettings, StopReason};
pub use stats::{
    CloseCount, Closes, Deliveries, Handshakes, Initiator, Offline, Percentiles, Publishes, Reconnects,
    Report, Resumes, RoomVerdict, SecondCloses, Sockets, Verdict,
};
pub use target::{Target, TargetError};
