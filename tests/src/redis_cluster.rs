//! A real Redis Cluster: three primaries, each with a replica, put together by commands, whose slots can be moved.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::{Cmd, FromRedisValue};

use crate::redis::RedisServer;
use crate::redis_tls::{Shown, free_port};
use crate::wait::until_async;

/// Primaries; as many replicas follow.
pub const PRIMARIES: usize = 3;
/// All nodes.
pub const NODES: usize = 2 * PRIMARIES;
/// For tests in which no node fails: a pause of a busy machine is no failure.
pub const PATIENT: Duration = Duration::from_secs(15);

const SLOTS: usize = 16_384;

/// A running cluster. Dropping it ends all nodes.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    /// Ports for TLS, when the nodes speak it.
    tls: Vec<u16>,
}

/// One line of `CLUSTER NODES`.
#[derive(Debug)]
struct Line {
    id: String,
    port: u16,
    flags: String,
    slots: Vec<(usize, usize)>,
}

impl RedisCluster {
    /// Starts one whose nodes count as failed after `timeout` of silence.
    pub async fn start(timeout: Duration) -> Result<Self> {
        Self::start_as(timeout, None, &[]).await
    }

    /// As [`RedisCluster::start`], with more settings of all nodes.
    pub async fn start_with(timeout: Duration, more: &[&str]) -> Result<Self> {
        Self::start_as(timeout, None, more).await
    }

    /// One whose nodes speak TLS with gateways and with each other, and go by the name `localhost`.
    pub async fn start_secured(timeout: Duration, shown: &Shown) -> Result<Self> {
        Self::start_as(timeout, Some(shown), &[]).await
    }

    async fn start_as(timeout: Duration, shown: Option<&Shown>, settings: &[&str]) -> Result<Self> {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        let mut tls = Vec::new();
        for _ in 0..NODES {
            let mut more: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
            if let Some(shown) = shown {
                let port = free_port()?;
                tls.push(port);
                more.extend(shown.settings(port));
                more.extend(
                    ["--tls-cluster", "yes", "--cluster-announce-hostname", "localhost"].map(str::to_owned),
                );
            }
            let (node, bus) = start_node(timeout, &more).await?;
            nodes.push(node);
            buses.push(bus);
        }
        let cluster = Self { nodes, tls };
        for (node, bus) in buses.into_iter().enumerate() {
            let epoch = (node + 1).to_string();
            cluster
                .ask::<()>(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await?;
            let (port, bus) = (cluster.nodes[node].port().to_string(), bus.to_string());
            cluster
                .ask::<()>(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
                .await?;
        }
        for primary in 0..PRIMARIES {
            let (first, last) = (SLOTS * primary / PRIMARIES, SLOTS * (primary + 1) / PRIMARIES - 1);
            let range = [first.to_string(), last.to_string()];
            cluster
                .ask::<()>(primary, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]])
                .await?;
        }
        cluster
            .until_all_know(|lines| lines.len() == NODES && whole(lines))
            .await?;
        for primary in 0..PRIMARIES {
            let id = cluster.id(primary).await?;
            cluster
                .ask::<()>(PRIMARIES + primary, &["CLUSTER", "REPLICATE", &id])
                .await?;
        }
        let replicas = |lines: &[Line]| lines.iter().filter(|line| line.flags.contains("slave")).count();
        cluster
            .until_all_know(|lines| replicas(lines) == PRIMARIES)
            .await?;
        cluster.until_replicated().await?;
        Ok(cluster)
    }

    /// For gateways: two of the nodes as seeds, the first a replica.
    pub fn url(&self) -> String {
        let (replica, primary) = (self.nodes[NODES - 1].port(), self.nodes[0].port());
        format!("redis-cluster://127.0.0.1:{replica},127.0.0.1:{primary}")
    }

    /// As [`RedisCluster::url`], with TLS.
    pub fn tls_url(&self) -> String {
        let (replica, primary) = (self.tls[NODES - 1], self.tls[0]);
        format!("rediss-cluster://localhost:{replica},localhost:{primary}")
    }

    /// A node's port for TLS.
    pub fn tls_port(&self, number: usize) -> u16 {
        self.tls[number]
    }

    /// A node; the first ones were the primaries at the beginning.
    pub fn node(&self, number: usize) -> &RedisServer {
        &self.nodes[number]
    }

    /// A node, to be killed or started again.
    pub fn node_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.nodes[number]
    }

    /// Asks a node something.
    pub async fn ask<T: FromRedisValue>(&self, node: usize, command: &[&str]) -> Result<T> {
        let mut cmd = Cmd::new();
        cmd.arg(command);
        let mut connection = self.nodes[node].connection().await?;
        cmd.query_async(&mut connection)
            .await
            .with_context(|| format!("{command:?} on node {node}"))
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> Result<usize> {
        self.ask(NODES - 1, &["CLUSTER", "KEYSLOT", key]).await
    }

    /// The node that has a slot, as node `asked` knows it.
    pub async fn owner(&self, asked: usize, slot: usize) -> Result<usize> {
        let lines = self.lines(asked).await?;
        let has = |line: &&Line| {
            line.slots
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&slot))
        };
        let port = lines.iter().find(has).context("nobody has the slot")?.port;
        let node = self.nodes.iter().position(|node| node.port() == port);
        node.context("a node of the cluster")
    }

    /// Awaits that the nodes that were primaries at the beginning, but for this one, know that a slot has another owner.
    pub async fn until_owner(&self, slot: usize, owner: usize) -> Result<()> {
        for asked in 1..PRIMARIES {
            until_async("the slot has another owner", || async move {
                Ok(self.owner(asked, slot).await? == owner)
            })
            .await?;
        }
        Ok(())
    }

    /// Moves a slot with its keys to another node, as `redis-cli --cluster reshard` does it.
    pub async fn move_slot(&self, slot: usize, to: usize) -> Result<()> {
        let from = self.begin_move(slot, to).await?;
        self.ask::<()>(
            to,
            &[
                "CLUSTER",
                "SETSLOT",
                &slot.to_string(),
                "NODE",
                &self.id(to).await?,
            ],
        )
        .await?;
        self.end_move(slot, from, to).await
    }

    /// The first part of [`RedisCluster::move_slot`]: the keys are at the other node, and the slot is not yet. Gives the node
    /// that has it.
    pub async fn begin_move(&self, slot: usize, to: usize) -> Result<usize> {
        let from = self.owner(to, slot).await?;
        ensure!(from != to, "it is there");
        let (source, target, number) = (self.id(from).await?, self.id(to).await?, slot.to_string());
        self.ask::<()>(to, &["CLUSTER", "SETSLOT", &number, "IMPORTING", &source])
            .await?;
        self.ask::<()>(from, &["CLUSTER", "SETSLOT", &number, "MIGRATING", &target])
            .await?;
        let port = self.nodes[to].port().to_string();
        loop {
            let keys: Vec<String> = self
                .ask(from, &["CLUSTER", "GETKEYSINSLOT", &number, "10"])
                .await?;
            if keys.is_empty() {
                break;
            }
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "60000", "KEYS"];
            command.extend(keys.iter().map(String::as_str));
            self.ask::<()>(from, &command).await?;
        }
        Ok(from)
    }

    /// The last part: the node that had the slot is told that it is the other one's, which knows.
    pub async fn end_move(&self, slot: usize, from: usize, to: usize) -> Result<()> {
        let target = self.id(to).await?;
        self.ask(from, &["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &target])
            .await
    }

    /// How many connections of gateways each node has, by name; nodes that do not run have none.
    pub async fn gateway_connections(&self) -> Result<Vec<BTreeMap<String, usize>>> {
        let mut all = Vec::new();
        for node in &self.nodes {
            let mut names = BTreeMap::new();
            for name in node.gateway_connections().await? {
                *names.entry(name).or_default() += 1;
            }
            all.push(names);
        }
        Ok(all)
    }

    /// Awaits that each replica has what its primary has.
    pub async fn until_replicated(&self) -> Result<()> {
        for replica in PRIMARIES..NODES {
            until_async("a replica follows its primary", || async move {
                let info: String = self.ask(replica, &["INFO", "replication"]).await?;
                Ok(info.contains("master_link_status:up"))
            })
            .await?;
        }
        Ok(())
    }

    async fn until_all_know(&self, known: impl Fn(&[Line]) -> bool) -> Result<()> {
        let known = &known;
        for node in 0..NODES {
            until_async("the nodes know each other", || async move {
                let info: String = self.ask(node, &["CLUSTER", "INFO"]).await?;
                Ok(known(&self.lines(node).await?) && info.contains("cluster_state:ok"))
            })
            .await?;
        }
        Ok(())
    }

    /// What the nodes call a node.
    pub async fn id(&self, node: usize) -> Result<String> {
        let lines = self.lines(node).await?;
        let own = lines.into_iter().find(|line| line.flags.contains("myself"));
        Ok(own.context("a node knows itself")?.id)
    }

    async fn lines(&self, asked: usize) -> Result<Vec<Line>> {
        let text: String = self.ask(asked, &["CLUSTER", "NODES"]).await?;
        text.lines().map(line).collect()
    }
}

fn whole(lines: &[Line]) -> bool {
    let slots = lines.iter().flat_map(|line| &line.slots);
    slots.map(|(first, last)| last - first + 1).sum::<usize>() == SLOTS
}

fn line(text: &str) -> Result<Line> {
    let fields: Vec<&str> = text.split(' ').collect();
    ensure!(fields.len() >= 8, "a line of CLUSTER NODES: {text}");
    let address = fields[1].split('@').next().unwrap_or_default();
    let slots = fields[8..].iter().filter_map(|slots| {
        let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    Ok(Line {
        id: fields[0].to_owned(),
        port: address.rsplit_once(':').context("an address")?.1.parse()?,
        flags: fields[2].to_owned(),
        slots: slots.collect(),
    })
}

/// A node that knows nobody, and the port on which nodes talk to it.
async fn start_node(timeout: Duration, more: &[String]) -> Result<(RedisServer, u16)> {
    let timeout = timeout.as_millis().to_string();
    let mut last = None;
    for _ in 0..5 {
        // between finding a free port and taking it another process may take it
        let bus = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let port = bus.to_string();
        let mut arguments = vec![
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ];
        arguments.extend(["--cluster-enabled", "yes", "--cluster-port", &port]);
        arguments.extend(["--cluster-node-timeout", &timeout]);
        arguments.extend(["--cluster-allow-replica-migration", "no"]);
        arguments.extend(more.iter().map(String::as_str));
        match RedisServer::start_with(&arguments).await {
            Ok(server) => return Ok((server, bus)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no attempt was made")?)
}
