//! Which rooms a token opens: patterns in its claims.

use std::sync::Arc;

use serde::Deserialize;

use crate::pattern::matches;

/// What a token says about rooms. A list that is not there says nothing.
///
/// - `rooms`: patterns of the rooms that may be joined;
/// - `publish`: patterns of the rooms, among those joined, that may be sent to.
///
/// In a pattern `*` stands for any text, the empty one included; everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    join: Option<Vec<String>>,
    publish: Option<Vec<String>>,
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
    pub(super) fn new(join: Option<Patterns>, publish: Option<Patterns>) -> Option<Arc<Self>> {
        let (join, publish) = (join.map(Vec::from), publish.map(Vec::from));
        (join.is_some() || publish.is_some()).then(|| Arc::new(Self { join, publish }))
    }

    /// No room at all.
    pub(super) fn nothing() -> Arc<Self> {
        Arc::new(Self {
            join: Some(Vec::new()),
            publish: None,
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
}

fn granted(patterns: Option<&[String]>, room: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, room)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_not_granted_and_no_list_grants_all() {
        let many =
            |patterns: &[&str]| Some(Patterns::Many(patterns.iter().map(|p| (*p).to_owned()).collect()));
        assert!(Grants::new(None, None).is_none());
        let grants = Grants::new(many(&["chat:*", "news"]), many(&["chat:*"])).unwrap();
        assert!(grants.may_join("chat:1") && grants.may_join("news") && !grants.may_join("admin"));
        assert!(grants.may_publish("chat:1") && !grants.may_publish("news"));
        let none = Grants::new(many(&[]), None).unwrap();
        assert!(!none.may_join("chat:1"));
        assert!(!Grants::nothing().may_join(""));
    }
}
