//! The task that does what the drain has decided.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::seq::SliceRandom;
use wsfleet_crds::admin::DrainOrder;

use super::control::{Order, rate_to_close};
use super::pacer::{Grant, Pacer, Step};
use crate::gateway::Gateway;
use crate::protocol::{CloseReason, ServerMessage};
use crate::session::Place;

/// Time between looks at the line: closes of one second are spread over so many steps.
const TICK: Duration = Duration::from_millis(50);
/// How long closes may go unanswered at the end of a termination.
const LAST_WORDS: Duration = Duration::from_millis(1_500);

/// Notifies and closes while there is an order to. Runs until dropped.
pub async fn run(gateway: &Gateway) {
    let mut line: Option<(u64, Pacer<Place>)> = None;
    loop {
        let order = gateway.drain.control.lock().order().copied();
        let Some(order) = order else {
            line = None;
            gateway.env.metrics.drain_remaining.set(0);
            gateway.drain.changed.notified().await;
            continue;
        };
        let now = gateway.env.clock.now();
        let pacer = match line.take() {
            // sockets that were accepted just before the cordon may stand in no line yet
            Some((number, pacer)) if number == order.line && pacer.remaining() > 0 => pacer,
            _ => form_line(gateway, &order, now),
        };
        let (_, pacer) = line.insert((order.line, pacer));
        turn(gateway, &order, pacer, now);
        gateway
            .env
            .metrics
            .drain_remaining
            .set(gateway.connections.len() as i64);
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = gateway.drain.changed.notified() => {}
        }
    }
}

fn form_line(gateway: &Gateway, order: &Order, now: Duration) -> Pacer<Place> {
    let mut line = Vec::with_capacity(gateway.connections.len());
    gateway.connections.for_each(|place, conn| {
        if conn.closed().is_none() {
            line.push((conn.last_message(), conn.connected, place));
        }
    });
    // equal times are common (ticks are coarse), and must not mean "in the order of the table"
    line.shuffle(&mut rand::rng());
    match order.order {
        DrainOrder::IdleFirst => line.sort_by_key(|(last_message, ..)| *last_message),
        DrainOrder::OldestFirst => line.sort_by_key(|(_, connected, _)| *connected),
        DrainOrder::NewestFirst => line.sort_by_key(|(_, connected, _)| std::cmp::Reverse(*connected)),
        DrainOrder::Random => {}
    }
    let places = line.into_iter().map(|(.., place)| place);
    Pacer::new(
        places,
        grant(gateway, order, now),
        order.window,
        now,
        rand::random,
    )
}

fn grant(gateway: &Gateway, order: &Order, now: Duration) -> Grant {
    match order.close_by {
        Some(close_by) => Grant {
            rate: rate_to_close(gateway.connections.len(), close_by, now),
            until: Duration::MAX,
        },
        None => order.grant,
    }
}

fn turn(gateway: &Gateway, order: &Order, pacer: &mut Pacer<Place>, now: Duration) {
    pacer.renew(grant(gateway, order, now), now);
    let open = |place| {
        gateway
            .connections
            .get(place)
            .filter(|conn| conn.closed().is_none())
    };
    for step in pacer.tick(now, |place| open(place).is_some()) {
        match step {
            Step::Tell { key, delay } => {
                let Some(conn) = open(key) else { continue };
                let notice = ServerMessage::ServerShutdown {
                    reason: "drain",
                    reconnect_delay: delay.as_millis() as u64,
                    deadline: order.deadline,
                    resume: false,
                };
                gateway.env.metrics.sent(1);
                conn.send_control(&conn.format.frame(&notice));
            }
            Step::Close { key } => {
                let Some(conn) = open(key) else { continue };
                // counted first: the connection may be gone before this thread goes on
                gateway.drain.forced.fetch_add(1, Relaxed);
                if conn.close_with(order.close_code, CloseReason::Drain) {
                    gateway.env.metrics.drain_forced.inc();
                } else {
                    gateway.drain.forced.fetch_sub(1, Relaxed);
                }
            }
        }
    }
    if order
        .close_by
        .is_some_and(|close_by| now >= close_by.saturating_add(LAST_WORDS))
    {
        gateway.connections.for_each(|_, conn| conn.cut());
    }
}
