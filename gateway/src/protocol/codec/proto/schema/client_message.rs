//! What a client sends, one struct for each message.

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
    #[prost(message, tag = "7")]
    Resume(Resume),
    #[prost(message, tag = "8")]
    History(History),
    #[prost(message, tag = "9")]
    Presence(Presence),
    #[prost(message, tag = "10")]
    Event(Event),
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
    #[prost(string, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) epoch: Option<String>,
    #[prost(uint64, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) offset: Option<u64>,
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

#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Resume {
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in super::super) rooms: Vec<RoomPosition>,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) user: Option<Position>,
    #[prost(string, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) id: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(in super::super) struct RoomPosition {
    #[prost(string, tag = "1")]
    pub(in super::super) room: String,
    #[prost(string, tag = "2")]
    pub(in super::super) epoch: String,
    #[prost(uint64, tag = "3")]
    pub(in super::super) offset: u64,
}

#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(in super::super) struct Position {
    #[prost(string, tag = "1")]
    pub(in super::super) epoch: String,
    #[prost(uint64, tag = "2")]
    pub(in super::super) offset: u64,
}

#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(in super::super) struct History {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(in super::super) room: String,
    #[prost(uint64, tag = "2")]
    pub(in super::super) limit: u64,
    #[prost(uint64, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) before: Option<u64>,
    #[prost(string, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) id: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(in super::super) struct Presence {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(in super::super) room: String,
    #[prost(uint64, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) limit: Option<u64>,
    #[prost(string, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) after: Option<String>,
    #[prost(string, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) id: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Event {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(in super::super) name: String,
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
