//! Clients that come back and say where they were, and messages that are sent again, against a small server that may lie.

use std::sync::atomic::Ordering::SeqCst;

use crate::run::{config, joined_and_chatting, until};
use crate::server::{Fault, Server};
use wsfleet_load::{Load, LoadConfig, Report};

/// A run in which all connections are cut once; `lie` makes the server dishonest first.
async fn cut_once(rooms_per_connection: u32, lie: impl Fn(&Server)) -> Report {
    let server = Server::start().await;
    let load = Load::start(LoadConfig {
        rooms_per_connection,
        ..config(&server)
    })
    .unwrap();
    joined_and_chatting(&load).await;
    lie(&server);
    server.cut_all();
    until("all back", &load, |r| {
        r.reconnects.total >= 10 && r.sockets.joined == 10
    })
    .await;
    let before = load.snapshot().deliveries.total;
    until("they chat again", &load, |r| r.deliveries.total > before + 500).await;
    load.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_is_given_what_it_missed_and_nothing_is_lost() {
    for rooms in [1, 3] {
        let report = cut_once(rooms, |_| {}).await;
        assert!(report.verdict.counts.is_clean(), "{report}");
        let (resumes, offline) = (&report.reconnects.resumes, &report.reconnects.offline);
        assert_eq!(resumes.recovered, 10 * u64::from(rooms), "{report}");
        assert!(
            resumes.not_recovered.is_empty() && resumes.messages > 0,
            "{report}"
        );
        assert_eq!(offline.missed, 0, "{report}");
        assert_eq!(report.publishes.acked, report.publishes.sent, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_withheld_from_who_comes_back_is_lost() {
    // whatever it is that they miss
    let report = cut_once(1, |server| {
        (1..20_000).for_each(|offset| server.fault(offset, Fault::Withhold));
    })
    .await;
    let counts = report.verdict.counts;
    assert_eq!(counts.lost, report.reconnects.resumes.messages, "{report}");
    assert!(counts.lost > 0 && report.exit_code() == 3, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_an_answer_is_sent_again_and_is_in_its_room_once() {
    let report = cut_once(1, |server| server.swallow_acks.store(5, SeqCst)).await;
    assert!(report.verdict.counts.is_clean(), "{report}");
    let publishes = &report.publishes;
    assert!(
        publishes.sent_again >= 5 && publishes.acked_again >= 5,
        "{report}"
    );
    assert_eq!(
        (publishes.acked, publishes.unconfirmed),
        (publishes.sent, 0),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_taken_twice_is_found_although_its_offsets_differ() {
    let report = cut_once(1, |server| {
        server.forgets_ids.store(true, SeqCst);
        server.swallow_acks.store(5, SeqCst);
    })
    .await;
    let counts = report.verdict.counts;
    assert!(counts.repeated >= 5 && counts.duplicated == 0, "{report}");
    assert_eq!(report.exit_code(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sent_again_is_unconfirmed() {
    let server = Server::start().await;
    let load = Load::start(LoadConfig {
        retry: std::time::Duration::ZERO,
        ..config(&server)
    })
    .unwrap();
    joined_and_chatting(&load).await;
    server.swallow_acks.store(5, SeqCst);
    until("all answers were swallowed", &load, |r| {
        r.publishes.unconfirmed >= 5
    })
    .await;
    let report = load.stop().await;
    let publishes = &report.publishes;
    assert_eq!(publishes.sent_again, 0);
    assert_eq!(
        publishes.acked + publishes.unconfirmed,
        publishes.sent,
        "{report}"
    );
}
