//! Which key verifies which token, and that no token ever panics.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::jwks::Jwks;
use super::tests::{NOW, SECRET};
use super::*;
use crate::config::{JwtSettings, RoomsClaim, Secret};

pub(super) const JWKS: &[u8] = include_bytes!("testdata/jwks.json");

/// A secret that is long enough for all three of HS256–512.
const LONG_SECRET: &[u8; 64] = &[7; 64];

fn private(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => {
            EncodingKey::from_rsa_der(include_bytes!("testdata/rsa.der"))
        }
        Algorithm::ES256 => EncodingKey::from_ec_der(include_bytes!("testdata/p256.der")),
        Algorithm::ES384 => EncodingKey::from_ec_der(include_bytes!("testdata/p384.der")),
        Algorithm::EdDSA => EncodingKey::from_ed_der(include_bytes!("testdata/ed25519.der")),
        _ => EncodingKey::from_secret(LONG_SECRET),
    }
}

const fn key_id(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "P-256",
        Algorithm::ES384 => "P-384",
        Algorithm::EdDSA => "ed",
        _ => "rsa",
    }
}

pub(super) fn sign(algorithm: Algorithm, id: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = id.map(str::to_owned);
    encode(&header, claims, &private(algorithm)).unwrap()
}

/// Knows the committed keys and a long secret.
fn verifier() -> Authenticator {
    let jwks = Arc::new(Jwks::new().unwrap());
    jwks.replace(Ok(KeySet::from_json(JWKS).unwrap()));
    let settings = JwtSettings {
        secret: Some(Secret::new(LONG_SECRET)),
        ..JwtSettings::default()
    };
    Authenticator::new(&AuthSettings::Jwt(settings), Some(jwks))
}

pub(super) fn check(authenticator: &Authenticator, token: &str) -> Result<Identity, AuthError> {
    authenticator.authenticate(&Credentials::from_token(token), "c1", NOW)
}

const ALL: [Algorithm; 9] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// One good token of each algorithm.
fn good() -> &'static [String] {
    static TOKENS: OnceLock<Vec<String>> = OnceLock::new();
    TOKENS.get_or_init(|| {
        let claims = json!({"sub": "alice", "exp": NOW + 60});
        ALL.iter()
            .map(|algorithm| sign(*algorithm, Some(key_id(*algorithm)), &claims))
            .collect()
    })
}

#[test]
fn each_algorithm_is_verified_by_its_kind_of_key() {
    let verifier = verifier();
    for (algorithm, token) in ALL.iter().zip(good()) {
        let identity = check(&verifier, token);
        assert_eq!(&*identity.unwrap().user_id, "alice", "{algorithm:?}");
    }
}

#[test]
fn keys_that_cannot_verify_signatures_are_passed_over() {
    let keys = KeySet::from_json(JWKS).unwrap();
    assert_eq!(keys.len(), 4, "{keys:?}");
    let rejected = [
        (&b"[]"[..], KeySetError::Malformed),
        (b"", KeySetError::Malformed),
        (br#"{"keys": []}"#, KeySetError::NoUsableKey),
        (
            br#"{"keys": [{"kty": "oct", "k": "AAAA"}, 5]}"#,
            KeySetError::NoUsableKey,
        ),
    ];
    for (document, expected) in rejected {
        assert_eq!(KeySet::from_json(document).unwrap_err(), expected);
    }
}

#[test]
fn an_ed25519_key_of_another_length_is_passed_over_and_no_token_meets_it() {
    for length in [0, 30, 31, 33, 64] {
        let x = URL_SAFE_NO_PAD.encode(vec![1; length]);
        let document = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).to_string();
        let refused = KeySet::from_json(document.as_bytes()).unwrap_err();
        assert_eq!(refused, KeySetError::NoUsableKey, "{length} bytes");
    }
}

#[test]
fn the_key_decides_the_algorithm_and_not_the_token() {
    let verifier = verifier();
    let claims = json!({"sub": "mallory"});
    // the public key as a secret: the set's document is known to everybody
    let document: Value = serde_json::from_slice(JWKS).unwrap();
    let modulus = document["keys"][0]["n"].as_str().unwrap();
    for secret in [modulus.as_bytes(), &URL_SAFE_NO_PAD.decode(modulus).unwrap()] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("rsa".to_owned());
        let token = encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(check(&verifier, &token), Err(AuthError::Signature));
    }
    // a symmetric key of the set is not taken: everybody can read it
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("oct".to_owned());
    let token = encode(&header, &claims, &EncodingKey::from_secret(SECRET)).unwrap();
    assert_eq!(check(&verifier, &token), Err(AuthError::Signature));
    // another kind of key than the token's algorithm, and one that names another algorithm
    let crossed = sign(Algorithm::ES256, Some("rsa"), &claims);
    assert_eq!(check(&verifier, &crossed), Err(AuthError::Algorithm));
    let crossed = sign(Algorithm::RS256, Some("P-256"), &claims);
    assert_eq!(check(&verifier, &crossed), Err(AuthError::Algorithm));
    for id in ["rsa-enc", "rsa-oaep", "nobody"] {
        let token = sign(Algorithm::RS256, Some(id), &claims);
        assert_eq!(check(&verifier, &token), Err(AuthError::UnknownKey), "{id}");
    }
}

#[test]
fn a_short_secret_verifies_the_algorithms_that_it_is_long_enough_for() {
    let verifies = |bytes: usize, algorithm| {
        let secret = vec![1; bytes];
        let settings = JwtSettings {
            secret: Some(Secret::new(&secret)),
            ..JwtSettings::default()
        };
        let verifier = Authenticator::new(&AuthSettings::Jwt(settings), None);
        let key = EncodingKey::from_secret(&secret);
        let token = encode(&Header::new(algorithm), &json!({"sub": "a"}), &key).unwrap();
        check(&verifier, &token).map(drop)
    };
    assert_eq!(verifies(47, Algorithm::HS256), Ok(()));
    assert_eq!(verifies(47, Algorithm::HS384), Err(AuthError::Algorithm));
    assert_eq!(verifies(48, Algorithm::HS384), Ok(()));
    assert_eq!(verifies(63, Algorithm::HS512), Err(AuthError::Algorithm));
    assert_eq!(verifies(64, Algorithm::HS512), Ok(()));
}

#[test]
fn a_token_that_names_no_key_means_the_only_one_of_its_algorithm() {
    let verifier = verifier();
    let token = sign(Algorithm::ES256, None, &json!({"sub": "alice"}));
    assert!(check(&verifier, &token).is_ok());
    let twice: Value = serde_json::from_slice(JWKS).unwrap();
    let doubled = json!({"keys": [twice["keys"][1], twice["keys"][1]]}).to_string();
    let jwks = verifier.key_set().unwrap();
    jwks.replace(Ok(KeySet::from_json(doubled.as_bytes()).unwrap()));
    assert_eq!(check(&verifier, &token), Err(AuthError::UnknownKey));
}

#[test]
fn what_a_token_says_must_be_understood_is_not_passed_over() {
    let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","crit":["b64"],"b64":false}"#);
    let token = format!("{head}.e30.AAAA");
    assert_eq!(check(&verifier(), &token), Err(AuthError::Malformed));
}

#[test]
fn rooms_are_granted_by_claims() {
    let grants = |claims: &Value, rooms_claim| {
        let settings = JwtSettings {
            secret: Some(Secret::new(LONG_SECRET)),
            rooms_claim,
            ..JwtSettings::default()
        };
        let verifier = Authenticator::new(&AuthSettings::Jwt(settings), None);
        check(&verifier, &sign(Algorithm::HS256, None, claims)).map(|identity| identity.grants)
    };
    let all = json!({"sub": "a"});
    assert_eq!(grants(&all, RoomsClaim::Optional), Ok(None));
    let none = grants(&all, RoomsClaim::Required).unwrap().unwrap();
    assert!(!none.may_join("news"));
    for rooms in [json!(["chat:*"]), json!("chat:*")] {
        let some = grants(&json!({"sub": "a", "rooms": rooms}), RoomsClaim::Required)
            .unwrap()
            .unwrap();
        assert!(some.may_join("chat:1") && some.may_publish("chat:1") && !some.may_join("news"));
    }
    let reader = json!({"sub": "a", "publish": []});
    let reader = grants(&reader, RoomsClaim::Optional).unwrap().unwrap();
    assert!(reader.may_join("news") && !reader.may_publish("news"));
    for wrong in [json!({"chat": true}), json!([1]), json!(5)] {
        let refused = grants(&json!({"sub": "a", "rooms": wrong}), RoomsClaim::Optional);
        assert_eq!(refused, Err(AuthError::Malformed), "{wrong}");
    }
}

#[test]
fn a_connection_is_renewed_for_its_own_user_only() {
    let verifier = verifier();
    let token = sign(Algorithm::HS256, None, &json!({"sub": "alice", "exp": NOW + 60}));
    assert_eq!(
        verifier.renew("alice", &token, NOW).unwrap().expires_at,
        Some(NOW + 60)
    );
    assert_eq!(verifier.renew("bob", &token, NOW), Err(AuthError::OtherUser));
    assert_eq!(
        verifier.renew("alice", &token, NOW + 600),
        Err(AuthError::Expired)
    );
    assert_eq!(verifier.renew("alice", "", NOW), Err(AuthError::Missing));
    let unknown = sign(Algorithm::RS256, Some("new"), &json!({"sub": "alice"}));
    assert_eq!(
        verifier.renew("alice", &unknown, NOW),
        Err(AuthError::KeysUnavailable)
    );
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        proptest::collection::vec(inner, 0..4).prop_map(Value::from)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_as_a_token_never_panic_and_prove_nothing(bytes: Vec<u8>, text in ".{0,60}\\.[^.]{0,60}\\..{0,60}") {
        let verifier = verifier();
        prop_assert!(check(&verifier, &String::from_utf8_lossy(&bytes)).is_err());
        prop_assert!(check(&verifier, &text).is_err());
    }

    #[test]
    fn a_good_token_of_any_algorithm_with_bytes_changed_never_panics_and_proves_nothing(
        which in 0..ALL.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let token = &good()[which];
        let mut bytes = token.clone().into_bytes();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let changed = String::from_utf8_lossy(&bytes);
        let decoded = |token: &str| token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).ok()).collect::<Vec<_>>();
        prop_assume!(decoded(&changed) != decoded(token));
        prop_assert!(check(&verifier(), &changed).is_err());
    }

    #[test]
    fn any_header_and_any_signed_claims_never_panic(
        alg in json_value(), kid in json_value(), sub in json_value(), exp in json_value(), nbf in json_value(),
        aud in json_value(), rooms in json_value(),
    ) {
        let verifier = verifier();
        let claims = json!({"sub": sub, "exp": exp, "nbf": nbf, "aud": aud, "rooms": rooms});
        let signed = sign(Algorithm::HS256, None, &claims);
        // the outcome is the claims' affair
        let _ = check(&verifier, &signed);
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": kid}).to_string());
        let body = signed.split_once('.').unwrap().1;
        let changed = format!("{head}.{body}");
        prop_assert!(check(&verifier, &changed).is_err());
    }
}
