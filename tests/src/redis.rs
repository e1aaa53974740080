//! A real `redis-server` in a directory of its own, on a port of its own, that can be stopped, killed, frozen, and
//! started again where it was.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::wait::until_async;

/// How long a server may take to start or to end.
const LIMIT: Duration = Duration::from_mins(1);

/// A running (or stopped) server. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    directory: TempDir,
    /// A file with settings, in the directory; the server may write to it.
    settings: Option<PathBuf>,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    pub async fn start() -> Result<Self> {
        Self::start_with(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server that writes every change to disk before it answers, so that nothing is lost by `kill`.
    pub async fn start_durable() -> Result<Self> {
        Self::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// Starts a server with more arguments of `redis-server`.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        // between finding a free port and taking it another process may take it
        let mut last = None;
        for _ in 0..5 {
            let mut server = Self::reserve(arguments)?;
            match server.restart().await {
                Ok(()) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
    }

    /// A server that is not started yet: its port is free for [`RedisServer::restart`].
    pub fn reserve(arguments: &[&str]) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        Ok(Self {
            child: None,
            port,
            directory: TempDir::new()?,
            settings: None,
            arguments,
        })
    }

    /// As [`RedisServer::reserve`], with a file of settings besides.
    pub fn reserve_with_file(settings: &str, arguments: &[&str]) -> Result<Self> {
        let mut server = Self::reserve(arguments)?;
        let path = server.directory.path().join("redis.conf");
        std::fs::write(&path, settings)?;
        server.settings = Some(path);
        Ok(server)
    }

    /// The port that it listens on, or would.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `redis://` URL without credentials.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it (again) on its port, and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let log = std::fs::File::create(self.directory.path().join("redis.log"))?;
        let child = Command::new("redis-server")
            .args(&self.settings)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("redis-server cannot be started: install it (Debian: apt-get install redis-server)")?;
        self.child = Some(child);
        let deadline = Instant::now() + LIMIT;
        while !self.answers().await {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                let log = std::fs::read_to_string(self.directory.path().join("redis.log"))?;
                self.child = None;
                bail!("redis-server ended with {status}: {log}");
            }
            if Instant::now() > deadline {
                bail!("redis-server does not answer on port {}", self.port);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Whether it answers at all; a demand for a password is an answer.
    async fn answers(&self) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ask = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(Duration::from_secs(1), ask).await;
        matches!(answer, Ok(Ok(a)) if a.starts_with(b"+PONG") || a.starts_with(b"-NOAU"))
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.signal(Signal::TERM)?;
        }
        self.reap()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.signal(Signal::KILL)?;
        }
        self.reap()
    }

    /// SIGSTOP: connections stay, nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("redis-server is not running")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    fn reap(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// A connection of the test's own.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(Some(LIMIT))
            .set_connection_timeout(Some(LIMIT));
        let client = Client::open(self.url())?;
        Ok(client
            .get_multiplexed_async_connection_with_config(&settings)
            .await?)
    }

    /// A replica loses this server and cannot come back to it: of what is written from here on it has nothing.
    pub async fn lose_replica(&self, replica: &Self) -> Result<()> {
        let mut asks = replica.connection().await?;
        // a password that its master does not know is an error to that
        redis::cmd("CONFIG")
            .arg(&["SET", "masterauth", "nobody's"])
            .exec_async(&mut asks)
            .await?;
        redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "replica"])
            .exec_async(&mut self.connection().await?)
            .await?;
        until_async("the replica has lost its master", || async {
            let mut asks = replica.connection().await?;
            let info: String = redis::cmd("INFO")
                .arg("replication")
                .query_async(&mut asks)
                .await?;
            Ok(info.contains("master_link_status:down"))
        })
        .await
    }

    /// Names of the connections that gateways have here, in no order (`CLIENT LIST`).
    pub async fn gateway_connections(&self) -> Result<Vec<String>> {
        let list: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut self.connection().await?)
            .await?;
        let names = list
            .lines()
            .filter_map(|line| line.split(' ').find_map(|field| field.strip_prefix("name=")));
        Ok(names
            .filter(|name| name.starts_with("wsfleet-"))
            .map(str::to_owned)
            .collect())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // nobody is left to tell
        let _ = self.kill();
    }
}
