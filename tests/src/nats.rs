//! A real `nats-server` with JetStream in a directory of its own, on a port of its own, that can be killed and started
//! again where it was; and a cluster of three.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::redis_tls::Shown;

/// How long a server may take to start or to end.
const LIMIT: Duration = Duration::from_mins(1);

/// A running (or stopped) server. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    /// Whether it says who it is before it hears anything: not, when TLS is to come first.
    greets: bool,
}

/// Where the program is: `tests/cluster/build.sh` builds it once, outside of the checkout.
fn program() -> Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program.clone());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/build.sh");
    let output = Command::new(script)
        .arg("nats-server")
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{script} nats-server failed");
    let program = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    Ok(PROGRAM.get_or_init(|| program).clone())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl NatsServer {
    /// Starts a server that keeps its streams in files.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments of `nats-server`.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        Self::start_greeting(arguments, true).await
    }

    /// Starts a server that speaks TLS, and shows this: after it has said that it does, or from the first byte on.
    pub async fn start_secured(shown: &Shown, first: bool) -> Result<Self> {
        let at = |name: &str| shown.folder().join(name).display().to_string();
        let settings = format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, handshake_first: {first} }}\n",
            at("tls.crt"),
            at("tls.key"),
        );
        std::fs::write(at("nats.conf"), settings)?;
        Self::start_greeting(&["--config", &at("nats.conf")], !first).await
    }

    async fn start_greeting(arguments: &[&str], greets: bool) -> Result<Self> {
        // between finding a free port and taking it another process may take it
        let mut last = None;
        for _ in 0..5 {
            let mut server = Self::reserve(arguments)?;
            server.greets = greets;
            match server.restart().await {
                Ok(()) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
    }

    fn reserve(arguments: &[&str]) -> Result<Self> {
        Ok(Self {
            child: None,
            port: free_port()?,
            directory: TempDir::new()?,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            greets: true,
        })
    }

    /// Where it listens, or would.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// `nats://` URL without credentials.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Starts it (again) on its port, with the streams that it had, and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait().await
    }

    fn spawn(&mut self) -> Result<()> {
        self.kill()?;
        let log = std::fs::File::create(self.directory.path().join("nats.log"))?;
        let child = Command::new(program()?)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
                "--jetstream",
            ])
            .arg("--store_dir")
            .arg(self.directory.path().join("store"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    async fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !self.answers().await {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                self.child = None;
                bail!("nats-server ended with {status}: {}", self.log()?);
            }
            if Instant::now() > deadline {
                bail!(
                    "nats-server does not answer on port {}: {}",
                    self.port,
                    self.log()?
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.path().join("nats.log"))?)
    }

    async fn answers(&self) -> bool {
        use tokio::io::AsyncReadExt;
        let ask = async {
            let mut stream = tokio::net::TcpStream::connect(self.address()).await?;
            let mut greeting = *b"INFO ";
            if self.greets {
                stream.read_exact(&mut greeting).await?;
            }
            std::io::Result::Ok(greeting)
        };
        let answer = tokio::time::timeout(Duration::from_secs(1), ask).await;
        matches!(answer, Ok(Ok(greeting)) if greeting == *b"INFO ")
    }

    /// How many messages the JetStream stream of this name has.
    pub async fn messages(&self, stream: &str) -> Result<u64> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "").await?;
        info["state"]["messages"]
            .as_u64()
            .with_context(|| info.to_string())
    }

    /// How many subjects like this the JetStream stream of this name has messages of.
    pub async fn subjects(&self, stream: &str, filter: &str) -> Result<usize> {
        Ok(self.subject_names(stream, filter).await?.len())
    }

    /// Which they are.
    pub async fn subject_names(&self, stream: &str, filter: &str) -> Result<Vec<String>> {
        let question = format!("{{\"subjects_filter\":\"{filter}\"}}");
        let info = self
            .ask(&format!("$JS.API.STREAM.INFO.{stream}"), &question)
            .await?;
        let subjects = info["state"]["subjects"].as_object();
        Ok(subjects.map_or_else(Vec::new, |subjects| subjects.keys().cloned().collect()))
    }

    /// Removes all messages of a JetStream stream.
    pub async fn purge(&self, stream: &str) -> Result<()> {
        let answer = self.ask(&format!("$JS.API.STREAM.PURGE.{stream}"), "").await?;
        ensure!(answer["success"] == true, "{answer}");
        Ok(())
    }

    /// What the messages hold that the JetStream stream of this name has, in order.
    pub async fn stored(&self, stream: &str) -> Result<Vec<Vec<u8>>> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "").await?;
        let number = |name: &str| info["state"][name].as_u64().with_context(|| info.to_string());
        let mut stored = Vec::new();
        for sequence in number("first_seq")?.max(1)..=number("last_seq")? {
            let question = format!("{{\"seq\":{sequence}}}");
            let answer = self
                .ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &question)
                .await?;
            let data = answer["message"]["data"]
                .as_str()
                .with_context(|| answer.to_string())?;
            stored.push(BASE64_STANDARD.decode(data)?);
        }
        Ok(stored)
    }

    /// How many messages a durable consumer has given out that were not acknowledged, and how many it has still to give out;
    /// none before somebody has made it.
    pub async fn consumer(&self, stream: &str, name: &str) -> Result<(u64, u64)> {
        let info = self
            .ask(&format!("$JS.API.CONSUMER.INFO.{stream}.{name}"), "")
            .await?;
        let number = |name: &str| info[name].as_u64().unwrap_or_default();
        Ok((number("num_ack_pending"), number("num_pending")))
    }

    /// Asks something that is answered with JSON.
    async fn ask(&self, subject: &str, payload: &str) -> Result<Value> {
        use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
        let mut stream = BufReader::new(tokio::net::TcpStream::connect(self.address()).await?);
        let question = format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{payload}\r\n",
            payload.len()
        );
        stream.write_all(question.as_bytes()).await?;
        let mut line = String::new();
        while !line.starts_with("MSG ") {
            line.clear();
            ensure!(
                stream.read_line(&mut line).await? > 0,
                "nats-server closed the connection"
            );
        }
        let length = line.split_whitespace().next_back().context("a length")?.parse()?;
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Removes its streams, while it is stopped.
    pub fn forget(&self) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.directory.path().join("store"))?)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // nobody is left to tell
        let _ = self.kill();
    }
}

/// Three servers that are one.
#[derive(Debug)]
pub struct NatsCluster {
    /// The servers.
    pub servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts them.
    pub async fn start() -> Result<Self> {
        let routes =
            [free_port()?, free_port()?, free_port()?].map(|port| format!("nats://127.0.0.1:{port}"));
        let all = routes.join(",");
        let mut servers = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let name = format!("n{number}");
            let arguments = [
                "--name",
                &name,
                "--cluster_name",
                "tests",
                "--cluster",
                route,
                "--routes",
                &all,
            ];
            servers.push(NatsServer::reserve(&arguments)?);
        }
        for server in &mut servers {
            server.spawn()?;
        }
        for server in &mut servers {
            server.wait().await?;
        }
        Ok(Self { servers })
    }

    /// URL of all of them, each of which has every message.
    pub fn url(&self) -> String {
        let all: Vec<_> = self
            .servers
            .iter()
            .map(|server| server.address().to_string())
            .collect();
        format!("nats://{}?replicas=3", all.join(","))
    }
}
