//! What clients tell the workers behind the gateways.

use std::sync::Arc;

use serde_json::value::RawValue;

/// A client's `event`: an entry of the stream that workers read.
#[derive(Clone, Debug)]
pub struct WorkerEvent {
    /// What kind of thing; 1 to 128 bytes.
    pub name: Box<str>,
    /// The payload's JSON text, as the client wrote it.
    pub payload: Box<RawValue>,
    /// The sender.
    pub user_id: Arc<str>,
    /// Its connection, as its `welcome` named it.
    pub connection_id: Arc<str>,
    /// The gateway that took it.
    pub server_id: Arc<str>,
    /// Milliseconds since 1970-01-01 UTC at that gateway.
    pub timestamp: u64,
    /// The sender's own name for it: of those with one name only the first is appended, for
    /// [`MSG_ID_TTL`](super::MSG_ID_TTL).
    pub msg_id: Option<Box<str>>,
}
