//! Orders that were delivered, until they are done: whoever delivers must not block.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Order;
use crate::broker::{Delivery, Event};

/// Orders that may wait; beyond, what is kept is read again.
const MOST: usize = 4_096;

/// What was delivered.
#[derive(Debug, Default)]
pub struct Taken {
    /// In their order.
    pub orders: Vec<Order>,
    /// Some are missing: they were dropped, or never came.
    pub missing: bool,
}

/// The orders that wait.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Mutex<Taken>,
    wake: Notify,
}

impl Inbox {
    /// Takes what was delivered on one of the fleet's streams.
    pub fn put(&self, delivery: &Delivery) {
        let mut waiting = self.waiting.lock();
        match (&*delivery.event, Order::of(&delivery.event)) {
            (Event::Missing { .. }, _) => waiting.missing = true,
            (_, Some(_)) if waiting.orders.len() >= MOST => waiting.missing = true,
            (_, Some(order)) => waiting.orders.push(order),
            (_, None) => return,
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Waits until there is something, and takes all of it. Cancel-safe.
    pub async fn take(&self) -> Taken {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if waiting.missing || !waiting.orders.is_empty() {
                    return std::mem::take(&mut waiting);
                }
            }
            self.wake.notified().await;
        }
    }
}
