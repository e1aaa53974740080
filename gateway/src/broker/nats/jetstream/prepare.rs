//! The streams that a fleet has in JetStream, made or changed when a gateway connects.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::naming::{AT, EVENTS, FLEET, ID, LEASE, SEATS, THERE};
use super::super::presence::THERE_TTL;
use super::super::seats::SEATS_TTL;
use super::{Answer, JetStream};
use crate::broker::{BrokerError, MSG_ID_TTL};
use crate::config::{Histories, Retention};
use crate::fleet;

/// How long a stream's position outlives its last use, as with Redis.
const POSITION_TTL: Duration = Duration::from_hours(30 * 24);
/// A stream of this name has other settings.
const NAME_IN_USE: u32 = 10_058;

impl JetStream<'_> {
    /// Makes the streams of this fleet, or makes them like this.
    pub(in super::super) async fn prepare(self, histories: &Histories) -> Result<(), BrokerError> {
        let kept = |retention| match retention {
            Retention::Keep { messages, .. } => messages,
            Retention::Off | Retention::Ephemeral => 1,
        };
        let orders = fleet::retention(fleet::REVOCATIONS);
        let age = orders.age().max(POSITION_TTL) + POSITION_TTL;
        self.make(AT, &self.heard(AT, histories.most_messages(), POSITION_TTL))
            .await?;
        self.make(FLEET, &self.heard(FLEET, kept(orders), age)).await?;
        let places =
            json!({ "storage": "memory", "max_msgs_per_subject": 1, "max_age": nanos(MSG_ID_TTL * 2) });
        self.make(ID, &places).await?;
        let names = &self.config.names;
        let seats = json!({
            "storage": "memory", "max_msgs_per_subject": 1, "max_age": nanos(SEATS_TTL), "allow_msg_ttl": true,
            "subjects": [names.all(SEATS), names.all(LEASE)],
        });
        self.make(SEATS, &seats).await?;
        let (stored, heard) = names.heard_there();
        let there = json!({
            "storage": "memory", "max_msgs_per_subject": 1, "max_age": nanos(THERE_TTL), "allow_msg_ttl": true,
            "republish": { "src": stored, "dest": heard },
        });
        self.make(THERE, &there).await?;
        match &self.config.events {
            Some(events) => {
                let kept = json!({ "storage": "file", "max_msgs": events.length });
                self.make(EVENTS, &kept).await
            }
            None => Ok(()),
        }
    }

    /// What is said of a stream whose messages are heard when they are stored.
    fn heard(self, word: &str, messages: u32, age: Duration) -> Value {
        let names = &self.config.names;
        json!({
            "storage": "file", "max_msgs_per_subject": messages, "max_age": nanos(age),
            "republish": { "src": names.all(word), "dest": names.all("live") },
        })
    }

    async fn make(self, word: &str, own: &Value) -> Result<(), BrokerError> {
        let names = &self.config.names;
        let mut settings = json!({
            "name": names.stream(word), "subjects": [names.all(word)],
            "retention": "limits", "discard": "old", "num_replicas": self.config.replicas,
            "duplicate_window": nanos(MSG_ID_TTL), "allow_direct": true, "allow_rollup_hdrs": true,
        });
        for (name, value) in own.as_object().into_iter().flatten() {
            settings[name] = value.clone();
        }
        let ask = |verb: &str| format!("$JS.API.STREAM.{verb}.{}", names.stream(word));
        match self.api(&ask("CREATE"), &settings).await? {
            Answer { error: None, .. } => Ok(()),
            Answer {
                error: Some(failure), ..
            } if failure.err_code == NAME_IN_USE => {
                let changed = self.api(&ask("UPDATE"), &settings).await?;
                changed.error.map_or(Ok(()), |failure| Err(failure.into()))
            }
            Answer {
                error: Some(failure), ..
            } => Err(failure.into()),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
