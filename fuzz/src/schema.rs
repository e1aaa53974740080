//! The part of `docs/wsfleet.v1.proto` that the targets speak, beside the gateway's own.

use prost::{Message, Oneof};

/// What a client sends.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FromClient {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Kind {
    #[prost(message, tag = "1")]
    Join(Join),
    #[prost(message, tag = "2")]
    Leave(Named),
    #[prost(message, tag = "3")]
    RoomMessage(Sent),
    #[prost(message, tag = "4")]
    DirectMessage(Sent),
    #[prost(message, tag = "5")]
    Ping(Nothing),
    #[prost(message, tag = "6")]
    Refresh(Named),
    #[prost(message, tag = "7")]
    Resume(Resume),
    #[prost(message, tag = "8")]
    History(History),
    #[prost(message, tag = "9")]
    Presence(Presence),
    #[prost(message, tag = "10")]
    Event(Sent),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Join {
    #[prost(string, tag = "1")]
    pub(crate) room: String,
    #[prost(string, optional, tag = "2")]
    pub(crate) id: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(crate) epoch: Option<String>,
    #[prost(uint64, optional, tag = "4")]
    pub(crate) offset: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Resume {
    #[prost(message, repeated, tag = "1")]
    pub(crate) rooms: Vec<RoomPlace>,
    #[prost(message, optional, tag = "2")]
    pub(crate) user: Option<Place>,
    #[prost(string, optional, tag = "3")]
    pub(crate) id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RoomPlace {
    #[prost(string, tag = "1")]
    pub(crate) room: String,
    #[prost(string, tag = "2")]
    pub(crate) epoch: String,
    #[prost(uint64, tag = "3")]
    pub(crate) offset: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Place {
    #[prost(string, tag = "1")]
    pub(crate) epoch: String,
    #[prost(uint64, tag = "2")]
    pub(crate) offset: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct History {
    #[prost(string, tag = "1")]
    pub(crate) room: String,
    #[prost(uint64, tag = "2")]
    pub(crate) limit: u64,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) before: Option<u64>,
    #[prost(string, optional, tag = "4")]
    pub(crate) id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Presence {
    #[prost(string, tag = "1")]
    pub(crate) room: String,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) limit: Option<u64>,
    #[prost(string, optional, tag = "3")]
    pub(crate) after: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(crate) id: Option<String>,
}

/// `Leave` and `Refresh`: a room or a token.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Named {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, optional, tag = "2")]
    pub(crate) id: Option<String>,
}

/// `RoomMessage`, `DirectMessage` and `Event`: to a room, to a user, or what it is called.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sent {
    #[prost(string, tag = "1")]
    pub(crate) to: String,
    #[prost(string, tag = "2")]
    pub(crate) payload: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) id: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(crate) msg_id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nothing {}

/// What the gateway sends, when it is a `RoomMessage`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FromGateway {
    #[prost(message, optional, tag = "4")]
    pub(crate) room_message: Option<Delivered>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Delivered {
    #[prost(string, tag = "3")]
    pub(crate) payload: String,
}
