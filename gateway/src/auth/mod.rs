//! Who a client is: the token of its upgrade request becomes an [`Identity`].
//!
//! Sans-IO; the time is passed in. Tokens are never part of `Debug` output or of an error. A client that is refused is
//! upgraded all the same and closed at once with 4001: browsers cannot read the status of a failed upgrade, but they can
//! read a close code.

mod credentials;
mod jwt;

use std::fmt;
use std::sync::Arc;

pub use credentials::{Credentials, is_credential};
pub use jwt::JwtVerifier;

use crate::config::AuthSettings;
use crate::protocol::USER_ID_BYTES;

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 1 to 128 bytes, no control characters.
    pub user_id: Arc<str>,
    /// When that ends, in seconds since 1970-01-01 UTC; the connection is then closed with 4202.
    pub expires_at: Option<u64>,
}

/// Why a client is not let in. The caller accepts the upgrade, sends a close frame with 4001 and ends the connection;
/// the client must get another token before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// There was no token.
    #[error("no token: send ?token=…, Authorization: Bearer … or the subprotocol bearer.…")]
    Missing,
    /// Not a token of the kind that is expected.
    #[error("the token is malformed")]
    Malformed,
    /// Signed with another algorithm than HS256.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// Signed with another key, or changed.
    #[error("the token's signature is wrong")]
    Signature,
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
}

impl AuthError {
    /// Label of metrics.
    pub const fn category(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Audience => "token_audience",
            Self::Issuer => "token_issuer",
            Self::UserId => "token_user_id",
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

impl From<&AuthSettings> for Authenticator {
    fn from(settings: &AuthSettings) -> Self {
        match settings {
            AuthSettings::InsecureToken => Self::InsecureToken,
            AuthSettings::Anonymous => Self::Anonymous,
            AuthSettings::Jwt(jwt) => Self::Jwt(Box::new(JwtVerifier::new(jwt))),
        }
    }
}

impl Authenticator {
    /// Identifies a client. `connection_id` names anonymous users; `now` is in seconds since 1970-01-01 UTC.
    pub fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        connection_id: &str,
        now: u64,
    ) -> Result<Identity, AuthError> {
        match self {
            Self::Anonymous => Ok(Identity {
                user_id: user_id(format!("anonymous_{connection_id}"))?,
                expires_at: None,
            }),
            Self::InsecureToken => {
                let token = credentials.token().ok_or(AuthError::Missing)?;
                Ok(Identity {
                    user_id: user_id(format!("user_{token}"))?,
                    expires_at: None,
                })
            }
            Self::Jwt(verifier) => verifier.verify(credentials.token().ok_or(AuthError::Missing)?, now),
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
mod tests;
