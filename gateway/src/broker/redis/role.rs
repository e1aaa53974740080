//! What a server is: a master takes writes, a replica hears of them later.
//!
//! A master that was demoted goes on taking subscriptions, and its clients hear what its own master publishes, as long as
//! that reaches it. So a link asks again and again; where there are Sentinels the command link asks one of them as well, and
//! takes the subscription link along.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};

use super::config::{RedisConfig, Server};
use super::{link, sentinel};

/// What a server says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Master,
    Replica,
    /// It does not tell (`ROLE` is forbidden to the user), or is something else.
    Unknown,
}

/// Asks the server at the other end.
pub(super) async fn ask(connection: &mut MultiplexedConnection) -> Result<Role, RedisError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ROLE");
    let answers = link::all(connection, &pipeline).await?;
    Ok(answers.first().map_or(Role::Unknown, role))
}

fn role(answer: &Value) -> Role {
    let Value::Array(parts) = answer else {
        return Role::Unknown;
    };
    match parts.first() {
        Some(Value::BulkString(word)) if word == b"master" => Role::Master,
        Some(Value::BulkString(word)) if word == b"slave" => Role::Replica,
        _ => Role::Unknown,
    }
}

/// [`demoted`], or replaced by the Sentinels.
pub(super) async fn given_up(
    config: &RedisConfig,
    server: &Server,
    connection: MultiplexedConnection,
) -> &'static str {
    tokio::select! {
        reason = demoted(connection, config.timing.silence) => reason,
        reason = sentinel::moved(config, server) => reason,
    }
}

/// Asks every now and then; ready, with the reason, when the link is to be given up. Cancel-safe to poll in `select!`
/// again and again; dropped, it asks no more.
pub(super) async fn demoted(mut connection: MultiplexedConnection, every: Duration) -> &'static str {
    loop {
        tokio::time::sleep(every).await;
        match ask(&mut connection).await {
            Ok(Role::Master | Role::Unknown) => {}
            Ok(Role::Replica) => return "its server has become a replica",
            Err(_) => return "its server does not tell its role in time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_the_first_word_of_the_answer() {
        let word = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let cases = [
            (
                Value::Array(vec![word("master"), Value::Int(7), Value::Array(vec![])]),
                Role::Master,
            ),
            (Value::Array(vec![word("slave"), word("10.0.0.1")]), Role::Replica),
            (
                Value::Array(vec![word("sentinel"), Value::Array(vec![])]),
                Role::Unknown,
            ),
            (Value::Array(vec![]), Role::Unknown),
            (Value::Okay, Role::Unknown),
        ];
        for (answer, expected) in cases {
            assert_eq!(role(&answer), expected, "{answer:?}");
        }
    }
}
