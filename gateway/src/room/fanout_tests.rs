//! What is written by several tasks at a time: who gets what, in which order, and what the publisher is told meanwhile.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::super::tests::{Local, local_with, message};
use crate::broker::Broker;
use crate::session::Conn;
use crate::test_support::{Peer, env};

/// So much at once makes a room of more than sixteen members large.
const AT_ONCE: usize = 400;
/// Members of such a room.
const MEMBERS: u64 = 20;

/// A gateway whose members may be as slow as this machine is.
fn patient() -> Local {
    let mut env = env();
    (env.queue_bytes, env.queue_messages) = (1 << 30, 1 << 30);
    local_with(env)
}

fn text() -> String {
    format!("\"{}\"", "x".repeat(400))
}

/// Publishes so many messages in all, many at once.
fn publish(broker: &Arc<dyn Broker>, messages: usize) {
    for _ in 0..messages / AT_ONCE {
        broker.publish((0..AT_ONCE).map(|_| message(&text())).collect());
    }
}

/// Reads messages with these offsets, each once.
async fn expect(mut peer: Peer, offsets: std::ops::RangeInclusive<u64>) {
    for offset in offsets {
        assert_eq!(peer.next_of("room_message").await["offset"], offset);
    }
}

/// Members that read messages up to this offset.
async fn readers(local: &Local, last: u64) -> Vec<(Arc<Conn>, JoinHandle<()>)> {
    let mut readers = Vec::new();
    for id in 0..MEMBERS {
        let (conn, peer, ..) = local.member(id, &format!("user{id}")).await;
        readers.push((conn, tokio::spawn(expect(peer, 1..=last))));
    }
    readers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_member_of_a_large_room_gets_everything_once_and_in_order() {
    let local = patient();
    let reading = readers(&local, 4_800).await;
    let publishing: Vec<_> = (0..3)
        .map(|_| {
            let broker = Arc::clone(&local.broker);
            tokio::spawn(async move { publish(&broker, 1_600) })
        })
        .collect();
    for done in publishing {
        done.await.unwrap();
    }
    for (_conn, done) in reading {
        done.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_joins_a_large_room_amid_messages_gets_those_behind_its_position() {
    let local = patient();
    let staying = readers(&local, 8_000).await;
    let mut joining = Vec::new();
    for id in 1_000..1_020 {
        publish(&local.broker, AT_ONCE);
        let (conn, peer, _, position) = local.member(id, "joins").await;
        joining.push((conn, tokio::spawn(expect(peer, position + 1..=8_000))));
    }
    for (_conn, done) in staying.into_iter().chain(joining) {
        done.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_is_faster_than_its_room_is_told_and_what_was_accepted_arrives() {
    let local = patient();
    let mut members = Vec::new();
    for id in 0..MEMBERS {
        members.push(local.member(id, &format!("user{id}")).await);
    }
    let (outcomes, told) = std::sync::mpsc::channel();
    // far more than what may wait, before anybody reads
    for _ in 0..100 {
        let batch = (0..AT_ONCE).map(|_| {
            let outcomes = outcomes.clone();
            let mut message = message(&text());
            message.reply = Some(Box::new(move |outcome| outcomes.send(outcome).unwrap()));
            message
        });
        local.broker.publish(batch.collect());
    }
    drop(outcomes);
    let accepted: Vec<u64> = told
        .iter()
        .flatten()
        .map(|accepted| accepted.position.offset)
        .collect();
    assert!(accepted.iter().copied().eq(1..=accepted.len() as u64));
    assert!(accepted.len() < 100 * AT_ONCE, "nothing was refused");
    let last = accepted.len() as u64;
    let reading: Vec<_> = members
        .into_iter()
        .map(|(conn, peer, ..)| (conn, tokio::spawn(expect(peer, 1..=last))))
        .collect();
    for (_conn, done) in reading {
        done.await.unwrap();
    }
}
