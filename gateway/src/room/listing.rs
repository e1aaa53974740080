//! What back ends may know of the rooms here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Entry, Rooms};
use crate::broker::StreamKey;
use crate::session::Conn;

impl Rooms {
    /// The first `most` rooms, by name, that begin with `prefix` and come after `after`, each with the number of its members.
    /// One shard of the table is held at a time, so rooms may come and go meanwhile.
    pub fn named(&self, prefix: &str, after: &str, most: usize) -> Vec<(Arc<str>, usize)> {
        let mut found = BTreeMap::new();
        for shard in &self.shards {
            for Entry(room) in &*shard.lock() {
                let Some(name) = room.name() else { continue };
                let wanted = name.starts_with(prefix) && **name > *after;
                let beyond =
                    found.len() >= most && found.last_key_value().is_some_and(|(last, _)| name > last);
                if !wanted || beyond {
                    continue;
                }
                let members = room.len();
                // while nobody is in it, it is about to come or to go
                if members > 0 {
                    found.insert(Arc::clone(name), members);
                }
                if found.len() > most {
                    found.pop_last();
                }
            }
        }
        found.into_iter().collect()
    }

    /// A user's connections here that have been welcomed.
    pub fn devices(&self, user: &Arc<str>) -> Vec<Arc<Conn>> {
        let personal = self.find(&StreamKey::User(Arc::clone(user)));
        personal.map_or_else(Vec::new, |room| room.members())
    }
}
