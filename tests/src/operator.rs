//! The operator as a process of this machine, for tests that watch it, stop it and kill it.
//!
//! The program is built once per test binary. It serves one namespace, has its Lease
//! there too, and is killed when its handle is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::cluster::{Namespace, until};
use crate::program::program;
use crate::wait::SOON;

/// Name of the Lease of the operators that are started here.
pub const LEASE: &str = "wsfleet-operator";

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    log: NamedTempFile,
    address: SocketAddr,
}

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct Settings {
    namespace: String,
    identity: String,
    lease: String,
    kubeconfig: PathBuf,
    gateway_image: String,
}

impl Settings {
    /// For one namespace, with that identity.
    pub fn of(namespace: &Namespace, identity: &str) -> Self {
        Self {
            namespace: namespace.name().to_owned(),
            identity: identity.to_owned(),
            lease: LEASE.to_owned(),
            kubeconfig: namespace.cluster().kubeconfig(),
            gateway_image: namespace.cluster().image("pause:1"),
        }
    }

    /// With a Lease of that name: operators with different Leases do not know of each other.
    #[must_use]
    pub fn lease(self, name: &str) -> Self {
        let lease = name.to_owned();
        Self { lease, ..self }
    }

    /// By way of a kubeconfig that may lead to a proxy.
    #[must_use]
    pub fn kubeconfig(self, path: &Path) -> Self {
        let kubeconfig = path.to_owned();
        Self { kubeconfig, ..self }
    }

    /// With that image for gateways whose resource names none.
    #[must_use]
    pub fn gateway_image(self, image: String) -> Self {
        Self {
            gateway_image: image,
            ..self
        }
    }

    fn flags(&self) -> [&str; 16] {
        [
            "--namespace",
            &self.namespace,
            "--watch-namespaces",
            &self.namespace,
            "--lease-name",
            &self.lease,
            "--identity",
            &self.identity,
            "--gateway-image",
            &self.gateway_image,
            "--metrics-listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--log-filter",
            "info,wsfleet_operator=debug",
        ]
    }
}

impl Operator {
    /// Starts an operator for one namespace, with that identity, and waits until it serves its metrics.
    pub async fn start(namespace: &Namespace, identity: &str) -> Result<Self> {
        Self::start_as(Settings::of(namespace, identity)).await
    }

    /// As [`Operator::start`], with settings.
    pub async fn start_as(settings: Settings) -> Result<Self> {
        let program = tokio::task::spawn_blocking(|| program("wsfleet-operator")).await??;
        let log = NamedTempFile::new()?;
        let child = Command::new(program)
            .args(settings.flags())
            .env("KUBECONFIG", &settings.kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen()?)
            .spawn()?;
        let mut operator = Self {
            child,
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        operator.address = until("the operator serves its metrics", SOON, async || {
            operator.listens()
        })
        .await?;
        Ok(operator)
    }

    /// Everything that it logged, for the message of a failed test.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// The sum of the samples of a metric whose labels contain all of `labels` (`verb="create"`); 0 if there are none.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = self.get("/metrics").await?;
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        samples
            .map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?))
            .sum()
    }

    /// Whether it leads.
    pub async fn leads(&self) -> Result<bool> {
        Ok(self.metric("wsc_leader", &[]).await? > 0.5)
    }

    /// Waits until it is ready and leads.
    pub async fn until_leading(&self, within: Duration) -> Result<()> {
        let leading = until("the operator leads", within, async || {
            self.get("/readyz").await?;
            ensure!(self.leads().await?, "it does not lead");
            anyhow::Ok(())
        });
        leading
            .await
            .map_err(|missed| anyhow!("{missed}\n--- its log\n{}", self.log()))
    }

    /// Body of a successful GET.
    pub async fn get(&self, path: &str) -> Result<String> {
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client
            .get(format!("http://{}{path}", self.address).parse()?)
            .await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(body)
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGKILL: as when its node loses power.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until the process has ended.
    pub async fn terminate(mut self) -> Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process")?;
        kill_process(pid, Signal::TERM)?;
        let child = Mutex::new(&mut self.child);
        let ended = until("the operator ends", SOON, async || {
            child.lock().try_wait()?.ok_or_else(|| anyhow!("it runs"))
        });
        Ok(ended.await?)
    }

    fn listens(&self) -> Result<SocketAddr> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("metrics and health"));
        let line = line.ok_or_else(|| anyhow!("not yet; its log: {log}"))?;
        let entry: Value = serde_json::from_str(line)?;
        Ok(entry["address"]
            .as_str()
            .context("no address in its log")?
            .parse()?)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
