//! The line of sockets that stands for the order in force. Pure: time is passed in.

use std::time::Duration;

use super::control::{Order, rate_to_close};
use super::pacer::{Grant, Pacer, Step};

/// How long closes may go unanswered at the end of a termination.
const LAST_WORDS: Duration = Duration::from_millis(1_500);

/// How long nobody is looked for who could stand in the line, when nobody stood in it and some are to go: they are too young.
const LOOK: Duration = Duration::from_secs(1);

/// Sockets in the order in which they are closed; of the order that formed the line, or empty.
#[derive(Debug)]
pub(super) struct Line<K>(Option<Formed<K>>);

#[derive(Debug)]
struct Formed<K> {
    order: u64,
    at: Duration,
    pacer: Pacer<K>,
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Copy> Formed<K> {
    /// Whether `order` needs another line.
    fn is_over(&self, order: &Order, may_go: usize, now: Duration) -> bool {
        let wanted = order.keep.is_none() || (may_go > 0 && now >= self.at.saturating_add(LOOK));
        self.order != order.line || (self.pacer.remaining() == 0 && wanted)
    }
}

impl<K: Copy> Line<K> {
    /// There is no order any more: whoever was told to go may stay.
    pub(super) fn dissolve(&mut self) {
        self.0 = None;
    }

    /// What `order` wants at `now`, while so many sockets are `open`, of an order that some of them stay not counting those
    /// that are closing. A new order, or an empty line, asks for `sockets`: those that were accepted just before the cordon
    /// may have stood in none. `alive` tells whether one is open and not closing.
    pub(super) fn advance(
        &mut self,
        order: &Order,
        now: Duration,
        open: usize,
        sockets: impl FnOnce() -> Vec<K>,
        alive: impl FnMut(K) -> bool,
    ) -> Vec<Step<K>> {
        let grant = grant(order, open, now);
        let may_go = order.keep.map_or(usize::MAX, |keep| open.saturating_sub(keep));
        let same = self.0.take().filter(|line| !line.is_over(order, may_go, now));
        let line = self.0.insert(same.unwrap_or_else(|| Formed {
            order: order.line,
            at: now,
            pacer: Pacer::new(sockets(), grant, order.window, now, rand::random),
        }));
        line.pacer.renew(grant, now);
        line.pacer.tick(now, may_go, alive)
    }
}

fn grant(order: &Order, open: usize, now: Duration) -> Grant {
    match order.close_by {
        Some(close_by) => Grant {
            rate: rate_to_close(open, close_by, now),
            until: Duration::MAX,
        },
        None => order.grant,
    }
}

/// Whether closes have gone unanswered long enough: who is left is cut.
pub(super) fn is_over(order: &Order, now: Duration) -> bool {
    let over = |close_by: Duration| now >= close_by.saturating_add(LAST_WORDS);
    order.close_by.is_some_and(over)
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "shed_tests.rs"]
mod shed_tests;
