//! The client's side of the wire: the upgrade, frames (RFC 6455 §5), and the JSON messages in them.

pub mod frame;
pub mod handshake;
pub(crate) mod message;
