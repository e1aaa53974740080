//! Which connection came with which token, for those whose tokens have an id (`jti`).
//!
//! A connection has no field for it, and one whose token has no id costs nothing here. The others cost 24 bytes: a keyed hash
//! of 64 bits and the connection's place. What is looked for is found by walking through all of them, which takes
//! microseconds, and is done when a token is revoked or replaced. Connections that have ended are cleared out when the list
//! would grow.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::session::{Conn, Connections, Place};

/// The list.
#[derive(Debug, Default)]
pub struct Tokens {
    hasher: ahash::RandomState,
    known: Mutex<Vec<(u64, Place)>>,
}

impl Tokens {
    /// The connection at `place` came with the token of this id.
    pub fn insert(&self, token: &str, place: Place, connections: &Connections) {
        let mut known = self.known.lock();
        if known.len() == known.capacity() {
            known.retain(|(_, place)| connections.get(*place).is_some());
            let wanted = known.len() * 2;
            known.shrink_to(wanted);
        }
        known.push((self.hasher.hash_one(token), place));
    }

    /// The connection at `place` goes on with another token, of this id if it has one.
    pub fn replace(&self, token: Option<&str>, place: Place, connections: &Connections) {
        self.known.lock().retain(|(_, known)| *known != place);
        if let Some(token) = token {
            self.insert(token, place, connections);
        }
    }

    /// The open connections that came with the token of this id.
    pub fn find(&self, token: &str, connections: &Connections) -> Vec<Arc<Conn>> {
        let wanted = self.hasher.hash_one(token);
        let places: Vec<_> = {
            let known = self.known.lock();
            known
                .iter()
                .filter(|(hash, _)| *hash == wanted)
                .map(|(_, place)| *place)
                .collect()
        };
        places
            .into_iter()
            .filter_map(|place| connections.get(place))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{connect, env};

    #[tokio::test]
    async fn connections_are_found_by_their_token_until_they_end_or_have_another() {
        let (env, connections, tokens) = (Arc::new(env()), Connections::default(), Tokens::default());
        let mut peers = Vec::new();
        let mut places = Vec::new();
        for id in 1..=3 {
            let (conn, peer) = connect(&env, id, "ann").await;
            peers.push(peer);
            places.push(connections.insert(conn));
            tokens.insert(
                if id < 3 { "a" } else { "b" },
                places[id as usize - 1],
                &connections,
            );
        }
        let found = |token: &str| {
            tokens
                .find(token, &connections)
                .iter()
                .map(|c| c.id.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (found("a"), found("b"), found("c")),
            (vec![1, 2], vec![3], vec![])
        );
        connections.remove(places[0]);
        tokens.replace(Some("c"), places[1], &connections);
        assert_eq!((found("a"), found("c")), (vec![], vec![2]));
        tokens.replace(None, places[1], &connections);
        assert_eq!(found("c"), Vec::<u64>::new());
    }

    #[tokio::test]
    async fn the_list_does_not_grow_with_connections_that_have_ended() {
        let (env, connections, tokens) = (Arc::new(env()), Connections::default(), Tokens::default());
        let (conn, _peer) = connect(&env, 1, "ann").await;
        for _ in 0..10_000 {
            let place = connections.insert(Arc::clone(&conn));
            connections.remove(place);
            tokens.insert("a", place, &connections);
        }
        assert!(tokens.known.lock().capacity() < 100);
    }
}
