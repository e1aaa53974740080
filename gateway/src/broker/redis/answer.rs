//! What Redis answers, and what its errors mean for the request.

use std::sync::Arc;

use redis::{ServerErrorKind, Value};

use super::super::{Accepted, BrokerError, Position};
use super::history::{self, Pages};

/// What a request was answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// Where the message, or the stream, stands.
    At(Position),
    /// The same, and whether the message was there before.
    Accepted(Accepted),
    /// What is kept.
    Pages(Pages),
    /// A text.
    Text(Arc<str>),
    /// Two numbers, and texts.
    List(u64, u64, Vec<Arc<str>>),
    /// Nothing is there.
    Nothing,
    /// Done; there is no place to tell.
    Done,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The script is not (any more) loaded: load it, ask again. Nothing happened.
    NoScript,
    /// This server cannot take it at all (still loading, demoted to a replica): another link may. Nothing happened.
    WrongServer(Arc<str>),
    /// This node of a cluster does not have the slot, or not all of it, or not now; it goes on having others. Nothing happened.
    Moved(Arc<str>),
    /// It happened, but no replica had it in time.
    Unreplicated,
    /// Refused with this text.
    Refused(Arc<str>),
}

impl From<Failure> for BrokerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoScript | Failure::WrongServer(_) | Failure::Moved(_) => Self::Unavailable,
            Failure::Unreplicated => Self::Unconfirmed,
            Failure::Refused(text) => Self::Refused(text),
        }
    }
}

/// What an answer says.
pub(super) fn answer(value: &Value) -> Result<Answer, Failure> {
    match value {
        Value::ServerError(_) => Err(failure(value)),
        Value::Array(parts) => match &parts[..] {
            [epoch, Value::Int(offset)] => place_of(epoch, *offset).map(Answer::At),
            [epoch, Value::Int(offset), Value::Int(duplicate)] => {
                history::accepted(epoch, *offset, *duplicate).map(Answer::Accepted)
            }
            [epoch, Value::Int(offset), Value::Int(more), Value::Array(parts)] => {
                history::pages(epoch, *offset, *more, parts).map(Answer::Pages)
            }
            [Value::Int(one), Value::Int(two), Value::Array(texts)] => list(*one, *two, texts),
            _ => None,
        }
        .ok_or_else(|| failure(value)),
        Value::BulkString(_) | Value::VerbatimString { .. } => {
            Ok(Answer::Text(text(value).ok_or_else(|| failure(value))?.into()))
        }
        Value::Nil => Ok(Answer::Nothing),
        _ => Ok(Answer::Done),
    }
}

pub(super) fn failure(value: &Value) -> Failure {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoScript, ReadOnly, TryAgain};
    let Value::ServerError(error) = value else {
        return Failure::Refused("an answer that makes no sense".into());
    };
    match error.kind() {
        Some(NoScript) => Failure::NoScript,
        Some(BusyLoading | MasterDown | ReadOnly) => Failure::WrongServer(error.to_string().into()),
        Some(Ask | ClusterDown | Moved | TryAgain) => Failure::Moved(error.to_string().into()),
        _ => Failure::Refused(error.to_string().into()),
    }
}

/// The place that two values of an answer say.
pub(super) fn place_of(epoch: &Value, offset: i64) -> Option<Position> {
    Some(Position {
        epoch: text(epoch)?.into(),
        offset: u64::try_from(offset).ok()?,
    })
}

fn list(one: i64, two: i64, texts: &[Value]) -> Option<Answer> {
    let texts = texts
        .iter()
        .map(|part| text(part).map(Arc::from))
        .collect::<Option<_>>()?;
    Some(Answer::List(
        u64::try_from(one).ok()?,
        u64::try_from(two).ok()?,
        texts,
    ))
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_the_scripts_answer() {
        let value = Value::Array(vec![Value::BulkString(b"ab".to_vec()), Value::Int(7)]);
        assert_eq!(
            answer(&value),
            Ok(Answer::At(Position {
                epoch: "ab".into(),
                offset: 7
            }))
        );
        assert_eq!(answer(&Value::Int(3)), Ok(Answer::Done));
        assert_eq!(answer(&Value::Okay), Ok(Answer::Done));
        assert_eq!(answer(&Value::Nil), Ok(Answer::Nothing));
        let text = Value::BulkString(b"a b".to_vec());
        assert_eq!(answer(&text), Ok(Answer::Text("a b".into())));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_a_refusal_not_a_success() {
        for parts in [
            vec![],
            vec![Value::Int(7)],
            vec![Value::Int(7), Value::Int(7)],
            vec![Value::BulkString(b"ab".to_vec()), Value::Int(-1)],
        ] {
            assert!(matches!(answer(&Value::Array(parts)), Err(Failure::Refused(_))));
        }
    }
}
