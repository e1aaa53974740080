//! One WebSocket gateway.

pub mod auth;
pub mod broker;
pub mod config;
pub mod limits;
pub mod protocol;
pub mod websocket;
