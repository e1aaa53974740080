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
