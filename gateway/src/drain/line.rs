//! The line of sockets that stands for the order in force. Pure: time is passed in.

use std::time::Duration;

use super::control::{Order, rate_to_close};
use super::pacer::{Grant, Pacer, Step};

/// How long closes may go unanswered at the end of a termination.
const LAST_WORDS: Duration = Duration::from_millis(1_500);

/// Sockets in the order in which they are closed; of the order that formed the line, or empty.
#[derive(Debug)]
pub(super) struct Line<K>(Option<(u64, Pacer<K>)>);

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Copy> Line<K> {
    /// There is no order any more: whoever was told to go may stay.
    pub(super) fn dissolve(&mut self) {
        self.0 = None;
    }

    /// What `order` wants at `now`, while so many sockets are `open`. A new order, or an empty line, asks for `sockets`:
    /// those that were accepted just before the cordon may have stood in none. `alive` tells whether one is open and not
    /// closing.
    pub(super) fn advance(
        &mut self,
        order: &Order,
        now: Duration,
        open: usize,
        sockets: impl FnOnce() -> Vec<K>,
        alive: impl FnMut(K) -> bool,
    ) -> Vec<Step<K>> {
        let grant = grant(order, open, now);
        let same = self.0.take();
        let pacer = match same.filter(|(number, pacer)| *number == order.line && pacer.remaining() > 0) {
            Some((_, pacer)) => pacer,
            None => Pacer::new(sockets(), grant, order.window, now, rand::random),
        };
        let (_, pacer) = self.0.insert((order.line, pacer));
        pacer.renew(grant, now);
        pacer.tick(now, alive)
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
