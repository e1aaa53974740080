//! Clients' events in their stream, and the example workers (`examples/worker`) as child processes that handle them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::gateway::Fleet;
use crate::redis::RedisServer;
use crate::wait::SOON;

/// The default of `--event-stream`.
pub const STREAM: &str = "wsfleet:events";
/// What it is called in NATS.
pub const NATS_STREAM: &str = "wsfleet-events";
/// Where the example puts aside what fails.
pub const DEAD: &str = "{wsfleet:events}:dead";
/// The example's default of `--group`.
pub const GROUP: &str = "workers";

/// An entry's id and fields.
pub type Entry = (String, BTreeMap<String, String>);

/// All entries of a stream, in order.
pub async fn entries(redis: &RedisServer, stream: &str) -> Result<Vec<Entry>> {
    let mut redis = redis.connection().await?;
    let mut ask = redis::cmd("XRANGE");
    Ok(ask.arg(&[stream, "-", "+"]).query_async(&mut redis).await?)
}

/// The fields of all events that a fleet has appended to its stream of this name (Redis) or its default one (NATS), in order.
pub async fn appended(fleet: &Fleet, stream: &str) -> Result<Vec<BTreeMap<String, String>>> {
    if let Some(redis) = &fleet.redis {
        let entries = entries(redis, stream).await?;
        return Ok(entries.into_iter().map(|(_, fields)| fields).collect());
    }
    let nats = fleet.nats.as_ref().context("a fleet on Redis or NATS")?;
    let stored = nats.stored(NATS_STREAM).await?;
    let fields = stored.iter().map(|body| {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body)?;
        let text = |name: &str, value: &RawValue| match serde_json::from_str(value.get()) {
            Ok(Value::String(text)) if name != "payload" => text,
            _ => value.get().to_owned(),
        };
        Ok(fields
            .iter()
            .map(|(name, value)| (name.clone(), text(name, value)))
            .collect())
    });
    fields.collect()
}

/// Sends an event, and gives its `ack` or `error`.
pub async fn send_event(client: &mut Client, name: &str, payload: Value, more: Value) -> Result<Value> {
    let mut message = json!({"type": "event", "name": name, "payload": payload, "id": name});
    for (field, value) in more.as_object().into_iter().flatten() {
        message[field] = value.clone();
    }
    client.send(message).await?;
    client.expect_any(&["ack", "error"]).await
}

/// How many events are begun and not acknowledged, by consumer; nobody is one before the first worker came.
pub async fn pending(redis: &mut MultiplexedConnection) -> Result<BTreeMap<String, usize>> {
    let mut ask = redis::cmd("XINFO");
    let consumers: RedisResult<Vec<BTreeMap<String, redis::Value>>> =
        ask.arg(&["CONSUMERS", STREAM, GROUP]).query_async(redis).await;
    let consumers = match consumers {
        Err(error) if matches!(error.code(), Some("NOGROUP" | "ERR")) => Vec::new(),
        consumers => consumers?,
    };
    let each = consumers.into_iter().map(|mut consumer| {
        let mut field = |name| consumer.remove(name).context("a field of XINFO CONSUMERS");
        let name: String = redis::from_redis_value(field("name")?)?;
        anyhow::Ok((name, redis::from_redis_value(field("pending")?)?))
    });
    each.collect()
}

/// A running worker. Dropping it kills it.
#[derive(Debug)]
pub struct Worker {
    /// Its name in the group.
    pub name: String,
    child: Child,
    directory: TempDir,
}

impl Worker {
    /// Starts one that answers through this server API, and does not wait.
    pub fn start(name: &str, redis: &str, api: SocketAddr, flags: &[&str]) -> Result<Self> {
        let own = ["--name", name, "--redis", redis];
        Self::run("worker.py", name, api, &[&own, flags].concat())
    }

    /// Starts one of a fleet on NATS, and does not wait.
    pub fn on_nats(name: &str, nats: &str, api: SocketAddr, flags: &[&str]) -> Result<Self> {
        Self::run("nats_worker.py", name, api, &[&["--nats", nats], flags].concat())
    }

    fn run(program: &str, name: &str, api: SocketAddr, flags: &[&str]) -> Result<Self> {
        let directory = TempDir::new()?;
        let log = std::fs::File::create(directory.path().join("log"))?;
        let child = Command::new(python()?)
            .arg(repository().join("examples/worker").join(program))
            .args(["--api", &format!("http://{api}")])
            .args(flags)
            // nothing is written beside the sources
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            directory,
        })
    }

    /// What it wrote so far.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.path().join("log"))?)
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
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the worker does not end: {}",
                self.log()?
            );
            sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // nobody is left to tell
        let _ = self.kill();
    }
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The Python that has what the worker needs; installed once.
fn python() -> Result<&'static PathBuf> {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    if let Some(python) = PYTHON.get() {
        return Ok(python);
    }
    let output = Command::new(repository().join("tests/python.sh"))
        .arg("examples/worker")
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "the worker's Python: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let folder = String::from_utf8(output.stdout)?;
    Ok(PYTHON.get_or_init(|| Path::new(folder.trim_end()).join("python")))
}
