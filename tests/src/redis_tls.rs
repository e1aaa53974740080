//! Redis servers that speak TLS, beside the plain port on which tests ask them.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use redis::FromRedisValue;
use tempfile::TempDir;

use crate::redis::RedisServer;
use crate::sentinel::{DATA, MASTER, follows, watch};
use crate::tls::Certificate;

/// A certificate that all servers of a test show, in files.
#[derive(Debug)]
pub struct Shown {
    certificate: Certificate,
    folder: TempDir,
}

impl Shown {
    /// For this host, a name or an address.
    pub fn by(host: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let certificate = Certificate::of("server", host)?;
        std::fs::write(folder.path().join("tls.crt"), certificate.pem())?;
        std::fs::write(folder.path().join("tls.key"), certificate.key_pem())?;
        Ok(Self { certificate, folder })
    }

    /// Who trusts this trusts the servers.
    pub fn pem(&self) -> Arc<[u8]> {
        Arc::from(self.certificate.pem().as_bytes())
    }

    /// Where it is, with `tls.crt` and `tls.key` in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Settings of a server that speaks TLS on this port, and with other servers.
    pub fn settings(&self, port: u16) -> Vec<String> {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let settings = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", at("tls.crt")),
            ("--tls-key-file", at("tls.key")),
            ("--tls-ca-cert-file", at("tls.crt")),
            ("--tls-auth-clients", "no".to_owned()),
            ("--tls-replication", "yes".to_owned()),
        ];
        settings
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }
}

/// A port that is free now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A server, and its port for TLS.
#[derive(Debug)]
pub struct Secured {
    /// The server.
    pub redis: RedisServer,
    /// Its port for TLS.
    pub port: u16,
}

impl Secured {
    /// Starts one that shows this, with more settings.
    pub async fn start(shown: &Shown, more: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let settings = shown.settings(port);
        let own: Vec<_> = settings.iter().map(String::as_str).collect();
        let redis = RedisServer::start_with(&[&own[..], more].concat()).await?;
        Ok(Self { redis, port })
    }

    /// A Sentinel that speaks TLS and watches this server by TLS.
    pub async fn sentinel(&self, shown: &Shown) -> Result<Self> {
        let port = free_port()?;
        let settings = shown.settings(port);
        let own = settings.iter().map(String::as_str);
        let own: Vec<_> = own.chain(["--sentinel"]).collect();
        let mut redis = RedisServer::reserve_with_file(&watch(MASTER, self.port, 1), &own)?;
        redis.restart().await?;
        Ok(Self { redis, port })
    }

    /// A master and a replica of it, which speak TLS with each other, too.
    pub async fn pair(shown: &Shown) -> Result<[Self; 2]> {
        let master = Self::start(shown, &DATA).await?;
        let port = master.port.to_string();
        let replica = [&DATA[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let replica = Self::start(shown, &replica).await?;
        follows(&replica.redis, master.port).await?;
        Ok([master, replica])
    }

    /// How many connections of gateways there are at the port for TLS, and at the other.
    pub async fn gateway_connections(&self) -> Result<(usize, usize)> {
        connections(&self.redis, self.port).await
    }

    /// Asks the server something.
    pub async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let mut cmd = redis::Cmd::new();
        cmd.arg(command);
        let mut connection = self.redis.connection().await?;
        cmd.query_async(&mut connection)
            .await
            .with_context(|| format!("{command:?}"))
    }
}

/// How many connections of gateways a server has at this port, and at others.
pub async fn connections(server: &RedisServer, port: u16) -> Result<(usize, usize)> {
    let list: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(&mut server.connection().await?)
        .await?;
    let local = format!(" laddr=127.0.0.1:{port} ");
    let gateways = list.lines().filter(|line| line.contains(" name=wsfleet-"));
    let (there, elsewhere): (Vec<_>, Vec<_>) = gateways.partition(|line| line.contains(&local));
    Ok((there.len(), elsewhere.len()))
}
