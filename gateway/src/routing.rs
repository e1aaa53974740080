//! The routing token: a hint of this gateway, which a client sends with its next connection (`?routing=`) for a proxy in
//! front to bring it back here. It never matters for correctness: a client is served wherever it arrives, whatever it sends.
//! `docs/decisions/0010-routing-token.md` says what a proxy can make of it.
//!
//! `<time and MAC>.<server id>`: the name stands behind the only dot that counts, so that a proxy can look it up. The rest is
//! for gateways: base64url of when the process started, then of an HMAC-SHA256 of both. One token for the life of the
//! process: nothing is kept for a connection, and a proxy that hashes the text gets the same each time.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{sign, verify};
use jsonwebtoken::errors::Result;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use crate::config::Secret;

/// The query parameter that a client sends a token in.
const PARAMETER: &str = "routing";
/// What the MAC is of besides: the key may be used for something else, too.
const PURPOSE: &[u8] = b"wsfleet routing v1\0";
/// Characters of the time, 8 bytes in base64.
const TIME: usize = 11;

/// What a token says to the gateway that it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It was this gateway's: the client came back.
    Own,
    /// It was another gateway's of the fleet: no proxy heeded it, or that gateway takes nobody any more.
    Other,
    /// Nobody of the fleet has signed it.
    Invalid,
}

impl Hint {
    /// Every hint.
    pub const ALL: [Self; 3] = [Self::Own, Self::Other, Self::Invalid];

    /// Label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Other => "other",
            Self::Invalid => "invalid",
        }
    }
}

/// Makes this gateway's token, and judges those that clients send. Shows nothing of either in `Debug`.
pub struct Routing {
    token: Arc<str>,
    server_id: Arc<str>,
    key: DecodingKey,
}

impl fmt::Debug for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routing").finish_non_exhaustive()
    }
}

impl Routing {
    /// Of the gateway of that name, whose process started at this time in seconds since 1970-01-01 UTC. Fails only when the
    /// cryptography does.
    pub fn new(key: &Secret, server_id: Arc<str>, started: u64) -> Result<Self> {
        let time = URL_SAFE_NO_PAD.encode(started.to_be_bytes());
        let mac = EncodingKey::from_secret(key.expose());
        let mac = sign(&signed(&time, &server_id), &mac, Algorithm::HS256)?;
        Ok(Self {
            token: format!("{time}{mac}.{server_id}").into(),
            server_id,
            key: DecodingKey::from_secret(key.expose()),
        })
    }

    /// What clients are told.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What the token in a query says; `None`: there is none.
    pub fn hint(&self, query: Option<&str>) -> Option<Hint> {
        let mut pairs = url::form_urlencoded::parse(query?.as_bytes());
        let (_, token) = pairs.find(|(key, _)| key == PARAMETER)?;
        (!token.is_empty()).then(|| self.judge(&token))
    }

    fn judge(&self, token: &str) -> Hint {
        match self.signer(token) {
            Some(id) if *id == *self.server_id => Hint::Own,
            Some(_) => Hint::Other,
            None => Hint::Invalid,
        }
    }

    /// The name in a token that a gateway with this key has signed.
    fn signer<'t>(&self, token: &'t str) -> Option<&'t str> {
        let (seal, id) = token.split_once('.')?;
        let (time, mac) = seal.split_at_checked(TIME)?;
        let good = verify(mac, &signed(time, id), &self.key, Algorithm::HS256);
        good.unwrap_or(false).then_some(id)
    }
}

/// The time has one length, so that it and the name cannot be taken apart in another way.
fn signed(time: &str, server_id: &str) -> Vec<u8> {
    [PURPOSE, time.as_bytes(), server_id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gateway(key: &str, id: &str, started: u64) -> Routing {
        Routing::new(&Secret::new(key.as_bytes()), id.into(), started).unwrap()
    }

    fn hint(of: &Routing, token: &str) -> Option<Hint> {
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("token", "abc")
            .append_pair("routing", token)
            .finish();
        of.hint(Some(&query))
    }

    #[test]
    fn a_gateway_knows_its_own_token_those_of_its_fleet_and_those_of_nobody() {
        let (a, b) = (gateway("key", "chat-a.1/é", 7), gateway("key", "chat-b", 7));
        assert_eq!(hint(&a, a.token()), Some(Hint::Own));
        assert_eq!(hint(&a, b.token()), Some(Hint::Other));
        assert_eq!(hint(&b, a.token()), Some(Hint::Other));
        let again = gateway("key", "chat-b", 8);
        assert_ne!(again.token(), b.token());
        assert_eq!(hint(&b, again.token()), Some(Hint::Own), "of a process before");
        let stranger = gateway("another", "chat-a.1/é", 7);
        assert_eq!(hint(&a, stranger.token()), Some(Hint::Invalid));
        assert_eq!(a.hint(None), None);
        assert_eq!(a.hint(Some("token=abc&routing=")), None);
    }

    #[test]
    fn the_name_stands_behind_the_first_dot_and_the_text_stays_the_same() {
        let token = gateway("key", "chat-a.1", 7).token().to_owned();
        assert_eq!(token.split_once('.').map(|(_, id)| id), Some("chat-a.1"));
        assert_eq!(token, gateway("key", "chat-a.1", 7).token());
        // what a query needs not escape
        assert!(
            token
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
            "{token}"
        );
    }

    #[test]
    fn nothing_is_shown_of_the_token_or_the_key() {
        assert_eq!(format!("{:?}", gateway("key", "chat-a", 7)), "Routing { .. }");
    }

    proptest! {
        #[test]
        fn whatever_is_changed_in_a_token_makes_it_nobodys(at in 0usize..62, to in "[A-Za-z0-9._-]") {
            let gateway = gateway("key", "chat-a.1", 7);
            let mut token = gateway.token().to_owned();
            prop_assume!(token.get(at..=at).is_some_and(|was| was != to));
            token.replace_range(at..=at, &to);
            prop_assert_eq!(hint(&gateway, &token), Some(Hint::Invalid));
        }

        #[test]
        fn any_text_is_judged(token: String, query: String) {
            let gateway = gateway("key", "chat-a", 7);
            if !token.is_empty() {
                prop_assert_eq!(hint(&gateway, &token), Some(Hint::Invalid));
            }
            gateway.hint(Some(&query));
        }
    }
}
