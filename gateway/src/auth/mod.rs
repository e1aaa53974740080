//! Who a client is: the token of its upgrade request becomes an [`Identity`].
//!
//! Sans-IO but for the key set, which a task of its own fetches ([`Jwks`]); the time is passed in. Tokens are never part
//! of `Debug` output or of an error. A client that is refused is upgraded all the same and closed at once with 4001:
//! browsers cannot read the status of a failed upgrade, but they can read a close code.

mod credentials;
mod fetch;
mod grants;
mod jwks;
mod jwt;
mod keys;

use std::fmt;
use std::sync::Arc;

pub use credentials::{Credentials, is_credential};
pub use fetch::{FetchError, Fetcher};
pub use grants::Grants;
pub use jwks::{FETCH_PAUSE, Jwks, Newer};
pub use jwt::JwtVerifier;
pub use keys::{KeySet, KeySetError};

use crate::config::AuthSettings;
use crate::protocol::{CloseReason, USER_ID_BYTES};

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 1 to 128 bytes, no control characters.
    pub user_id: Arc<str>,
    /// When that ends, in seconds since 1970-01-01 UTC; the connection is closed with 4202 unless another token of the
    /// same user comes within `--token-grace`.
    pub expires_at: Option<u64>,
    /// The rooms that are open to it; `None`: all.
    pub grants: Option<Arc<Grants>>,
    /// The token's id (`jti`), by which it can be revoked.
    pub token_id: Option<Box<str>>,
    /// When the token was issued (`iat`), in seconds since 1970-01-01 UTC.
    pub issued_at: Option<u64>,
}

/// Why a client is not let in. The caller accepts the upgrade, sends a close frame with [`AuthError::close_reason`] and
/// ends the connection; but for [`AuthError::KeysUnavailable`] the client must get another token before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// There was no token.
    #[error("no token: send ?token=…, Authorization: Bearer … or the subprotocol bearer.…")]
    Missing,
    /// Not a token of the kind that is expected.
    #[error("the token is malformed")]
    Malformed,
    /// Signed with an algorithm that no key is there for.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// Signed with another key, or changed.
    #[error("the token's signature is wrong")]
    Signature,
    /// Signed with a key that is not in the issuer's set.
    #[error("the token's key is not known")]
    UnknownKey,
    /// Signed with a key that is not known, and the issuer's set cannot be looked up just now: try again later.
    #[error(
        "the token's key is not known, and the issuer's keys cannot be had at the moment; try again later"
    )]
    KeysUnavailable,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `aud` is not, or does not contain, the one that is set.
    #[error("the token is for another audience")]
    Audience,
    /// `iss` is not the one that is set.
    #[error("the token is from another issuer")]
    Issuer,
    /// No user id in the token, or one that is not 1 to 128 bytes without control characters.
    #[error("the token names no valid user: 1 to 128 bytes, no control characters")]
    UserId,
    /// In-band: a token of another user than the connection's.
    #[error("the token is of another user")]
    OtherUser,
    /// It was revoked by a back end.
    #[error("the token was revoked")]
    Revoked,
    /// This gateway has just started, and does not know yet what was revoked: try again later.
    #[error("it is not known yet which tokens are revoked; try again later")]
    RevocationsUnknown,
}

impl AuthError {
    /// How the connection is closed.
    pub const fn close_reason(self) -> CloseReason {
        match self {
            Self::KeysUnavailable => CloseReason::KeysUnavailable,
            Self::Revoked => CloseReason::Revoked,
            Self::RevocationsUnknown => CloseReason::BrokerUnavailable,
            _ => CloseReason::Unauthorized,
        }
    }

    /// Label of metrics.
    pub const fn category(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::Signature => "token_signature",
            Self::UnknownKey => "token_unknown_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Audience => "token_audience",
            Self::Issuer => "token_issuer",
            Self::UserId => "token_user_id",
            Self::OtherUser => "token_other_user",
            Self::Revoked => "token_revoked",
            Self::RevocationsUnknown => "revocations_unknown",
        }
    }
}

/// How clients are identified.
pub enum Authenticator {
    /// Anybody may be anybody: token `abc` is user `user_abc`. For development only.
    InsecureToken,
    /// Nobody says who they are: each connection is a user of its own.
    Anonymous,
    /// A signed token.
    Jwt(Box<JwtVerifier>),
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InsecureToken => "InsecureToken",
            Self::Anonymous => "Anonymous",
            Self::Jwt(_) => "Jwt",
        })
    }
}

impl Authenticator {
    /// What these settings ask for. With a key set, somebody must [`Jwks::run`] it.
    pub fn new(settings: &AuthSettings, jwks: Option<Arc<Jwks>>) -> Self {
        match settings {
            AuthSettings::InsecureToken => Self::InsecureToken,
            AuthSettings::Anonymous => Self::Anonymous,
            AuthSettings::Jwt(jwt) => Self::Jwt(Box::new(JwtVerifier::new(jwt, jwks))),
        }
    }

    /// Identifies a client. `connection_id` names anonymous users; `now` is in seconds since 1970-01-01 UTC.
    pub fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        connection_id: &str,
        now: u64,
    ) -> Result<Identity, AuthError> {
        let unlimited = |user_id| Identity {
            user_id,
            expires_at: None,
            grants: None,
            token_id: None,
            issued_at: None,
        };
        match self {
            Self::Anonymous => user_id(format!("anonymous_{connection_id}")).map(unlimited),
            Self::InsecureToken => {
                let token = credentials.token().ok_or(AuthError::Missing)?;
                user_id(format!("user_{token}")).map(unlimited)
            }
            Self::Jwt(verifier) => verifier.verify(credentials.token().ok_or(AuthError::Missing)?, now),
        }
    }

    /// The key set in which a token's unknown key may be found, once that is fetched again.
    pub fn key_set(&self) -> Option<&Arc<Jwks>> {
        match self {
            Self::Jwt(verifier) => verifier.jwks(),
            Self::InsecureToken | Self::Anonymous => None,
        }
    }

    /// Waits for newer keys when that can help, and identifies the client by them: for a token that was refused with
    /// [`AuthError::UnknownKey`]. Cancel-safe.
    pub async fn authenticate_again(&self, token: &str, now: u64) -> Result<Identity, AuthError> {
        let Self::Jwt(verifier) = self else {
            return Err(AuthError::UnknownKey);
        };
        let jwks = verifier.jwks().ok_or(AuthError::UnknownKey)?;
        match (jwks.newer().await, verifier.verify(token, now)) {
            (Newer::NotNow, Err(AuthError::UnknownKey)) => Err(AuthError::KeysUnavailable),
            (_, outcome) => outcome,
        }
    }

    /// The identity of a client that is connected as `user`, by another token. Never waits: when the token's key is not
    /// known the keys are asked for, and the client may try again.
    pub fn renew(&self, user: &str, token: &str, now: u64) -> Result<Identity, AuthError> {
        let identity = self.authenticate(&Credentials::from_token(token), "", now);
        match identity {
            Ok(identity) if *identity.user_id != *user => Err(AuthError::OtherUser),
            Err(AuthError::UnknownKey) => {
                let Some(jwks) = self.key_set() else {
                    return Err(AuthError::UnknownKey);
                };
                jwks.ask();
                Err(AuthError::KeysUnavailable)
            }
            other => other,
        }
    }
}

fn user_id(id: String) -> Result<Arc<str>, AuthError> {
    let valid = (1..=USER_ID_BYTES).contains(&id.len()) && !id.chars().any(char::is_control);
    if valid {
        Ok(id.into())
    } else {
        Err(AuthError::UserId)
    }
}

#[cfg(test)]
mod jwks_tests;
#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod tests;
