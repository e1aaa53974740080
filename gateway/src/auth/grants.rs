//! Which rooms a token opens, and which events it may send: patterns in its claims.

use std::sync::Arc;

use serde::Deserialize;

use crate::pattern::matches;

/// What a token says about rooms and events. A list that is not there says nothing.
///
/// - `rooms`: patterns of the rooms that may be joined;
/// - `publish`: patterns of the rooms, among those joined, that may be sent to;
/// - `events`: patterns of the names of events that may be sent to workers.
///
/// In a pattern `*` stands for any text, the empty one included; everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    join: Option<Vec<String>>,
    publish: Option<Vec<String>>,
    events: Option<Vec<String>>,
}

/// A claim that is a list of patterns, or one.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Patterns {
    One(String),
    Many(Vec<String>),
}

impl From<Patterns> for Vec<String> {
    fn from(patterns: Patterns) -> Self {
        match patterns {
            Patterns::One(pattern) => vec![pattern],
            Patterns::Many(patterns) => patterns,
        }
    }
}

impl Grants {
    /// What these claims grant; `None`: everything, at no cost to the connection.
    pub(super) fn new(
        join: Option<Patterns>,
        publish: Option<Patterns>,
        events: Option<Patterns>,
    ) -> Option<Arc<Self>> {
        let all = join.is_none() && publish.is_none() && events.is_none();
        (!all).then(|| {
            Arc::new(Self {
                join: join.map(Vec::from),
                publish: publish.map(Vec::from),
                events: events.map(Vec::from),
            })
        })
    }

    /// No room at all, and these events.
    pub(super) fn no_room(events: Option<Patterns>) -> Arc<Self> {
        Arc::new(Self {
            join: Some(Vec::new()),
            publish: None,
            events: events.map(Vec::from),
        })
    }

    /// Whether a room may be joined.
    pub fn may_join(&self, room: &str) -> bool {
        granted(self.join.as_deref(), room)
    }

    /// Whether a room that was joined may be sent to.
    pub fn may_publish(&self, room: &str) -> bool {
        granted(self.publish.as_deref(), room)
    }

    /// Whether an event of this name may be sent.
    pub fn may_send(&self, event: &str) -> bool {
        granted(self.events.as_deref(), event)
    }
}

fn granted(patterns: Option<&[String]>, name: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_not_granted_and_no_list_grants_all() {
        let many =
            |patterns: &[&str]| Some(Patterns::Many(patterns.iter().map(|p| (*p).to_owned()).collect()));
        assert!(Grants::new(None, None, None).is_none());
        let grants = Grants::new(many(&["chat:*", "news"]), many(&["chat:*"]), None).unwrap();
        assert!(grants.may_join("chat:1") && grants.may_join("news") && !grants.may_join("admin"));
        assert!(grants.may_publish("chat:1") && !grants.may_publish("news"));
        assert!(grants.may_send("order"));
        let none = Grants::new(many(&[]), None, None).unwrap();
        assert!(!none.may_join("chat:1"));
        let closed = Grants::no_room(many(&["order.*"]));
        assert!(!closed.may_join(""));
        assert!(closed.may_send("order.new") && !closed.may_send("refund"));
        let some = Grants::new(None, None, many(&["order.*"])).unwrap();
        assert!(some.may_join("chat:1") && !some.may_send("refund"));
    }
}
