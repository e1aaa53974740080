//! Hears the fleet's orders, and does what they say.

use std::sync::Arc;
use std::time::Duration;

use super::{Disconnect, Order, Revocation, Whom, disconnects, revocations};
use crate::broker::{BrokerError, Kept, Reading, Span, StreamKey};
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::protocol::{CloseCode, CloseReason};
use crate::session::{Conn, ConnId};

/// Pause before the broker is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Read at a time.
const PAGE: (usize, usize) = (1_000, 256 << 10);
/// By so much the clocks of gateways may differ.
const SKEW_MILLIS: u64 = 1_000;

/// Subscribes to the fleet's streams, reads what is kept, and does what is ordered, until dropped.
pub async fn run(gateway: &Arc<Gateway>) {
    subscribe(gateway, disconnects()).await;
    subscribe(gateway, revocations()).await;
    load(gateway).await;
    loop {
        let taken = gateway.rooms.orders.take().await;
        if taken.missing {
            load(gateway).await;
        }
        for order in taken.orders {
            match order {
                Order::Disconnect(disconnect) => drop(gateway.disconnect(&disconnect)),
                Order::Revoke(revocation) => drop(gateway.revoke(&revocation)),
            }
        }
    }
}

async fn subscribe(gateway: &Gateway, stream: StreamKey) {
    while gateway.broker.subscribe(stream.clone()).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Learns the revocations that are kept.
async fn load(gateway: &Gateway) {
    while let Err(error) = read_all(gateway).await {
        tracing::warn!(%error, "revocations cannot be read; trying again");
        tokio::time::sleep(PAUSE).await;
    }
    gateway.revocations.set_loaded();
}

async fn read_all(gateway: &Gateway) -> Result<(), BrokerError> {
    let mut after = 0;
    loop {
        let reading = Reading {
            stream: revocations(),
            span: Span::After(after),
            messages: PAGE.0,
            bytes: PAGE.1,
        };
        let page = gateway.broker.history(reading).await?;
        for Kept { event, .. } in &page.messages {
            if let Some(Order::Revoke(revocation)) = Order::of(event) {
                gateway.revoke(&revocation);
            }
        }
        after = page.messages.last().map_or(after, |last| last.offset);
        if !page.more || page.messages.is_empty() {
            return Ok(());
        }
    }
}

impl Gateway {
    /// Closes connections here that are older than the order; tells how many it was that closed them.
    pub fn disconnect(&self, order: &Disconnect) -> usize {
        let code = CloseCode::from_wire(order.code).unwrap_or(CloseReason::Disconnected.code());
        let age = Clock::unix_millis().saturating_sub(order.at);
        let now = self.env.clock.tick();
        let was_here = |conn: &Arc<Conn>| now.since(conn.connected).as_millis() as u64 + SKEW_MILLIS >= age;
        let closed = self.connections_of(&order.whom).into_iter().filter(was_here);
        closed
            .filter(|conn| conn.close_saying(code, CloseReason::Disconnected, &order.reason))
            .count()
    }

    /// Lets in no more who is revoked and, when that is news, closes who is in; tells how many it was that closed them.
    pub fn revoke(&self, revocation: &Revocation) -> usize {
        if !self.revocations.insert(revocation, Clock::unix_seconds()) {
            return 0;
        }
        let connections = self.connections_of(&revocation.whom).into_iter();
        connections
            .filter(|conn| conn.close(CloseReason::Revoked))
            .count()
    }

    fn connections_of(&self, whom: &Whom) -> Vec<Arc<Conn>> {
        match whom {
            Whom::User(user) => self.connections.of_user(user),
            Whom::Token(token) => self.tokens.find(token, &self.connections),
            Whom::Connection(id) => ConnId::parse(id, &self.env.instance)
                .and_then(|id| self.connections.find(id))
                .into_iter()
                .collect(),
        }
    }
}
