//! The task that does what the drain has decided.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::seq::SliceRandom;
use wsfleet_crds::admin::DrainOrder;

use super::control::Order;
use super::line::{Line, is_over};
use super::pacer::Step;
use crate::gateway::Gateway;
use crate::protocol::{CloseReason, ServerMessage};
use crate::session::{Place, seat};

/// Time between looks at the line: closes of one second are spread over so many steps.
const TICK: Duration = Duration::from_millis(50);

/// Notifies and closes while there is an order to. Runs until dropped.
pub async fn run(gateway: &Gateway) {
    let mut line = Line::default();
    loop {
        let order = gateway.drain.control.lock().order().copied();
        let Some(order) = order else {
            line.dissolve();
            gateway.env.metrics.drain_remaining.set(0);
            gateway.drain.changed.notified().await;
            continue;
        };
        turn(gateway, &order, &mut line, gateway.env.clock.now());
        let remaining = gateway.connections.len();
        let to_go = remaining.saturating_sub(order.keep.unwrap_or_default());
        gateway.env.metrics.drain_remaining.set(to_go as i64);
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = gateway.drain.changed.notified() => {}
        }
    }
}

/// All open sockets that may be closed, in the order in which they are to be.
fn sockets(gateway: &Gateway, order: &Order) -> Vec<Place> {
    let now = gateway.env.clock.tick();
    let mut line = Vec::with_capacity(gateway.connections.len());
    gateway.connections.for_each(|place, conn| {
        if conn.closed().is_none() && now.since(conn.connected) >= order.min_age {
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
    line.into_iter().map(|(.., place)| place).collect()
}

/// Open sockets; of an order that some of them stay without those that are closing, which do not.
fn open_sockets(gateway: &Gateway, order: &Order) -> usize {
    if order.keep.is_none() {
        return gateway.connections.len();
    }
    let mut open = 0;
    gateway
        .connections
        .for_each(|_, conn| open += usize::from(conn.closed().is_none()));
    open
}

fn turn(gateway: &Gateway, order: &Order, line: &mut Line<Place>, now: Duration) {
    let open = |place| {
        gateway
            .connections
            .get(place)
            .filter(|conn| conn.closed().is_none())
    };
    let steps = line.advance(
        order,
        now,
        open_sockets(gateway, order),
        || sockets(gateway, order),
        |place| open(place).is_some(),
    );
    for step in steps {
        match step {
            Step::Tell { key, delay } => {
                let Some(conn) = open(key) else { continue };
                let notice = ServerMessage::ServerShutdown {
                    reason: if order.keep.is_some() {
                        "rebalance"
                    } else {
                        "drain"
                    },
                    reconnect_delay: delay.as_millis() as u64,
                    deadline: order.deadline,
                    resume: gateway.resumes_elsewhere(),
                };
                gateway.env.metrics.sent(1);
                conn.send_control(&conn.format.frame(&notice));
                // the one with which the client comes back elsewhere must not be one too many
                seat::give(gateway, &conn);
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
    if is_over(order, now) {
        gateway.connections.for_each(|_, conn| conn.cut());
    }
}
