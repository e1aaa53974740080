//! What the gateway sends, one struct for each message.

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
    #[prost(message, tag = "14")]
    Resumed(Resumed),
    #[prost(message, tag = "15")]
    History(History),
    #[prost(message, tag = "16")]
    Presence(Presence),
    #[prost(message, tag = "17")]
    RoutingToken(RoutingToken),
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
    #[prost(uint64, tag = "7")]
    pub(in super::super) resume_window: u64,
    #[prost(message, optional, tag = "8")]
    pub(in super::super) position: Option<Position>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Position {
    #[prost(string, tag = "1")]
    pub(in super::super) epoch: String,
    #[prost(uint64, tag = "2")]
    pub(in super::super) offset: u64,
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
    #[prost(bool, optional, tag = "4")]
    pub(in super::super) recovered: Option<bool>,
    #[prost(string, optional, tag = "5")]
    pub(in super::super) reason: Option<String>,
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
    #[prost(string, optional, tag = "1")]
    pub(in super::super) room: Option<String>,
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

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Resumed {
    #[prost(string, tag = "1")]
    pub(in super::super) epoch: String,
    #[prost(uint64, tag = "2")]
    pub(in super::super) offset: u64,
    #[prost(bool, tag = "3")]
    pub(in super::super) recovered: bool,
    #[prost(string, optional, tag = "4")]
    pub(in super::super) reason: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct History {
    #[prost(string, tag = "1")]
    pub(in super::super) room: String,
    #[prost(string, tag = "2")]
    pub(in super::super) epoch: String,
    #[prost(uint64, tag = "3")]
    pub(in super::super) offset: u64,
    #[prost(message, repeated, tag = "4")]
    pub(in super::super) messages: Vec<Entry>,
    #[prost(uint64, optional, tag = "5")]
    pub(in super::super) next: Option<u64>,
    #[prost(string, optional, tag = "6")]
    pub(in super::super) id: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Entry {
    #[prost(string, tag = "1")]
    pub(in super::super) user_id: String,
    #[prost(string, tag = "2")]
    pub(in super::super) payload: String,
    #[prost(uint64, tag = "3")]
    pub(in super::super) timestamp: u64,
    #[prost(string, tag = "4")]
    pub(in super::super) server_id: String,
    #[prost(uint64, tag = "5")]
    pub(in super::super) offset: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Presence {
    #[prost(string, tag = "1")]
    pub(in super::super) room: String,
    #[prost(string, repeated, tag = "2")]
    pub(in super::super) users: Vec<String>,
    #[prost(uint64, tag = "3")]
    pub(in super::super) count: u64,
    #[prost(string, optional, tag = "4")]
    pub(in super::super) next: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(in super::super) id: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct RoutingToken {
    #[prost(string, tag = "1")]
    pub(in super::super) token: String,
}
