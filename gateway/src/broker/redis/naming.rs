//! What streams are called in Redis.
//!
//! A stream's metadata key and its channel have one name, `wsfleet:<database>:<kind>:{<name>}`:
//! - the database number is part of it because channels, unlike keys, are shared by all databases of a Redis;
//! - the braces are a hash tag (Redis Cluster specification): whatever is added in front later for the same stream falls
//!   into the same slot. For that to hold for every name, `}` is escaped, and `%` because it escapes;
//! - what belongs to a stream has a word behind its kind (`room.log`, `room.id`) and the same hash tag;
//! - names never collide: kinds are fixed words, and the escape is reversible.

use std::sync::Arc;

use super::super::StreamKey;

/// Name of a stream's metadata key and channel.
pub(super) fn stream(database: i64, stream: &StreamKey) -> Arc<[u8]> {
    let (kind, name) = match stream {
        StreamKey::Room(name) => ("room", name),
        StreamKey::User(name) => ("user", name),
        StreamKey::Fleet(name) => ("fleet", name),
    };
    tagged(database, kind, name)
}

/// Channel on which one broker hears its own probes.
pub(super) fn probe(database: i64, instance: &str) -> Arc<[u8]> {
    tagged(database, "probe", instance)
}

/// Key of a user's connections in the fleet.
pub(super) fn seats(database: i64, user: &str) -> Arc<[u8]> {
    tagged(database, "seats", user)
}

/// Key of a gateway's lease on the seats that it has taken.
pub(super) fn lease(database: i64, lease: &str) -> Arc<[u8]> {
    tagged(database, "lease", lease)
}

/// A name in the slot of what is about the presence of all gateways.
pub(super) const FLEET: &[u8] = b"{fleet}";

/// Keys of who is in the room of a stream of this name; each has its hash tag.
pub(super) struct PresenceKeys {
    pub(super) users: Arc<[u8]>,
    pub(super) state: Arc<[u8]>,
    pub(super) leaving: Arc<[u8]>,
    pub(super) quiet: Arc<[u8]>,
}

impl PresenceKeys {
    pub(super) fn of(stream: &[u8]) -> Self {
        Self {
            users: of_stream(stream, b".users", &[]),
            state: of_stream(stream, b".state", &[]),
            leaving: of_stream(stream, b".leaving", &[]),
            quiet: of_stream(stream, b".quiet", &[]),
        }
    }
}

/// Key of the connections that are in a room under a lease.
pub(super) fn at(stream: &[u8], lease: &str) -> Arc<[u8]> {
    of_stream(stream, b".at", &[lease.as_bytes()])
}

/// Key of the leases under which it is said who is in rooms, by when they end.
pub(super) fn live(database: i64) -> Arc<[u8]> {
    tagged(database, "presence.live", "fleet")
}

/// Key of those that have ended.
pub(super) fn dead(database: i64) -> Arc<[u8]> {
    tagged(database, "presence.dead", "fleet")
}

/// Key of the rooms that users are gone from, by when.
pub(super) fn due(database: i64) -> Arc<[u8]> {
    tagged(database, "presence.due", "fleet")
}

/// Key of the rooms with members under a lease.
pub(super) fn rooms(database: i64, lease: &str) -> Arc<[u8]> {
    of_stream(
        &tagged(database, "presence", "fleet"),
        b".rooms",
        &[lease.as_bytes()],
    )
}

/// Key of the messages that are kept of the stream of this name.
pub(super) fn log(stream: &[u8]) -> Arc<[u8]> {
    of_stream(stream, b".log", &[])
}

/// Key of what a sender's `msgId` got in the stream of this name.
pub(super) fn message_id(stream: &[u8], sender: &str, id: &str) -> Arc<[u8]> {
    let length = sender.len().to_string();
    let parts = [length.as_bytes(), sender.as_bytes(), id.as_bytes()];
    of_stream(stream, b".id", &parts)
}

/// Key of a `msgId` that an event of a user had: in the slot of the stream of events, whose name has no brace.
pub(super) fn event_id(stream: &str, user: &str, id: &str) -> Arc<[u8]> {
    let length = user.len();
    format!("{{{stream}}}.id:{length}:{user}:{id}")
        .into_bytes()
        .into()
}

/// A stream's name with a word behind its kind, and texts behind the hash tag.
fn of_stream(stream: &[u8], word: &[u8], parts: &[&[u8]]) -> Arc<[u8]> {
    // the first brace is ours: kinds have none
    let tag = stream
        .iter()
        .position(|&byte| byte == b'{')
        .unwrap_or(stream.len());
    let kind = tag.saturating_sub(1);
    let length = parts.iter().map(|part| part.len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(stream.len() + word.len() + length);
    out.extend_from_slice(&stream[..kind]);
    out.extend_from_slice(word);
    out.extend_from_slice(&stream[kind..]);
    for part in parts {
        out.push(b':');
        out.extend_from_slice(part);
    }
    out.into()
}

fn tagged(database: i64, kind: &str, name: &str) -> Arc<[u8]> {
    let mut out = format!("wsfleet:{database}:{kind}:{{").into_bytes();
    out.reserve(name.len() + 1);
    for &byte in name.as_bytes() {
        match byte {
            b'%' => out.extend_from_slice(b"%25"),
            b'}' => out.extend_from_slice(b"%7D"),
            other => out.push(other),
        }
    }
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The part that Redis Cluster hashes: between the first `{` and the first `}` after it.
    fn hash_tag(key: &[u8]) -> &[u8] {
        let open = key.iter().position(|&b| b == b'{').unwrap();
        let close = key[open..].iter().position(|&b| b == b'}').unwrap();
        &key[open + 1..open + close]
    }

    #[test]
    fn names_made_of_separators_and_braces_stay_apart() {
        let names = [
            "events",
            "a:b",
            "a",
            "b",
            "{",
            "}",
            "{}",
            "}{",
            "%",
            "%7D",
            "%25",
            "{a}",
            "a}",
            "\u{1F600}",
            "\0",
        ];
        let mut seen = HashSet::new();
        for name in names {
            assert!(seen.insert(stream(0, &StreamKey::Room(name.into()))), "{name}");
            assert!(seen.insert(stream(0, &StreamKey::User(name.into()))), "{name}");
            assert!(seen.insert(stream(1, &StreamKey::Room(name.into()))), "{name}");
            assert!(seen.insert(stream(0, &StreamKey::Fleet(name.into()))), "{name}");
            assert!(seen.insert(probe(0, name)), "{name}");
            assert!(seen.insert(seats(0, name)), "{name}");
            assert!(seen.insert(lease(0, name)), "{name}");
            assert!(seen.insert(rooms(0, name)), "{name}");
            for stream in [
                stream(0, &StreamKey::Room(name.into())),
                stream(0, &StreamKey::User(name.into())),
            ] {
                assert!(seen.insert(log(&stream)), "{name}");
                let keys = PresenceKeys::of(&stream);
                for key in [
                    keys.users,
                    keys.state,
                    keys.leaving,
                    keys.quiet,
                    at(&stream, "l.1 g}0"),
                ] {
                    assert_eq!(hash_tag(&key), hash_tag(&stream), "one slot");
                    assert!(seen.insert(key), "{name}");
                }
                for (sender, id) in [("a", "b:c"), ("a:b", "c"), ("", "a:b:c"), ("a", "{b}")] {
                    let key = message_id(&stream, sender, id);
                    assert_eq!(hash_tag(&key), hash_tag(&stream), "one slot");
                    assert!(seen.insert(key), "{name} {sender} {id}");
                }
            }
        }
    }

    #[test]
    fn the_names_of_a_streams_keys_are_those_of_the_documentation() {
        let room = stream(2, &StreamKey::Room("a{b}".into()));
        assert_eq!(&*room, b"wsfleet:2:room:{a{b%7D}");
        assert_eq!(&*log(&room), b"wsfleet:2:room.log:{a{b%7D}");
        assert_eq!(
            &*message_id(&room, "ann", "7"),
            b"wsfleet:2:room.id:{a{b%7D}:3:ann:7"
        );
    }

    #[test]
    fn what_an_event_was_called_is_in_the_slot_of_the_stream_of_events() {
        let key = event_id("wsfleet:events", "ann", "7");
        assert_eq!(&*key, b"{wsfleet:events}.id:3:ann:7");
        assert_eq!(hash_tag(&key), b"wsfleet:events");
        assert_ne!(event_id("e", "a", "b:c"), event_id("e", "a:b", "c"));
    }

    proptest! {
        #[test]
        fn any_two_names_differ_and_the_hash_tag_is_the_whole_name(a in ".{1,40}", b in ".{1,40}") {
            let first = stream(0, &StreamKey::Room(a.as_str().into()));
            let second = stream(0, &StreamKey::Room(b.as_str().into()));
            prop_assert_eq!(a == b, first == second);
            let tag = hash_tag(&first);
            prop_assert!(!tag.is_empty());
            prop_assert_eq!(tag.len() + 1, first.len() - first.iter().position(|&c| c == b'{').unwrap() - 1);
        }
    }
}
