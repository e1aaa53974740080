//! `spec.limits`: what one client may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one client may use of a gateway. A field that is left out has the gateway's default; 0 switches the limit off.
/// The limits are arguments of the gateway: changing one rolls the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Bytes of a message at most; a larger one closes the socket with 1009. Gateway default 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_073_741_824))]
    pub message_bytes: Option<u32>,
    /// Bytes of a room's name at most. Gateway default 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65_535))]
    pub room_name_bytes: Option<u32>,
    /// Rooms that one socket is a member of at most. Gateway default 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub rooms_per_connection: Option<u32>,
    /// Messages per second that one socket may send; twice as many in a burst. Gateway default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub messages_per_second: Option<u32>,
    /// Bytes per second that one socket may send; twice as many in a burst. Gateway default 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_073_741_824))]
    pub bytes_per_second: Option<u32>,
    /// Handshakes under way at the same time on one gateway. Gateway default 1000. How many a second is
    /// gateway.capacity.maxHandshakesPerSecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub handshake_concurrency: Option<u32>,
    /// Sockets from one IP address (IPv6: one /64) on one gateway. Gateway default 100. Switch it off, or raise it,
    /// when clients arrive through a proxy that hides their addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub connections_per_ip: Option<u32>,
    /// Handshakes per second from one IP address (IPv6: one /64) on one gateway. Gateway default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub handshakes_per_second_per_ip: Option<u32>,
    /// Sockets of one user. Gateway default 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub connections_per_user: Option<u32>,
    /// Bytes that may wait for one slow client before it is closed with 4102. Gateway default 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_073_741_824))]
    pub queue_bytes: Option<u32>,
    /// Messages that may wait for one slow client before it is closed with 4102. Gateway default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub queue_messages: Option<u32>,
    /// Users of a room in the whole fleet, or members of it on one gateway, above which joins and leaves are no longer announced.
    /// Gateway default 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub announce_members: Option<u32>,
}

impl LimitsSpec {
    /// The limits that are set, by the gateway's key, in a fixed order.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u32)> {
        [
            ("messageBytes", self.message_bytes),
            ("roomNameBytes", self.room_name_bytes),
            ("roomsPerConnection", self.rooms_per_connection),
            ("messagesPerSecond", self.messages_per_second),
            ("bytesPerSecond", self.bytes_per_second),
            ("handshakeConcurrency", self.handshake_concurrency),
            ("connectionsPerIp", self.connections_per_ip),
            ("handshakesPerSecondPerIp", self.handshakes_per_second_per_ip),
            ("connectionsPerUser", self.connections_per_user),
            ("queueBytes", self.queue_bytes),
            ("queueMessages", self.queue_messages),
            ("announceMembers", self.announce_members),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| (key, value)))
    }
}
