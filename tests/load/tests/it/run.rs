//! Whole runs against a small real server.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::server::{Fault, Server};
use wsfleet_load::{CloseCount, Initiator, Load, LoadConfig, Reconnect, Report, RoomLayout};

/// Ten clients in two rooms of five, fast.
pub(crate) fn config(server: &Server) -> LoadConfig {
    LoadConfig {
        connections: 10,
        rate: 1000.0,
        rooms: RoomLayout::Size(5),
        publish_rate: 200.0,
        // longer than a busy machine pauses: what comes after it is lost or late
        grace: Duration::from_secs(3),
        reconnect_window: Duration::from_millis(300),
        ..LoadConfig::new(server.url().parse().unwrap())
    }
}

pub(crate) async fn until(what: &str, load: &Load, mut condition: impl FnMut(&Report) -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let report = load.snapshot();
        if condition(&report) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} did not come about:\n{report}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn joined_and_chatting(load: &Load) {
    until("all joined and chatting", load, |r| {
        r.sockets.joined == 10 && r.deliveries.total > 500
    })
    .await;
}

fn closes(report: &Report, code: u16, initiator: Initiator) -> u64 {
    let kinds: Vec<&CloseCount> = report
        .closes
        .by_code
        .iter()
        .filter(|c| c.code == code && c.initiator == initiator)
        .collect();
    kinds.iter().map(|c| c.count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faultless_server_gets_a_clean_verdict_and_every_delivery_is_counted() {
    let server = Server::start().await;
    let load = Load::start(LoadConfig {
        publish_rate: 0.0,
        ..config(&server)
    })
    .unwrap();
    until("all joined", &load, |r| r.sockets.joined == 10).await;
    load.set_publish_rate(200.0);
    joined_and_chatting(&load).await;
    let report = load.stop().await;
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(report.publishes.acked, report.publishes.sent);
    assert_eq!(report.deliveries.total, report.publishes.acked * 5);
    assert_eq!(report.deliveries.latency_ms.count, report.deliveries.total);
    assert_eq!(closes(&report, 1000, Initiator::Client), 10);
    assert_eq!(
        report.sockets.by_server.get("tiny"),
        Some(&10),
        "as it was before they were closed"
    );
    assert_eq!(report.reconnects.histogram.get(&0), Some(&10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_repeated_or_reordered_is_found_in_every_room() {
    let server = Server::start().await;
    server.fault(60, Fault::Drop);
    server.fault(61, Fault::Drop);
    server.fault(70, Fault::Repeat);
    server.fault(80, Fault::Hold);
    let load = Load::start(LoadConfig {
        publish_rate: 0.0,
        ..config(&server)
    })
    .unwrap();
    until("all joined", &load, |r| r.sockets.joined == 10).await;
    load.set_publish_rate(400.0);
    until("both rooms past the faults", &load, |r| r.deliveries.total > 1000).await;
    let report = load.stop().await;
    let counts = report.verdict.counts;
    assert_eq!(
        (counts.lost, counts.duplicated, counts.out_of_order),
        (4, 2, 2),
        "{report}"
    );
    assert_eq!(report.verdict.rooms.len(), 2);
    assert_eq!(report.exit_code(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_last_message_is_found_by_its_acknowledgement() {
    let server = Server::start().await;
    server.fault(1, Fault::Drop);
    let config = LoadConfig {
        connections: 5,
        publish_rate: 0.0,
        ..config(&server)
    };
    let load = Load::start(config).unwrap();
    until("all joined", &load, |r| r.sockets.joined == 5).await;
    load.set_publish_rate(1.0);
    until("one message acknowledged", &load, |r| r.publishes.acked == 1).await;
    let report = load.stop().await;
    assert_eq!(report.publishes.sent, 1, "{report}");
    assert_eq!(report.verdict.counts.lost, 1, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_told_to_leave_change_over_without_being_offline_or_missing_anything() {
    let server = Server::start().await;
    let load = Load::start(config(&server)).unwrap();
    joined_and_chatting(&load).await;
    server.shut_down(|nth| 100 + nth * 20);
    until("all changed over", &load, |r| {
        r.reconnects.total == 10 && closes(r, 1000, Initiator::Client) == 10 && r.sockets.connected == 10
    })
    .await;
    let report = load.stop().await;
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(report.reconnects.histogram.get(&1), Some(&10));
    assert!(report.reconnects.offline.ms.max < 1.0, "{report}");
    assert_eq!(report.reconnects.offline.missed, 0, "{report}");
    assert!(report.reconnects.offline.overlapped > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn naive_clients_wait_for_the_close_and_for_their_delay() {
    let server = Server::start().await;
    let load = Load::start(LoadConfig {
        reconnect: Reconnect::BreakBeforeMake,
        resume: false,
        ..config(&server)
    })
    .unwrap();
    joined_and_chatting(&load).await;
    server.shut_down(|_| 600);
    server.close_all(1012);
    until("all back", &load, |r| r.reconnects.total == 10).await;
    let report = load.stop().await;
    assert_eq!(closes(&report, 1012, Initiator::Server), 10, "{report}");
    assert!(report.reconnects.offline.ms.p50 > 500.0, "{report}");
    assert!(
        report.reconnects.offline.missed > 0,
        "others published meanwhile: {report}"
    );
    assert_eq!(
        report.exit_code(),
        0,
        "who was away has lost nothing by the definition: {report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_counted_and_the_clients_come_back() {
    let server = Server::start().await;
    let load = Load::start(config(&server)).unwrap();
    joined_and_chatting(&load).await;
    server.cut_all();
    until("all back", &load, |r| {
        r.reconnects.total == 10 && r.sockets.joined == 10
    })
    .await;
    let report = load.stop().await;
    assert_eq!(report.verdict.cut, 10);
    assert_eq!(report.closed_with(1006), 10);
    assert_eq!(report.exit_code(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_clients_come_back_after_the_told_time_and_terminal_closes_stop_them() {
    let server = Server::start().await;
    server.refuse.store(4, SeqCst);
    let started = Instant::now();
    let load = Load::start(LoadConfig {
        publish_rate: 0.0,
        ..config(&server)
    })
    .unwrap();
    until("all joined", &load, |r| r.sockets.joined == 10).await;
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "Retry-After: 1 was not obeyed"
    );
    assert_eq!(load.snapshot().handshakes.refused.get("503"), Some(&4));
    server.close_at_once.store(4001, SeqCst);
    server.close_all(1012);
    until("all stopped", &load, |r| {
        r.sockets.stopped.get("closed 4001") == Some(&10)
    })
    .await;
    assert_eq!(load.stop().await.sockets.connected, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_clients_can_be_changed_both_ways() {
    let server = Server::start().await;
    let load = Load::start(config(&server)).unwrap();
    joined_and_chatting(&load).await;
    load.set_target(3).unwrap();
    until("three left", &load, |r| {
        r.sockets.joined == 3 && r.sockets.connected == 3
    })
    .await;
    load.set_target(15).unwrap();
    until("fifteen there", &load, |r| r.sockets.joined == 15).await;
    let report = load.stop().await;
    assert_eq!(closes(&report, 1000, Initiator::Client), 7 + 15, "{report}");
    assert_eq!(report.exit_code(), 0, "{report}");
}

#[tokio::test]
async fn more_clients_than_descriptors_are_refused_with_the_way_out() {
    let server = Server::start().await;
    let config = LoadConfig {
        connections: 4_000_000_000,
        ..config(&server)
    };
    let error = Load::start(config).unwrap_err().to_string();
    assert!(
        error.contains("ulimit -Hn") && error.contains("several processes"),
        "{error}"
    );
}
