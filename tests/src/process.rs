//! The gateway's real binary as a child process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::http::Ask;
use crate::program::program;
use crate::wait::{SOON, until_async};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// The three ports of a gateway.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Clients.
    pub clients: SocketAddr,
    /// Server API.
    pub api: SocketAddr,
    /// Drain, state, metrics, health.
    pub admin: SocketAddr,
}

impl Ports {
    /// Three ports that are free now.
    pub fn free() -> Result<Self> {
        // held together, so that they differ
        let reserve = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let held = [reserve()?, reserve()?, reserve()?];
        let at = |listener: &TcpListener| listener.local_addr();
        Ok(Self {
            clients: at(&held[0])?,
            api: at(&held[1])?,
            admin: at(&held[2])?,
        })
    }

    /// As flags.
    pub fn flags(&self) -> Vec<String> {
        [
            ("--listen", self.clients),
            ("--api-listen", self.api),
            ("--admin-listen", self.admin),
        ]
        .into_iter()
        .flat_map(|(flag, address)| [flag.to_owned(), address.to_string()])
        .collect()
    }
}

/// A child process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens.
    pub ports: Ports,
    directory: TempDir,
}

impl Process {
    /// Starts a gateway on free ports, and waits until it serves its health.
    pub async fn start(flags: &[&str]) -> Result<Self> {
        let mut process = Self::spawn(Ports::free()?, flags)?;
        let deadline = Instant::now() + SOON;
        while Ask::get("/healthz").send(process.ports.clients).await.is_err() {
            if let Some(status) = process.child.try_wait()? {
                let log = process.log()?;
                ensure!(log.contains("in use"), "the gateway ended with {status}: {log}");
                // between finding a free port and taking it somebody else has taken it
                process = Self::spawn(Ports::free()?, flags)?;
            }
            ensure!(
                Instant::now() < deadline,
                "the gateway does not serve: {}",
                process.log()?
            );
            sleep(LOOK).await;
        }
        Ok(process)
    }

    /// Awaits that it relies on its broker: until then clients are told to come back.
    pub async fn ready(&self) -> Result<()> {
        until_async("the gateway relies on its broker", || async {
            Ok(Ask::get("/readyz").send(self.ports.admin).await?.body.trim() == "ok")
        })
        .await
    }

    /// Starts a gateway, and does not wait.
    pub fn spawn(ports: Ports, flags: &[&str]) -> Result<Self> {
        let directory = TempDir::new()?;
        let log = std::fs::File::create(directory.path().join("log"))?;
        let child = Command::new(program("wsfleet-gateway")?)
            .args(ports.flags())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self {
            child,
            ports,
            directory,
        })
    }

    /// What it wrote so far.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.path().join("log"))?)
    }

    /// Most bytes of memory that it ever had (`VmHWM`, proc(5)).
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("no VmHWM")?;
        Ok(kib.parse::<u64>()? << 10)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    pub async fn ended_within(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the gateway does not end: {}",
                self.log()?
            );
            sleep(LOOK).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nobody is left to tell
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
