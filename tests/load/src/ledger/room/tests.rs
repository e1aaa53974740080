use proptest::prelude::*;

use super::super::member::MOST_GAPS;
use super::*;

const GRACE: Duration = Duration::from_secs(5);

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A room with one member that joined at offset 0.
fn room() -> (RoomLedger, MemberKey) {
    let mut room = RoomLedger::new(GRACE);
    let (member, _) = room.join("a", 0, at(0));
    (room, member)
}

fn deliver(room: &mut RoomLedger, member: MemberKey, offsets: &[u64], now: Duration) {
    for offset in offsets {
        room.deliver(member, *offset, Identity::default(), now);
    }
}

#[test]
fn consecutive_offsets_from_the_joined_one_on_are_clean() {
    let mut room = RoomLedger::new(GRACE);
    let (member, coverage) = room.join("a", 41, at(0));
    assert_eq!(
        coverage,
        Coverage {
            generation: 0,
            offset: 41
        }
    );
    deliver(&mut room, member, &[42, 43, 44], at(1));
    room.acked("a", 44, Identity::default(), at(1));
    room.sweep(at(100));
    assert_eq!(room.counts(), Counts::default());
    assert_eq!(
        room.leave(member, at(100)),
        Some(Coverage {
            generation: 0,
            offset: 44
        })
    );
}

#[test]
fn a_gap_is_lost_and_what_fills_it_is_out_of_order_instead() {
    let (mut room, member) = room();
    deliver(&mut room, member, &[1, 5], at(1));
    assert_eq!(room.counts().lost, 3);
    deliver(&mut room, member, &[3], at(2));
    assert_eq!(
        room.counts(),
        Counts {
            lost: 2,
            out_of_order: 1,
            ..Counts::default()
        }
    );
    deliver(&mut room, member, &[2, 4, 6], at(3));
    assert_eq!(
        room.counts(),
        Counts {
            out_of_order: 3,
            ..Counts::default()
        }
    );
}

#[test]
fn the_same_offset_again_is_a_duplicate() {
    let (mut room, member) = room();
    deliver(&mut room, member, &[1, 2, 2, 1, 3], at(1));
    room.sweep(at(1));
    assert_eq!(
        room.counts().duplicated,
        0,
        "not judged before news of a new epoch had time to come"
    );
    room.sweep(at(2));
    assert_eq!(
        room.counts(),
        Counts {
            duplicated: 2,
            ..Counts::default()
        }
    );
    deliver(&mut room, member, &[3], at(3));
    room.leave(member, at(3));
    assert_eq!(
        room.counts().duplicated,
        3,
        "a member that leaves is judged at once"
    );
}

#[test]
fn the_last_message_is_lost_when_it_was_acknowledged_and_did_not_come_within_the_grace_period() {
    let (mut room, member) = room();
    deliver(&mut room, member, &[1], at(1));
    room.acked("a", 2, Identity::default(), at(1));
    room.sweep(at(5));
    assert!(room.counts().is_clean());
    room.sweep(at(6));
    assert_eq!(
        room.counts(),
        Counts {
            lost: 1,
            ..Counts::default()
        }
    );
    room.sweep(at(9));
    assert_eq!(room.counts().lost, 1, "counted once");
    deliver(&mut room, member, &[2], at(10));
    assert_eq!(
        room.counts(),
        Counts {
            late: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn who_left_within_the_grace_period_lost_nothing() {
    let (mut room, member) = room();
    room.acked("a", 1, Identity::default(), at(1));
    room.leave(member, at(3));
    room.sweep(at(60));
    assert!(room.counts().is_clean());
}

#[test]
fn who_joined_later_is_given_the_grace_period_too_and_owes_nothing_before_its_join() {
    let mut room = RoomLedger::new(GRACE);
    room.acked("a", 7, Identity::default(), at(0));
    room.join("a", 7, at(0));
    room.join("a", 6, at(4));
    room.sweep(at(6));
    assert!(room.counts().is_clean());
    room.sweep(at(9));
    assert_eq!(room.counts().lost, 1, "the second one was promised offset 7");
}

#[test]
fn a_new_epoch_is_not_taken_for_duplicates_even_when_deliveries_come_before_the_news() {
    let (mut room, member) = room();
    deliver(&mut room, member, &[1, 2, 3], at(1));
    deliver(&mut room, member, &[1, 2], at(2));
    room.acked("b", 1, Identity::default(), at(2));
    deliver(&mut room, member, &[3], at(2));
    room.sweep(at(4));
    assert_eq!(
        room.counts(),
        Counts {
            epoch_changes: 1,
            ..Counts::default()
        }
    );
    room.acked("b", 4, Identity::default(), at(4));
    room.sweep(at(20));
    assert_eq!(room.counts().lost, 1, "the new epoch's losses are found");
}

#[test]
fn losses_at_the_beginning_of_a_new_epoch_are_found() {
    let (mut room, member) = room();
    deliver(&mut room, member, &[1, 2, 3, 4, 5], at(1));
    room.acked("b", 1, Identity::default(), at(2));
    deliver(&mut room, member, &[3], at(2));
    assert_eq!(
        room.counts(),
        Counts {
            lost: 2,
            epoch_changes: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn a_new_epoch_that_goes_on_with_the_former_one_is_told_by_where_it_begins() {
    let (mut room, member) = room();
    deliver(&mut room, member, &[1, 2, 3, 4, 5, 6], at(1));
    room.gap(member, "b", 5, 4, at(2));
    deliver(&mut room, member, &[5, 6, 7], at(2));
    room.sweep(at(100));
    assert_eq!(
        room.counts(),
        Counts {
            epoch_changes: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn what_was_acknowledged_in_an_epoch_that_is_over_is_taken_back_not_lost() {
    let (mut room, member) = room();
    deliver(&mut room, member, &[1, 2], at(1));
    room.acked("a", 6, Identity::default(), at(1));
    room.sweep(at(7));
    assert_eq!(room.counts().lost, 4);
    room.gap(member, "b", 1, 0, at(8));
    let told = Counts {
        taken_back: 4,
        epoch_changes: 1,
        ..Counts::default()
    };
    assert_eq!(room.counts(), told);
    assert!(told.is_clean(), "it was told");
    deliver(&mut room, member, &[1, 2], at(9));
    room.sweep(at(60));
    assert_eq!(room.counts(), told);
}

#[test]
fn what_a_gap_tells_is_not_lost_but_not_clean_either() {
    let (mut room, member) = room();
    room.gap(member, "a", 1, 4, at(1));
    deliver(&mut room, member, &[5], at(1));
    assert_eq!((room.counts().gapped, room.counts().lost), (4, 0));
    deliver(&mut room, member, &[9], at(1));
    assert_eq!(room.counts().lost, 3);
    room.gap(member, "a", 6, 7, at(1));
    assert_eq!((room.counts().gapped, room.counts().lost), (6, 1));
    assert!(!room.counts().is_clean());
}

#[test]
fn what_comes_again_because_the_server_was_asked_twice_is_no_duplicate() {
    let (mut room, member) = room();
    deliver(&mut room, member, &[1, 2, 3], at(1));
    room.again(member, 3);
    deliver(&mut room, member, &[1, 2, 3, 4, 4], at(1));
    room.sweep(at(60));
    assert_eq!(room.counts().duplicated, 1);
}

#[test]
fn members_and_publishers_must_agree_on_what_an_offset_is() {
    let (mut room, member) = room();
    let (other, _) = room.join("a", 0, at(0));
    let message = |number| Identity::new(1, number);
    assert!(room.deliver(member, 1, message(1), at(1)));
    assert!(!room.deliver(other, 1, message(1), at(1)));
    assert!(!room.acked("a", 1, message(1), at(1)));
    assert_eq!(room.counts(), Counts::default());
    room.acked("a", 1, message(2), at(1));
    assert!(room.acked("a", 2, message(3), at(1)));
    room.deliver(member, 2, message(4), at(1));
    assert_eq!(room.counts().contradicted, 2);
}

#[test]
fn a_member_that_had_nothing_yet_enters_a_new_epoch_with_its_first_message() {
    let (mut room, member) = room();
    room.acked("b", 1, Identity::default(), at(1));
    deliver(&mut room, member, &[1], at(1));
    room.acked("b", 2, Identity::default(), at(1));
    room.sweep(at(10));
    assert_eq!(
        room.counts(),
        Counts {
            lost: 1,
            epoch_changes: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn acknowledgements_and_trouble_take_bounded_memory() {
    let (mut room, member) = room();
    for step in 0..100_000 {
        let now = Duration::from_millis(step);
        room.acked("a", step + 1, Identity::default(), now);
        deliver(&mut room, member, &[step * 3 + 2, 1], now);
        if step % 1000 == 0 {
            room.sweep(now);
        }
    }
    assert!(room.acked.len() <= 70, "{}", room.acked.len());
    let trouble = room.members[0].as_ref().unwrap().trouble.as_ref().unwrap();
    assert!(trouble.gaps.len() <= MOST_GAPS && trouble.suspects.len() <= MOST_GAPS);
    assert!(std::mem::size_of::<Option<Member>>() <= 48);
}

#[test]
fn places_of_members_that_left_are_used_again() {
    let (mut room, member) = room();
    room.leave(member, at(1));
    let (again, _) = room.join("a", 0, at(1));
    assert_eq!(again, member);
    assert_eq!(room.members.len(), 1);
}

proptest! {
    /// Whatever a network does to the messages 1..=40 (drop, repeat, reorder), the ledger says exactly that.
    #[test]
    fn what_was_done_to_the_messages_is_what_is_counted(
        drops in prop::collection::btree_set(1u64..=40, 0..10),
        repeats in prop::collection::btree_set(1u64..=40, 0..10),
        swaps in prop::collection::vec(0usize..30, 0..5),
    ) {
        let mut sent: Vec<u64> = (1..=40).filter(|offset| !drops.contains(offset)).collect();
        for swap in swaps {
            if swap + 1 < sent.len() {
                sent.swap(swap, swap + 1);
            }
        }
        let mut expected = Counts { lost: drops.len() as u64, ..Counts::default() };
        let mut highest = 0;
        for offset in &sent {
            expected.out_of_order += u64::from(*offset < highest);
            highest = highest.max(*offset);
        }
        let repeated: Vec<u64> = repeats.iter().copied().filter(|offset| sent.contains(offset)).collect();
        expected.duplicated = repeated.len() as u64;

        let (mut room, member) = room();
        deliver(&mut room, member, &sent, at(1));
        deliver(&mut room, member, &repeated, at(1));
        room.acked("a", 40, Identity::default(), at(1));
        room.sweep(at(60));
        prop_assert_eq!(room.counts(), expected);
    }
}
