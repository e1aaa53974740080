//! JSON Web Tokens (RFC 7519), signed with HS256–512, RS256–512, ES256, ES384 or EdDSA (RFC 7518, RFC 8037).
//!
//! ES512 is not served: none of the libraries behind `jsonwebtoken` has it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::grants::{Grants, Patterns};
use super::jwks::Jwks;
use super::keys::Key;
use super::{AuthError, Identity, user_id};
use crate::config::{JwtSettings, RoomsClaim};

/// Longest token in bytes that is looked at.
const TOKEN_BYTES: usize = 8 * 1024;

/// Verifies tokens with the secret, the key set, or both.
pub struct JwtVerifier {
    secret: Option<Key>,
    jwks: Option<Arc<Jwks>>,
    validation: Validation,
    leeway: Duration,
    rooms_claim: RoomsClaim,
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier").finish_non_exhaustive()
    }
}

/// What of a token's header matters (RFC 7515 §4.1). Its `jwk`, `jku` and `x5u` do not: who writes a token must not
/// choose its key.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: Option<Box<str>>,
    rooms: Option<Patterns>,
    publish: Option<Patterns>,
    events: Option<Patterns>,
}

impl JwtVerifier {
    /// A verifier of tokens signed with one of the settings' keys, for their audience and issuer when these are set.
    pub(super) fn new(settings: &JwtSettings, jwks: Option<Arc<Jwks>>) -> Self {
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
            secret: settings.secret.as_ref().map(Key::secret),
            jwks,
            validation,
            leeway: settings.leeway.duration(),
            rooms_claim: settings.rooms_claim,
        }
    }

    /// The key set that can be asked for newer keys.
    pub(super) const fn jwks(&self) -> Option<&Arc<Jwks>> {
        self.jwks.as_ref()
    }

    /// The identity that a token proves at `now` (seconds since 1970-01-01 UTC).
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, AuthError> {
        if token.len() > TOKEN_BYTES {
            return Err(AuthError::Malformed);
        }
        let head = head(token).ok_or(AuthError::Malformed)?;
        // RFC 7515 §4.1.11: what must be understood and is not makes the token invalid; here nothing is understood
        if head.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let algorithm = head.alg.parse::<Algorithm>().map_err(|_| AuthError::Algorithm)?;
        let claims = self.claims(token, algorithm, head.kid.as_deref())?;
        self.identity(claims, now)
    }

    fn claims(&self, token: &str, algorithm: Algorithm, id: Option<&str>) -> Result<Claims, AuthError> {
        if matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            let secret = self.secret.as_ref().filter(|key| key.verifies(algorithm));
            return self.decode(token, algorithm, &secret.ok_or(AuthError::Algorithm)?.decoding);
        }
        let keys = self.jwks.as_ref().ok_or(AuthError::Algorithm)?.keys();
        match keys.find(id, algorithm) {
            Some(key) => self.decode(token, algorithm, &key.decoding),
            None if id.is_some_and(|id| keys.names(id)) => Err(AuthError::Algorithm),
            None => Err(AuthError::UnknownKey),
        }
    }

    fn decode(&self, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Claims, AuthError> {
        let mut validation = self.validation.clone();
        validation.algorithms = vec![algorithm];
        decode::<Claims>(token, key, &validation)
            .map(|token| token.claims)
            .map_err(|error| refusal(error.kind()))
    }

    fn identity(&self, claims: Claims, now: u64) -> Result<Identity, AuthError> {
        // RFC 7519 §4.1.4: on or after `exp` the token must not be accepted, a small leeway aside; §2: times may have
        // fractions
        let (now, leeway) = (now as f64, self.leeway.as_secs_f64());
        if claims.exp.is_some_and(|exp| now - leeway >= exp) {
            return Err(AuthError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| now + leeway < nbf) {
            return Err(AuthError::NotYetValid);
        }
        let user_id = user_id(claims.sub.ok_or(AuthError::UserId)?)?;
        let grants = match (claims.rooms, self.rooms_claim) {
            (None, RoomsClaim::Required) => Some(Grants::no_room(claims.events)),
            (rooms, _) => Grants::new(rooms, claims.publish, claims.events),
        };
        Ok(Identity {
            user_id,
            expires_at: claims.exp.map(|exp| exp.ceil() as u64),
            grants,
            token_id: claims.jti,
            issued_at: claims.iat.map(|iat| iat as u64),
        })
    }
}

fn head(token: &str) -> Option<Head> {
    let (head, _) = token.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()
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
