//! The servers: how each is started, and what the kernel says about its process.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use rand::Rng as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde::{Deserialize, Serialize};

use crate::adapter::Protocol;

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(20);
/// Where servers listen: below the ports that outgoing connections use.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Descriptors for what is not one of the clients' sockets.
const SPARE: u64 = 200;

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
    /// Seconds over which the gateway spreads its closes.
    pub(crate) drain_window: u32,
}

impl Site {
    /// The file with the tokens' secret.
    pub(crate) fn secret(&self) -> PathBuf {
        self.work.join("secret")
    }

    fn command(&self, server: Server, port: u16) -> Result<Command> {
        let program = |name: &str| Command::new(self.programs.join(name));
        let mut command = match server {
            Server::Floor => program("wsfleet-bench-floor"),
            Server::Axum => program("wsfleet-bench-axum"),
            Server::Gateway => return self.gateway(program("wsfleet-gateway"), port),
            Server::Ws | Server::SocketIo => {
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
        Ok(command)
    }

    /// Limits that a benchmark from one address would run into are off, and so are announcements, which no other server makes.
    fn gateway(&self, mut command: Command, port: u16) -> Result<Command> {
        command
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--api-listen", &format!("127.0.0.1:{}", free_port()?)])
            .args(["--admin-listen", &format!("127.0.0.1:{}", free_port()?)])
            .args([
                "--broker",
                "memory",
                "--auth",
                "jwt",
                "--max-connections",
                "19500",
            ])
            .arg("--jwt-secret-file")
            .arg(self.secret())
            .args(["--server-id", "vm"])
            .args(["--drain-window", &self.drain_window.to_string()]);
        for key in [
            "connectionsPerIp",
            "handshakesPerSecondPerIp",
            "handshakesPerSecond",
            "messagesPerSecond",
            "bytesPerSecond",
            "announceMembers",
        ] {
            command.args(["--limit", &format!("{key}=0")]);
        }
        Ok(command)
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn start(&self, server: Server) -> Result<Running> {
        let port = free_port()?;
        let log = self.work.join("server.log");
        let output = File::create(&log)?;
        let child = self
            .command(server, port)?
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} can't be started", server.name()))?;
        let mut running = Running {
            child,
            log,
            address: ([127, 0, 0, 1], port).into(),
        };
        let began = Instant::now();
        while TcpStream::connect(running.address).is_err() {
            ensure!(began.elapsed() < START, "it does not listen: {}", running.said());
            if let Some(status) = running.child.try_wait()? {
                bail!("it ended with {status}: {}", running.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }
}

/// A server's process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written last.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("it has ended")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// CPU time of all its threads so far, in the kernel and outside (proc_pid_stat(5)).
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        cpu_ticks(&stat)
            .map(|ticks| {
                Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
            })
            .context("/proc/PID/stat can't be read")
    }

    pub(crate) fn terminate(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("the server has ended already")
    }

    /// Its status, once it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // fails when it has ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `utime` and `stime`: the 12th and 13th field after the name, which may itself have blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = rand::rng().random_range(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

/// Lets this process, and the servers that it starts, open as many descriptors as the system allows.
pub(crate) fn raise_descriptors(sockets: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )?;
    let needed = sockets as u64 + SPARE;
    ensure!(
        limit.is_none_or(|limit| limit >= needed),
        "{sockets} sockets need {needed} descriptors, and this machine allows {limit:?} (ulimit -Hn): see --sockets"
    );
    Ok(())
}

/// Whether `path` is there, or what to do about it.
pub(crate) fn require(path: &Path, hint: &str) -> Result<()> {
    ensure!(path.exists(), "{} is not there: {hint}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_whatever_the_program_is_called() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
    }
}
