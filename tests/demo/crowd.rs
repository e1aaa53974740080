//! The clients: they connect, join rooms of twenty, chat, and keep the account of what they got.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use wsfleet_crds::v1alpha1::WebSocketCluster;
use wsfleet_load::{Load, LoadConfig, Report, RoomLayout, Target, TokenMode};

/// Members of a room.
const ROOM: u32 = 20;
/// Seconds between two messages of one client.
const PAUSE: f64 = 20.0;

/// How the clients connect.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How many.
    pub(crate) clients: u32,
    /// Where the Service is reached.
    pub(crate) target: Target,
    /// How they prove who they are.
    pub(crate) token: TokenMode,
    /// New sockets per second.
    pub(crate) rate: f64,
    /// Over how long clients that are told no delay of their own spread their reconnects.
    pub(crate) window: Duration,
}

/// Name and key of the Secret with which the resource wants tokens signed; `None` when it wants no signed ones.
pub(crate) fn jwt_secret(cluster: &WebSocketCluster) -> Option<(String, String)> {
    let jwt = cluster.spec.auth.jwt.as_ref()?;
    let secret = jwt.secret_ref.as_ref()?;
    Some((secret.name.clone(), secret.key.clone()))
}

fn publish_rate(clients: u32) -> f64 {
    f64::from(clients) / PAUSE
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Crowd(Load);

impl Crowd {
    /// Begins to open the sockets.
    pub(crate) fn start(plan: Plan) -> Result<Self> {
        let config = LoadConfig {
            connections: plan.clients,
            rate: plan.rate,
            rooms: RoomLayout::Size(ROOM),
            room_prefix: "demo-".into(),
            user_prefix: "demo-".into(),
            publish_rate: publish_rate(plan.clients),
            token: plan.token,
            reconnect_window: plan.window,
            ..LoadConfig::new(plan.target)
        };
        Ok(Self(Load::start(config).context("starting the clients")?))
    }

    /// All but `clients` of them leave.
    pub(crate) fn shrink_to(&self, clients: u32) -> Result<()> {
        self.0.set_publish_rate(publish_rate(clients));
        self.0.set_target(clients).context("letting clients leave")
    }

    /// The numbers so far.
    pub(crate) fn numbers(&self) -> Numbers {
        let report = self.0.snapshot();
        Numbers {
            clients: report.sockets.joined,
            by_gateway: report.sockets.by_server,
            sent: report.publishes.sent,
            delivered: report.deliveries.total,
            lost: report.verdict.counts.lost,
            cut: report.verdict.cut,
            moved: report.reconnects.total,
        }
    }

    /// Waits for what is under way, closes all sockets, and gives the account.
    pub(crate) async fn stop(self) -> Report {
        self.0.stop().await
    }
}

/// The clients' numbers at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    /// Clients that are connected and in their rooms.
    pub(crate) clients: u64,
    /// Sockets by gateway, as its `welcome` named it.
    pub(crate) by_gateway: BTreeMap<String, u64>,
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages times members that got them.
    pub(crate) delivered: u64,
    /// Messages times members that should have got them.
    pub(crate) lost: u64,
    /// Sockets that ended without a close frame.
    pub(crate) cut: u64,
    /// Clients that came back after a close.
    pub(crate) moved: u64,
}
