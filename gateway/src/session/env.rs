//! What connections share, how they are named, and how they end.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Limit, Presences, SlowPolicies};
use crate::metrics::Metrics;
use crate::protocol::{CloseReason, Initiator, WelcomeLimits};
use crate::room::Absent;
use crate::routing::Routing;

/// What all connections and rooms of a gateway share.
#[derive(Debug)]
pub struct Env {
    /// The gateway's clock.
    pub clock: Clock,
    /// The gateway's metrics.
    pub metrics: Metrics,
    /// `--server-id`.
    pub server_id: Arc<str>,
    /// Random text that makes connection ids unique in the fleet.
    pub instance: Arc<str>,
    /// Most bytes that wait for one connection.
    pub queue_bytes: usize,
    /// Most messages that wait for one connection.
    pub queue_messages: usize,
    /// What gives way when more waits.
    pub slow_consumers: SlowPolicies,
    /// Rooms with more local members get no announcements.
    pub announce_members: Limit,
    /// Of which rooms it is known who is in them.
    pub presences: Presences,
    /// Who has left them of late, when no other gateway has to know.
    pub absent: Absent,
    /// Connections of one user.
    pub connections_per_user: Limit,
    /// Seconds after which a connection is to move.
    pub connection_age: Limit,
    /// For how long at most messages are kept for those who come back.
    pub resume_window: Duration,
    /// What clients are told for a proxy in front, if they are.
    pub routing: Option<Routing>,
    /// What clients are told to keep to.
    pub welcome_limits: WelcomeLimits,
    /// What clients are told that it can do.
    pub features: &'static [&'static str],
}

/// Identifies a connection within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl ConnId {
    /// What identifies it in the fleet.
    pub fn text(self, instance: &str) -> Arc<str> {
        format!("{instance}-{:x}", self.0).into()
    }

    /// The connection of this process that the text identifies, if it does.
    pub fn parse(text: &str, instance: &str) -> Option<Self> {
        let number = text.strip_prefix(instance)?.strip_prefix('-')?;
        u64::from_str_radix(number, 16).ok().map(Self)
    }
}

/// How and by whom a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Code on the wire, or 1005, 1006.
    pub code: u16,
    /// Why.
    pub reason: CloseReason,
    /// By whom.
    pub initiator: Initiator,
}

impl Closed {
    const SET: u32 = 1 << 31;
    const SERVER: u32 = 1 << 30;

    pub(super) fn to_bits(self) -> u32 {
        let server = if self.initiator == Initiator::Server {
            Self::SERVER
        } else {
            0
        };
        Self::SET | server | (self.reason as u32) << 16 | u32::from(self.code)
    }

    pub(super) fn from_bits(bits: u32) -> Option<Self> {
        let reason = *CloseReason::ALL.get((bits >> 16 & 0xFF) as usize)?;
        let initiator = if bits & Self::SERVER == 0 {
            Initiator::Client
        } else {
            Initiator::Server
        };
        (bits & Self::SET != 0).then_some(Self {
            code: bits as u16,
            reason,
            initiator,
        })
    }
}
