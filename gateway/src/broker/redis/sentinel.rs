//! Which server is the master now: the Sentinels know.
//!
//! They are asked in turn, each with a deadline, as Redis's guidelines for Sentinel clients have it; the one that answered
//! last is asked first, unless what it named turned out not to be a master. Their answer is a hint: the server itself is
//! asked for its role ([`super::link`]).

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};

use super::config::{RedisConfig, Server};
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
            Ok(Ok(Some(server))) => {
                config.begin_with(turn);
                return Ok(server);
            }
            Ok(Ok(None)) => format!("{sentinel} knows no master `{name}`"),
            Ok(Err(error)) => format!("{sentinel}: {error}"),
            Err(_) => format!("{sentinel}: no answer within {limit:?}"),
        };
        problems.push(problem);
    }
    // in one order, whoever was asked first: the same trouble is logged once
    problems.sort_unstable();
    Err(ConnectError::Sentinels(problems.join("; ")))
}

/// Asks one Sentinel. Most take no password; one that does is given that of the servers.
async fn ask(
    config: &RedisConfig,
    sentinel: &Server,
    name: &str,
    limit: Duration,
) -> Result<Option<Server>, RedisError> {
    let first = question(&mut connect(config, sentinel, limit, false).await?, name).await;
    match first {
        Err(error) if error.code() == Some("NOAUTH") => {
            question(&mut connect(config, sentinel, limit, true).await?, name).await
        }
        other => other,
    }
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
