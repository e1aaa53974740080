//! Which server is the master now: the Sentinels know.
//!
//! They are asked in turn, each with a deadline, as Redis's guidelines for Sentinel clients have it; the one that answered
//! last is asked first, unless what it named turned out not to be a master. Their answer is a hint: the server itself is
//! asked for its role ([`super::link`]).

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};

use super::config::{RedisConfig, Server, Shape};
use super::link::ConnectError;

/// Asks for the master of this name.
pub(super) async fn master(
    config: &RedisConfig,
    sentinels: &[Server],
    name: &str,
) -> Result<Server, ConnectError> {
    let mut problems = Vec::new();
    for turn in config.turns(sentinels.len()) {
        let sentinel = &sentinels[turn];
        let limit = config.sentinel_deadline();
        let problem = match tokio::time::timeout(limit, ask(config, sentinel, name, limit)).await {
            Ok(Ok((_, Some(server)))) => {
                config.begin_with(turn);
                return Ok(server);
            }
            Ok(Ok((_, None))) => format!("{sentinel} knows no master `{name}`"),
            Ok(Err(error)) => format!("{sentinel}: {error}"),
            Err(_) => format!("{sentinel}: no answer within {limit:?}"),
        };
        problems.push(problem);
    }
    // in one order, whoever was asked first: the same trouble is logged once
    problems.sort_unstable();
    Err(ConnectError::Sentinels(problems.join("; ")))
}

/// Ready, with the reason, when a Sentinel names another master than it did before: it learns of failovers, and forgets
/// none. Sentinels tell the old master so some ten seconds later, and it takes messages until then. One Sentinel is asked
/// while it answers; what the next one says first proves nothing, as it may lag behind. Without Sentinels never ready.
pub(super) async fn moved(config: &RedisConfig, current: &Server) -> &'static str {
    let Shape::Sentinel { sentinels, master } = &config.shape else {
        return std::future::pending().await;
    };
    let mut asked: Option<Asked> = None;
    loop {
        match &mut asked {
            None => asked = Asked::first(config, sentinels, master).await,
            Some(sentinel) => match question(&mut sentinel.connection, master).await {
                Ok(Some(server)) if server != sentinel.named && server != *current => {
                    config.begin_with(sentinel.turn);
                    return "another server has become the master";
                }
                Ok(Some(server)) => sentinel.named = server,
                Ok(None) => {}
                Err(_) => asked = None,
            },
        }
        tokio::time::sleep(config.timing.watch).await;
    }
}

/// A Sentinel that is asked again and again.
struct Asked {
    turn: usize,
    connection: MultiplexedConnection,
    /// The master that it named last.
    named: Server,
}

impl Asked {
    /// The first one that names a master.
    async fn first(config: &RedisConfig, sentinels: &[Server], name: &str) -> Option<Self> {
        let limit = config.sentinel_deadline();
        for turn in config.turns(sentinels.len()) {
            let answer = tokio::time::timeout(limit, ask(config, &sentinels[turn], name, limit)).await;
            if let Ok(Ok((connection, Some(named)))) = answer {
                return Some(Self {
                    turn,
                    connection,
                    named,
                });
            }
        }
        None
    }
}

/// Asks one Sentinel, and gives the connection, too. Most take no password; one that does is given that of the servers.
async fn ask(
    config: &RedisConfig,
    sentinel: &Server,
    name: &str,
    limit: Duration,
) -> Result<(MultiplexedConnection, Option<Server>), RedisError> {
    let mut connection = connect(config, sentinel, limit, false).await?;
    let answer = match question(&mut connection, name).await {
        Err(error) if error.code() == Some("NOAUTH") => {
            connection = connect(config, sentinel, limit, true).await?;
            question(&mut connection, name).await?
        }
        other => other?,
    };
    Ok((connection, answer))
}

async fn connect(
    config: &RedisConfig,
    sentinel: &Server,
    limit: Duration,
    with_password: bool,
) -> Result<MultiplexedConnection, RedisError> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(Some(limit));
    config
        .sentinel_client(sentinel, with_password)?
        .get_multiplexed_async_connection_with_config(&settings)
        .await
}

async fn question(connection: &mut MultiplexedConnection, name: &str) -> Result<Option<Server>, RedisError> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let answer: Option<(String, u16)> = question.query_async(connection).await?;
    Ok(answer.map(|(host, port)| Server { host, port }))
}
