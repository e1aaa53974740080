//! Where a token stands in an upgrade request.

use std::borrow::Cow;
use std::fmt;

/// Subprotocol that carries a token (a JWT is a valid subprotocol name, RFC 6455 §4.1).
const BEARER: &str = "bearer.";
/// Whether an offered subprotocol carries a token. Such a one is never echoed, and does not count as an offer.
pub fn is_credential(subprotocol: &str) -> bool {
    subprotocol.starts_with(BEARER)
}

/// The token of an upgrade request, if there was one. Shows nothing of it in `Debug`.
#[derive(Clone, Default)]
pub struct Credentials<'r> {
    token: Option<Cow<'r, str>>,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .finish()
    }
}

impl<'r> Credentials<'r> {
    /// Looks for a token in the `Authorization` header, in the subprotocols (browsers cannot set headers), in the
    /// query string; the first one that is there counts. `protocols` are the values of `Sec-WebSocket-Protocol`.
    pub fn find(
        authorization: Option<&'r str>,
        protocols: impl IntoIterator<Item = &'r str>,
        query: Option<&'r str>,
    ) -> Self {
        let token = authorization
            .and_then(bearer)
            .map(Cow::Borrowed)
            .or_else(|| {
                protocols
                    .into_iter()
                    .flat_map(|value| value.split(','))
                    .find_map(from_protocol)
            })
            .or_else(|| query.and_then(from_query))
            .filter(|token| !token.is_empty());
        Self { token }
    }

    /// This token.
    pub fn from_token(token: &'r str) -> Self {
        let token = Some(Cow::Borrowed(token)).filter(|token| !token.is_empty());
        Self { token }
    }

    /// The token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn from_protocol(protocol: &str) -> Option<Cow<'_, str>> {
    protocol.trim().strip_prefix(BEARER).map(Cow::Borrowed)
}

fn from_query(query: &str) -> Option<Cow<'_, str>> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "token")
        .map(|(_, value)| value)
}
