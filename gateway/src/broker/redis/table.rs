//! Which streams this gateway is subscribed to, and the last place delivered in each. No I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::super::{BrokerError, Delivery, Position, StreamKey};
use super::intake::Raw;
use super::message;

/// Subscriptions that may wait to be sent; more are `Overloaded`. (Each waiting unsubscription was one of these.)
const WAITING: usize = 1 << 18;

/// One subscription's name; the `id` tells a later subscription to the same stream apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) channel: Arc<[u8]>,
    pub(super) id: u64,
}

/// What is to be told to Redis, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Subscribe(Ticket),
    Unsubscribe(Arc<[u8]>),
}

/// Changes of one kind, to be told in one command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changes {
    Subscribe(Vec<Ticket>),
    Unsubscribe(Vec<Arc<[u8]>>),
}

/// Where a subscriber waits for the stream's position.
pub(super) type Waiter = oneshot::Sender<Result<Position, BrokerError>>;

struct Entry {
    id: u64,
    stream: StreamKey,
    last: Option<Position>,
    waiter: Option<Waiter>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Arc<[u8]>, Entry, ahash::RandomState>,
    changes: VecDeque<Change>,
    /// Whether a link takes changes; without one only the entries are kept.
    linked: bool,
    next_id: u64,
}

/// What a batch of messages, or a comparison, showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) missed: u64,
    pub(super) duplicates: u64,
    pub(super) epoch_changes: u64,
    pub(super) undecodable: u64,
}

impl Seen {
    /// Moves a stream's last place to a message's place; false when that had been delivered.
    fn advance(&mut self, last: &mut Option<Position>, epoch: &str, offset: u64) -> bool {
        match last {
            Some(position) if *position.epoch == *epoch => {
                if offset <= position.offset {
                    self.duplicates += 1;
                    return false;
                }
                self.missed += offset - position.offset - 1;
                position.offset = offset;
            }
            Some(position) => {
                self.epoch_changes += 1;
                self.missed += offset.saturating_sub(1);
                *position = Position {
                    epoch: epoch.into(),
                    offset,
                };
            }
            None => {
                *last = Some(Position {
                    epoch: epoch.into(),
                    offset,
                });
            }
        }
        true
    }
}

/// The subscriptions. Every method is short and may be called from any thread.
#[derive(Default)]
pub(super) struct Table {
    inner: Mutex<Inner>,
    pub(super) wake: Notify,
}

impl Table {
    /// Adds a subscription; `waiter` is told the position, or why there is none (the subscription is gone then).
    pub(super) fn subscribe(&self, channel: Arc<[u8]>, stream: StreamKey, waiter: Waiter) {
        let refusal = {
            let mut inner = self.inner.lock();
            if !inner.linked {
                Some((waiter, BrokerError::Unavailable))
            } else if inner.changes.len() >= WAITING {
                Some((waiter, BrokerError::Overloaded))
            } else {
                inner.next_id += 1;
                let id = inner.next_id;
                let entry = Entry {
                    id,
                    stream,
                    last: None,
                    waiter: Some(waiter),
                };
                inner.entries.insert(Arc::clone(&channel), entry);
                inner.changes.push_back(Change::Subscribe(Ticket { channel, id }));
                None
            }
        };
        match refusal {
            Some((waiter, error)) => tell(waiter, Err(error)),
            None => self.wake.notify_one(),
        }
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, channel: &Arc<[u8]>) {
        let mut inner = self.inner.lock();
        if inner.entries.remove(channel).is_some() && inner.linked {
            inner.changes.push_back(Change::Unsubscribe(Arc::clone(channel)));
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// Streams subscribed to.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    /// A link is there: gives everything to be subscribed with the last place delivered; changes are taken from now on.
    pub(super) fn link(&self) -> Vec<(Ticket, Option<Position>)> {
        let mut inner = self.inner.lock();
        inner.linked = true;
        inner
            .entries
            .iter()
            .map(|(channel, entry)| {
                (
                    Ticket {
                        channel: Arc::clone(channel),
                        id: entry.id,
                    },
                    entry.last.clone(),
                )
            })
            .collect()
    }

    /// The link is lost: whoever still waits is told, and is not subscribed.
    pub(super) fn unlink(&self) {
        let waiters: Vec<Waiter> = {
            let mut inner = self.inner.lock();
            inner.linked = false;
            inner.changes.clear();
            let mut waiters = Vec::new();
            inner.entries.retain(|_, entry| match entry.waiter.take() {
                Some(waiter) => {
                    waiters.push(waiter);
                    false
                }
                None => true,
            });
            waiters
        };
        for waiter in waiters {
            tell(waiter, Err(BrokerError::Unavailable));
        }
    }

    /// The next changes to be told, up to `most` of one kind; order between kinds is kept.
    pub(super) fn take_changes(&self, most: usize) -> Option<Changes> {
        let mut inner = self.inner.lock();
        let changes = &mut inner.changes;
        match changes.front()? {
            Change::Subscribe(_) => {
                let mut tickets = Vec::new();
                while tickets.len() < most
                    && let Some(change) = changes.pop_front_if(|c| matches!(c, Change::Subscribe(_)))
                    && let Change::Subscribe(ticket) = change
                {
                    tickets.push(ticket);
                }
                Some(Changes::Subscribe(tickets))
            }
            Change::Unsubscribe(_) => {
                let mut channels = Vec::new();
                while channels.len() < most
                    && let Some(change) = changes.pop_front_if(|c| matches!(c, Change::Unsubscribe(_)))
                    && let Change::Unsubscribe(channel) = change
                {
                    channels.push(channel);
                }
                Some(Changes::Unsubscribe(channels))
            }
        }
    }

    /// The position of a new subscription was read, or could not be.
    pub(super) fn positioned(&self, ticket: &Ticket, result: Result<Position, BrokerError>) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner
            .entries
            .get_mut(&ticket.channel)
            .filter(|e| e.id == ticket.id)
        else {
            return;
        };
        let Some(waiter) = entry.waiter.take() else { return };
        if let Ok(position) = &result {
            // what was published since may have been delivered before the position was known
            let ahead = entry
                .last
                .as_ref()
                .is_some_and(|l| l.epoch == position.epoch && l.offset > position.offset);
            if !ahead {
                entry.last = Some(position.clone());
            }
        } else {
            inner.entries.remove(&ticket.channel);
            inner
                .changes
                .push_back(Change::Unsubscribe(Arc::clone(&ticket.channel)));
            self.wake.notify_one();
        }
        drop(inner);
        tell(waiter, result);
    }

    /// Everything published before `current` was read has been taken from the link: what of it was not delivered is
    /// missed. The last place moves there, so nothing is delivered twice.
    pub(super) fn settle(&self, positions: &[(Ticket, Position)]) -> Seen {
        let mut seen = Seen::default();
        let mut inner = self.inner.lock();
        for (ticket, current) in positions {
            let Some(entry) = inner
                .entries
                .get_mut(&ticket.channel)
                .filter(|e| e.id == ticket.id)
            else {
                continue;
            };
            match &mut entry.last {
                Some(last) if last.epoch == current.epoch => {
                    seen.missed += current.offset.saturating_sub(last.offset);
                    last.offset = last.offset.max(current.offset);
                }
                Some(last) => {
                    seen.epoch_changes += 1;
                    seen.missed += current.offset;
                    *last = current.clone();
                }
                None => entry.last = Some(current.clone()),
            }
        }
        seen
    }

    /// Makes deliveries of messages: those of unknown channels and those delivered before are left out.
    pub(super) fn deliveries(&self, messages: &[Raw]) -> (Vec<Delivery>, Seen) {
        let mut seen = Seen::default();
        // parsed before the lock is taken: subscribers on other threads wait for lookups only
        let parsed: Vec<_> = messages
            .iter()
            .map(|m| (m, message::decode(&m.payload)))
            .collect();
        let mut out = Vec::with_capacity(parsed.len());
        let mut inner = self.inner.lock();
        for (raw, message) in parsed {
            let Some(entry) = inner.entries.get_mut(&raw.channel[..]) else {
                continue;
            };
            let Some(message) = message else {
                seen.undecodable += 1;
                continue;
            };
            let position = match message.position {
                None => None,
                Some((epoch, offset)) => {
                    if !seen.advance(&mut entry.last, epoch, offset) {
                        continue;
                    }
                    entry.last.clone()
                }
            };
            out.push(Delivery {
                stream: entry.stream.clone(),
                position,
                event: Arc::new(message.event),
            });
        }
        (out, seen)
    }
}

fn tell(waiter: Waiter, result: Result<Position, BrokerError>) {
    // who does not wait any more unsubscribes, as the contract of `Broker::subscribe` asks
    let _ = waiter.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"m":{"u":"ann","p":1,"t":5,"s":"g1"}}"#;

    fn channel(name: &str) -> Arc<[u8]> {
        name.as_bytes().into()
    }

    fn at(epoch: &str, offset: u64) -> Position {
        Position {
            epoch: epoch.into(),
            offset,
        }
    }

    fn raw(name: &str, epoch: &str, offset: u64) -> Raw {
        Raw {
            channel: name.into(),
            payload: format!("{epoch} {offset} {EVENT}").into_bytes(),
        }
    }

    type Answer = oneshot::Receiver<Result<Position, BrokerError>>;

    fn subscribe(table: &Table, name: &str) -> (Option<Ticket>, Answer) {
        let (waiter, answer) = oneshot::channel();
        table.subscribe(channel(name), StreamKey::Room(name.into()), waiter);
        let ticket = match table.take_changes(1) {
            Some(Changes::Subscribe(mut tickets)) => tickets.pop(),
            _ => None,
        };
        (ticket, answer)
    }

    fn linked_with(name: &str, position: Position) -> (Table, Ticket) {
        let table = Table::default();
        table.link();
        let (ticket, _answer) = subscribe(&table, name);
        let ticket = ticket.unwrap();
        table.positioned(&ticket, Ok(position));
        (table, ticket)
    }

    fn offsets(table: &Table, messages: &[Raw]) -> (Vec<u64>, Seen) {
        let (deliveries, seen) = table.deliveries(messages);
        (
            deliveries
                .iter()
                .map(|d| d.position.as_ref().unwrap().offset)
                .collect(),
            seen,
        )
    }

    #[test]
    fn a_message_is_delivered_once_and_a_hole_is_counted() {
        let (table, _) = linked_with("r", at("a", 4));
        let (delivered, seen) = offsets(
            &table,
            &[
                raw("r", "a", 4),
                raw("r", "a", 5),
                raw("r", "a", 5),
                raw("r", "a", 8),
                raw("x", "a", 1),
            ],
        );
        assert_eq!(delivered, [5, 8]);
        assert_eq!(
            seen,
            Seen {
                missed: 2,
                duplicates: 2,
                ..Seen::default()
            }
        );
    }

    #[test]
    fn a_new_epoch_begins_to_count_anew() {
        let (table, _) = linked_with("r", at("a", 4));
        let (delivered, seen) = offsets(&table, &[raw("r", "b", 1), raw("r", "b", 2)]);
        assert_eq!(delivered, [1, 2]);
        assert_eq!(
            seen,
            Seen {
                epoch_changes: 1,
                ..Seen::default()
            }
        );
    }

    #[test]
    fn messages_that_outran_the_position_are_delivered_and_not_forgotten() {
        let table = Table::default();
        table.link();
        let (ticket, mut answer) = subscribe(&table, "r");
        assert_eq!(offsets(&table, &[raw("r", "a", 6), raw("r", "a", 7)]).0, [6, 7]);
        table.positioned(&ticket.unwrap(), Ok(at("a", 6)));
        assert_eq!(answer.try_recv().unwrap(), Ok(at("a", 6)));
        assert_eq!(offsets(&table, &[raw("r", "a", 7), raw("r", "a", 8)]).0, [8]);
    }

    #[test]
    fn after_a_reconnect_what_was_not_delivered_is_counted_once() {
        let (table, ticket) = linked_with("r", at("a", 4));
        table.unlink();
        assert_eq!(table.link(), [(ticket.clone(), Some(at("a", 4)))]);
        // 5 to 7 were published without us, 8 after the new link subscribed, before the positions were read
        assert_eq!(offsets(&table, &[raw("r", "a", 8)]).1.missed, 3);
        assert_eq!(table.settle(&[(ticket.clone(), at("a", 8))]), Seen::default());
        assert_eq!(table.settle(&[(ticket.clone(), at("a", 10))]).missed, 2);
        assert_eq!(offsets(&table, &[raw("r", "a", 10), raw("r", "a", 11)]).0, [11]);
        let anew = table.settle(&[(ticket, at("b", 2))]);
        assert_eq!(
            anew,
            Seen {
                missed: 2,
                epoch_changes: 1,
                ..Seen::default()
            }
        );
    }

    #[test]
    fn without_a_link_subscriptions_fail_at_once_and_those_that_stand_are_kept() {
        let (table, ticket) = linked_with("r", at("a", 4));
        let (_, mut waiting) = subscribe(&table, "s");
        table.unlink();
        assert_eq!(waiting.try_recv().unwrap(), Err(BrokerError::Unavailable));
        let (none, mut refused) = subscribe(&table, "t");
        assert_eq!(none, None);
        assert_eq!(refused.try_recv().unwrap(), Err(BrokerError::Unavailable));
        assert_eq!(table.link(), [(ticket, Some(at("a", 4)))]);
    }

    #[test]
    fn a_position_that_cannot_be_read_ends_the_subscription() {
        let table = Table::default();
        table.link();
        let (ticket, mut answer) = subscribe(&table, "r");
        table.positioned(&ticket.unwrap(), Err(BrokerError::Unconfirmed));
        assert_eq!(answer.try_recv().unwrap(), Err(BrokerError::Unconfirmed));
        assert_eq!(
            table.take_changes(9),
            Some(Changes::Unsubscribe(vec![channel("r")]))
        );
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn changes_are_taken_in_batches_of_one_kind_in_order() {
        let table = Table::default();
        table.link();
        for name in ["a", "b", "c"] {
            let (waiter, _) = oneshot::channel();
            table.subscribe(channel(name), StreamKey::User(name.into()), waiter);
        }
        table.unsubscribe(&channel("a"));
        table.unsubscribe(&channel("a"));
        let (waiter, _) = oneshot::channel();
        table.subscribe(channel("a"), StreamKey::User("a".into()), waiter);
        let kinds: Vec<_> = std::iter::from_fn(|| table.take_changes(2))
            .map(|c| match c {
                Changes::Subscribe(tickets) => ("subscribe", tickets.len()),
                Changes::Unsubscribe(channels) => ("unsubscribe", channels.len()),
            })
            .collect();
        assert_eq!(
            kinds,
            [
                ("subscribe", 2),
                ("subscribe", 1),
                ("unsubscribe", 1),
                ("subscribe", 1)
            ]
        );
    }

    #[test]
    fn a_late_position_of_an_ended_subscription_does_not_touch_its_successor() {
        let table = Table::default();
        table.link();
        let (first, mut ended) = subscribe(&table, "r");
        table.unsubscribe(&channel("r"));
        let _ = table.take_changes(1);
        let (second, mut answer) = subscribe(&table, "r");
        table.positioned(&first.unwrap(), Ok(at("a", 1)));
        assert!(ended.try_recv().is_err());
        assert!(answer.try_recv().is_err());
        table.positioned(&second.unwrap(), Ok(at("a", 2)));
        assert_eq!(answer.try_recv().unwrap(), Ok(at("a", 2)));
    }
}
