//! Tokens for the handshake.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use crate::config::TokenMode;

/// How long a token is valid, in seconds; a client makes a new one for each handshake.
const VALID_SECONDS: u64 = 3600;

/// Makes a token per client and handshake.
pub(crate) enum Tokens {
    Anonymous,
    Insecure,
    Jwt {
        key: EncodingKey,
        audience: Option<String>,
        issuer: Option<String>,
    },
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

impl Tokens {
    pub(crate) fn new(mode: &TokenMode) -> Self {
        match mode {
            TokenMode::Anonymous => Self::Anonymous,
            TokenMode::Insecure => Self::Insecure,
            TokenMode::Jwt {
                secret,
                audience,
                issuer,
            } => Self::Jwt {
                key: EncodingKey::from_secret(secret),
                audience: audience.clone(),
                issuer: issuer.clone(),
            },
        }
    }

    /// The token of `user`, safe in a query string as it is; `None` when clients are anonymous.
    pub(crate) fn token(&self, user: &str) -> Result<Option<String>, jsonwebtoken::errors::Error> {
        let Self::Jwt {
            key,
            audience,
            issuer,
        } = self
        else {
            return Ok(matches!(self, Self::Insecure).then(|| user.to_owned()));
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_secs());
        let claims = Claims {
            sub: user,
            exp: now + VALID_SECONDS,
            aud: audience.as_deref(),
            iss: issuer.as_deref(),
        };
        jsonwebtoken::encode(&Header::default(), &claims, key).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_jwt_says_who_the_user_is_and_verifies_with_the_secret() {
        let mode = TokenMode::Jwt {
            secret: b"secret".to_vec(),
            audience: Some("chat".into()),
            issuer: None,
        };
        let token = Tokens::new(&mode).token("load-7").unwrap().unwrap();
        let mut validation = Validation::default();
        validation.set_audience(&["chat"]);
        let data =
            jsonwebtoken::decode::<Value>(&token, &DecodingKey::from_secret(b"secret"), &validation).unwrap();
        assert_eq!(data.claims["sub"], "load-7");
        assert!(data.claims.get("iss").is_none());
    }

    #[test]
    fn insecure_tokens_are_the_user_and_anonymous_clients_have_none() {
        assert_eq!(
            Tokens::new(&TokenMode::Insecure).token("u1").unwrap().as_deref(),
            Some("u1")
        );
        assert_eq!(Tokens::new(&TokenMode::Anonymous).token("u1").unwrap(), None);
    }
}
