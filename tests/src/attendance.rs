//! Who is in rooms, told by brokers on a Redis or a NATS of their own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use wsfleet_gateway::broker::PresenceSettings;
use wsfleet_gateway::broker::nats::{NatsBroker, NatsConfig};
use wsfleet_gateway::broker::redis::{RedisBroker, Timing};
use wsfleet_gateway::config::Histories;

use crate::broker::{Counted, Node};
use crate::nats::NatsServer;
use crate::redis::RedisServer;
use crate::wait::until_async;

/// What keeps who is in rooms.
#[expect(async_fn_in_trait, reason = "tests await it where they are")]
pub trait Store: Sized {
    /// What speaks with it.
    type Broker: Counted;

    /// Starts one that is empty.
    async fn begin() -> Result<Self>;

    /// Starts a broker, and awaits its lease: before it has one, it tells nothing.
    async fn node(&self, server_id: &str, timing: Timing, hold: Duration) -> Result<Node<Self::Broker>>;

    /// Loses everything that it knows of who is in rooms.
    async fn forget_members(&self) -> Result<()>;

    /// How much it still has of this room, and of gateways whose names begin like this.
    async fn left_of(&self, room: &str, servers: &str) -> Result<usize>;
}

fn settings(server_id: &str, hold: Duration) -> PresenceSettings {
    PresenceSettings {
        server_id: server_id.into(),
        hold,
        announced: u32::MAX,
    }
}

impl Store for RedisServer {
    type Broker = RedisBroker;

    async fn begin() -> Result<Self> {
        Self::start().await
    }

    async fn node(&self, server_id: &str, timing: Timing, hold: Duration) -> Result<Node> {
        let node = Node::attending(&self.url(), timing, settings(server_id, hold)).await?;
        until_async("a lease", || async {
            let leases: Vec<String> = redis::cmd("ZRANGE")
                .arg("wsfleet:0:presence.live:{fleet}")
                .arg(0)
                .arg(-1)
                .query_async(&mut self.connection().await?)
                .await?;
            Ok(leases
                .iter()
                .any(|lease| lease.ends_with(&format!(" {server_id}"))))
        })
        .await?;
        Ok(node)
    }

    async fn forget_members(&self) -> Result<()> {
        Ok(redis::cmd("FLUSHALL")
            .exec_async(&mut self.connection().await?)
            .await?)
    }

    async fn left_of(&self, room: &str, servers: &str) -> Result<usize> {
        let mut connection = self.connection().await?;
        let mut left = 0;
        for pattern in [
            format!("wsfleet:0:room.*{{{room}}}*"),
            format!("wsfleet:0:*{servers}*"),
        ] {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg(pattern)
                .query_async(&mut connection)
                .await?;
            left += keys.iter().filter(|key| !key.contains("room.quiet")).count();
        }
        Ok(left)
    }
}

impl Store for NatsServer {
    type Broker = NatsBroker;

    async fn begin() -> Result<Self> {
        Self::start().await
    }

    async fn node(&self, server_id: &str, timing: Timing, hold: Duration) -> Result<Node<NatsBroker>> {
        attending(self, &self.url(), (server_id, timing, hold)).await
    }

    async fn forget_members(&self) -> Result<()> {
        self.purge("wsfleet-there").await
    }

    async fn left_of(&self, room: &str, servers: &str) -> Result<usize> {
        let members = format!("wsfleet.there.r.{room}.>");
        let members = self.subjects("wsfleet-there", &members).await?;
        let leases = self
            .subject_names("wsfleet-there", "wsfleet.there.l.leases.>")
            .await?;
        let begins = format!("wsfleet.there.l.leases.{servers}");
        let leases = leases.iter().filter(|subject| subject.starts_with(&begins));
        Ok(members + leases.count())
    }
}

/// A broker that finds NATS at this address, with its lease.
pub async fn attending(
    nats: &NatsServer,
    url: &str,
    (server_id, timing, hold): (&str, Timing, Duration),
) -> Result<Node<NatsBroker>> {
    let config = NatsConfig::from_url(url)?
        .with_timing(timing)
        .with_presence(settings(server_id, hold));
    let node = Node::on_nats_with(&config, Histories::default())?;
    node.wait_healthy().await?;
    until_async("a lease", || async {
        let leases = format!("wsfleet.there.l.leases.{server_id}.>");
        Ok(nats.subjects("wsfleet-there", &leases).await? > 0)
    })
    .await?;
    Ok(node)
}

/// Awaits that so many users are in a room.
pub async fn until_count<B: Counted>(node: &Node<B>, name: &str, count: u64) -> Result<()> {
    until_async(&format!("{count} users in {name}"), || async {
        Ok(node.attendance(name, None, 1).await?.count == count)
    })
    .await
}

/// All users, page by page.
pub async fn everybody<B: Counted>(node: &Node<B>, name: &str, limit: usize) -> Result<Vec<Arc<str>>> {
    let mut all: Vec<Arc<str>> = Vec::new();
    loop {
        let page = node.attendance(name, all.last().cloned(), limit).await?;
        all.extend(page.users);
        if !page.more {
            return Ok(all);
        }
    }
}
