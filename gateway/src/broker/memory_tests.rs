//! What a lone gateway promises of its streams: order, positions, and what is forgotten.

use super::*;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

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
        reply: None,
    }
}

#[test]
fn offsets_begin_at_one_and_a_subscription_tells_where_the_stream_is() {
    let broker = MemoryBroker::new(Arc::new(Recorder::default()));
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
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&sink) as Arc<dyn Sink>));
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
    let broker = MemoryBroker::new(Arc::clone(&sink) as Arc<dyn Sink>);
    let event = Event::UserLeft {
        user_id: "u".into(),
        server_id: "s".into(),
    };
    broker.publish(vec![
        Publish {
            stream: room("a"),
            event,
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
    let broker = MemoryBroker::new(Arc::new(Recorder::default()));
    broker.publish(vec![message(room("a"))]);
    let before = broker.subscribe(room("a")).now_or_never().unwrap().unwrap();
    forget_silent(
        &mut broker.shard(&room("a")).lock(),
        Instant::now() + KEEP_SILENT * 2,
    );
    let after = broker.subscribe(room("a")).now_or_never().unwrap().unwrap();
    assert_ne!(before.epoch, after.epoch);
    assert_eq!(after.offset, 0);
}
