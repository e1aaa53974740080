//! Subscriptions of a cluster that are to be told to Redis once more: their slot moved here, or Redis refused them or took
//! them back. Each is compared with its stream afterwards, as all are after a reconnect.

use std::sync::Arc;

use super::{Change, Entry, Table, Ticket, Waiter, tell};
use crate::broker::{BrokerError, Position};

/// A subscription on its way from one shard to another.
pub(in crate::broker) struct Leaving {
    channel: Arc<[u8]>,
    entry: Entry,
}

impl Leaving {
    pub(in crate::broker) fn channel(&self) -> &[u8] {
        &self.channel
    }
}

impl Table {
    /// Takes subscriptions out; Redis is not told, for it has none of them here any more.
    pub(in crate::broker) fn part(&self, leaves: impl Fn(&[u8]) -> bool) -> Vec<Leaving> {
        let mut inner = self.inner.lock();
        let leaving: Vec<Leaving> = inner
            .entries
            .extract_if(|channel, _| leaves(channel))
            .map(|(channel, entry)| Leaving { channel, entry })
            .collect();
        inner.changes.retain(|change| match change {
            Change::Subscribe(ticket) => !leaves(&ticket.channel),
            Change::Unsubscribe(channel) => !leaves(channel),
        });
        drop(inner);
        // the gauge of subscriptions is the link's task to keep
        self.wake.notify_one();
        leaving
    }

    /// Takes one in. Without a link it is subscribed with all others when there is one; whoever waits for it is told.
    pub(in crate::broker) fn adopt(&self, leaving: Leaving) {
        let Leaving { channel, mut entry } = leaving;
        entry.give_up();
        entry.refused = false;
        let mut inner = self.inner.lock();
        inner.next_id += 1;
        entry.id = inner.next_id;
        if inner.linked {
            inner.again.push(Arc::clone(&channel));
        } else if let Some(waiter) = entry.waiter.take() {
            drop(inner);
            tell(waiter, Err(BrokerError::Unavailable));
            return;
        }
        inner.entries.insert(channel, entry);
        drop(inner);
        self.wake.notify_one();
    }

    /// Redis took subscriptions back, or confirmed that they were ended; false when all of them were ended.
    pub(in crate::broker) fn lost(&self, channels: &[Vec<u8>]) -> bool {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let standing = channels
            .iter()
            .filter_map(|channel| inner.entries.get_key_value(&channel[..]))
            .map(|(channel, _)| Arc::clone(channel));
        let before = inner.again.len();
        inner.again.extend(standing);
        inner.again.len() > before
    }

    /// Redis did not take these, or did not tell where they stand. They are tried again; but whoever waits for one is told
    /// after the second time.
    pub(in crate::broker) fn refused<'a>(&self, tickets: impl IntoIterator<Item = &'a Ticket>) {
        let mut told: Vec<Waiter> = Vec::new();
        {
            let mut inner = self.inner.lock();
            for ticket in tickets {
                let Some(entry) = inner.entries.get_mut(&ticket.channel) else {
                    continue;
                };
                if entry.id != ticket.id {
                    continue;
                }
                if let Some(waiter) = entry.waiter.take_if(|_| entry.refused) {
                    told.push(waiter);
                    inner.entries.remove(&ticket.channel);
                    inner
                        .changes
                        .push_back(Change::Unsubscribe(Arc::clone(&ticket.channel)));
                } else {
                    entry.refused = true;
                    inner.again.push(Arc::clone(&ticket.channel));
                }
            }
        }
        for waiter in told {
            tell(waiter, Err(BrokerError::Unavailable));
        }
    }

    /// Whether there are any.
    pub(in crate::broker) fn has_again(&self) -> bool {
        !self.inner.lock().again.is_empty()
    }

    /// The next ones, with the last place delivered. What was on its way for them is of no use any more.
    pub(in crate::broker) fn take_again(&self, most: usize) -> Vec<(Ticket, Option<Position>)> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let rest = inner.again.len().saturating_sub(most);
        let mut tickets = Vec::new();
        for channel in inner.again.split_off(rest) {
            let Some(entry) = inner.entries.get_mut(&channel) else {
                continue;
            };
            inner.next_id += 1;
            entry.id = inner.next_id;
            entry.give_up();
            entry.heard = false;
            let retention = self.histories.of(&entry.stream);
            let ticket = Ticket {
                channel,
                id: entry.id,
                retention,
            };
            tickets.push((ticket, entry.last.clone()));
        }
        tickets
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::Changes;
    use super::*;
    use crate::broker::StreamKey;

    fn channel(name: &str) -> Arc<[u8]> {
        name.as_bytes().into()
    }

    fn at(offset: u64) -> Position {
        Position {
            epoch: "a".into(),
            offset,
        }
    }

    fn subscribed(table: &Table, name: &str) -> (Ticket, oneshot::Receiver<Result<Position, BrokerError>>) {
        let (waiter, answer) = oneshot::channel();
        table.subscribe(channel(name), StreamKey::Room(name.into()), waiter);
        let Some(Changes::Subscribe(mut tickets)) = table.take_changes(1) else {
            panic!("a subscription is to be told")
        };
        (tickets.pop().unwrap(), answer)
    }

    fn linked() -> Table {
        let table = Table::default();
        table.link();
        table
    }

    #[test]
    fn a_stream_that_moves_keeps_its_place_and_is_compared_where_it_went() {
        let (old, new) = (linked(), linked());
        let (ticket, _answer) = subscribed(&old, "r");
        old.positioned(&ticket, Ok(at(4)));
        let leaving = old.part(|channel| channel == b"r");
        assert_eq!((leaving.len(), old.len()), (1, 0));
        for entry in leaving {
            new.adopt(entry);
        }
        let again = new.take_again(9);
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].1, Some(at(4)));
        let (seen, holes) = new.compare(&[(again[0].0.clone(), at(6))]);
        assert_eq!((seen.missed, holes.len()), (2, 1));
        assert!(!new.has_again());
    }

    #[test]
    fn whoever_waits_for_a_stream_that_moves_is_answered() {
        let (old, new, down) = (linked(), linked(), Table::default());
        let (_, mut answer) = subscribed(&old, "r");
        for entry in old.part(|_| true) {
            new.adopt(entry);
        }
        let again = new.take_again(9);
        new.positioned(&again[0].0, Ok(at(3)));
        assert_eq!(answer.try_recv().unwrap(), Ok(at(3)));
        let (_, mut answer) = subscribed(&old, "s");
        for entry in old.part(|_| true) {
            down.adopt(entry);
        }
        assert_eq!(answer.try_recv().unwrap(), Err(BrokerError::Unavailable));
        assert_eq!(down.len(), 0);
    }

    #[test]
    fn a_refused_subscription_is_tried_once_more_for_who_waits_and_for_ever_when_it_stands() {
        let table = linked();
        let (waits, mut answer) = subscribed(&table, "waits");
        let (stands, _) = subscribed(&table, "stands");
        table.positioned(&stands, Ok(at(1)));
        table.refused([&waits, &stands]);
        for turn in 0..3 {
            let again: Vec<Ticket> = table
                .take_again(9)
                .into_iter()
                .map(|(ticket, _)| ticket)
                .collect();
            assert_eq!(again.len(), if turn == 0 { 2 } else { 1 });
            table.refused([&waits, &stands]);
            assert!(!table.has_again(), "those are old tickets");
            table.refused(&again);
        }
        assert_eq!(answer.try_recv().unwrap(), Err(BrokerError::Unavailable));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_subscription_that_redis_took_back_is_told_from_one_that_was_ended() {
        let table = linked();
        let (ticket, _answer) = subscribed(&table, "r");
        table.positioned(&ticket, Ok(at(1)));
        assert!(!table.lost(&[b"ended".to_vec()]));
        assert!(table.lost(&[b"ended".to_vec(), b"r".to_vec()]));
        assert_eq!(table.take_again(9).len(), 1);
        table.lost(&[b"r".to_vec()]);
        table.unsubscribe(&channel("r"));
        assert_eq!(table.take_again(9), []);
    }
}
