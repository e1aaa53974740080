//! `spec.broker`: what carries messages between gateways.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::SecretKeyRef;

/// What carries messages between gateways; exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.memory), has(self.redis), has(self.nats)].exists_one(is_set, is_set)", "set exactly one of broker.memory, broker.redis and broker.nats"))]
pub struct BrokerSpec {
    /// Messages stay in the process: rooms are not shared between gateways. Only for a single gateway (`replicas: 1`,
    /// autoscaling off). While such a gateway is replaced, rooms are split between the old and the new process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryBroker>,
    /// Messages go through Redis: rooms, presence and direct messages span all gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisBroker>,
    /// Messages go through NATS with JetStream: rooms, presence, direct messages and events span all gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsBroker>,
}

impl Default for BrokerSpec {
    fn default() -> Self {
        Self {
            memory: Some(MemoryBroker {}),
            redis: None,
            nats: None,
        }
    }
}

/// The broker in the process; it has no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryBroker {}

/// The broker on Redis; exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.url) != has(self.secretRef)", "set exactly one of broker.redis.url and broker.redis.secretRef"),
    validation = ("!has(self.caSecretRef) || !has(self.url) || self.url.startsWith('rediss')", "broker.redis.caSecretRef is for TLS: write the address as rediss://, rediss-sentinel:// or rediss-cluster://, or leave the reference out")
)]
pub struct RedisBroker {
    /// Address of Redis, for example `redis://redis:6379/0`; of its Sentinels and the name they know it by,
    /// `redis-sentinel://one:26379,two:26379/chat`; of some nodes of a cluster, `redis-cluster://one:6379,two:6379`. With TLS:
    /// `rediss://`, `rediss-sentinel://`, `rediss-cluster://`. Use secretRef instead when the address holds a password. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^rediss?(-sentinel|-cluster)?://[^/ ]')", "write the address as redis://host:port, redis-sentinel://host:port,host:port/name or redis-cluster://host:port,host:port, each with TLS as rediss, for example rediss://redis:6379"))]
    pub url: Option<String>,
    /// Secret key that holds the address, password included. A changed Secret is read by pods made after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// Secret key with the authorities (PEM) that vouch for Redis's certificates. Default: those that the image trusts. Only
    /// with TLS. A changed Secret is read by pods made after the change; naming another one rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// When a message is acknowledged: Primary when Redis has it, Replicated when one of its replicas has it, too, so that a
    /// failover takes back nothing that was acknowledged (with `appendfsync always`). Gateway default: Primary. Changing it
    /// rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Where the events that clients send go, for workers to handle. Gateway default: the stream wsfleet:events. Changing it
    /// rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Events>,
}

/// The stream of Redis that workers read clients' events from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// Whether events are taken; without, they are answered with an error. Gateway default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Key of the stream; fleets that share a Redis give each their own. Gateway default: wsfleet:events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = ("self.matches('^[A-Za-z0-9:._/-]+$')", "write the key with letters, digits, ':', '.', '_', '-' and '/' only, for example wsfleet:events"))]
    pub stream: Option<String>,
    /// Entries that the stream keeps, about; the oldest go, whether they were handled or not. Gateway default: 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub length: Option<u32>,
}

/// The broker on NATS; exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.url) != has(self.secretRef)", "set exactly one of broker.nats.url and broker.nats.secretRef"),
    validation = ("!has(self.caSecretRef) || !has(self.url) || self.url.startsWith('tls:')", "broker.nats.caSecretRef is for TLS: write the address as tls://, or leave the reference out")
)]
pub struct NatsBroker {
    /// Address of NATS, for example `nats://nats:4222`; of some servers of a cluster, each message on three of them,
    /// `nats://nats-0.nats:4222,nats-1.nats:4222?replicas=3`. Fleets that share a NATS need a name each, `?prefix=chat`.
    /// With TLS: `tls://`. Use secretRef instead when the address holds a password or a token. Changing it rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^(nats|tls)://[^/ ]')", "write the address as nats://host:port or nats://host:port,host:port?replicas=3, with TLS as tls://, for example nats://nats:4222"))]
    pub url: Option<String>,
    /// Secret key that holds the address, password included. A changed Secret is read by pods made after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// Secret key with the authorities (PEM) that vouch for NATS's certificates. Default: those that the image trusts. Only with
    /// TLS. A changed Secret is read by pods made after the change; naming another one rolls the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// Where the events that clients send go, for workers to handle: the JetStream stream `<prefix>-events`. Changing it rolls the
    /// fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<NatsEvents>,
}

/// The JetStream stream that workers read clients' events from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NatsEvents {
    /// Whether events are taken; without, they are answered with an error. Gateway default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Events that the stream keeps; the oldest go, whether they were handled or not. Gateway default: 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub length: Option<u32>,
}

/// When a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Durability {
    /// When Redis has it.
    Primary,
    /// When a replica has it, too.
    Replicated,
}
