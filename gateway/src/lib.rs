//! One WebSocket gateway.

pub mod broker;
