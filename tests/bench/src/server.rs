//! The servers, and how each is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::adapter::Protocol;
use crate::http;
pub(crate) use crate::process::Running;
use crate::process::free_port;

/// Rooms that rather lose messages than members; all others close who is too slow.
pub(crate) const LOSSY_ROOMS: &str = "lossy-";

/// In the order in which they run and are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Server {
    Floor,
    Gateway,
    Axum,
    Ws,
    SocketIo,
}

impl Server {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "tokio write loop (floor)",
            Self::Gateway => "wsfleet-gateway",
            Self::Axum => "axum + tungstenite",
            Self::Ws => "Node ws",
            Self::SocketIo => "Socket.IO",
        }
    }

    /// Whether it is one of the two that are close to each other: the floor and the gateway.
    pub(crate) const fn is_of_pair(self) -> bool {
        matches!(self, Self::Floor | Self::Gateway)
    }

    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Floor => Protocol::GatewayWithoutToken,
            Self::Axum | Self::Ws => Protocol::PlainToken,
            Self::Gateway => Protocol::Gateway,
            Self::SocketIo => Protocol::SocketIo,
        }
    }
}

/// What is needed to start any of them.
#[derive(Debug)]
pub(crate) struct Site {
    /// The folder of the programs.
    pub(crate) programs: PathBuf,
    /// The folder of the Node servers.
    pub(crate) peers: PathBuf,
    /// Holds the secret, and the servers' output.
    pub(crate) work: PathBuf,
}

impl Site {
    /// The file with the tokens' secret.
    pub(crate) fn secret(&self) -> PathBuf {
        self.work.join("secret")
    }

    /// The command of any server but the gateway.
    fn peer(&self, server: Server, port: u16) -> Command {
        let mut command = match server {
            Server::Floor => Command::new(self.programs.join("wsfleet-bench-floor")),
            Server::Axum => Command::new(self.programs.join("wsfleet-bench-axum")),
            Server::Gateway | Server::Ws | Server::SocketIo => {
                let mut node = Command::new("node");
                node.arg(self.peers.join(if server == Server::Ws {
                    "ws.js"
                } else {
                    "socketio.js"
                }));
                node
            }
        };
        command.arg(port.to_string());
        if server != Server::Floor {
            command.arg(self.secret());
        }
        command
    }

    /// Starts a server and waits until it listens; the flags are for a gateway.
    pub(crate) fn start(&self, server: Server, flags: &Flags<'_>) -> Result<Running> {
        if server == Server::Gateway {
            return Ok(self.gateway(flags)?.running);
        }
        let port = free_port()?;
        Running::start(self.peer(server, port), loopback(port), &self.work)?
            .listens()
            .with_context(|| server.name())
    }

    /// Starts a gateway and waits until it is ready. Limits that a benchmark from one address would run into are off, and so
    /// are announcements, which no other server makes.
    pub(crate) fn gateway(&self, flags: &Flags<'_>) -> Result<Gateway> {
        let (port, api) = (free_port()?, loopback(free_port()?));
        let admin = loopback(free_port()?);
        let mut command = Command::new(self.programs.join("wsfleet-gateway"));
        command
            .args(["--listen", &loopback(port).to_string()])
            .args(["--api-listen", &api.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(["--broker", flags.broker, "--auth", "jwt"])
            .args(["--max-connections", "19500", "--jwt-secret-file"])
            .arg(self.secret())
            .args(["--server-id", flags.server_id])
            .args(["--drain-window", &flags.drain_window.to_string()])
            .args(["--slow-consumer", &format!("{LOSSY_ROOMS}*=dropOldest")])
            .args(["--limit", &format!("handshakesPerSecond={}", flags.handshakes)]);
        for key in [
            "connectionsPerIp",
            "handshakesPerSecondPerIp",
            "messagesPerSecond",
            "bytesPerSecond",
            "announceMembers",
        ] {
            command.args(["--limit", &format!("{key}=0")]);
        }
        if !flags.history {
            command.args(["--history", "*=off", "--direct-history", "off"]);
        }
        let mut running = Running::start(command, loopback(port), &self.work)?.listens()?;
        // before it knows whom the fleet lets in no more it lets nobody in
        running.until("it is ready", || http::ask(admin, "GET", "/readyz", "").is_ok())?;
        Ok(Gateway { running, api, admin })
    }

    /// Starts Socket.IO as one of several that share a Redis: the process, and where a back end publishes.
    pub(crate) fn socket_io(&self, redis: &str) -> Result<(Running, SocketAddr)> {
        let (port, api) = (free_port()?, free_port()?);
        let mut command = Command::new("node");
        command
            .arg(self.peers.join("socketio-redis.js"))
            .arg(port.to_string())
            .arg(self.secret())
            .args([redis, &api.to_string()]);
        let running = Running::start(command, loopback(port), &self.work)?.listens()?;
        Ok((running, loopback(api)))
    }
}

/// What differs between the gateways of the benchmarks.
#[derive(Debug)]
pub(crate) struct Flags<'a> {
    /// Its name in messages; the floor's has as many bytes.
    pub(crate) server_id: &'a str,
    pub(crate) broker: &'a str,
    /// Seconds over which it spreads its closes.
    pub(crate) drain_window: u32,
    /// Upgrades per second; 0: any.
    pub(crate) handshakes: u32,
    /// Whether messages are kept, as they are by default.
    pub(crate) history: bool,
}

impl Default for Flags<'_> {
    fn default() -> Self {
        Self {
            server_id: "vm",
            broker: "memory",
            drain_window: 60,
            handshakes: 0,
            history: true,
        }
    }
}

/// A gateway, and where it is steered.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) running: Running,
    /// Where back ends publish.
    pub(crate) api: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    /// What Prometheus would see now.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(http::ask(self.admin, "GET", "/metrics", "")?))
    }

    /// Asks for a drain, or for its end.
    pub(crate) fn drain(&self, request: &serde_json::Value) -> Result<()> {
        http::ask(self.admin, "PUT", "/admin/v1/drain", &request.to_string())?;
        Ok(())
    }
}

/// All series of a gateway at one time.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of a metric's series that have this label.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            let asked = labels.starts_with('{') && labels.contains(label);
            asked.then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_series_of_a_metric_those_with_the_label_are_added_up() {
        let metrics = Metrics(
            "# TYPE a counter\na{code=\"1\",by=\"x\"} 2\na{code=\"2\",by=\"x\"} 3\nab{code=\"1\"} 10\n"
                .to_owned(),
        );
        let sums = ["", "code=\"1\"", "by=\"x\"", "by=\"y\""].map(|label| metrics.sum("a", label) as u32);
        assert_eq!(sums, [5, 2, 5, 0]);
    }
}
