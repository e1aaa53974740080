//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): what is sent again with the same key within
//! [`MSG_ID_TTL`](crate::broker::MSG_ID_TTL), to whichever gateway, is answered as the first time and not published again.
//!
//! A key belongs to its operation and to the stream that is published to; the bodies are not compared.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::refusal::Refusal;
use crate::broker::MsgId;

/// Longest key in bytes.
const KEY_BYTES: usize = 255;
const HEADER: &str = "idempotency-key";

/// A request's key, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(Option<String>);

impl Key {
    /// What the one message of an operation is called.
    pub(super) fn of(&self, operation: &str) -> Option<MsgId> {
        self.name(|key| format!("{operation} {key}"))
    }

    /// What the message at this place of many is called.
    pub(super) fn of_item(&self, operation: &str, index: usize) -> Option<MsgId> {
        self.name(|key| format!("{operation} {index} {key}"))
    }

    fn name(&self, name: impl FnOnce(&str) -> String) -> Option<MsgId> {
        let key = self.0.as_deref()?;
        Some(MsgId::BackEnd(name(key).into()))
    }

    /// A structured string (RFC 9651 §3.3.3), which the draft asks for, or the same without its quotes, which many send.
    fn parse(text: &str) -> Option<String> {
        let printable = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let text = text.trim();
        let key = match text.strip_prefix('"') {
            Some(rest) => unescape(rest.strip_suffix('"')?)?,
            None => text.to_owned(),
        };
        ((1..=KEY_BYTES).contains(&key.len()) && printable(&key)).then_some(key)
    }
}

fn unescape(quoted: &str) -> Option<String> {
    let mut out = String::with_capacity(quoted.len());
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.push(letters.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            other => out.push(other),
        }
    }
    Some(out)
}

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all(HEADER).into_iter();
        let Some(first) = values.next() else {
            return Ok(Self(None));
        };
        let key = first.to_str().ok().and_then(Self::parse);
        match (key, values.next()) {
            (Some(key), None) => Ok(Self(Some(key))),
            _ => Err(Refusal::Malformed(format!(
                "wrong header: send one Idempotency-Key, of 1 to {KEY_BYTES} printable ASCII characters, in quotes"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_with_quotes_and_without() {
        let parse = |text| Key::parse(text).unwrap();
        assert_eq!(parse(r#""8e03978e""#), "8e03978e");
        assert_eq!(parse(" 8e03978e "), "8e03978e");
        assert_eq!(parse(r#""a\"b\\c""#), r#"a"b\c"#);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "x".repeat(KEY_BYTES + 1);
        for text in [
            "", r#""""#, r#"""#, r#""a"#, r#""a"b""#, r#""a\b""#, "a\u{e9}", &long,
        ] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    #[test]
    fn operations_and_places_do_not_share_a_name() {
        let key = Key(Some("k".into()));
        let names = [
            key.of("publish"),
            key.of("direct"),
            key.of_item("batch", 1),
            key.of_item("batch", 2),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name:?}");
        }
        assert_eq!(Key(None).of("publish"), None);
    }
}
