//! JSON Web Tokens signed with HS256 (RFC 7519, RFC 7518 §3.2).

use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use super::{AuthError, Identity, user_id};
use crate::config::JwtSettings;

/// Longest token in bytes that is looked at.
const TOKEN_BYTES: usize = 8 * 1024;

/// Verifies tokens with one key.
pub struct JwtVerifier {
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl JwtVerifier {
    /// A verifier of tokens signed with the settings' secret, for their audience and issuer when these are set.
    pub fn new(settings: &JwtSettings) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // times are checked here, against the time that is passed in
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let mut required = Vec::new();
        if let Some(audience) = &settings.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        } else {
            validation.validate_aud = false;
        }
        if let Some(issuer) = &settings.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Self {
            key: DecodingKey::from_secret(settings.secret.expose()),
            validation,
        }
    }

    /// The identity that a token proves at `now` (seconds since 1970-01-01 UTC, no leeway).
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, AuthError> {
        if token.len() > TOKEN_BYTES {
            return Err(AuthError::Malformed);
        }
        let claims =
            decode::<Claims>(token, &self.key, &self.validation).map_err(|error| refusal(error.kind()))?;
        let Claims { sub, exp, nbf } = claims.claims;
        // RFC 7519 §4.1.4: on or after `exp` the token must not be accepted; §2: times may have fractions
        let now_seconds = now as f64;
        if exp.is_some_and(|exp| now_seconds >= exp) {
            return Err(AuthError::Expired);
        }
        if nbf.is_some_and(|nbf| now_seconds < nbf) {
            return Err(AuthError::NotYetValid);
        }
        let user_id = user_id(sub.ok_or(AuthError::UserId)?)?;
        Ok(Identity {
            user_id,
            expires_at: exp.map(|exp| exp.ceil() as u64),
        })
    }
}

fn refusal(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::MissingAlgorithm => {
            AuthError::Algorithm
        }
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => AuthError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => AuthError::Issuer,
        _ => AuthError::Malformed,
    }
}
