//! Negotiation of permessage-deflate (RFC 6455 §9.1, RFC 7692 §5 and §7.1).
//!
//! What is agreed to is always without context takeover, on both sides. Ours, because then a message is compressed once
//! for all who get it. The client's, because an inflater with a context is 40 KB for each connection, thirty times what
//! an idle connection costs otherwise. A server may demand that of any client (RFC 7692 §7.1.1.2); one that cannot do it
//! has to fail the connection, and then to connect without offering the extension.

use std::fmt;
use std::num::NonZeroU8;

/// How messages to a client are compressed. One byte, also when it is an `Option`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deflate {
    window_bits: NonZeroU8,
}

/// What was agreed on; its text is the value of the response's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// How messages are compressed from now on.
    pub deflate: Deflate,
    /// The client set the size of the window: then the response repeats it (RFC 7692 §7.1.2.1).
    window_named: bool,
}

/// `Sec-WebSocket-Extensions` is not what RFC 6455 §9.1 says it must be; answer with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Extensions must be a list of extensions with parameters, as in RFC 6455 section 9.1")]
pub struct InvalidExtensions;

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT: &str = "client_no_context_takeover";
const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";

impl Deflate {
    /// The largest window: distances of up to 2^15 bytes.
    pub const WIDEST: Self = Self {
        window_bits: NonZeroU8::MIN.saturating_add(14),
    };

    /// The first offer in these header values, in their order, that can be agreed to; `None` when there is none, and
    /// the connection goes without.
    pub fn negotiate<'h>(
        values: impl IntoIterator<Item = &'h str>,
    ) -> Result<Option<Agreed>, InvalidExtensions> {
        let mut agreed = None;
        for value in values {
            // a list may have empty elements (RFC 9110 §5.6.1.2)
            for offer in split_outside_quotes(value, ',').filter(|offer| !offer.is_empty()) {
                let accepted = read_offer(offer)?;
                agreed = agreed.or(accepted);
            }
        }
        Ok(agreed)
    }

    /// Base-2 logarithm of the window that the compressor keeps to: 9 to 15.
    pub const fn window_bits(self) -> u8 {
        self.window_bits.get()
    }
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}; {SERVER_NO_CONTEXT}; {CLIENT_NO_CONTEXT}")?;
        if self.window_named {
            write!(f, "; {SERVER_WINDOW}={}", self.deflate.window_bits)?;
        }
        Ok(())
    }
}

/// Reads one offer. An offer of another extension, or one that must be declined (RFC 7692 §7.1: a parameter that is
/// unknown, repeated, or has a value that it must not have), is `None`.
fn read_offer(offer: &str) -> Result<Option<Agreed>, InvalidExtensions> {
    let mut parts = split_outside_quotes(offer, ';');
    let name = parts.next().unwrap_or_default();
    if !is_token(name) {
        return Err(InvalidExtensions);
    }
    let parameters = parts.map(read_parameter).collect::<Result<Vec<_>, _>>()?;
    Ok(if name == NAME { agree(&parameters) } else { None })
}

fn agree(parameters: &[(&str, Option<&str>)]) -> Option<Agreed> {
    let mut agreed = Agreed {
        deflate: Deflate::WIDEST,
        window_named: false,
    };
    for (index, (name, value)) in parameters.iter().enumerate() {
        if parameters[..index].iter().any(|(before, _)| before == name) {
            return None;
        }
        match (*name, value) {
            (SERVER_NO_CONTEXT | CLIENT_NO_CONTEXT | CLIENT_WINDOW, None) => {}
            // whatever the client's compressor keeps to, the inflater is ready for more
            (CLIENT_WINDOW, Some(bits)) => {
                window_bits(bits)?;
            }
            (SERVER_WINDOW, Some(bits)) => {
                // zlib has no raw stream with a window of 2^8
                let window_bits = window_bits(bits).filter(|bits| bits.get() >= 9)?;
                agreed.deflate = Deflate { window_bits };
                agreed.window_named = true;
            }
            _ => return None,
        }
    }
    Some(agreed)
}

/// A decimal number from 8 to 15 without leading zeros (RFC 7692 §7.1.2).
fn window_bits(text: &str) -> Option<NonZeroU8> {
    let number = text.parse::<NonZeroU8>().ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    (plain && (8..=15).contains(&number.get())).then_some(number)
}

/// `name`, `name=token` or `name="token"` (RFC 6455 §9.1: what is quoted must be a token, too).
fn read_parameter<'t>(text: &'t str) -> Result<(&'t str, Option<&'t str>), InvalidExtensions> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (text, None),
    };
    let unquoted = |value: &'t str| {
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.unwrap_or(value)
    };
    let value = value.map(unquoted);
    if is_token(name) && value.is_none_or(is_token) {
        Ok((name, value))
    } else {
        Err(InvalidExtensions)
    }
}

/// A token (RFC 9110 §5.6.2).
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// The trimmed parts between separators that are not within quotes.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
    .map(str::trim)
}
