//! One connection to Redis: how it is made, and how its loss is noticed at once.
//!
//! The connection is `redis`'s multiplexed one (commands pipelined, answers in order). Its loss is told as a push, so
//! that it is noticed also while nothing is asked.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::sync::Notify;

use super::answer::Failure;
use super::config::{RedisConfig, Server, Shape};
use super::role::{self, Role};
use super::script::Scripts;
use super::sentinel;

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Refused, unreachable, wrong credentials.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// Greeting and authentication took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No Sentinel names the master.
    #[error("no Sentinel names a master: {0}")]
    Sentinels(String),
    /// Connected, but the server cannot serve (loading its data, a replica, no permission).
    #[error("{0}")]
    Unfit(Arc<str>),
}

/// The command link: a connection with the scripts loaded.
#[derive(Clone, Debug)]
pub(super) struct CommandLink {
    pub(super) connection: MultiplexedConnection,
    pub(super) scripts: Scripts,
    /// Where it ends.
    pub(super) server: Server,
    /// Which process of Redis it ends at, since when it has been the master; `None` when the server does not tell.
    pub(super) process: Option<Arc<str>>,
    /// Notified when the connection is gone.
    pub(super) gone: Arc<Notify>,
}

impl CommandLink {
    /// Connects and loads the scripts.
    pub(super) async fn connect(config: &RedisConfig) -> Result<Self, ConnectError> {
        let gone = Arc::new(Notify::new());
        let notify = Arc::clone(&gone);
        let work = async {
            let on_push = move |info: PushInfo| {
                if info.kind == PushKind::Disconnection {
                    notify.notify_one();
                }
                Ok::<(), std::convert::Infallible>(())
            };
            let (server, mut connection) = open(config, on_push).await?;
            name(&mut connection, "command").await?;
            let process = process(&mut connection).await?;
            let answers = all(&mut connection, &Scripts::load(config.channels())).await?;
            let scripts = Scripts::from_answers(&answers, config.channels()).map_err(unfit)?;
            Ok(Self {
                connection,
                scripts,
                server,
                process,
                gone,
            })
        };
        within(config.attempt(), work).await
    }
}

/// Connects a subscription link; every push, the loss included, goes to `on_push`, which must not block.
pub(super) async fn connect_subscriber<F>(
    config: &RedisConfig,
    on_push: F,
) -> Result<MultiplexedConnection, ConnectError>
where
    F: Fn(PushInfo) -> Result<(), std::convert::Infallible> + Send + Sync + 'static,
{
    let work = async {
        let (_, mut connection) = open(config, on_push).await?;
        name(&mut connection, "subscription").await?;
        Ok(connection)
    };
    within(config.attempt(), work).await
}

/// What a node says about its cluster, asked over a connection that is closed afterwards.
/// Replicas know it as well.
pub(super) async fn nodes(config: &RedisConfig, server: &Server) -> Result<String, ConnectError> {
    let work = async {
        let mut connection = connect(config, server, |_| Ok(())).await?;
        name(&mut connection, "nodes").await?;
        Ok(redis::cmd("CLUSTER")
            .arg("NODES")
            .query_async(&mut connection)
            .await?)
    };
    within(config.timing.connect, work).await
}

/// Sends a pipeline and takes its answers, errors of the server among them; `Err` means that the link is lost.
pub(super) async fn all(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
) -> Result<Vec<Value>, RedisError> {
    connection.send_packed_commands(pipeline, 0, pipeline.len()).await
}

/// Connects to the master; a server that turns out to be a replica is refused.
async fn open<F>(config: &RedisConfig, on_push: F) -> Result<(Server, MultiplexedConnection), ConnectError>
where
    F: Fn(PushInfo) -> Result<(), std::convert::Infallible> + Send + Sync + 'static,
{
    let server = match &config.shape {
        Shape::Standalone(server) | Shape::Node(server) => server.clone(),
        Shape::Sentinel { sentinels, master } => sentinel::master(config, sentinels, master).await?,
        Shape::Cluster { .. } => {
            let unfit = "a cluster has no server for everything; each node is asked by itself";
            return Err(ConnectError::Unfit(unfit.into()));
        }
    };
    let opened = open_at(config, &server, on_push).await;
    if opened.is_err() {
        // another Sentinel may know better
        config.pass_turn();
    }
    Ok((server, opened?))
}

async fn connect<F>(
    config: &RedisConfig,
    server: &Server,
    on_push: F,
) -> Result<MultiplexedConnection, RedisError>
where
    F: Fn(PushInfo) -> Result<(), std::convert::Infallible> + Send + Sync + 'static,
{
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.timing.connect))
        .set_response_timeout(Some(config.timing.answer))
        .set_push_sender(on_push);
    config
        .client(server)?
        .get_multiplexed_async_connection_with_config(&settings)
        .await
}

async fn open_at<F>(
    config: &RedisConfig,
    server: &Server,
    on_push: F,
) -> Result<MultiplexedConnection, ConnectError>
where
    F: Fn(PushInfo) -> Result<(), std::convert::Infallible> + Send + Sync + 'static,
{
    let mut connection = connect(config, server, on_push).await?;
    let unfit = match (role::ask(&mut connection).await?, &config.shape) {
        (Role::Replica, _) => format!("{server} is a replica, and only the master takes messages"),
        (Role::Unknown, Shape::Sentinel { .. }) => {
            format!("{server} does not tell whether it is the master; allow the user the command ROLE")
        }
        (Role::Master | Role::Unknown, _) => return Ok(connection),
    };
    Err(ConnectError::Unfit(unfit.into()))
}

/// Names the connection for `CLIENT LIST`. A server that forbids it is as good a server.
async fn name(connection: &mut MultiplexedConnection, role: &str) -> Result<(), RedisError> {
    let mut pipeline = Pipeline::new();
    pipeline
        .cmd("CLIENT")
        .arg("SETNAME")
        .arg(format!("wsfleet-{role}"));
    all(connection, &pipeline).await.map(|_| ())
}

/// The server's `run_id`, which is another one after each start, and its replication's, which is another one when it
/// has become the master.
async fn process(connection: &mut MultiplexedConnection) -> Result<Option<Arc<str>>, RedisError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    let answers = all(connection, &pipeline).await?;
    let [server, replication] = &answers[..] else {
        return Ok(None);
    };
    let ids = field(server, "run_id:").zip(field(replication, "master_replid:"));
    Ok(ids.map(|(run, replication)| format!("{run} {replication}").into()))
}

/// A field of what `INFO` tells; `None` also when it is forbidden.
fn field<'a>(info: &'a Value, name: &str) -> Option<&'a str> {
    let text = match info {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text,
        _ => return None,
    };
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn unfit(failure: Failure) -> ConnectError {
    match failure {
        Failure::NoScript => ConnectError::Unfit("scripts are lost while they are loaded".into()),
        Failure::Unreplicated => ConnectError::Unfit("scripts are not replicated".into()),
        Failure::WrongServer(text) | Failure::Moved(text) | Failure::Refused(text) => {
            ConnectError::Unfit(text)
        }
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(ConnectError::Timeout(limit)))
}
