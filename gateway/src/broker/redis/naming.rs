//! What streams are called in Redis.
//!
//! A stream's metadata key and its channel have one name, `wsfleet:<database>:<kind>:{<name>}`:
//! - the database number is part of it because channels, unlike keys, are shared by all databases of a Redis;
//! - the braces are a hash tag (Redis Cluster specification): whatever is added in front later for the same stream falls
//!   into the same slot. For that to hold for every name, `}` is escaped, and `%` because it escapes;
//! - names never collide: kinds are fixed words, and the escape is reversible.

use std::sync::Arc;

use super::super::StreamKey;

/// Name of a stream's metadata key and channel.
pub(super) fn stream(database: i64, stream: &StreamKey) -> Arc<[u8]> {
    let (kind, name) = match stream {
        StreamKey::Room(name) => ("room", name),
        StreamKey::User(name) => ("user", name),
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
            assert!(seen.insert(probe(0, name)), "{name}");
            assert!(seen.insert(seats(0, name)), "{name}");
            assert!(seen.insert(lease(0, name)), "{name}");
        }
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
