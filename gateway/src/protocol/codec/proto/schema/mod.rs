//! The messages of `docs/wsfleet.v1.proto`, field by field; a test reads that file and compares what it says with these.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// What a client sends. As JSON it is what a client with the JSON codec would have sent.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ClientMessage {
    #[prost(oneof = "client_message::Message", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(super) message: Option<client_message::Message>,
}

/// A text that is JSON already.
fn verbatim<S: Serializer>(json: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(json)
        .map_err(serde::ser::Error::custom)?
        .serialize(serializer)
}

pub(super) mod client_message;

/// What the gateway sends.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ServerMessage {
    #[prost(
        oneof = "server_message::Message",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16"
    )]
    pub(super) message: Option<server_message::Message>,
}

#[allow(clippy::struct_field_names, reason = "they are the schema's")]
pub(super) mod server_message;
