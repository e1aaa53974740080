//! `spec.gateway`: the process that holds the sockets.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::{int, short};
use super::history::{DirectHistory, HistoryRule};
use super::reference::SecretKeyRef;

/// Port of the gateway's server API for back ends; fixed.
pub const API_PORT: u16 = 8081;

/// The gateway process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.port != self.adminPort", "port and adminPort must differ: set gateway.port, for example 8080, and gateway.adminPort, for example 9090"),
    validation = ("self.port != 8081 && self.adminPort != 8081", "8081 is the port of the server API: set gateway.port and gateway.adminPort to other ports, for example 8080 and 9090")
)]
pub struct GatewaySpec {
    /// Image of the gateway. Default: the image that belongs to the operator's version, resolved when a revision is
    /// made and kept for that revision, so that upgrading the operator restarts no gateway. Changing it rolls the
    /// fleet, pod by pod, drained first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Port that clients' sockets arrive at in the pod. Default 8080. Changing it rolls the fleet.
    #[serde(default = "short::<8080>")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Port of health, metrics and the drain API in the pod. Default 9090. Changing it rolls the fleet.
    #[serde(default = "short::<9090>")]
    #[schemars(range(min = 1, max = 65535))]
    pub admin_port: u16,
    /// Secret key with the bearer token of the drain API. Default: a random token in the generated Secret
    /// `<name>-admin-token`. Set it when the token must come from a vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_token_secret_ref: Option<SecretKeyRef>,
    /// Secret key with what routing tokens are signed with, 16 bytes or more: hints by which a proxy in front leads clients
    /// back to their gateway. Default: there are none. Naming another one rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_key_secret_ref: Option<SecretKeyRef>,
    /// Origins that browsers may connect from, each as scheme, host and, when it is not the scheme's own, port. Default:
    /// any. Programs that are not browsers send no origin and are not held back. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 300)))]
    #[x_kube(validation = ("self.all(origin, origin.matches('^https?://[^/@?#, ]+$'))", "write each origin as scheme, host and port, for example https://chat.example.com"))]
    pub allowed_origins: Vec<String>,
    /// Proxies in front of the gateways that append to X-Forwarded-For: the client's address is that many entries from
    /// its right. Gateway default 0: the address that the connection comes from. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 16))]
    pub trusted_hops: Option<u32>,
    /// Seconds that a client may take for its upgrade request. Gateway default 10. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600))]
    pub handshake_timeout_seconds: Option<u32>,
    /// Whether clients that offer permessage-deflate (RFC 7692) get compressed messages, each compressed once for all who do.
    /// Gateway default: true. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<bool>,
    /// What gives way when a member of a room reads too slowly; the first rule whose pattern matches the room's name counts.
    /// Default, also for personal messages: Disconnect. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub slow_consumers: Vec<SlowConsumerRule>,
    /// What is kept of rooms' messages for clients that come back; the first rule whose pattern matches the room's name counts.
    /// Default: 300 messages for 300 seconds. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub history: Vec<HistoryRule>,
    /// What is kept of each user's direct messages. Default: 300 messages for 300 seconds. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_history: Option<DirectHistory>,
    /// What one gateway can carry. The autoscaler, the rollout and the scale-in reckon with it.
    #[serde(default)]
    pub capacity: CapacitySpec,
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self {
            image: None,
            port: 8080,
            admin_port: 9090,
            admin_token_secret_ref: None,
            routing_key_secret_ref: None,
            allowed_origins: Vec::new(),
            trusted_hops: None,
            handshake_timeout_seconds: None,
            compression: None,
            slow_consumers: Vec::new(),
            history: Vec::new(),
            direct_history: None,
            capacity: CapacitySpec::default(),
        }
    }
}

/// What gives way in some rooms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowConsumerRule {
    /// Names of rooms; * stands for any text. For example cursor:*.
    #[schemars(length(min = 1, max = 255))]
    pub rooms: String,
    /// Disconnect closes the connection with 4102. DropOldest drops the room's oldest messages that wait for it. KeepLatest
    /// drops all messages of a sender but the last. Clients are told what was dropped by a gap.
    pub policy: SlowConsumerPolicy,
}

/// What gives way when more waits for a connection than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SlowConsumerPolicy {
    /// The connection.
    Disconnect,
    /// The room's oldest messages.
    DropOldest,
    /// All messages of a sender but the last.
    KeepLatest,
}

/// What one gateway can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacitySpec {
    /// Sockets that one gateway accepts at most; more are refused with 503. Default 10000. Raise it when the pods have
    /// memory (about 2 KiB a socket) and file descriptors to spare. Changing it rolls the fleet.
    #[serde(default = "int::<10000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Handshakes per second that one gateway accepts; more are refused with 503 and a Retry-After. Default 500. It
    /// protects new gateways from the reconnects of drained ones. Changing it rolls the fleet.
    #[serde(default = "int::<500>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_handshakes_per_second: u32,
}

impl Default for CapacitySpec {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_handshakes_per_second: 500,
        }
    }
}
