//! The gateway's admin API, `/admin/v1`: what the operator asks of a gateway and what it is told.
//!
//! `PUT /admin/v1/drain` takes a [`DrainRequest`] and answers with the [`GatewayState`]; `GET /admin/v1/state` answers
//! with the same. Both want `Authorization: Bearer <admin token>` unless the gateway was started without a token, when
//! only loopback callers are served. A request whose `epoch` is lower than the highest one seen is refused with 409
//! (fencing: a deposed leader cannot steer); the same `drainId` and `epoch` again is a renewal, not a new drain.

use serde::{Deserialize, Serialize};

/// What the gateway shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainMode {
    /// Refuse new sockets with 503 and `Retry-After`; keep those that are there.
    Cordon,
    /// Cordon, and close sockets at the granted rate while the lease lasts.
    Drain,
    /// Accept again; a drain under way stops, sockets not yet closed stay.
    Resume,
}

/// Whose socket is closed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "resource", derive(schemars::JsonSchema))]
pub enum DrainOrder {
    /// The longest without a message first.
    #[default]
    IdleFirst,
    /// The longest connected first.
    OldestFirst,
    /// The latest connected first.
    NewestFirst,
    /// No order.
    Random,
}

/// Body of `PUT /admin/v1/drain`. Unknown fields are refused: a misspelt limit must not pass in silence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainRequest {
    /// Identifies this drain of this pod; at most 128 bytes.
    pub drain_id: String,
    /// Fencing epoch: the number of leader transitions when the sender became leader.
    pub epoch: u64,
    /// What to do.
    pub mode: DrainMode,
    /// Sockets closed per second, at most; fractions allowed. Needed by `drain`, ignored by the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<f64>,
    /// How long the rate is granted, in seconds from receipt; forced closes pause when it is over. Default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
    /// When the drain shall be over, in seconds since 1970-01-01 UTC; told to the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Whose socket is closed first.
    #[serde(default)]
    pub order: DrainOrder,
    /// Close code that the clients see; default 1012 (service restart, RFC 6455 registry).
    #[serde(default = "default_close_code")]
    pub close_code: u16,
    /// The window, in seconds, over which the clients' reconnects are spread. Default 15.
    #[serde(default = "default_reconnect_window")]
    pub reconnect_window_seconds: u32,
    /// `drain` only: no socket is closed while at most so many are open, so that a gateway that has too many sheds them and
    /// keeps the rest. Without it all are closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_connections: Option<u64>,
    /// `drain` only: sockets that have been open for less, in seconds, are not closed: they have moved just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_age_seconds: Option<u32>,
}

/// 1012, service restart.
pub const fn default_close_code() -> u16 {
    1012
}

/// 15 seconds.
pub const fn default_reconnect_window() -> u32 {
    15
}

/// Where a gateway is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayPhase {
    /// Accepts sockets.
    Serving,
    /// Accepts none, keeps those that are there.
    Cordoned,
    /// Accepts none, closes those that are there at the granted rate.
    Draining,
    /// SIGTERM was received: a drain paced by the gateway itself, after which the process ends.
    Terminating,
}

/// Body of the answer to `GET /admin/v1/state` and `PUT /admin/v1/drain`; under 1 KB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayState {
    /// The gateway's `--server-id`.
    pub server_id: String,
    /// Where it is in its life.
    pub phase: GatewayPhase,
    /// Whether an upgrade would be accepted now.
    pub accepting: bool,
    /// Open sockets.
    pub connections: u64,
    /// Those of them without a message for 60 s.
    pub idle: u64,
    /// Accepted handshakes per second, averaged over the last 10 s.
    pub handshakes_per_second: f64,
    /// Sockets that the gateway closed in the drain under way (or the last one).
    pub forced_closed: u64,
    /// Sockets that their clients closed during the drain under way (or the last one).
    pub natural_closed: u64,
    /// `--max-connections` as in force.
    pub capacity: u64,
    /// `--revision`: the template's hash, as the operator started it; empty when run alone.
    pub revision: String,
    /// The highest fencing epoch seen.
    pub epoch: u64,
    /// The drain that is in force, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_id: Option<String>,
    /// Whether the broker cannot be relied on at the moment.
    pub broker_degraded: bool,
    /// Counters by which a revision is judged beside another; zero from a gateway that is older than they are.
    #[serde(default)]
    pub health: GatewayHealth,
}

/// Upper bounds, in milliseconds, of the classes that the times from ping to pong are counted in; what is beyond the last
/// has a class of its own.
pub const PING_BOUNDS_MS: [f64; 12] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 10_000.0,
];

/// Seconds beyond which a handshake is slow.
pub const SLOW_HANDSHAKE_SECONDS: f64 = 1.0;

/// What became of handshakes and sockets since the process began. Counters only: what happened between two answers is
/// their difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayHealth {
    /// Upgrades that clients asked for; those refused because of a drain or of the handshakes' pace are not.
    pub handshakes: u64,
    /// Those of them that the gateway failed: full, no keys to verify tokens with, no broker.
    pub handshakes_failed: u64,
    /// Those of `handshakes_failed` that it failed because it was full.
    pub handshakes_full: u64,
    /// Those of them that it refused for what the client did: no valid token, wrong origin, too many from one address.
    pub handshakes_refused: u64,
    /// Upgrades that were turned away because there were more than the gateway takes in a second; not among `handshakes`.
    pub handshakes_paced: u64,
    /// Those of `handshakes` that took longer than [`SLOW_HANDSHAKE_SECONDS`] from the connection to the session.
    pub handshakes_slow: u64,
    /// Sockets that ended after they were served, those closed by a drain excepted.
    pub closes: u64,
    /// Those of them that were cut, fell silent, broke the protocol, read too slowly, or met a fault of the gateway.
    pub abnormal_closes: u64,
    /// Pongs by the time that they took; the classes are those of [`PING_BOUNDS_MS`].
    pub ping_buckets: [u64; PING_BOUNDS_MS.len() + 1],
}

impl GatewayHealth {
    /// Pongs counted.
    pub fn pings(&self) -> u64 {
        self.ping_buckets.iter().sum()
    }

    /// What was counted after `earlier`. A process that began anew has counted all that it shows.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let began_anew = self.handshakes < earlier.handshakes || self.pings() < earlier.pings();
        let earlier = if began_anew { &Self::default() } else { earlier };
        self.with(earlier, u64::saturating_sub)
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn with(&self, other: &Self, op: fn(u64, u64) -> u64) -> Self {
        let mut ping_buckets = self.ping_buckets;
        for (mine, theirs) in ping_buckets.iter_mut().zip(other.ping_buckets) {
            *mine = op(*mine, theirs);
        }
        Self {
            handshakes: op(self.handshakes, other.handshakes),
            handshakes_failed: op(self.handshakes_failed, other.handshakes_failed),
            handshakes_full: op(self.handshakes_full, other.handshakes_full),
            handshakes_refused: op(self.handshakes_refused, other.handshakes_refused),
            handshakes_paced: op(self.handshakes_paced, other.handshakes_paced),
            handshakes_slow: op(self.handshakes_slow, other.handshakes_slow),
            closes: op(self.closes, other.closes),
            abnormal_closes: op(self.abnormal_closes, other.abnormal_closes),
            ping_buckets,
        }
    }
}

/// Body of every answer that is not a success (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Short text of the kind of problem.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What is wrong with this request, and what to do.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_request_takes_defaults_and_refuses_unknown_fields() {
        let request: DrainRequest =
            serde_json::from_str(r#"{"drainId":"d1","epoch":3,"mode":"drain","ratePerSecond":2.5}"#).unwrap();
        assert_eq!(request.close_code, 1012);
        assert_eq!(request.reconnect_window_seconds, 15);
        assert_eq!(request.order, DrainOrder::IdleFirst);
        assert_eq!(request.rate_per_second, Some(2.5));
        let misspelt = r#"{"drainId":"d1","epoch":3,"mode":"drain","ratePerSec":2.5}"#;
        let error = serde_json::from_str::<DrainRequest>(misspelt).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `ratePerSec`"),
            "{error}"
        );
    }
}
