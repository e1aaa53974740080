use std::time::Duration;

use super::*;

const RULES: Rules = Rules {
    times: Times {
        hold: Duration::from_secs(15),
        lasts: Duration::from_secs(15),
    },
    announced: 3,
};

/// A view, and the time that passes.
struct Seen {
    view: View,
    leases: Leases,
    now: Instant,
    sequence: u64,
}

impl Seen {
    /// Of a room that was read when this was stored.
    fn of(stored: &[&str]) -> Self {
        let mut seen = Self {
            view: View::unread(),
            leases: Leases::default(),
            now: Instant::now(),
            sequence: 0,
        };
        assert_eq!(
            seen.read(stored),
            [""; 0],
            "nobody is announced who was there before"
        );
        seen
    }

    /// `+ann 1/a`: sign, user, lease and connection.
    fn change(&mut self, text: &str) -> Change {
        let (user, place) = text[1..].split_once(' ').unwrap();
        let (lease, connection) = place.split_once('/').unwrap();
        self.sequence += 1;
        Change {
            sign: match &text[..1] {
                "+" => Sign::Came,
                "=" => Sign::Stays,
                _ => Sign::Left,
            },
            lease: lease.into(),
            connection: connection.into(),
            user: user.into(),
            server: format!("g{lease}").into(),
            sequence: self.sequence,
            at: None,
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut View, &mut Now<'_>) -> T) -> T {
        let mut now = Now {
            rules: RULES,
            leases: &mut self.leases,
            time: self.now,
            own: "own-",
        };
        act(&mut self.view, &mut now)
    }

    fn hear(&mut self, text: &str) -> Vec<String> {
        let change = self.change(text);
        let told = self.with(|view, now| view.hear(change, now));
        told.iter().map(shown).collect()
    }

    fn read(&mut self, stored: &[&str]) -> Vec<String> {
        let stored: Vec<_> = stored.iter().map(|text| self.change(text)).collect();
        let told = self.with(|view, now| view.read(&stored, now));
        told.iter().map(shown).collect()
    }

    fn after(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        let told = self.view.expire(RULES, self.now);
        told.iter().map(shown).collect()
    }

    fn users(&self) -> String {
        let page = self.view.page(None, 100);
        assert_eq!((page.users.len() as u64, page.more), (page.count, false));
        page.users.join(" ")
    }
}

fn shown(event: &Event) -> String {
    match event {
        Event::UserJoined {
            user_id, server_id, ..
        } => format!("+{user_id} {server_id}"),
        Event::UserLeft { user_id, server_id } => format!("-{user_id} {server_id}"),
        _ => String::new(),
    }
}

#[test]
fn a_user_is_announced_with_the_first_device_and_when_the_last_has_been_away_for_long() {
    let mut seen = Seen::of(&["+bob 1/b"]);
    assert_eq!(seen.hear("+ann 1/a"), ["+ann g1"]);
    for quiet in ["+ann 2/a", "+ann 2/a", "-ann 1/a", "-ann 1/a", "+bob 2/b"] {
        assert_eq!(seen.hear(quiet), [""; 0], "{quiet}");
    }
    assert_eq!(seen.users(), "ann bob");
    assert_eq!(seen.hear("-ann 2/a"), [""; 0]);
    assert_eq!((seen.after(14), seen.users().as_str()), (vec![], "ann bob"));
    assert_eq!(seen.after(1), ["-ann g2"]);
    assert_eq!(seen.hear("-ann 2/a"), [""; 0], "twice is once");
    assert_eq!((seen.after(99), seen.users().as_str()), (vec![], "bob"));
}

#[test]
fn who_is_back_in_time_is_not_announced() {
    let mut seen = Seen::of(&[]);
    seen.hear("+ann 1/a");
    seen.hear("-ann 1/a");
    assert_eq!(seen.after(14), [""; 0]);
    assert_eq!(seen.hear("+ann 2/a"), [""; 0]);
    assert_eq!(seen.after(99), [""; 0]);
    assert!(!seen.view.has_leaving());
    assert_eq!(seen.users(), "ann");
}

#[test]
fn more_users_than_the_maximum_are_not_announced() {
    let mut seen = Seen::of(&["+a 1/1", "+b 1/2"]);
    assert_eq!(seen.hear("+c 1/3"), ["+c g1"]);
    assert_eq!(seen.hear("+d 1/4"), [""; 0]);
    seen.hear("-a 1/1");
    seen.hear("-b 1/2");
    assert_eq!(seen.after(15), ["-b g1"], "a left four");
}

#[test]
fn what_is_heard_while_the_room_is_read_is_news_whether_or_not_it_was_read() {
    let mut seen = Seen::of(&["+old 1/o"]);
    assert_eq!(seen.view.seen(), 1);
    assert!(seen.view.doubt() && !seen.view.doubt());
    assert_eq!(seen.view.seen(), 0, "the stream may have begun anew");
    seen.sequence = 0;
    let (first, second) = ("+ann 1/a", "-old 1/o");
    assert_eq!((seen.hear(first), seen.hear(second)), (vec![], vec![]));
    assert_eq!(seen.after(0), [""; 0]);
    seen.sequence = 0;
    // the same messages
    assert_eq!(seen.read(&[first, second]), ["+ann g1"]);
    assert_eq!(seen.users(), "ann old");
    assert_eq!(seen.after(15), ["-old g1"]);

    let mut late = Seen::of(&["-gone 1/g"]);
    assert_eq!(late.users(), "gone", "may be back");
    assert_eq!(late.after(15), ["-gone g1"]);
}

#[test]
fn our_own_members_are_news_though_they_were_stored_before_the_room_was_read() {
    let mut seen = Seen::of(&[]);
    seen.view = View::unread();
    let stored = ["+old 1/o", "+ann own-1/a", "=bob own-1/b"];
    assert_eq!(seen.read(&stored), ["+ann gown-1"], "bob is put back");
    assert_eq!(seen.hear("+ann own-1/a"), [""; 0], "what is heard late");
    assert_eq!(seen.users(), "ann bob old");
}

#[test]
fn who_is_announced_as_gone_has_come_though_the_lease_had_ended() {
    let mut seen = Seen::of(&[]);
    let gone = seen.now + Duration::from_secs(5);
    seen.leases.end(&"1".into(), gone, seen.now);
    assert_eq!(seen.hear("+ann 1/a"), ["+ann g1"]);
    assert_eq!(seen.hear("+ann 1/b"), [""; 0]);
    assert_eq!((seen.after(4), seen.users().as_str()), (vec![], "ann"));
    assert_eq!(seen.after(1), ["-ann g1"]);
    assert_eq!(seen.hear("+bob 1/c"), [""; 0], "gone before it was heard of");
    assert_eq!((seen.after(9), seen.users().as_str()), (vec![], ""));
}

#[test]
fn who_is_heard_to_come_here_before_the_leave_elsewhere_is_not_new() {
    let mut seen = Seen::of(&[]);
    seen.view.doubt();
    seen.sequence = 10;
    let heard = ["+ann 2/a", "-ann 1/a", "+bob 2/b", "-bob 2/b"];
    for text in heard {
        assert_eq!(seen.hear(text), [""; 0]);
    }
    seen.sequence = 10;
    assert_eq!(
        seen.read(&heard),
        ["+bob g2"],
        "ann was there by another connection"
    );
    assert_eq!(seen.users(), "ann bob");
    assert_eq!(seen.after(15), ["-bob g2"]);
}

#[test]
fn a_broker_that_comes_back_empty_announces_nobody_who_is_told_again() {
    let mut seen = Seen::of(&[]);
    for user in ["+ann 1/a", "+bob 2/b", "+cleo 2/c"] {
        seen.hear(user);
    }
    seen.view.doubt();
    seen.hear("=ann 3/a");
    assert_eq!(seen.read(&[]), [""; 0]);
    assert_eq!(seen.hear("=bob 4/b"), [""; 0]);
    // what the lost leases had is void
    seen.view.end("1", seen.now);
    seen.view.end("2", seen.now);
    assert_eq!(seen.users(), "ann bob cleo");
    assert_eq!(seen.after(14), [""; 0]);
    assert_eq!(seen.after(1), ["-cleo g2"], "who did not come back");
    assert_eq!(seen.hear("=cleo 4/c"), [""; 0], "quiet as the view is new");
    seen.hear("-cleo 4/c");
    seen.after(30);
    assert_eq!(seen.hear("=cleo 4/c"), ["+cleo g4"]);
}

#[test]
fn what_was_missed_is_found_when_the_room_is_read_again() {
    let mut seen = Seen::of(&["+ann 1/a", "+bob 1/b", "+cleo 1/c"]);
    seen.view.doubt();
    assert_eq!(
        seen.read(&["+ann 1/a", "-bob 1/b", "+dora 1/d"]),
        [""; 0],
        "too many"
    );
    assert_eq!(seen.users(), "ann bob cleo dora");
    assert_eq!(seen.after(15), ["-cleo g1"]);
    assert_eq!(seen.users(), "ann dora");
}

#[test]
fn the_users_of_a_gateway_that_has_ended_may_be_back_elsewhere() {
    let mut seen = Seen::of(&["+ann 1/a", "+ann 2/a", "+bob 1/b", "+cleo 1/c"]);
    let gone = seen.now + Duration::from_secs(5);
    seen.leases.end(&"1".into(), gone, seen.now);
    seen.view.end("1", gone);
    assert_eq!(seen.hear("+bob 2/b"), [""; 0]);
    // said by the gateway before it knew
    assert_eq!(seen.hear("+dora 1/d"), [""; 0]);
    assert_eq!(seen.after(4), [""; 0]);
    assert_eq!(seen.users(), "ann bob cleo dora");
    assert_eq!(seen.after(1).len(), 1, "of more than the maximum one");
    assert_eq!(seen.users(), "ann bob");
}

#[test]
fn pages_are_in_the_order_of_names() {
    let seen = Seen::of(&["+b 1/1", "+a 1/2", "+d 1/3", "-c 1/4"]);
    let names = |after, limit| {
        let page = seen.view.page(after, limit);
        assert_eq!(page.count, 4);
        (page.users.join(" "), page.more)
    };
    assert_eq!(names(None, 2), ("a b".into(), true));
    assert_eq!(names(Some("b"), 2), ("c d".into(), false));
    assert_eq!(names(Some("bb"), 1), ("c".into(), true));
    assert_eq!(names(Some("d"), 1), (String::new(), false));
}
