use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::*;
use crate::broker::{Accepted, Crowded, Event, MsgId, Span};

#[derive(Default)]
struct Recorder(Mutex<BTreeMap<StreamKey, Vec<u64>>>);

impl Sink for Recorder {
    fn deliver(&self, batch: Vec<Delivery>) -> Option<Crowded> {
        for delivery in batch {
            let offset = delivery.position.map_or(0, |position| position.offset);
            self.0.lock().entry(delivery.stream).or_default().push(offset);
        }
        None
    }
}

fn room(name: &str) -> StreamKey {
    StreamKey::Room(name.into())
}

fn message(stream: StreamKey) -> Publish {
    let event = Event::RoomMessage {
        user_id: "u".into(),
        payload: RawValue::from_string("1".to_owned()).unwrap(),
        timestamp: 0,
        server_id: "s".into(),
    };
    Publish {
        stream,
        event,
        msg_id: None,
        reply: None,
    }
}

#[test]
fn offsets_begin_at_one_and_a_subscription_tells_where_the_stream_is() {
    let broker = MemoryBroker::new(Histories::default(), Arc::new(Recorder::default()));
    let before = broker.subscribe(room("a")).now_or_never().unwrap().unwrap();
    assert_eq!(before.offset, 0);
    broker.publish(vec![message(room("a")), message(room("b")), message(room("a"))]);
    let after = broker.subscribe(room("a")).now_or_never().unwrap().unwrap();
    assert_eq!(
        after,
        Position {
            epoch: before.epoch,
            offset: 2
        }
    );
}

#[test]
fn concurrent_publishers_of_one_room_are_delivered_in_offset_order_without_a_hole() {
    let sink = Arc::new(Recorder::default());
    let broker = Arc::new(MemoryBroker::new(
        Histories::default(),
        Arc::clone(&sink) as Arc<dyn Sink>,
    ));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let broker = Arc::clone(&broker);
            scope.spawn(move || {
                for _ in 0..500 {
                    broker.publish(vec![message(room("a")), message(room("b"))]);
                }
            });
        }
    });
    for offsets in sink.0.lock().values() {
        assert!(offsets.iter().copied().eq(1..=2_000), "a hole or a wrong order");
    }
}

#[test]
fn announcements_have_no_offset_and_take_none() {
    let sink = Arc::new(Recorder::default());
    let broker = MemoryBroker::new(Histories::default(), Arc::clone(&sink) as Arc<dyn Sink>);
    let event = Event::UserLeft {
        user_id: "u".into(),
        server_id: "s".into(),
    };
    broker.publish(vec![
        Publish {
            stream: room("a"),
            event,
            msg_id: None,
            reply: None,
        },
        message(room("a")),
    ]);
    let mut offsets = sink.0.lock()[&room("a")].clone();
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1]);
}

#[test]
fn a_stream_that_was_forgotten_begins_a_new_epoch() {
    let broker = MemoryBroker::new(Histories::default(), Arc::new(Recorder::default()));
    broker.publish(vec![message(room("a"))]);
    let before = broker.subscribe(room("a")).now_or_never().unwrap().unwrap();
    broker
        .shard(&room("a"))
        .lock()
        .forget_silent(Instant::now() + KEEP_SILENT * 2);
    let after = broker.subscribe(room("a")).now_or_never().unwrap().unwrap();
    assert_ne!(before.epoch, after.epoch);
    assert_eq!(after.offset, 0);
}

fn broker(rules: &[&str]) -> (MemoryBroker, Arc<Recorder>) {
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let sink = Arc::new(Recorder::default());
    let histories = Histories::new(rules, crate::config::DirectHistory::default());
    (
        MemoryBroker::new(histories, Arc::clone(&sink) as Arc<dyn Sink>),
        sink,
    )
}

fn read(broker: &MemoryBroker, name: &str, span: Span) -> Vec<u64> {
    let reading = Reading {
        stream: room(name),
        span,
        messages: 300,
        bytes: 1 << 20,
    };
    let page = broker.history(reading).now_or_never().unwrap().unwrap();
    page.messages.iter().map(|kept| kept.offset).collect()
}

#[test]
fn a_room_keeps_what_its_rule_says() {
    let (broker, sink) = broker(&["few=2/60", "off=off", "gone=ephemeral"]);
    for name in ["few", "off", "gone", "other"] {
        for _ in 0..3 {
            broker.publish(vec![message(room(name))]);
        }
    }
    assert_eq!(read(&broker, "few", Span::After(0)), [2, 3]);
    assert_eq!(read(&broker, "other", Span::Before(Some(3))), [1, 2]);
    assert!(read(&broker, "off", Span::After(0)).is_empty());
    assert!(read(&broker, "gone", Span::After(0)).is_empty());
    let position = |name| broker.subscribe(room(name)).now_or_never().unwrap().unwrap();
    assert_eq!(position("off").offset, 3);
    assert_eq!(position("gone"), Position::none());
    assert_eq!(
        sink.0.lock()[&room("gone")],
        [0, 0, 0],
        "delivered without a place"
    );
}

#[test]
fn of_messages_with_one_msg_id_of_a_sender_the_first_is_accepted() {
    let (broker, sink) = broker(&[]);
    let outcomes = Arc::<Mutex<Vec<Accepted>>>::default();
    let publish = |id: MsgId, user: &str| {
        let outcomes = Arc::clone(&outcomes);
        let mut publish = message(room("a"));
        if let Event::RoomMessage { user_id, .. } = &mut publish.event {
            *user_id = user.into();
        }
        publish.msg_id = Some(id);
        publish.reply = Some(Box::new(move |outcome| outcomes.lock().push(outcome.unwrap())));
        broker.publish(vec![publish]);
    };
    let user = |id: &str| MsgId::User(id.into());
    for (id, from) in [
        (user("1"), "ann"),
        (user("1"), "ann"),
        (user("2"), "ann"),
        (user("1"), "bob"),
        (user("1"), "ann"),
        // a back end's own, in whose name ever it speaks
        (MsgId::BackEnd("1".into()), "ann"),
        (MsgId::BackEnd("1".into()), "bob"),
    ] {
        publish(id, from);
    }
    let told: Vec<_> = outcomes
        .lock()
        .iter()
        .map(|a| (a.position.offset, a.duplicate))
        .collect();
    assert_eq!(
        told,
        [
            (1, false),
            (1, true),
            (2, false),
            (3, false),
            (1, true),
            (4, false),
            (4, true)
        ]
    );
    assert_eq!(sink.0.lock()[&room("a")], [1, 2, 3, 4]);
}

#[test]
fn what_is_too_old_is_swept_out_of_streams_in_which_nothing_happens() {
    let (broker, _) = broker(&[]);
    broker.publish(vec![message(room("a"))]);
    assert!(broker.budget.bytes() > 0);
    let later = Instant::now() + Duration::from_mins(6);
    for shard in &broker.shards {
        shard.lock().sweep(later);
    }
    assert_eq!(broker.budget.bytes(), 0);
}
