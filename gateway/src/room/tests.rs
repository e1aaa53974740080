use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use serde_json::value::RawValue;

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Event, Health, Page, Position, Publish, Reading};
use crate::config::SlowPolicy;
use crate::test_support::{DEADLINE, Frame, Peer, connect, env};

pub(super) struct Local {
    env: Arc<Env>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) broker: Arc<dyn Broker>,
}

fn local() -> Local {
    local_with(env())
}

pub(super) fn local_with(env: Env) -> Local {
    let env = Arc::new(env);
    let rooms = Arc::new(Rooms::new(Arc::clone(&env)));
    let broker = Arc::new(MemoryBroker::new(
        crate::config::Histories::default(),
        Arc::clone(&rooms) as Arc<dyn Sink>,
    ));
    Local { env, rooms, broker }
}

fn key(name: &str) -> StreamKey {
    StreamKey::Room(name.into())
}

pub(super) fn message(text: &str) -> Publish {
    let event = Event::RoomMessage {
        user_id: "u".into(),
        payload: RawValue::from_string(text.to_owned()).unwrap(),
        timestamp: 0,
        server_id: "s".into(),
    };
    Publish {
        stream: key("room"),
        event,
        msg_id: None,
        reply: None,
    }
}

impl Local {
    async fn join(&self, conn: &Arc<Conn>) -> Result<Arc<Room>, JoinError> {
        match self.rooms.join(conn, key("room"), &self.broker) {
            JoinStep::Done(joined) => joined,
            JoinStep::Wait(done) => tokio::time::timeout(DEADLINE, done)
                .await
                .expect("joined in time"),
        }
    }

    pub(super) async fn member(&self, id: u64, user: &str) -> (Arc<Conn>, Peer, Arc<Room>, u64) {
        let (conn, mut peer) = connect(&self.env, id, user).await;
        let room = self.join(&conn).await.unwrap();
        let joined = peer.next_of("joined").await;
        (conn, peer, room, joined["offset"].as_u64().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_publishers_reach_every_member_in_one_order_without_a_hole() {
    let local = local();
    let mut members = Vec::new();
    for id in 1..=3 {
        members.push(local.member(id, &format!("user{id}")).await);
    }
    for _ in 0..4 {
        let broker = Arc::clone(&local.broker);
        tokio::task::spawn_blocking(move || {
            for _ in 0..200 {
                broker.publish(vec![message("1"), message("2")]);
            }
        });
    }
    for (_, peer, ..) in &mut members {
        for offset in 1..=1_600_u64 {
            assert_eq!(peer.next_of("room_message").await["offset"], offset);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_joins_amid_messages_gets_exactly_those_behind_its_position() {
    let local = local();
    let (_stays, ..) = local.member(1, "stays").await;
    let done = Arc::new(AtomicBool::new(false));
    let (broker, stop) = (Arc::clone(&local.broker), Arc::clone(&done));
    let publishing = tokio::task::spawn_blocking(move || {
        while !stop.load(SeqCst) {
            broker.publish(vec![message("1")]);
            // the members' sockets are read one after the other: leave them room
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    for id in 10..60 {
        let (conn, mut peer, room, position) = local.member(id, "joins").await;
        for next in position + 1..position + 6 {
            assert_eq!(peer.next_of("room_message").await["offset"], next, "member {id}");
        }
        local.rooms.leave(&conn, &room, &*local.broker);
    }
    done.store(true, SeqCst);
    publishing.await.unwrap();
}

/// Checks that subscriptions take turns; each takes a while, every `fails`-th fails.
#[derive(Debug, Default)]
struct Turns {
    subscribed: Arc<AtomicUsize>,
    wrong: Arc<AtomicBool>,
    calls: AtomicUsize,
    fails: usize,
}

impl Broker for Turns {
    fn publish(&self, _batch: Vec<Publish>) {}

    fn subscribe(&self, _stream: StreamKey) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        let fails = self.fails > 0 && call.is_multiple_of(self.fails);
        let (subscribed, wrong) = (Arc::clone(&self.subscribed), Arc::clone(&self.wrong));
        Box::pin(async move {
            for _ in 0..call % 7 {
                tokio::task::yield_now().await;
            }
            if fails {
                return Err(BrokerError::Unavailable);
            }
            if subscribed.fetch_add(1, SeqCst) != 0 {
                wrong.store(true, SeqCst);
            }
            Ok(Position {
                epoch: "e".into(),
                offset: 0,
            })
        })
    }

    fn history(&self, _reading: Reading) -> BoxFuture<'static, Result<Page, BrokerError>> {
        Box::pin(async { Err(BrokerError::Unavailable) })
    }

    fn unsubscribe(&self, _stream: &StreamKey) {
        if self.subscribed.fetch_sub(1, SeqCst) != 1 {
            self.wrong.store(true, SeqCst);
        }
    }

    fn health(&self) -> Health {
        Health {
            up: true,
            degraded: false,
        }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_joins_and_leaves_subscribe_and_unsubscribe_strictly_in_turns() {
    for fails in [0, 5] {
        let turns = Arc::new(Turns {
            fails,
            ..Turns::default()
        });
        let Local { env, rooms, .. } = local();
        let broker: Arc<dyn Broker> = Arc::clone(&turns) as _;
        let local = Arc::new(Local { env, rooms, broker });
        let mut tasks = tokio::task::JoinSet::new();
        for id in 0..8 {
            let local = Arc::clone(&local);
            tasks.spawn(async move {
                let (conn, mut peer) = connect(&local.env, id, "u").await;
                tokio::spawn(async move { while peer.next().await != Frame::End {} });
                for _ in 0..200 {
                    if let Ok(room) = local.join(&conn).await {
                        assert!(room.contains(&conn));
                        tokio::task::yield_now().await;
                        local.rooms.leave(&conn, &room, &*local.broker);
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert!(
            !turns.wrong.load(SeqCst),
            "two subscriptions at a time, or none to end"
        );
        assert_eq!(turns.subscribed.load(SeqCst), 0, "the last one out unsubscribes");
        assert!(
            local.rooms.find(&key("room")).is_none(),
            "an empty room is dropped"
        );
        assert_eq!(local.env.metrics.rooms.get(), 0);
    }
}

#[tokio::test]
async fn a_reader_that_stalls_is_closed_with_4102_and_its_queue_never_grows_past_its_bounds() {
    let mut small = env();
    (small.queue_bytes, small.queue_messages) = (32 << 10, 1_000);
    let local = local_with(small);
    let (stalled, mut stalled_peer, ..) = local.member(1, "stalled").await;
    let (_healthy, mut healthy, ..) = local.member(2, "healthy").await;
    let text = format!("\"{}\"", "x".repeat(8_000));
    let mut published = 0_u64;
    while stalled.closed().is_none() {
        local.broker.publish(vec![message(&text)]);
        published += 1;
        assert_eq!(healthy.next_of("room_message").await["offset"], published);
        let (bytes, messages) = stalled.queued();
        assert!(
            bytes <= 32 << 10 && messages <= 1_000,
            "{bytes} bytes, {messages} messages wait"
        );
        assert!(published < 10_000, "kernel buffers must fill at some time");
    }
    assert_eq!(local.env.metrics.slow.times(SlowPolicy::Disconnect), 1);
    local.broker.publish(vec![message("1")]);
    let mut last = 0;
    loop {
        match stalled_peer.next().await {
            Frame::Text(value) if value["type"] == "room_message" => {
                last += 1;
                assert_eq!(value["offset"], last, "what is delivered is whole and in order");
            }
            Frame::Text(_) => {}
            Frame::Close(code) => break assert_eq!(code, 4_102),
            Frame::End => panic!("cut without a close frame"),
        }
    }
}

#[tokio::test]
async fn others_hear_of_a_user_once_however_many_devices_join_and_nobody_of_itself() {
    let mut brief = env();
    brief.presences = crate::config::Presences::new(
        Vec::new(),
        "0".parse().unwrap(),
        crate::config::Histories::default(),
    );
    let local = local_with(brief);
    let (rooms, broker) = (Arc::clone(&local.rooms), Arc::clone(&local.broker));
    let announcing = tokio::spawn(async move { rooms.announce_gone(&*broker).await });
    let (_a, mut a, ..) = local.member(1, "a").await;
    let (first, mut b, room, _) = local.member(2, "b").await;
    let (second, mut b2, ..) = local.member(3, "b").await;
    assert_eq!(a.next_of("user_joined").await["userId"], "b");
    local.rooms.leave(&first, &room, &*local.broker);
    local.rooms.leave(&second, &room, &*local.broker);
    let Frame::Text(left) = a.next().await else {
        panic!("a frame")
    };
    assert_eq!(
        (&left["type"], &left["userId"]),
        (&"user_left".into(), &"b".into()),
        "one join, one leave"
    );
    local.broker.publish(vec![message("1")]);
    let Frame::Text(next) = a.next().await else {
        panic!("a frame")
    };
    assert_eq!(next["type"], "room_message");
    announcing.abort();
    drop((first, second));
    assert_eq!(b.next().await, Frame::End, "no announcement of itself");
    assert_eq!(b2.next().await, Frame::End, "nor to its other device");
}

#[tokio::test]
async fn rooms_with_more_members_than_the_limit_hear_nothing_of_joins() {
    let mut quiet = env();
    quiet.announce_members = crate::config::Limit::new(1);
    let local = local_with(quiet);
    let (_a, mut a, ..) = local.member(1, "a").await;
    let _b = local.member(2, "b").await;
    local.broker.publish(vec![message("1")]);
    let Frame::Text(first) = a.next().await else {
        panic!("a frame")
    };
    assert_eq!(first["type"], "room_message");
}

#[tokio::test]
async fn a_user_with_as_many_connections_as_allowed_gets_no_further_one() {
    let mut strict = env();
    strict.connections_per_user = crate::config::Limit::new(1);
    let local = local_with(strict);
    let user = || StreamKey::User("u".into());
    let (first, mut peer) = connect(&local.env, 1, "u").await;
    let JoinStep::Wait(done) = local.rooms.join(&first, user(), &local.broker) else {
        panic!("subscribes")
    };
    let room = done.await.unwrap();
    assert_eq!(peer.next_of("welcome").await["userId"], "u");
    let (second, _) = connect(&local.env, 2, "u").await;
    let refused = local.rooms.join(&second, user(), &local.broker);
    assert!(matches!(refused, JoinStep::Done(Err(JoinError::Full))));
    assert_eq!(room.len(), 1, "reject, never evict");
}

/// Publishes to a member that reads nothing beside one that reads all, until `enough` says so; then the former reads, and
/// gives what it was told as ranges of offsets, and its messages.
async fn stall(policy: &str, enough: impl Fn(&Env) -> bool) -> (Local, u64, Vec<(u64, u64)>, usize) {
    let mut small = env();
    (small.queue_bytes, small.queue_messages) = (64 << 10, 1_000);
    small.slow_consumers = crate::config::SlowPolicies::new(vec![format!("ro*={policy}").parse().unwrap()]);
    let local = local_with(small);
    let (stalled, mut stalled_peer, ..) = local.member(1, "stalled").await;
    let (_healthy, mut healthy, ..) = local.member(2, "healthy").await;
    let text = format!("\"{}\"", "x".repeat(8_000));
    let mut published = 0_u64;
    while !enough(&local.env) {
        local.broker.publish(vec![message(&text), message("1")]);
        published += 2;
        for offset in [published - 1, published] {
            assert_eq!(healthy.next_of("room_message").await["offset"], offset);
        }
        let (bytes, messages) = stalled.queued();
        assert!(
            bytes <= 64 << 10 && messages <= 1_000,
            "{bytes} bytes, {messages} messages"
        );
        assert!(published < 20_000, "kernel buffers must fill at some time");
    }
    assert!(stalled.closed().is_none(), "messages give way, not the member");
    let (mut told, mut whole, mut next) = (Vec::new(), 0, 1);
    while next <= published {
        let Frame::Text(value) = stalled_peer.next().await else {
            panic!("closed after {told:?}")
        };
        let number = |field: &str| value[field].as_u64().unwrap();
        let range = match value["type"].as_str() {
            Some("room_message") => (number("offset"), number("offset")),
            Some("gap") => (number("from"), number("to")),
            _ => continue,
        };
        whole += usize::from(value["type"] == "room_message");
        assert_eq!(range.0, next, "messages and gaps are every offset once, in order");
        next = range.1 + 1;
        told.push(range);
    }
    (local, published, told, whole)
}

#[tokio::test]
async fn where_the_oldest_messages_give_way_a_stalled_reader_stays_and_is_told_what_it_missed() {
    let policy = SlowPolicy::DropOldest;
    let (local, published, told, whole) =
        stall("dropOldest", |env| env.metrics.slow.times(policy) >= 30).await;
    assert!(told.iter().any(|(from, to)| to > from), "a gap: {told:?}");
    assert!((whole as u64) < published);
    let last = told.last().unwrap();
    assert_eq!(*last, (published, published), "the newest are kept");
    assert_eq!(local.env.metrics.slow.times(SlowPolicy::Disconnect), 0);
    let text = String::from_utf8(local.env.metrics.render().unwrap()).unwrap();
    let dropped = published - whole as u64;
    let line = format!(
        "ws_slow_consumer_dropped_messages_total{{policy=\"dropOldest\",server_id=\"test\"}} {dropped}"
    );
    assert!(text.contains(&line), "{line}\n{text}");
}

#[tokio::test]
async fn where_the_latest_message_is_kept_a_stalled_reader_gets_the_last_of_each_sender() {
    let policy = SlowPolicy::KeepLatest;
    let (_local, published, told, _) = stall("keepLatest", |env| env.metrics.slow.times(policy) == 1).await;
    // one sender: all but its last message give way at once
    let (from, to) = told[told.len() - 2];
    assert!(to == published - 1 && to > from, "{told:?}");
    assert_eq!(told.last(), Some(&(published, published)));
}
