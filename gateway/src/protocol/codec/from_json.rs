//! JSON text to MessagePack, for everything that JSON text can say.
//!
//! A payload was accepted as JSON text and must reach every member, whatever its codec. So this is total where a parser
//! into values is not: nesting has no limit (the stack of open arrays and maps is a list), a number beyond a double is
//! infinite, and a lone surrogate, which no UTF-8 can say (RFC 8259 §8.2), becomes U+FFFD. Text that is not JSON gives
//! bytes without a meaning, but no panic.

use rmp::encode;
use serde::de::{Deserializer, Visitor};
use smallvec::SmallVec;

/// An array or a map whose end has not come.
struct Open {
    /// Where its header is: one byte, until it is known that it needs more.
    header: usize,
    /// Elements so far; keys count.
    count: usize,
    map: bool,
}

/// Appends the value that `json` says.
pub(super) fn to_msgpack(json: &[u8], out: &mut Vec<u8>) {
    let mut open: SmallVec<[Open; 8]> = SmallVec::new();
    let mut rest = json;
    while let Some((&first, behind)) = rest.split_first() {
        match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => rest = behind,
            b'{' | b'[' => {
                count(&mut open);
                open.push(Open {
                    header: out.len(),
                    count: 0,
                    map: first == b'{',
                });
                out.push(0);
                rest = behind;
            }
            b'}' | b']' => {
                if let Some(done) = open.pop() {
                    close(&done, out);
                }
                rest = behind;
            }
            b'"' => {
                count(&mut open);
                let (text, after) = rest.split_at(string_length(rest));
                string(text, out);
                rest = after;
            }
            _ => {
                count(&mut open);
                let end = rest.iter().position(|byte| b",]} \t\r\n".contains(byte));
                let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
                scalar(word, out);
                rest = after;
            }
        }
    }
}

fn count(open: &mut [Open]) {
    if let Some(parent) = open.last_mut() {
        parent.count += 1;
    }
}

/// Writes the header, now that the number of elements is known, in the fewest bytes.
fn close(open: &Open, out: &mut Vec<u8>) {
    let count = if open.map { open.count / 2 } else { open.count };
    let mut header = Vec::with_capacity(5);
    // writing to a Vec cannot fail, and no text has 2^32 elements
    let _ = if open.map {
        encode::write_map_len(&mut header, count as u32)
    } else {
        encode::write_array_len(&mut header, count as u32)
    };
    out.splice(open.header..=open.header, header);
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn string(quoted: &[u8], out: &mut Vec<u8>) {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let unescaped;
    let said = if inner.contains(&b'\\') {
        unescaped = unescape(quoted);
        &*unescaped
    } else {
        inner
    };
    // writing to a Vec cannot fail
    let _ = encode::write_str(out, &String::from_utf8_lossy(said));
}

/// What the string says; a lone surrogate comes as three bytes that are not UTF-8.
fn unescape(quoted: &[u8]) -> Vec<u8> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(replace_surrogates(bytes))
        }
    }
    serde_json::Deserializer::from_slice(quoted)
        .deserialize_bytes(Bytes)
        .unwrap_or_default()
}

/// Lone surrogates (ED A0..=BF xx) to U+FFFD, one for one.
fn replace_surrogates(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, behind)) = rest.split_first() {
        if let [0xED, 0xA0..=0xBF, _, after @ ..] = rest {
            out.extend_from_slice("\u{FFFD}".as_bytes());
            rest = after;
        } else {
            out.push(first);
            rest = behind;
        }
    }
    out
}

fn scalar(word: &[u8], out: &mut Vec<u8>) {
    let text = std::str::from_utf8(word).unwrap_or_default();
    // writing to a Vec cannot fail
    let _ = match text {
        "true" | "false" => encode::write_bool(out, text == "true").is_ok(),
        _ => {
            if let Ok(number) = text.parse::<u64>() {
                encode::write_uint(out, number).is_ok()
            } else if let Ok(number) = text.parse::<i64>() {
                encode::write_sint(out, number).is_ok()
            } else if let Ok(number) = text.parse::<f64>() {
                encode::write_f64(out, number).is_ok()
            } else {
                encode::write_nil(out).is_ok()
            }
        }
    };
}
