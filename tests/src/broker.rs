//! Redis brokers of a test, and what was delivered by them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use prometheus::IntCounter;
use serde_json::value::RawValue;
use wsfleet_gateway::broker::nats::{NatsBroker, NatsConfig};
use wsfleet_gateway::broker::redis::{PresenceSettings, RedisBroker, RedisConfig, Stats, Timing};
use wsfleet_gateway::broker::{
    Accepted, Attendance, Attendee, Broker, BrokerError, Crowded, Delivery, Event, Health, MsgId, Position,
    Publish, Roll, Sink, StreamKey,
};
use wsfleet_gateway::config::Histories;

use crate::redis::RedisServer;
use crate::wait::{soon, until};

/// Up, and proven.
pub const HEALTHY: Health = Health {
    up: true,
    degraded: false,
};

/// For tests of links that go silent: found soon, and longer than a busy machine pauses.
pub const SHORT: Timing = Timing {
    silence: Duration::from_millis(300),
    answer: Duration::from_secs(3),
    watch: Duration::from_millis(300),
    compare: Duration::from_secs(30),
    connect: Duration::from_secs(2),
    lease: Duration::from_secs(15),
    backoff_min: Duration::from_millis(10),
    backoff_max: Duration::from_millis(100),
};

/// For all other tests, whose links end visibly or not at all: no pause of a busy machine condemns one.
pub const PATIENT: Timing = Timing {
    answer: Duration::from_secs(30),
    ..SHORT
};

/// User and connection of the members of each room.
pub type Members = BTreeMap<Arc<str>, BTreeSet<[Arc<str>; 2]>>;

/// Keeps what was delivered.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Sizes of the batches.
    pub batches: Mutex<Vec<usize>>,
    /// Everything but gaps, in order.
    pub deliveries: Mutex<Vec<Delivery>>,
    /// What was told to be missing: the first and the last offset, and the epoch.
    pub gaps: Mutex<Vec<(u64, u64, String)>>,
    /// User and connection of those that are in each room.
    pub members: Mutex<Members>,
}

impl Sink for Recorder {
    fn deliver(&self, batch: Vec<Delivery>) -> Option<Crowded> {
        self.batches.lock().push(batch.len());
        for delivery in batch {
            match (&*delivery.event, &delivery.position) {
                (Event::Missing { from }, Some(to)) => {
                    self.gaps.lock().push((*from, to.offset, to.epoch.to_string()));
                }
                _ => self.deliveries.lock().push(delivery),
            }
        }
        None
    }

    fn each_room(&self, part: usize, visit: &mut dyn FnMut(&Arc<str>, usize)) -> bool {
        if part == 0 {
            let rooms = self.members.lock();
            rooms
                .iter()
                .for_each(|(room, members)| visit(room, members.len()));
        }
        part == 0
    }

    fn each_member(&self, room: &Arc<str>, visit: &mut dyn FnMut(&Attendee<'_>)) {
        for [user, connection] in self.members.lock().get(room).into_iter().flatten() {
            visit(&Attendee {
                room,
                user,
                connection,
            });
        }
    }
}

/// A broker with what it delivered.
#[derive(Debug)]
pub struct Node<B = RedisBroker> {
    /// The broker.
    pub broker: B,
    /// What it delivered.
    pub sink: Arc<Recorder>,
}

impl Node {
    /// Starts a broker, whether or not its Redis is there.
    pub fn start(url: &str, timing: Timing) -> Result<Self> {
        Self::with(&RedisConfig::from_url(url)?.with_timing(timing))
    }

    /// As [`Node::start`], with any settings.
    pub fn with(config: &RedisConfig) -> Result<Self> {
        let sink = Arc::new(Recorder::default());
        let broker = RedisBroker::start(config, Histories::default(), Arc::clone(&sink) as Arc<dyn Sink>)?;
        Ok(Self { broker, sink })
    }

    /// As [`Node::healthy_with`], with what it tells about who is in rooms.
    pub async fn attending(url: &str, timing: Timing, presence: PresenceSettings) -> Result<Self> {
        let sink = Arc::new(Recorder::default());
        let config = RedisConfig::from_url(url)?
            .with_timing(timing)
            .with_presence(presence);
        let broker = RedisBroker::start(&config, Histories::default(), Arc::clone(&sink) as Arc<dyn Sink>)?;
        let node = Self { broker, sink };
        node.wait_healthy().await?;
        Ok(node)
    }

    /// Starts a broker, and awaits that it is up and proven.
    pub async fn healthy(url: &str) -> Result<Self> {
        Self::healthy_with(url, PATIENT).await
    }

    /// As [`Node::healthy`], with a patience.
    pub async fn healthy_with(url: &str, timing: Timing) -> Result<Self> {
        let node = Self::start(url, timing)?;
        node.wait_healthy().await?;
        Ok(node)
    }
}

impl Node<NatsBroker> {
    /// Starts a broker on NATS, whether or not that is there.
    pub fn on_nats(url: &str, timing: Timing) -> Result<Self> {
        Self::on_nats_keeping(url, timing, Histories::default())
    }

    /// As [`Node::on_nats`], with what is kept of rooms.
    pub fn on_nats_keeping(url: &str, timing: Timing, histories: Histories) -> Result<Self> {
        Self::on_nats_with(&NatsConfig::from_url(url)?.with_timing(timing), histories)
    }

    /// As [`Node::on_nats_keeping`], with any settings.
    pub fn on_nats_with(config: &NatsConfig, histories: Histories) -> Result<Self> {
        let sink = Arc::new(Recorder::default());
        let broker = NatsBroker::start(config, histories, Arc::clone(&sink) as Arc<dyn Sink>)?;
        Ok(Self { broker, sink })
    }
}

/// A broker whose metrics can be read.
pub trait Counted: Broker {
    /// What happened so far.
    fn counts(&self) -> &Stats;
}

impl Counted for RedisBroker {
    fn counts(&self) -> &Stats {
        self.stats()
    }
}

impl Counted for NatsBroker {
    fn counts(&self) -> &Stats {
        self.stats()
    }
}

impl<B: Counted> Node<B> {
    /// Awaits that it is up and proven.
    pub async fn wait_healthy(&self) -> Result<()> {
        until("the broker is up and proven", || self.broker.health() == HEALTHY).await
    }

    /// A connection comes into a room.
    pub fn enter(&self, room: &str, user: &str, connection: &str) {
        let [room, user, connection]: [Arc<str>; 3] = [room.into(), user.into(), connection.into()];
        let mut members = self.sink.members.lock();
        let here = members.entry(Arc::clone(&room)).or_default();
        here.insert([Arc::clone(&user), Arc::clone(&connection)]);
        let opens = here.len() == 1;
        let attendee = Attendee {
            room: &room,
            user: &user,
            connection: &connection,
        };
        self.broker.enter(&attendee, opens);
    }

    /// A connection leaves a room.
    pub fn exit(&self, room: &str, user: &str, connection: &str) {
        let [room, user, connection]: [Arc<str>; 3] = [room.into(), user.into(), connection.into()];
        let mut members = self.sink.members.lock();
        let here = members.entry(Arc::clone(&room)).or_default();
        here.remove(&[Arc::clone(&user), Arc::clone(&connection)]);
        let closes = here.is_empty();
        if closes {
            members.remove(&room);
        }
        let attendee = Attendee {
            room: &room,
            user: &user,
            connection: &connection,
        };
        self.broker.exit(&attendee, closes);
    }

    /// Who is in a room.
    pub async fn attendance(&self, room: &str, after: Option<Arc<str>>, limit: usize) -> Result<Attendance> {
        let roll = Roll {
            room: room.into(),
            after,
            limit,
        };
        let answer = self.broker.attendance(roll).context("it knows")?;
        Ok(soon("who is there", answer).await??)
    }

    /// Users that were announced in what was delivered: those that came, and those that went, in order.
    pub fn announced(&self) -> Vec<(bool, String)> {
        let deliveries = self.sink.deliveries.lock();
        let announced = deliveries.iter().filter_map(|delivery| match &*delivery.event {
            Event::UserJoined { user_id, .. } => Some((true, user_id.to_string())),
            Event::UserLeft { user_id, .. } => Some((false, user_id.to_string())),
            _ => None,
        });
        announced.collect()
    }

    /// Subscribes, and gives the position.
    pub async fn subscribe(&self, stream: &StreamKey) -> Result<Position> {
        Ok(soon("a subscription", self.broker.subscribe(stream.clone())).await??)
    }

    /// Publishes a text, and gives the outcome.
    pub async fn publish(&self, stream: &StreamKey, text: &str) -> Result<Result<Position, BrokerError>> {
        self.publish_event(stream, message(text)?).await
    }

    /// Publishes any event, and gives the outcome.
    pub async fn publish_event(
        &self,
        stream: &StreamKey,
        event: Event,
    ) -> Result<Result<Position, BrokerError>> {
        let outcome = self.publish_as(stream, event, None).await?;
        Ok(outcome.map(|accepted| accepted.position))
    }

    /// Publishes any event, with a `msgId` or without, and gives the outcome.
    pub async fn publish_as(
        &self,
        stream: &StreamKey,
        event: Event,
        msg_id: Option<&str>,
    ) -> Result<Result<Accepted, BrokerError>> {
        let (tell, outcome) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result| {
            let _ = tell.send(result);
        });
        self.broker.publish(vec![Publish {
            stream: stream.clone(),
            event,
            msg_id: msg_id.map(|id| MsgId::User(id.into())),
            reply: Some(reply),
        }]);
        Ok(soon("the outcome of a publish", outcome).await??)
    }

    /// Publishes `count` messages in one call; the outcomes arrive in the list in the order of replies.
    pub fn publish_many(&self, stream: &StreamKey, count: usize) -> Result<Outcomes> {
        let outcomes = Outcomes::default();
        let batch = (0..count)
            .map(|number| {
                let outcomes = Arc::clone(&outcomes);
                let reply = Box::new(move |result: Result<Accepted, _>| {
                    outcomes
                        .lock()
                        .push((number, result.map(|accepted| accepted.position)));
                });
                Ok(Publish {
                    stream: stream.clone(),
                    event: message("x")?,
                    msg_id: None,
                    reply: Some(reply),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        self.broker.publish(batch);
        Ok(outcomes)
    }

    /// Awaits so many deliveries, and gives all there are.
    pub async fn wait_delivered(&self, count: usize) -> Result<Vec<Delivery>> {
        until(&format!("{count} deliveries"), || {
            self.sink.deliveries.lock().len() >= count
        })
        .await?;
        Ok(self.sink.deliveries.lock().clone())
    }

    /// A counter's value.
    pub fn stat(&self, read: impl Fn(&Stats) -> &IntCounter) -> u64 {
        read(self.broker.counts()).get()
    }
}

/// Number and outcome of publishes, in the order of replies.
pub type Outcomes = Arc<Mutex<Vec<(usize, Result<Position, BrokerError>)>>>;

/// A room's stream.
pub fn room(name: &str) -> StreamKey {
    StreamKey::Room(name.into())
}

/// A room message with this text.
pub fn message(text: &str) -> Result<Event> {
    Ok(Event::RoomMessage {
        user_id: "ann".into(),
        payload: RawValue::from_string(serde_json::to_string(text)?)?,
        timestamp: 1,
        server_id: "g1".into(),
    })
}

/// The text of a message; empty for announcements.
pub fn text(event: &Event) -> String {
    match event {
        Event::RoomMessage { payload, .. } | Event::DirectMessage { payload, .. } => {
            serde_json::from_str(payload.get()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// The offsets of deliveries.
pub fn offsets(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries
        .iter()
        .filter_map(|d| Some(d.position.as_ref()?.offset))
        .collect()
}

/// A room's metadata key, for tests that play tricks on it.
pub fn key(name: &str) -> String {
    format!("wsfleet:0:room:{{{name}}}")
}

/// Cuts all subscription links, and does more in the same moment.
pub async fn cut_and(redis: &RedisServer, more: &[&[&str]]) -> Result<()> {
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub");
    for command in more {
        pipe.cmd(command[0]).arg(&command[1..]);
    }
    let _: Vec<redis::Value> = pipe.query_async(&mut redis.connection().await?).await?;
    Ok(())
}
