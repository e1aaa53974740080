//! What is asked of JetStream (docs.nats.io, "JetStream wire API Reference"), and what it answers.

mod prepare;
mod there;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::NatsConfig;
use super::frame::Frame;
use super::link::Link;
use super::naming::{self, ID, SEATS};
use super::seats::{KEPT, Seated};
use super::wire::Message;
use crate::broker::BrokerError;

/// Messages in one answer.
const BATCH: u32 = 256;
/// Bytes in one answer.
const BATCH_BYTES: u32 = 1 << 20;
/// Subjects in one answer: as many as JetStream gives.
const SUBJECTS: u32 = 1_024;
/// There is no such message.
const NOT_FOUND: u32 = 10_037;
/// Another message came in between.
const WRONG_LAST_SEQUENCE: u32 = 10_071;
/// The same by another number: while the servers agree on that other message.
const WRONG_LAST_SEQUENCE_NOW: u32 = 10_164;
/// The servers are agreeing on a message with the same id.
const DUPLICATE_NOW: u32 = 10_158;
/// JetStream has no leader now, too little room, or too much to do: nothing was stored.
const NOT_NOW: [u32; 5] = [10_008, 10_009, 10_023, 10_077, 10_167];

/// A frame that is stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) frame: Frame,
}

impl Stored {
    /// What is needed to go on behind it.
    pub(super) fn without_events(mut self) -> Self {
        self.frame.first += self.frame.events.len() as u64;
        self.frame.events = Vec::new();
        self
    }
}

/// What came of appending a frame.
#[derive(Debug)]
pub(super) enum Appended {
    /// It is stored.
    At(u64),
    /// A message with its id is stored there, and it is not.
    Duplicate(u64),
    /// It was to be behind another one than the last, or one with its id is just being stored: it was not.
    Conflict,
}

/// An append.
pub(super) struct Append<'a> {
    pub(super) channel: &'a [u8],
    /// Number of the last message of the channel; 0 when there is none.
    pub(super) behind: u64,
    pub(super) id: Option<&'a str>,
    /// What was before is not kept.
    pub(super) alone: bool,
    pub(super) frame: &'a Frame,
}

#[derive(Debug, Deserialize)]
struct Failure {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Failure>,
    message: Option<Found>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    purged: u64,
}

#[derive(Deserialize)]
struct Found {
    seq: u64,
    #[serde(default)]
    data: String,
}

impl From<Failure> for BrokerError {
    fn from(failure: Failure) -> Self {
        if NOT_NOW.contains(&failure.err_code) {
            return Self::Unavailable;
        }
        Self::Refused(format!("NATS said: {} ({})", failure.description, failure.err_code).into())
    }
}

/// JetStream, over a link.
#[derive(Clone, Copy)]
pub(super) struct JetStream<'a> {
    pub(super) config: &'a NatsConfig,
    pub(super) link: &'a Link,
}

impl JetStream<'_> {
    async fn api(self, subject: &str, question: &Value) -> Result<Answer, BrokerError> {
        let mut answers = self.link.ask(subject, &[], question.to_string().as_bytes())?;
        parsed(&answers.next(self.config.timing.answer).await?)
    }

    /// The last frame of a channel, whatever was acknowledged before included.
    pub(super) async fn last(self, channel: &[u8]) -> Result<Option<Stored>, BrokerError> {
        let names = &self.config.names;
        let (store, at) = (names.store(channel), names.at(channel));
        if self.config.replicas > 1 {
            // the others may be behind, the leader is not
            let question = json!({ "last_by_subj": at });
            return self.found(&store, &question).await;
        }
        let subject = format!("$JS.API.DIRECT.GET.{store}.{at}");
        let mut answers = self.link.ask(&subject, &[], b"")?;
        let message = answers.next(self.config.timing.answer).await?;
        match message.status() {
            Some(404) => Ok(None),
            None => stored(&message).map(Some),
            Some(other) => Err(odd(other)),
        }
    }

    /// The frame of this number, if it is still there.
    pub(super) async fn by_sequence(
        self,
        channel: &[u8],
        sequence: u64,
    ) -> Result<Option<Stored>, BrokerError> {
        let store = self.config.names.store(channel);
        self.found(&store, &json!({ "seq": sequence })).await
    }

    async fn found(self, store: &str, question: &Value) -> Result<Option<Stored>, BrokerError> {
        let Some((sequence, bytes)) = self.leaders(store, question).await? else {
            return Ok(None);
        };
        let frame = Frame::decode(&bytes).ok_or_else(foreign)?;
        Ok(Some(Stored { sequence, frame }))
    }

    /// What the leader of a stream has: number and payload.
    async fn leaders(self, store: &str, question: &Value) -> Result<Option<(u64, Bytes)>, BrokerError> {
        let answer = self
            .api(&format!("$JS.API.STREAM.MSG.GET.{store}"), question)
            .await?;
        match (answer.error, answer.message) {
            (Some(failure), _) if failure.err_code == NOT_FOUND => Ok(None),
            (Some(failure), _) => Err(failure.into()),
            (None, None) => Err(foreign()),
            (None, Some(found)) => {
                let bytes = Bytes::from(STANDARD.decode(found.data).map_err(|_| foreign())?);
                Ok(Some((found.seq, bytes)))
            }
        }
    }

    /// Frames of a channel from this number on, and whether there are more.
    pub(super) async fn range(self, channel: &[u8], from: u64) -> Result<(Vec<Stored>, bool), BrokerError> {
        let names = &self.config.names;
        let question = json!({
            "seq": from.max(1), "next_by_subj": names.at(channel), "batch": BATCH, "max_bytes": BATCH_BYTES,
        });
        let subject = format!("$JS.API.DIRECT.GET.{}", names.store(channel));
        let mut answers = self.link.ask(&subject, &[], question.to_string().as_bytes())?;
        let mut frames = Vec::new();
        loop {
            let message = answers.next(self.config.timing.answer).await?;
            match message.status() {
                Some(404) => return Ok((frames, false)),
                Some(204) => {
                    let pending = message.header("Nats-Num-Pending");
                    return Ok((frames, pending.is_some_and(|number| number != "0")));
                }
                Some(other) => return Err(odd(other)),
                None => frames.push(stored(&message)?),
            }
        }
    }

    /// Appends a frame behind exactly the one that is told.
    pub(super) async fn append(self, append: Append<'_>) -> Result<Appended, BrokerError> {
        let behind = append.behind.to_string();
        let mut headers = vec![("Nats-Expected-Last-Subject-Sequence", behind.as_str())];
        headers.extend(append.id.map(|id| ("Nats-Msg-Id", id)));
        if append.alone {
            headers.push(("Nats-Rollup", "sub"));
        }
        let subject = self.config.names.at(append.channel);
        let mut answers = self.link.ask(&subject, &headers, &append.frame.encode())?;
        appended(&answers.next(self.config.timing.answer).await?)
    }

    /// Removes what of a channel is before this number.
    pub(super) async fn purge(self, channel: &[u8], before: u64) -> Result<(), BrokerError> {
        let names = &self.config.names;
        let subject = format!("$JS.API.STREAM.PURGE.{}", names.store(channel));
        let question = json!({ "filter": names.at(channel), "seq": before });
        let answer = self.api(&subject, &question).await?;
        answer.error.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// The last payload on a subject of the stream of leases and connections, whatever was acknowledged before included.
    pub(super) async fn lease(self, lease: &str) -> Result<Option<Bytes>, BrokerError> {
        let names = &self.config.names;
        let question = json!({ "last_by_subj": names.lease(lease) });
        let found = self.leaders(&names.stream(SEATS), &question).await?;
        Ok(found.map(|(_, payload)| payload))
    }

    /// The last message of each subject of a user's connections: what a server that answers has, which may be behind.
    pub(super) async fn seats(self, user: &str) -> Result<Vec<Seated>, BrokerError> {
        let names = &self.config.names;
        let question = json!({ "multi_last": [names.seats_of(user)], "batch": SUBJECTS });
        let subject = format!("$JS.API.DIRECT.GET.{}", names.stream(SEATS));
        let mut answers = self.link.ask(&subject, &[], question.to_string().as_bytes())?;
        let mut seats = Vec::new();
        loop {
            let message = answers.next(self.config.timing.answer).await?;
            match message.status() {
                Some(404 | 204) => return Ok(seats),
                Some(other) => return Err(odd(other)),
                // what was given up is there for a moment, empty
                None if message.payload.is_empty() => {}
                None => seats.push(seated(&message).ok_or_else(foreign)?),
            }
        }
    }

    /// The last payload on a subject of places of `msgId`s.
    pub(super) async fn remembered(self, subject: &str) -> Result<Option<Bytes>, BrokerError> {
        let store = self.config.names.stream(ID);
        let mut answers = self
            .link
            .ask(&format!("$JS.API.DIRECT.GET.{store}.{subject}"), &[], b"")?;
        let message = answers.next(self.config.timing.answer).await?;
        Ok(message.status().is_none().then_some(message.payload))
    }
}

/// What JetStream says of a message that it was to store.
pub(super) fn appended(answer: &Message) -> Result<Appended, BrokerError> {
    let answer = parsed(answer)?;
    match answer.error {
        None if answer.duplicate => Ok(Appended::Duplicate(answer.seq)),
        None => Ok(Appended::At(answer.seq)),
        Some(Failure {
            err_code: WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_NOW | DUPLICATE_NOW,
            ..
        }) => Ok(Appended::Conflict),
        Some(failure) => Err(failure.into()),
    }
}

fn parsed(message: &Message) -> Result<Answer, BrokerError> {
    serde_json::from_slice(&message.payload).map_err(|_| foreign())
}

fn stored(message: &Message) -> Result<Stored, BrokerError> {
    let sequence = message
        .header("Nats-Sequence")
        .and_then(|number| number.parse().ok());
    let (Some(sequence), Some(frame)) = (sequence, Frame::decode(&message.payload)) else {
        return Err(foreign());
    };
    Ok(Stored { sequence, frame })
}

fn seated(message: &Message) -> Option<Seated> {
    let (lease, connection) = naming::seat(message.header("Nats-Subject")?)?;
    let text = std::str::from_utf8(&message.payload).ok()?;
    let (standing, gateway) = text.split_once(' ')?;
    Some(Seated {
        lease: lease.into(),
        connection,
        sequence: message.header("Nats-Sequence")?.parse().ok()?,
        kept: standing == KEPT,
        gateway: gateway.into(),
    })
}

fn odd(status: u16) -> BrokerError {
    BrokerError::Refused(format!("NATS said: status {status}").into())
}

fn foreign() -> BrokerError {
    BrokerError::Refused(
        "what is stored in NATS there is not of a gateway; give each fleet a prefix of its own".into(),
    )
}
