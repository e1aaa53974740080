//! The messages of `docs/wsfleet.v1.proto`, field by field; a test reads that file and compares what it says with these.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// What a client sends. As JSON it is what a client with the JSON codec would have sent.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ClientMessage {
    #[prost(oneof = "client_message::Message", tags = "1, 2, 3, 4, 5, 6")]
    pub(super) message: Option<client_message::Message>,
}

/// A text that is JSON already.
fn verbatim<S: Serializer>(json: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(json)
        .map_err(serde::ser::Error::custom)?
        .serialize(serializer)
}

pub(super) mod client_message {
    use super::{Serialize, verbatim};

    #[derive(Clone, PartialEq, prost::Oneof, Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    pub(in super::super) enum Message {
        #[prost(message, tag = "1")]
        Join(Join),
        #[prost(message, tag = "2")]
        Leave(Leave),
        #[prost(message, tag = "3")]
        RoomMessage(RoomMessage),
        #[prost(message, tag = "4")]
        DirectMessage(DirectMessage),
        #[prost(message, tag = "5")]
        Ping(Ping),
        #[prost(message, tag = "6")]
        Refresh(Refresh),
    }

    // A text that was not set is an empty one: leaving it out here makes it a missing field.

    #[derive(Clone, PartialEq, prost::Message, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(in super::super) struct Join {
        #[prost(string, tag = "1")]
        #[serde(skip_serializing_if = "String::is_empty")]
        pub(in super::super) room: String,
        #[prost(string, optional, tag = "2")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(in super::super) id: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(in super::super) struct Leave {
        #[prost(string, tag = "1")]
        #[serde(skip_serializing_if = "String::is_empty")]
        pub(in super::super) room: String,
        #[prost(string, optional, tag = "2")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(in super::super) id: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(in super::super) struct RoomMessage {
        #[prost(string, tag = "1")]
        #[serde(skip_serializing_if = "String::is_empty")]
        pub(in super::super) room: String,
        #[prost(string, tag = "2")]
        #[serde(skip_serializing_if = "String::is_empty", serialize_with = "verbatim")]
        pub(in super::super) payload: String,
        #[prost(string, optional, tag = "3")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(in super::super) id: Option<String>,
        #[prost(string, optional, tag = "4")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(in super::super) msg_id: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(in super::super) struct DirectMessage {
        #[prost(string, tag = "1")]
        #[serde(skip_serializing_if = "String::is_empty")]
        pub(in super::super) target_user_id: String,
        #[prost(string, tag = "2")]
        #[serde(skip_serializing_if = "String::is_empty", serialize_with = "verbatim")]
        pub(in super::super) payload: String,
        #[prost(string, optional, tag = "3")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(in super::super) id: Option<String>,
        #[prost(string, optional, tag = "4")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(in super::super) msg_id: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message, Serialize)]
    pub(in super::super) struct Ping {}

    #[derive(Clone, PartialEq, prost::Message, Serialize)]
    pub(in super::super) struct Refresh {
        #[prost(string, tag = "1")]
        #[serde(skip_serializing_if = "String::is_empty")]
        pub(in super::super) token: String,
        #[prost(string, optional, tag = "2")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(in super::super) id: Option<String>,
    }
}

/// What the gateway sends.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ServerMessage {
    #[prost(
        oneof = "server_message::Message",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13"
    )]
    pub(super) message: Option<server_message::Message>,
}

#[allow(clippy::struct_field_names, reason = "they are the schema's")]
pub(super) mod server_message {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(in super::super) enum Message {
        #[prost(message, tag = "1")]
        Welcome(Welcome),
        #[prost(message, tag = "2")]
        Joined(Joined),
        #[prost(message, tag = "3")]
        Left(Left),
        #[prost(message, tag = "4")]
        RoomMessage(RoomMessage),
        #[prost(message, tag = "5")]
        DirectMessage(DirectMessage),
        #[prost(message, tag = "6")]
        UserJoined(UserJoined),
        #[prost(message, tag = "7")]
        UserLeft(UserLeft),
        #[prost(message, tag = "8")]
        Ack(Ack),
        #[prost(message, tag = "9")]
        Pong(Pong),
        #[prost(message, tag = "10")]
        ServerShutdown(ServerShutdown),
        #[prost(message, tag = "11")]
        Error(Error),
        #[prost(message, tag = "12")]
        Gap(Gap),
        #[prost(message, tag = "13")]
        Refreshed(Refreshed),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Welcome {
        #[prost(string, tag = "1")]
        pub(in super::super) connection_id: String,
        #[prost(string, tag = "2")]
        pub(in super::super) user_id: String,
        #[prost(string, tag = "3")]
        pub(in super::super) server_id: String,
        #[prost(uint64, tag = "4")]
        pub(in super::super) ping_interval: u64,
        #[prost(message, optional, tag = "5")]
        pub(in super::super) limits: Option<Limits>,
        #[prost(string, repeated, tag = "6")]
        pub(in super::super) features: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Limits {
        #[prost(uint64, tag = "1")]
        pub(in super::super) message_bytes: u64,
        #[prost(uint32, tag = "2")]
        pub(in super::super) room_name_bytes: u32,
        #[prost(uint32, tag = "3")]
        pub(in super::super) rooms_per_connection: u32,
        #[prost(uint32, tag = "4")]
        pub(in super::super) messages_per_second: u32,
        #[prost(uint32, tag = "5")]
        pub(in super::super) bytes_per_second: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Joined {
        #[prost(string, tag = "1")]
        pub(in super::super) room: String,
        #[prost(string, tag = "2")]
        pub(in super::super) epoch: String,
        #[prost(uint64, tag = "3")]
        pub(in super::super) offset: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Left {
        #[prost(string, tag = "1")]
        pub(in super::super) room: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct RoomMessage {
        #[prost(string, tag = "1")]
        pub(in super::super) room_id: String,
        #[prost(string, tag = "2")]
        pub(in super::super) user_id: String,
        #[prost(string, tag = "3")]
        pub(in super::super) payload: String,
        #[prost(uint64, tag = "4")]
        pub(in super::super) timestamp: u64,
        #[prost(string, tag = "5")]
        pub(in super::super) server_id: String,
        #[prost(uint64, tag = "6")]
        pub(in super::super) offset: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct DirectMessage {
        #[prost(string, tag = "1")]
        pub(in super::super) from_user_id: String,
        #[prost(string, tag = "2")]
        pub(in super::super) payload: String,
        #[prost(uint64, tag = "3")]
        pub(in super::super) timestamp: u64,
        #[prost(uint64, tag = "4")]
        pub(in super::super) offset: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct UserJoined {
        #[prost(string, tag = "1")]
        pub(in super::super) room_id: String,
        #[prost(string, tag = "2")]
        pub(in super::super) user_id: String,
        #[prost(string, tag = "3")]
        pub(in super::super) server_id: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct UserLeft {
        #[prost(string, tag = "1")]
        pub(in super::super) room_id: String,
        #[prost(string, tag = "2")]
        pub(in super::super) user_id: String,
        #[prost(string, tag = "3")]
        pub(in super::super) server_id: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Ack {
        #[prost(string, tag = "1")]
        pub(in super::super) id: String,
        #[prost(string, tag = "2")]
        pub(in super::super) epoch: String,
        #[prost(uint64, tag = "3")]
        pub(in super::super) offset: u64,
        #[prost(bool, tag = "4")]
        pub(in super::super) duplicate: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Pong {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct ServerShutdown {
        #[prost(string, tag = "1")]
        pub(in super::super) reason: String,
        #[prost(uint64, tag = "2")]
        pub(in super::super) reconnect_delay: u64,
        #[prost(uint64, optional, tag = "3")]
        pub(in super::super) deadline: Option<u64>,
        #[prost(bool, tag = "4")]
        pub(in super::super) resume: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Error {
        #[prost(string, tag = "1")]
        pub(in super::super) error: String,
        #[prost(string, tag = "2")]
        pub(in super::super) code: String,
        #[prost(bool, tag = "3")]
        pub(in super::super) temporary: bool,
        #[prost(string, optional, tag = "4")]
        pub(in super::super) id: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Gap {
        #[prost(string, tag = "1")]
        pub(in super::super) room: String,
        #[prost(uint64, tag = "2")]
        pub(in super::super) from: u64,
        #[prost(uint64, tag = "3")]
        pub(in super::super) to: u64,
        #[prost(string, tag = "4")]
        pub(in super::super) epoch: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct Refreshed {
        #[prost(uint64, optional, tag = "1")]
        pub(in super::super) expires_at: Option<u64>,
        #[prost(string, optional, tag = "2")]
        pub(in super::super) id: Option<String>,
    }
}
