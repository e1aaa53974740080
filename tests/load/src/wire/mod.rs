//! The client's side of the wire: the upgrade, frames (RFC 6455 §5), and the JSON messages in them.

pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod message;
