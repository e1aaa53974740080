//! A real Redis master, a replica of it, and the Sentinels that watch both.

use std::collections::HashMap;

use anyhow::{Context, Result};
use redis::Value;

use crate::redis::RedisServer;
use crate::wait::until_async;

/// What the Sentinels call the master.
pub const MASTER: &str = "fleet";

/// Settings of servers that may change their roles; replicas are filled without the usual delay of five seconds.
pub const DATA: [&str; 6] = [
    "--save",
    "",
    "--appendonly",
    "no",
    "--repl-diskless-sync-delay",
    "0",
];

/// Sentinels, and the two servers that they watch.
#[derive(Debug)]
pub struct Watched {
    /// The first was the master at the beginning, the second its replica.
    pub servers: [RedisServer; 2],
    /// All of them watch.
    pub sentinels: Vec<RedisServer>,
}

impl Watched {
    /// Starts all; they know of each other, and the replica has what the master has.
    pub async fn start(sentinels: usize) -> Result<Self> {
        Self::start_with(sentinels, &[]).await
    }

    /// As [`Watched::start`], with more settings of the two servers.
    pub async fn start_with(sentinels: usize, more: &[&str]) -> Result<Self> {
        let [master, replica] = pair_with(more).await?;
        let mut started = Vec::new();
        for _ in 0..sentinels {
            started.push(sentinel(MASTER, master.port(), sentinels / 2 + 1).await?);
        }
        let watched = Self {
            servers: [master, replica],
            sentinels: started,
        };
        for sentinel in &watched.sentinels {
            until_async("the Sentinels and the replica are known", || {
                knows(sentinel, sentinels - 1)
            })
            .await?;
        }
        Ok(watched)
    }

    /// The gateways' `--broker`.
    pub fn url(&self) -> String {
        url(&self.sentinels.iter().collect::<Vec<_>>())
    }

    /// Has the Sentinels move the master to the replica at once.
    pub async fn fail_over(&self) -> Result<()> {
        // refused until the Sentinel knows how far the replica is
        until_async("the Sentinel begins", || async {
            let _: Value = redis::cmd("SENTINEL")
                .arg("FAILOVER")
                .arg(MASTER)
                .query_async(&mut self.sentinels[0].connection().await?)
                .await?;
            Ok(true)
        })
        .await
    }

    /// The first Sentinel is told that this server is the master.
    pub async fn name(&self, master: &RedisServer) -> Result<()> {
        let port = master.port().to_string();
        let _: Vec<Value> = redis::pipe()
            .cmd("SENTINEL")
            .arg(&["REMOVE", MASTER])
            .cmd("SENTINEL")
            .arg(&["MONITOR", MASTER, "127.0.0.1", &port, "1"])
            .query_async(&mut self.sentinels[0].connection().await?)
            .await?;
        Ok(())
    }

    /// Awaits that the server that was the replica is the master, and every Sentinel says so: until then one may name the
    /// old one, which has nothing when it is started again.
    pub async fn failed_over(&self) -> Result<()> {
        let port = self.servers[1].port();
        until_async("the replica is the master", || async {
            let mut all = role(&self.servers[1]).await?.0 == "master";
            for sentinel in &self.sentinels {
                let (_, named): (String, u16) = redis::cmd("SENTINEL")
                    .arg("GET-MASTER-ADDR-BY-NAME")
                    .arg(MASTER)
                    .query_async(&mut sentinel.connection().await?)
                    .await?;
                all &= named == port;
            }
            Ok(all)
        })
        .await
    }

    /// Awaits that the second server follows the first and has all that it has.
    pub async fn in_step(&self) -> Result<()> {
        until_async("the replica has everything", || async {
            // WAIT is about what this connection wrote, and so about all that was written before
            let (replicas,): (i64,) = redis::pipe()
                .cmd("SET")
                .arg(&["test:in-step", "1"])
                .ignore()
                .cmd("WAIT")
                .arg(&[1, 1_000])
                .query_async(&mut self.servers[0].connection().await?)
                .await?;
            Ok(replicas == 1)
        })
        .await
    }
}

/// A master, and a replica that has what it has.
pub async fn pair() -> Result<[RedisServer; 2]> {
    pair_with(&[]).await
}

async fn pair_with(more: &[&str]) -> Result<[RedisServer; 2]> {
    let settings = [&DATA[..], more].concat();
    let master = RedisServer::start_with(&settings).await?;
    let port = master.port().to_string();
    let replica = [&settings[..], &["--replicaof", "127.0.0.1", &port]].concat();
    let replica = RedisServer::start_with(&replica).await?;
    follows(&replica, master.port()).await?;
    Ok([master, replica])
}

/// The URL of these Sentinels.
pub fn url(sentinels: &[&RedisServer]) -> String {
    let addresses: Vec<_> = sentinels
        .iter()
        .map(|sentinel| format!("127.0.0.1:{}", sentinel.port()))
        .collect();
    format!("redis-sentinel://{}/{MASTER}", addresses.join(","))
}

/// A Sentinel that watches the master at this port, and takes it for lost soon, but not for every pause of a busy machine.
pub async fn sentinel(name: &str, port: u16, quorum: usize) -> Result<RedisServer> {
    let mut sentinel = RedisServer::reserve_with_file(&watch(name, port, quorum), &["--sentinel"])?;
    sentinel.restart().await?;
    Ok(sentinel)
}

/// The settings of such a Sentinel.
pub fn watch(name: &str, port: u16, quorum: usize) -> String {
    format!(
        "sentinel monitor {name} 127.0.0.1 {port} {quorum}\n\
         sentinel down-after-milliseconds {name} 2000\n\
         sentinel failover-timeout {name} 10000\n"
    )
}

/// Awaits that a server follows the one at this port, and has what it has.
pub async fn follows(replica: &RedisServer, port: u16) -> Result<()> {
    until_async("the replica follows its master", || async {
        let (role, master) = role(replica).await?;
        Ok(role == "slave" && master == Some((i64::from(port), "connected".to_owned())))
    })
    .await
}

/// A server's role, and of a replica the port of its master and how it stands to it.
async fn role(server: &RedisServer) -> Result<(String, Option<(i64, String)>)> {
    let parts: Vec<Value> = redis::cmd("ROLE")
        .query_async(&mut server.connection().await?)
        .await?;
    let text = |value: &Value| redis::from_redis_value_ref::<String>(value);
    let role = text(parts.first().context("a role")?)?;
    let master = match &parts[..] {
        [_, _, Value::Int(port), state, ..] => Some((*port, text(state)?)),
        _ => None,
    };
    Ok((role, master))
}

async fn knows(sentinel: &RedisServer, others: usize) -> Result<bool> {
    let mut connection = sentinel.connection().await?;
    let mut listed = async |what: &str| -> Result<usize> {
        let list: Vec<HashMap<String, String>> = redis::cmd("SENTINEL")
            .arg(what)
            .arg(MASTER)
            .query_async(&mut connection)
            .await?;
        Ok(list.len())
    };
    Ok(listed("REPLICAS").await? == 1 && listed("SENTINELS").await? == others)
}

/// Makes a server a replica of the one at this port, or with `None` a master, by hand.
pub async fn replica_of(server: &RedisServer, master: Option<u16>) -> Result<()> {
    let (host, port) = match master {
        Some(port) => ("127.0.0.1", port.to_string()),
        None => ("NO", "ONE".to_owned()),
    };
    let _: Value = redis::cmd("REPLICAOF")
        .arg(host)
        .arg(port)
        .query_async(&mut server.connection().await?)
        .await?;
    Ok(())
}
