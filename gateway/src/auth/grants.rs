//! Which rooms a token opens: patterns in its claims.

use std::sync::Arc;

use serde::Deserialize;

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

/// Whether `text` is what `pattern` describes. Each part between two stars is taken where it is first found, which never
/// rules a match out; so no pattern makes this slower than pattern times text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_everything_else_for_itself() {
        let table = [
            ("news", "news", true),
            ("news", "newsroom", false),
            ("chat:*", "chat:", true),
            ("chat:*", "chat:a:b", true),
            ("chat:*", "chat", false),
            ("*", "", true),
            ("*:read", "a:read", true),
            ("*:read", "a:reader", false),
            ("a*b*a", "aba", true),
            ("a*b*a", "aab", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("ü*", "über", true),
            ("", "", true),
            ("", "x", false),
            ("a.c", "abc", false),
        ];
        for (pattern, room, expected) in table {
            assert_eq!(matches(pattern, room), expected, "{pattern} {room}");
        }
    }

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

    /// The textbook definition, exponential in the worst case.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| by_definition(rest, &text[skip..])),
            Some((c, rest)) => text
                .split_first()
                .is_some_and(|(t, text)| t == c && by_definition(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), by_definition(&chars(&pattern), &chars(&text)));
        }
    }
}
