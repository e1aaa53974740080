use super::*;
use crate::broker::{Event, Kept};

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

/// What is delivered, in words, when no hole can be filled.
fn told(deliveries: &[Delivery]) -> Vec<String> {
    let words = deliveries.iter().map(|delivery| {
        let place = delivery.position.as_ref().unwrap();
        match &*delivery.event {
            Event::Missing { from } => format!("{} missing {from}-{}", place.epoch, place.offset),
            _ => format!("{} {}", place.epoch, place.offset),
        }
    });
    words.collect()
}

fn offsets(table: &Table, messages: &[Raw]) -> (Vec<u64>, Seen) {
    let (deliveries, seen, holes) = table.deliveries(messages);
    assert_eq!(holes, [], "no hole is expected");
    let offset = |d: &Delivery| d.position.as_ref().unwrap().offset;
    (deliveries.iter().map(offset).collect(), seen)
}

fn kept(offsets: impl IntoIterator<Item = u64>) -> Vec<Kept> {
    let kept = |offset| Kept {
        offset,
        event: Arc::new(serde_json::from_str(EVENT).unwrap()),
    };
    offsets.into_iter().map(kept).collect()
}

#[test]
fn a_message_is_delivered_once_and_what_is_behind_a_hole_waits_until_it_is_filled() {
    let (table, ticket) = linked_with("r", at("a", 4));
    let mut messages = vec![
        raw("r", "a", 4),
        raw("r", "a", 5),
        raw("r", "a", 5),
        raw("r", "a", 8),
    ];
    messages.extend([raw("x", "a", 1), raw("r", "a", 9), raw("r", "a", 12)]);
    let (delivered, seen, holes) = table.deliveries(&messages);
    assert_eq!(told(&delivered), ["a 5"]);
    assert_eq!((seen.missed, seen.duplicates), (4, 2));
    let hole = Hole {
        ticket,
        after: at("a", 5),
        to: 7,
    };
    // the second hole is not read: what was there is missing
    assert_eq!(holes, std::slice::from_ref(&hole));
    let (delivered, lost) = table.filled(&hole, kept(6..=7));
    assert_eq!(
        told(&delivered),
        ["a 6", "a 7", "a 8", "a 9", "a missing 10-11", "a 12"]
    );
    assert_eq!(lost, 2);
    assert_eq!(offsets(&table, &[raw("r", "a", 12), raw("r", "a", 13)]).0, [13]);
}

#[test]
fn what_cannot_be_read_is_told_as_missing() {
    for (read, words, missing) in [
        (kept([]), &["a missing 5-7", "a 8"][..], 3),
        (kept(6..=7), &["a missing 5-5", "a 6", "a 7", "a 8"][..], 1),
        (kept(5..=6), &["a 5", "a 6", "a missing 7-7", "a 8"][..], 1),
        (kept(1..=9), &["a 5", "a 6", "a 7", "a 8", "a 9"][..], 0),
    ] {
        let (table, _) = linked_with("r", at("a", 4));
        let (_, _, holes) = table.deliveries(&[raw("r", "a", 8)]);
        let (delivered, lost) = table.filled(&holes[0], read);
        assert_eq!(
            (told(&delivered), lost),
            (words.iter().map(|word| (*word).to_owned()).collect(), missing)
        );
    }
}

#[test]
fn a_new_epoch_is_told_before_its_messages() {
    let (table, _) = linked_with("r", at("a", 4));
    let (delivered, seen, holes) = table.deliveries(&[raw("r", "b", 1), raw("r", "b", 2)]);
    assert!(delivered.is_empty());
    assert_eq!((seen.epoch_changes, seen.missed), (1, 0));
    let (delivered, lost) = table.filled(&holes[0], Vec::new());
    assert_eq!(
        (told(&delivered), lost),
        (vec!["b missing 1-0".into(), "b 1".into(), "b 2".into()], 0)
    );
    // and again, with messages that are read
    let (_, _, holes) = table.deliveries(&[raw("r", "c", 3)]);
    let (delivered, lost) = table.filled(&holes[0], kept(1..=2));
    let words = ["c missing 1-0", "c 1", "c 2", "c 3"].map(str::to_owned);
    assert_eq!((told(&delivered), lost), (words.to_vec(), 0));
}

#[test]
fn an_epoch_that_goes_on_with_the_one_before_is_told_and_its_messages_are_not_told_again() {
    let anew = "b.4.a";
    for (delivered, read, words) in [
        // what was taken back is not missing
        (6, vec![], vec!["b.4.a missing 5-4", "b.4.a 5"]),
        (
            2,
            vec![3, 4],
            vec!["b.4.a missing 3-2", "b.4.a 3", "b.4.a 4", "b.4.a 5"],
        ),
    ] {
        let (table, _) = linked_with("r", at("a", delivered));
        let (_, seen, holes) = table.deliveries(&[raw("r", anew, 5)]);
        assert_eq!((seen.epoch_changes, seen.missed), (1, read.len() as u64));
        assert_eq!((&holes[0].after, holes[0].to), (&at(anew, delivered.min(4)), 4));
        let (delivered, lost) = table.filled(&holes[0], kept(read));
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        assert_eq!((told(&delivered), lost), (words, 0));
    }
}

#[test]
fn a_link_that_is_lost_while_a_hole_is_read_leaves_the_place_where_it_was() {
    let (table, ticket) = linked_with("r", at("a", 4));
    let (_, _, holes) = table.deliveries(&[raw("r", "a", 7)]);
    table.unlink();
    assert_eq!(table.link(), [(ticket.clone(), Some(at("a", 4)))]);
    assert_eq!(
        table.filled(&holes[0], kept(5..=6)).0.len(),
        0,
        "that was another link's"
    );
    let (_, holes) = table.settle(&[(ticket, at("a", 7))]);
    let (delivered, lost) = table.filled(&holes[0], kept(5..=7));
    assert_eq!(
        (told(&delivered), lost),
        (vec!["a 5".into(), "a 6".into(), "a 7".into()], 0)
    );
}

#[test]
fn a_stream_of_which_nothing_is_heard_is_compared() {
    let (table, ticket) = linked_with("r", at("a", 4));
    assert_eq!(table.silent(), [], "it was subscribed just now");
    assert_eq!(table.silent(), [(ticket.clone(), Some(at("a", 4)))]);
    assert_eq!(
        table.compare(&[(ticket.clone(), at("a", 4))]),
        (Seen::default(), vec![])
    );
    let (seen, holes) = table.compare(&[(ticket.clone(), at("a", 5))]);
    assert_eq!((seen.missed, holes.len()), (1, 1));
    // the message was on its way, and comes behind what was read
    assert_eq!(offsets(&table, &[raw("r", "a", 5)]).1.duplicates, 1);
    assert_eq!(told(&table.filled(&holes[0], kept([5])).0), ["a 5"]);
    // heard of meanwhile: what was read is old
    assert_eq!(offsets(&table, &[raw("r", "a", 6)]).0, [6]);
    assert_eq!(table.compare(&[(ticket, at("z", 1))]), (Seen::default(), vec![]));
    assert_eq!(table.silent(), []);
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
    let (_, seen, holes) = table.deliveries(&[raw("r", "a", 8)]);
    assert_eq!((seen.missed, holes.len()), (3, 1));
    table.filled(&holes[0], kept(5..=7));
    assert_eq!(
        table.settle(&[(ticket.clone(), at("a", 8))]),
        (Seen::default(), vec![])
    );
    let (seen, holes) = table.settle(&[(ticket.clone(), at("a", 10))]);
    assert_eq!((seen.missed, &holes[0].after, holes[0].to), (2, &at("a", 8), 10));
    table.filled(&holes[0], kept(9..=10));
    assert_eq!(offsets(&table, &[raw("r", "a", 10), raw("r", "a", 11)]).0, [11]);
    let (seen, holes) = table.settle(&[(ticket, at("b", 2))]);
    assert_eq!((seen.missed, seen.epoch_changes), (2, 1));
    assert_eq!((&holes[0].after, holes[0].to), (&at("b", 0), 2));
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
