//! What Prometheus sees. Names of the reference articles first; every series carries `server_id`.
//!
//! Handles are resolved once: nothing on a message's way looks a label up. Labels have a bounded set of values; all
//! series together are far below 500.

mod events;
mod health;
mod resume;
mod routing;
mod slow;

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use wsfleet_crds::admin::{PING_BOUNDS_MS, SLOW_HANDSHAKE_SECONDS};

use crate::protocol::{CloseCode, CloseReason, Initiator, MessageKind};

pub use events::EventCounters;
pub use resume::ResumeCounters;
pub use routing::HintCounters;
pub use slow::SlowCounters;

/// Upper bounds of the classes that handshakes are counted in.
const UPGRADE_SECONDS: [f64; 11] = [
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.5,
    SLOW_HANDSHAKE_SECONDS,
    5.0,
];

/// Why an upgrade was refused; label `reason` of `ws_admission_rejected_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Not a valid upgrade request.
    BadRequest,
    /// No whole request within `--handshake-timeout`.
    HandshakeTimeout,
    /// No TLS handshake, or one that failed.
    Tls,
    /// The origin is not on the list.
    Origin,
    /// Cordoned or draining.
    Draining,
    /// `--max-connections` are open.
    Capacity,
    /// `handshakesPerSecond` or `handshakeConcurrency`.
    HandshakeRate,
    /// `connectionsPerIp`.
    IpConnections,
    /// `handshakesPerSecondPerIp`.
    IpRate,
    /// `connectionsPerUser`.
    UserConnections,
    /// No valid token.
    Unauthorized,
    /// The token's key could not be looked up.
    KeysUnavailable,
    /// The broker could not be reached.
    Broker,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::HandshakeTimeout,
        Self::Tls,
        Self::Origin,
        Self::Draining,
        Self::Capacity,
        Self::HandshakeRate,
        Self::IpConnections,
        Self::IpRate,
        Self::UserConnections,
        Self::Unauthorized,
        Self::KeysUnavailable,
        Self::Broker,
    ];

    /// Label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Tls => "tls",
            Self::Origin => "origin",
            Self::Draining => "draining",
            Self::Capacity => "capacity",
            Self::HandshakeRate => "handshake_rate",
            Self::IpConnections => "ip_connections",
            Self::IpRate => "ip_rate",
            Self::UserConnections => "user_connections",
            Self::Unauthorized => "unauthorized",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Broker => "broker",
        }
    }
}

/// All metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open sockets.
    pub active: IntGauge,
    /// Sockets opened.
    pub connections: IntCounter,
    disconnections: Vec<IntCounter>,
    closes: IntCounterVec,
    received: Vec<IntCounter>,
    sent: IntCounter,
    /// Sizes of client messages.
    pub message_bytes_in: Histogram,
    /// Sizes of messages to clients, once a message however many members get it.
    pub message_bytes_out: Histogram,
    /// How long sockets were open, in seconds.
    pub connection_duration: Histogram,
    /// From ping to pong, in milliseconds.
    pub heartbeat_latency: Histogram,
    /// From acceptance by a gateway to the last local member's write, in milliseconds.
    pub message_latency: Histogram,
    /// From the request to the end of the upgrade, in seconds.
    pub upgrade: Histogram,
    /// What gave way to members that read too slowly.
    pub slow: SlowCounters,
    /// Bytes that wait for all sockets, sampled every second.
    pub send_queue_bytes: IntGauge,
    rejected: Vec<IntCounter>,
    /// Streams that clients came back to.
    pub resumes: ResumeCounters,
    /// Events that clients sent to the workers.
    pub events: EventCounters,
    /// Routing tokens that clients came with.
    pub hints: HintCounters,
    /// Sockets that a drain has still to close.
    pub drain_remaining: IntGauge,
    /// Sockets that a drain closed.
    pub drain_forced: IntCounter,
    /// Sockets that went by themselves during a drain.
    pub drain_natural: IntCounter,
    /// 1 while the broker answers.
    pub broker_up: IntGauge,
    /// Rooms with members here.
    pub rooms: IntGauge,
    /// Users with connections here.
    pub users: IntGauge,
    /// Tasks of the runtime that have not ended, taken when somebody asks.
    pub tasks: IntGauge,
}

/// Registers metrics on one registry.
struct Builder(Registry);

impl Builder {
    fn add<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> prometheus::Result<C> {
        let collector = collector?;
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help))
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> prometheus::Result<Histogram> {
        self.add(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(buckets),
        ))
    }
}

impl Metrics {
    /// Registers everything. Fails only when two metrics have the same name.
    pub fn new(server_id: &str) -> prometheus::Result<Self> {
        let labels = HashMap::from([("server_id".to_owned(), server_id.to_owned())]);
        let registry = Registry::new_custom(None, Some(labels))?;
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let b = Builder(registry);
        let disconnections = b.counters(
            "ws_disconnections_total",
            "Sockets closed, by reason.",
            &["reason"],
        )?;
        let received = b.counters(
            "ws_messages_received_total",
            "Messages from clients, by type.",
            &["type"],
        )?;
        let rejected = b.counters(
            "ws_admission_rejected_total",
            "Upgrades that did not become a served socket, by reason.",
            &["reason"],
        )?;
        let drained = b.counters(
            "ws_drain_closed_total",
            "Sockets that ended during a drain.",
            &["outcome"],
        )?;
        let size = HistogramOpts::new("ws_message_size_bytes", "Sizes of messages.");
        let size = size.buckets(vec![64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0]);
        let size = b.add(HistogramVec::new(size, &["direction"]))?;
        let latency = || PING_BOUNDS_MS.to_vec();
        Ok(Self {
            active: b.gauge("ws_active_connections", "Open sockets.")?,
            connections: b.counter("ws_connections_total", "Sockets opened.")?,
            disconnections: CloseReason::ALL
                .iter()
                .map(|reason| disconnections.with_label_values(&[reason.as_str()]))
                .collect(),
            closes: b.counters(
                "ws_closes_total",
                "Sockets closed, by code.",
                &["code", "initiator"],
            )?,
            received: MessageKind::ALL
                .iter()
                .map(|kind| received.with_label_values(&[kind.as_str()]))
                .collect(),
            sent: b.counter(
                "ws_messages_sent_total",
                "Messages written or queued for clients.",
            )?,
            message_bytes_in: size.with_label_values(&["in"]),
            message_bytes_out: size.with_label_values(&["out"]),
            connection_duration: b.histogram(
                "ws_connection_duration_seconds",
                "How long sockets were open.",
                vec![1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0],
            )?,
            heartbeat_latency: b.histogram(
                "ws_heartbeat_latency_ms",
                "From ping to pong, in milliseconds.",
                latency(),
            )?,
            message_latency: b.histogram(
                "ws_message_latency",
                "From a message's acceptance to its write to the last local member, in milliseconds.",
                latency(),
            )?,
            upgrade: b.histogram(
                "ws_upgrade_seconds",
                "From the upgrade request to the session.",
                UPGRADE_SECONDS.to_vec(),
            )?,
            slow: SlowCounters::new(&b)?,
            send_queue_bytes: b.gauge("ws_send_queue_bytes", "Bytes that wait for all sockets.")?,
            rejected: Rejection::ALL
                .iter()
                .map(|reason| rejected.with_label_values(&[reason.as_str()]))
                .collect(),
            resumes: ResumeCounters::new(&b)?,
            events: EventCounters::new(&b)?,
            hints: HintCounters::new(&b)?,
            drain_remaining: b.gauge(
                "ws_drain_remaining_connections",
                "Sockets that a drain has still to close.",
            )?,
            drain_forced: drained.with_label_values(&["forced"]),
            drain_natural: drained.with_label_values(&["natural"]),
            broker_up: b.gauge("ws_broker_up", "1 while the broker answers.")?,
            rooms: b.gauge("ws_rooms", "Rooms with members on this gateway.")?,
            users: b.gauge("ws_users", "Users with sockets on this gateway.")?,
            tasks: b.gauge("ws_tasks", "Tasks of the gateway that have not ended.")?,
            registry: b.0,
        })
    }

    /// Adds what others count. Fails when a name is taken.
    pub fn register(&self, collectors: Vec<Box<dyn Collector>>) -> prometheus::Result<()> {
        collectors
            .into_iter()
            .try_for_each(|collector| self.registry.register(collector))
    }

    /// So many messages were written or queued.
    pub fn sent(&self, messages: u64) {
        self.sent.inc_by(messages);
    }

    /// A client's message came.
    pub fn received(&self, kind: MessageKind, bytes: usize) {
        if let Some(counter) = self.received.get(kind.index()) {
            counter.inc();
        }
        self.message_bytes_in.observe(bytes as f64);
    }

    /// An upgrade was refused.
    pub fn rejected(&self, reason: Rejection) {
        if let Some(counter) = self.rejected.get(reason as usize) {
            counter.inc();
        }
    }

    /// A socket ended.
    pub fn closed(&self, code: u16, reason: CloseReason, initiator: Initiator, open_seconds: f64) {
        let named = CloseCode::NAMED.iter().any(|known| known.get() == code);
        let label = if named {
            code.to_string()
        } else {
            "other".to_owned()
        };
        self.closes
            .with_label_values(&[label.as_str(), initiator.as_str()])
            .inc();
        if let Some(counter) = self.disconnections.get(reason as usize) {
            counter.inc();
        }
        self.connection_duration.observe(open_seconds);
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(16 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_carries_the_server_id_and_unknown_close_codes_share_one() {
        let metrics = Metrics::new("gw-1").unwrap();
        for code in [1000, 1006, 4999, 3001] {
            metrics.closed(code, CloseReason::Client, Initiator::Client, 1.0);
        }
        metrics.received(MessageKind::Join, 20);
        metrics.rejected(Rejection::Broker);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(series.iter().all(|line| line.contains("server_id=\"gw-1\"")));
        assert!(
            text.contains("code=\"other\",initiator=\"client\",server_id=\"gw-1\"} 2"),
            "{text}"
        );
        assert!(text.contains("code=\"1006\",initiator=\"client\""));
        assert!(text.contains("ws_admission_rejected_total{reason=\"broker\",server_id=\"gw-1\"} 1"));
        assert!(series.len() < 500, "{} series", series.len());
    }
}
