//! What JetStream has of rooms' members.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::naming::THERE;
use super::super::presence::{Change, is_alive};
use super::super::wire::Message;
use super::{BATCH_BYTES, JetStream, SUBJECTS, foreign, odd};
use crate::broker::BrokerError;

/// There are more subjects than JetStream gives the last messages of.
const TOO_MANY: u16 = 413;

/// What came with one answer.
#[derive(Default)]
struct Part {
    changes: Vec<Change>,
    /// The answer is of the stream up to this message.
    up_to: u64,
    /// There are more.
    more: bool,
}

impl JetStream<'_> {
    /// What is stored of a room's members, each once, in order, and up to which message that is all.
    pub(in super::super) async fn there(self, channel: &[u8]) -> Result<(Vec<Change>, u64), BrokerError> {
        let filter = self.config.names.all_there(channel);
        let question = json!({ "multi_last": [filter], "batch": SUBJECTS });
        if let Some(part) = self.part(&question).await?.filter(|part| !part.more) {
            return Ok((part.changes, part.up_to));
        }
        // What changes while it is read comes again further behind. So nothing is missed, and the last word counts.
        let (mut all, mut from, mut more) = (Vec::<Change>::new(), 1, true);
        while more {
            let question = json!({
                "seq": from, "next_by_subj": filter, "batch": SUBJECTS, "max_bytes": BATCH_BYTES,
            });
            let part = self.part(&question).await?.ok_or_else(foreign)?;
            more = part.more && !part.changes.is_empty();
            from = part.changes.last().map_or(from, |last| last.sequence + 1);
            all.extend(part.changes);
        }
        let mut seen = HashSet::new();
        let mut latest: Vec<_> = all
            .into_iter()
            .rev()
            .filter(|change| seen.insert((change.lease.clone(), change.connection.clone())))
            .collect();
        latest.reverse();
        Ok((latest, from - 1))
    }

    /// Messages that are asked for; `None` when there are too many to be told at once.
    async fn part(self, question: &Value) -> Result<Option<Part>, BrokerError> {
        let mut answers = self.get_there(question)?;
        let mut part = Part::default();
        loop {
            let message = answers.next(self.config.timing.answer).await?;
            match message.status() {
                Some(404) => return Ok(Some(part)),
                Some(204) => {
                    part.more = number(&message, "Nats-Num-Pending") > 0;
                    part.up_to = part.up_to.max(number(&message, "Nats-UpTo-Sequence"));
                    return Ok(Some(part));
                }
                Some(TOO_MANY) => return Ok(None),
                Some(other) => return Err(odd(other)),
                None => {
                    let change = Change::parse(&message).ok_or_else(foreign)?;
                    part.up_to = part.up_to.max(change.sequence);
                    part.changes.push(change);
                }
            }
        }
    }

    /// Number of the last message of a room's members; 0 when there is none.
    pub(in super::super) async fn last_there(self, channel: &[u8]) -> Result<u64, BrokerError> {
        let question = json!({ "last_by_subj": self.config.names.all_there(channel) });
        let mut answers = self.get_there(&question)?;
        let message = answers.next(self.config.timing.answer).await?;
        match message.status() {
            Some(404) => Ok(0),
            Some(other) => Err(odd(other)),
            None => Ok(number(&message, "Nats-Sequence")),
        }
    }

    fn get_there(self, question: &Value) -> Result<super::super::link::Answers, BrokerError> {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.config.names.stream(THERE));
        self.link.ask(&subject, &[], question.to_string().as_bytes())
    }

    /// Whether the lease of a gateway's members has not run out, by what was acknowledged before.
    pub(in super::super) async fn lives(self, lease: &str) -> Result<bool, BrokerError> {
        let names = &self.config.names;
        let question = json!({ "last_by_subj": names.any_lease(lease) });
        let found = self.leaders(&names.stream(THERE), &question).await?;
        Ok(found.is_some_and(|(_, payload)| is_alive(&payload)))
    }

    /// Removes everything under a lease; tells how many messages that were.
    pub(in super::super) async fn clear(self, lease: &str) -> Result<u64, BrokerError> {
        let names = &self.config.names;
        let subject = format!("$JS.API.STREAM.PURGE.{}", names.stream(THERE));
        let question = json!({ "filter": names.all_under(lease) });
        let answer = self.api(&subject, &question).await?;
        answer
            .error
            .map_or(Ok(answer.purged), |failure| Err(failure.into()))
    }
}

fn number(message: &Message, header: &str) -> u64 {
    let number = message.header(header).and_then(|text| text.parse().ok());
    number.unwrap_or_default()
}
