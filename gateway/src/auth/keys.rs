//! The keys that verify tokens, and which algorithms each is good for.
//!
//! The key decides the algorithm, never the token alone: a shared secret verifies HS256–512 and nothing else, a public
//! key the algorithms of its kind and curve. So a public key cannot be passed off as a secret (RFC 8725 §3.1).

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::Secret;

/// Keys of a set that are kept at most.
const MOST_KEYS: usize = 256;
/// Base64 characters of a modulus of 2,048 bits, the least for RS256–512 (RFC 7518 §3.3).
const MODULUS_CHARS: usize = 342;
/// Base64 characters of an Ed25519 key (RFC 8037 §2: 32 bytes); jsonwebtoken panics when a token meets a shorter one.
const ED25519_CHARS: usize = 43;

/// HS256–512 and the bytes of secret that each asks for (RFC 7518 §3.2).
const HMAC: [(Algorithm, usize); 3] = [
    (Algorithm::HS256, 32),
    (Algorithm::HS384, 48),
    (Algorithm::HS512, 64),
];
const RSA: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];

/// A key, and the algorithms that it verifies.
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// The key of a shared secret. A secret that is too short for an algorithm does not verify it.
    pub(super) fn secret(secret: &Secret) -> Self {
        let long_enough = |&(algorithm, bytes)| (secret.expose().len() >= bytes).then_some(algorithm);
        Self {
            id: None,
            algorithms: HMAC.iter().filter_map(long_enough).collect(),
            decoding: DecodingKey::from_secret(secret.expose()),
        }
    }

    /// A public key of a set (RFC 7517 §4); `None` for one that verifies no signature that is accepted here: encryption
    /// keys, symmetric keys (whoever can read the set could sign with them), unknown or unsupported kinds and curves
    /// (P-521), keys that are too short.
    fn public(jwk: &Jwk) -> Option<Self> {
        let signs = |usage: &PublicKeyUse| *usage == PublicKeyUse::Signature;
        if !jwk.common.public_key_use.as_ref().is_none_or(signs) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if rsa.n.len() >= MODULUS_CHARS => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair)
                if pair.curve == EllipticCurve::Ed25519 && pair.x.len() == ED25519_CHARS =>
            {
                vec![Algorithm::EdDSA]
            }
            _ => return None,
        };
        // a key that names its algorithm is good for no other
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| format!("{algorithm:?}") == only.to_string());
        }
        let decoding = DecodingKey::from_jwk(jwk).ok()?;
        (!algorithms.is_empty()).then(|| Self {
            id: jwk.common.key_id.clone(),
            algorithms,
            decoding,
        })
    }

    pub(super) fn verifies(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

/// Why a JWK set is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeySetError {
    /// Not a JWK set; check the URL.
    #[error("not a JWK set (an object with a list `keys`)")]
    Malformed,
    /// Nothing in it verifies a signature; the keys that are known are kept.
    #[error("no key in the set can verify RS256–512, ES256, ES384 or EdDSA signatures")]
    NoUsableKey,
}

/// Public keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Deserialize)]
struct Document<'d> {
    #[serde(borrow)]
    keys: Vec<&'d RawValue>,
}

impl KeySet {
    /// Reads a JWK set. Keys that cannot be used are passed over, as RFC 7517 §5 asks.
    pub fn from_json(json: &[u8]) -> Result<Self, KeySetError> {
        let document: Document<'_> = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let readable = document
            .keys
            .iter()
            .filter_map(|key| serde_json::from_str::<Jwk>(key.get()).ok());
        let keys: Vec<Key> = readable
            .filter_map(|jwk| Key::public(&jwk))
            .take(MOST_KEYS)
            .collect();
        if keys.is_empty() {
            return Err(KeySetError::NoUsableKey);
        }
        Ok(Self(keys))
    }

    /// Keys in the set.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that a token means. A token that names none means the only one of its algorithm: trying all of them
    /// would let one token cost as many verifications as there are keys.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut candidates = self.0.iter().filter(|key| key.verifies(algorithm));
        if let Some(id) = id {
            return candidates.find(|key| key.id.as_deref() == Some(id));
        }
        candidates.next().filter(|_| candidates.next().is_none())
    }

    /// Whether a key of that name is there, for whatever algorithm.
    pub(super) fn names(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }
}
