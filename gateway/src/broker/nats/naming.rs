//! Names in NATS. A stream's *channel* (`r.lobby`, `u.ann`, `f.revocations`) is the end of two subjects: on
//! `<prefix>.at.<channel>` (the fleet's: `<prefix>.fleet.<channel>`) its messages are stored, from `<prefix>.live.<channel>` they are heard. It is also the name of
//! the subscription. What is no letter, digit, `-` or `_` is written as `=` and two hexadecimal digits, so that any text
//! is one token of a subject, and no two texts are the same token.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::broker::StreamKey;

/// Where rooms and personal streams are.
pub(super) const AT: &str = "at";
/// Where the fleet's orders are.
pub(super) const FLEET: &str = "fleet";
/// Where the places of `msgId`s are.
pub(super) const ID: &str = "id";

/// Where clients' events are.
pub(super) const EVENTS: &str = "events";

/// Where users' connections are.
pub(super) const SEATS: &str = "seats";
/// Where gateways' leases are.
pub(super) const LEASE: &str = "lease";

/// Where it is who is in rooms.
pub(super) const THERE: &str = "there";
/// Where the leases of those are heard.
const LEASES: &[u8] = b"l.leases";

/// How everything in NATS begins that is this fleet's.
#[derive(Clone, Debug)]
pub(super) struct Names(pub(super) Arc<str>);

impl Names {
    /// Where a channel's messages are stored.
    pub(super) fn at(&self, channel: &[u8]) -> String {
        self.with(stored(channel), channel)
    }

    /// All subjects on which the messages of a JetStream stream are stored.
    pub(super) fn all(&self, word: &str) -> String {
        format!("{}.{word}.>", self.0)
    }

    /// Where they are heard.
    pub(super) fn live(&self, channel: &[u8]) -> String {
        self.with("live", channel)
    }

    /// Where a gateway hears its own probes.
    pub(super) fn probe(&self, instance: &str) -> String {
        format!("{}.probe.{instance}", self.0)
    }

    /// Where it is remembered what place a `msgId` got.
    pub(super) fn id(&self, id: &str) -> String {
        format!("{}.id.{id}", self.0)
    }

    /// Where events of this name are stored: its dots stay, so that workers can ask for a part of them.
    pub(super) fn event(&self, name: &str) -> String {
        let tokens: Vec<_> = name.split('.').map(token).collect();
        format!("{}.{EVENTS}.{}", self.0, tokens.join("."))
    }

    /// Where one connection of a user is, under a gateway's lease.
    pub(super) fn seat(&self, user: &str, lease: &str, connection: u64) -> String {
        format!("{}.{SEATS}.{}.{lease}.{connection:x}", self.0, token(user))
    }

    /// All subjects of a user's connections.
    pub(super) fn seats_of(&self, user: &str) -> String {
        format!("{}.{SEATS}.{}.>", self.0, token(user))
    }

    /// Where a lease is.
    pub(super) fn lease(&self, lease: &str) -> String {
        format!("{}.{LEASE}.{lease}", self.0)
    }

    /// Where one connection in a room is, under a gateway's lease.
    pub(super) fn there(&self, channel: &[u8], user: &str, lease: &str, connection: &str) -> String {
        let room = self.with(THERE, channel);
        format!("{room}.{}.{lease}.{}", token(user), token(connection))
    }

    /// All subjects of connections in a room.
    pub(super) fn all_there(&self, channel: &[u8]) -> String {
        format!("{}.>", self.with(THERE, channel))
    }

    /// All subjects of connections under a lease, and its own.
    pub(super) fn all_under(&self, lease: &str) -> String {
        format!("{}.{THERE}.*.*.*.{lease}.*", self.0)
    }

    /// Where the lease of a gateway's members is: as one of a channel that all gateways hear.
    pub(super) fn there_lease(&self, server: &str, lease: &str) -> String {
        self.there(LEASES, server, lease, "")
    }

    /// The same, of whichever gateway.
    pub(super) fn any_lease(&self, lease: &str) -> String {
        format!("{}.*.{lease}.*", self.with(THERE, LEASES))
    }

    /// Where such leases are heard.
    pub(super) fn leases(&self) -> String {
        self.live(LEASES)
    }

    /// Which of these subjects are heard, and where: with the messages of the channel.
    pub(super) fn heard_there(&self) -> (String, String) {
        let stored = format!("{}.{THERE}.*.*.*.*.*", self.0);
        (
            stored,
            format!("{}.live.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}", self.0),
        )
    }

    /// The JetStream stream in which a channel is stored.
    pub(super) fn store(&self, channel: &[u8]) -> String {
        self.stream(stored(channel))
    }

    /// A JetStream stream of this fleet.
    pub(super) fn stream(&self, word: &str) -> String {
        format!("{}-{word}", self.0)
    }

    fn with(&self, word: &str, channel: &[u8]) -> String {
        // a channel is ASCII
        format!("{}.{word}.{}", self.0, String::from_utf8_lossy(channel))
    }
}

/// What is said to all gateways is kept for longer than what is said in rooms and to users, so it is apart.
fn stored(channel: &[u8]) -> &'static str {
    if channel.starts_with(b"f.") { FLEET } else { AT }
}

/// A stream's channel.
pub(super) fn channel(stream: &StreamKey) -> Arc<[u8]> {
    let (kind, name) = match stream {
        StreamKey::Room(name) => ("r.", name),
        StreamKey::User(name) => ("u.", name),
        StreamKey::Fleet(name) => ("f.", name),
    };
    format!("{kind}{}", token(name)).into_bytes().into()
}

/// What a `msgId` is called: it is one of this sender in this channel.
pub(super) fn message_id(channel: &[u8], (sender, id): (&str, &str)) -> String {
    format!(
        "{}.{}.{}",
        String::from_utf8_lossy(channel),
        token(sender),
        token(id)
    )
}

/// What the `msgId` of an event is called.
pub(super) fn event_id(sender: &str, id: &str) -> String {
    format!("{}.{}", token(sender), token(id))
}

/// Lease and number of a connection, by its subject.
pub(super) fn seat(subject: &str) -> Option<(&str, u64)> {
    let (rest, connection) = subject.rsplit_once('.')?;
    let (_, lease) = rest.rsplit_once('.')?;
    Some((lease, u64::from_str_radix(connection, 16).ok()?))
}

/// The lease under which a connection is, by its subject.
pub(super) fn lease_of(subject: &str) -> Option<&str> {
    subject.rsplit('.').nth(1)
}

/// Any text as one token; the empty one, too.
fn token(text: &str) -> String {
    if text.is_empty() {
        return "=".into();
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            out.push(char::from(byte));
        } else {
            // writing to a text does not fail
            let _ = write!(out, "={byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_has_a_subject_for_what_is_stored_and_one_for_what_is_heard() {
        let names = Names("wsfleet".into());
        let room = channel(&StreamKey::Room("a.b *>".into()));
        assert_eq!(names.at(&room), "wsfleet.at.r.a=2Eb=20=2A=3E");
        assert_eq!(names.live(&room), "wsfleet.live.r.a=2Eb=20=2A=3E");
        assert_eq!(names.store(&room), "wsfleet-at");
        let orders = channel(&StreamKey::Fleet("revocations".into()));
        assert_eq!(names.store(&orders), "wsfleet-fleet");
    }

    #[test]
    fn a_connection_has_a_subject_by_its_user_and_lease() {
        let names = Names("wsfleet".into());
        let subject = names.seat("a.b", "i-7", 0xbeef);
        assert_eq!(subject, "wsfleet.seats.a=2Eb.i-7.beef");
        assert_eq!(seat(&subject), Some(("i-7", 0xbeef)));
        assert_eq!(names.seats_of("a.b"), "wsfleet.seats.a=2Eb.>");
        assert_eq!(names.lease("i-7"), "wsfleet.lease.i-7");
    }

    #[test]
    fn a_connection_in_a_room_has_a_subject_and_is_heard_with_the_rooms_messages() {
        let names = Names("wsfleet".into());
        let room = channel(&StreamKey::Room("a.b".into()));
        let subject = names.there(&room, "an n", "i-7", "c.1");
        assert_eq!(subject, "wsfleet.there.r.a=2Eb.an=20n.i-7.c=2E1");
        assert_eq!(lease_of(&subject), Some("i-7"));
        assert_eq!(names.all_there(&room), "wsfleet.there.r.a=2Eb.>");
        assert_eq!(
            names.there_lease("g.1", "i-7"),
            "wsfleet.there.l.leases.g=2E1.i-7.="
        );
        assert_eq!(names.any_lease("i-7"), "wsfleet.there.l.leases.*.i-7.*");
        assert_eq!(lease_of(&names.there_lease("g.1", "i-7")), Some("i-7"));
        assert_eq!(names.all_under("i-7"), "wsfleet.there.*.*.*.i-7.*");
        let (stored, heard) = names.heard_there();
        assert_eq!(stored, "wsfleet.there.*.*.*.*.*");
        assert_eq!(heard, "wsfleet.live.{{wildcard(1)}}.{{wildcard(2)}}");
        assert_eq!(names.leases(), "wsfleet.live.l.leases");
    }

    #[test]
    fn an_event_has_a_subject_by_its_name_whatever_that_is() {
        let names = Names("wsfleet".into());
        for (name, subject) in [
            ("order.new", "wsfleet.events.order.new"),
            ("a b", "wsfleet.events.a=20b"),
            (".>", "wsfleet.events.=.=3E"),
            ("*", "wsfleet.events.=2A"),
        ] {
            assert_eq!(names.event(name), subject);
        }
    }

    proptest! {
        #[test]
        fn any_two_texts_are_different_tokens_without_dots_wildcards_or_spaces(a in ".{0,40}", b in ".{0,40}") {
            let (first, second) = (token(&a), token(&b));
            prop_assert_eq!(a == b, first == second);
            prop_assert!(!first.is_empty());
            prop_assert!(first.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)));
        }
    }
}
