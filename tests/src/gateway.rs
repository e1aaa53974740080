//! Gateways inside the test's process, on free ports, alone or as a fleet on a real Redis.

use std::ffi::OsString;

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use serde_json::Value;
use tokio::task::JoinHandle;
use wsfleet_crds::admin::{DrainRequest, GatewayState};
use wsfleet_gateway::config::{Args, Settings};
use wsfleet_gateway::protocol::Codec;
use wsfleet_gateway::{Listeners, RunError, ShutdownSignal, ShutdownTrigger, run};

use crate::client::{Client, Connect};
use crate::http::{Answer, Ask};
use crate::nats::NatsServer;
use crate::process::Ports;
use crate::redis::RedisServer;
use crate::wait::{SOON, until_async, within};

/// `?token=abc` is user `user_abc`, and one address, from which all tests come, may connect as often as it likes.
pub const OPEN: [&str; 6] = [
    "--auth",
    "insecure-token",
    "--limit",
    "connectionsPerIp=0",
    "--limit",
    "handshakesPerSecondPerIp=0",
];

/// A user's clients may be as many as they like, and send as much as they like.
pub const UNLIMITED: [&str; 6] = [
    "--limit",
    "connectionsPerUser=0",
    "--limit",
    "messagesPerSecond=0",
    "--limit",
    "bytesPerSecond=0",
];

/// A gateway in this process. Dropping it ends it at once, without a drain.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens.
    pub ports: Ports,
    trigger: ShutdownTrigger,
    task: JoinHandle<Result<(), RunError>>,
}

impl Gateway {
    /// Starts a gateway with these flags on free ports.
    pub fn start(flags: &[&str]) -> Result<Self> {
        let mut command: Vec<OsString> = vec!["wsfleet-gateway".into()];
        for port in ["--listen", "--api-listen", "--admin-listen"] {
            command.extend([port.into(), "127.0.0.1:0".into()]);
        }
        command.extend(flags.iter().map(OsString::from));
        let settings = Settings::load_with(Args::from_command_line(command)?, |_| None)?;
        let listeners = Listeners::bind(&settings)?;
        let ports = Ports {
            clients: listeners.clients.local_addr()?,
            api: listeners.api.local_addr()?,
            admin: listeners.admin.local_addr()?,
        };
        let (trigger, signal) = ShutdownSignal::manual();
        let task = tokio::spawn(run(settings, listeners, signal));
        Ok(Self { ports, trigger, task })
    }

    /// Connects as a user, and awaits the `welcome`.
    pub async fn client(&self, name: &str) -> Result<Client> {
        self.welcomed(Connect::to(self.ports.clients), name).await
    }

    /// As [`Gateway::client`], with the codec's subprotocol.
    pub async fn client_as(&self, name: &str, codec: Codec) -> Result<Client> {
        self.welcomed(Connect::to(self.ports.clients).codec(codec), name)
            .await
    }

    async fn welcomed(&self, connect: Connect, name: &str) -> Result<Client> {
        let mut client = connect.token(name).open().await?;
        let welcome = client.expect("welcome").await?;
        ensure!(welcome["userId"] == format!("user_{name}"), "{welcome}");
        Ok(client)
    }

    /// Asks the admin port.
    pub async fn admin(&self, ask: Ask<'_>) -> Result<Answer> {
        ask.send(self.ports.admin).await
    }

    /// Posts JSON to the server API.
    pub async fn api(&self, path: &str, body: &Value) -> Result<Answer> {
        Ask::json(Method::POST, path, body)?.send(self.ports.api).await
    }

    /// The admin API's state.
    pub async fn state(&self) -> Result<GatewayState> {
        self.admin(Ask::get("/admin/v1/state")).await?.json()
    }

    /// Sends a drain request.
    pub async fn drain(&self, request: &DrainRequest) -> Result<Answer> {
        self.admin(Ask::json(Method::PUT, "/admin/v1/drain", request)?)
            .await
    }

    /// Sum of the series of a metric whose labels contain all of `labels` (as in `reason="x"`); 0 without any.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = self.admin(Ask::get("/metrics")).await?.body;
        let mut sum = 0.0;
        for line in text.lines() {
            let Some(rest) = line
                .strip_prefix(name)
                .filter(|rest| rest.starts_with(['{', ' ']))
            else {
                continue;
            };
            let (series, value) = rest.rsplit_once(' ').context("a value")?;
            if labels.iter().all(|label| series.contains(label)) {
                sum += value.parse::<f64>()?;
            }
        }
        Ok(sum)
    }

    /// Awaits that it is ready, and relies on its broker.
    pub async fn ready(&self) -> Result<()> {
        until_async("the gateway is ready and its broker not degraded", || async {
            let ready = self.admin(Ask::get("/readyz")).await?.status == 200;
            Ok(ready && !self.state().await?.broker_degraded)
        })
        .await
    }

    /// Asks it to end: once to drain, again to hurry.
    pub fn shut_down(&self) {
        self.trigger.trigger();
    }

    /// Awaits its end.
    pub async fn ended(&mut self) -> Result<()> {
        within(SOON, "the gateway's end", &mut self.task).await???;
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What carries the messages of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One gateway alone.
    Memory,
    /// So many gateways on a Redis of their own.
    Redis(usize),
    /// So many gateways on a NATS of their own.
    Nats(usize),
}

/// Gateways that share a broker. With fewer gateways than a test names, numbers wrap around.
#[derive(Debug)]
pub struct Fleet {
    gateways: Vec<Gateway>,
    /// Their Redis.
    pub redis: Option<RedisServer>,
    /// Their NATS.
    pub nats: Option<NatsServer>,
}

impl Fleet {
    /// Starts a fleet with `insecure-token` and no limits by address.
    pub async fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, &[]).await
    }

    /// As [`Fleet::start`], with more flags.
    pub async fn start_with(kind: Kind, flags: &[&str]) -> Result<Self> {
        let fleet = match kind {
            Kind::Memory => Self::on(None, 1, flags)?,
            Kind::Redis(count) => Self::on(Some(RedisServer::start().await?), count, flags)?,
            Kind::Nats(count) => {
                let nats = NatsServer::start().await?;
                let mut fleet = Self::at(&nats.url(), count, flags)?;
                fleet.nats = Some(nats);
                fleet
            }
        };
        for gateway in &fleet.gateways {
            gateway.ready().await?;
        }
        Ok(fleet)
    }

    /// Gateways on this Redis (or in memory), not waiting until they are ready.
    pub fn on(redis: Option<RedisServer>, count: usize, flags: &[&str]) -> Result<Self> {
        let broker = redis
            .as_ref()
            .map_or_else(|| "memory".to_owned(), RedisServer::url);
        let mut fleet = Self::at(&broker, count, flags)?;
        fleet.redis = redis;
        Ok(fleet)
    }

    /// Gateways on the broker at this URL, not waiting until they are ready.
    pub fn at(broker: &str, count: usize, flags: &[&str]) -> Result<Self> {
        let gateways = (0..count)
            .map(|number| {
                let id = format!("g{number}");
                let own = ["--server-id", &id, "--broker", broker];
                // what says itself who clients are
                let open = if flags.contains(&"--auth") {
                    &OPEN[2..]
                } else {
                    &OPEN[..]
                };
                let all = [open, &own, flags].concat();
                Gateway::start(&all)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            gateways,
            redis: None,
            nats: None,
        })
    }

    /// Where their broker is.
    pub fn url(&self) -> Result<String> {
        match (&self.redis, &self.nats) {
            (Some(redis), _) => Ok(redis.url()),
            (None, Some(nats)) => Ok(nats.url()),
            (None, None) => bail!("a fleet on Redis or NATS"),
        }
    }

    /// Kills their broker.
    pub fn kill_broker(&mut self) -> Result<()> {
        match (&mut self.redis, &mut self.nats) {
            (Some(redis), _) => redis.kill(),
            (None, Some(nats)) => nats.kill(),
            (None, None) => bail!("a fleet on Redis or NATS"),
        }
    }

    /// Starts their broker again, with what it has kept.
    pub async fn restart_broker(&mut self) -> Result<()> {
        match (&mut self.redis, &mut self.nats) {
            (Some(redis), _) => redis.restart().await,
            (None, Some(nats)) => nats.restart().await,
            (None, None) => bail!("a fleet on Redis or NATS"),
        }
    }

    /// A gateway by number.
    pub fn gateway(&self, number: usize) -> &Gateway {
        &self.gateways[number % self.gateways.len()]
    }

    /// A gateway by number, to await its end.
    pub fn gateway_mut(&mut self, number: usize) -> &mut Gateway {
        let count = self.gateways.len();
        &mut self.gateways[number % count]
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.gateways.len()
    }

    /// Never: a fleet has at least one gateway.
    pub const fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    /// A user's client on a gateway.
    pub async fn client(&self, number: usize, name: &str) -> Result<Client> {
        self.client_as(number, name, None).await
    }

    /// As [`Fleet::client`], with a codec's subprotocol, or none.
    pub async fn client_as(&self, number: usize, name: &str, codec: Option<Codec>) -> Result<Client> {
        let gateway = self.gateway(number);
        match codec {
            Some(codec) => gateway.client_as(name, codec).await,
            None => gateway.client(name).await,
        }
        .with_context(|| format!("{name} on gateway {number}"))
    }

    /// Clients of so many users, all on the first gateway.
    pub async fn clients(&self, count: usize) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for number in 0..count {
            clients.push(self.client(0, &format!("u{number}")).await?);
        }
        Ok(clients)
    }
}

/// Runs each of the named `async fn(Kind) -> anyhow::Result<()>` with the memory broker, with one gateway on a real
/// Redis, and with three; and with three on a real NATS.
#[macro_export]
macro_rules! on_each_broker {
    ($($name:ident),* $(,)?) => {
        $crate::on_memory_and_redis! { $($name),* }
        mod nats_with_three_gateways {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name($crate::gateway::Kind::Nats(3)).await
            })*
        }
    };
}

/// Runs each of the named `async fn(Kind) -> anyhow::Result<()>` with two gateways on a real Redis, and on a real NATS.
#[macro_export]
macro_rules! on_redis_and_nats {
    ($($name:ident),* $(,)?) => {
        mod redis_with_two_gateways {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name($crate::gateway::Kind::Redis(2)).await
            })*
        }
        mod nats_with_two_gateways {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name($crate::gateway::Kind::Nats(2)).await
            })*
        }
    };
}

/// As [`on_each_broker`], but without NATS: of what that broker does not do.
#[macro_export]
macro_rules! on_memory_and_redis {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name($crate::gateway::Kind::Memory).await
            })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name($crate::gateway::Kind::Redis(1)).await
            })*
        }
        mod redis_with_three_gateways {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name($crate::gateway::Kind::Redis(3)).await
            })*
        }
    };
}
