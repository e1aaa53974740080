//! Patterns of names, as they stand in tokens and settings: `*` is any text, also none; everything else is itself.

/// Whether `text` is what `pattern` describes. Each part between two stars is taken where it is first found, which never
/// rules a match out; so no pattern makes this slower than pattern times text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
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
