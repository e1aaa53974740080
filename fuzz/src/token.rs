//! Tokens: who is who, by which keys, and what that opens.

use std::cell::LazyCell;
use std::future::ready;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, encode};
use serde_json::{Value, json};
use wsfleet_gateway::auth::{AuthError, Authenticator, Credentials, Identity, Jwks, KeySet, is_credential};
use wsfleet_gateway::config::{AuthSettings, JwtSettings, RoomsClaim, Secret};

use crate::memory;

const NOW: u64 = 1_800_000_000;
/// The default of `--jwt-leeway`.
const LEEWAY: f64 = 5.0;
/// Long enough for HS512.
const SECRET: [u8; 64] = [7; 64];
const JWKS: &[u8] = include_bytes!("../../gateway/src/auth/testdata/jwks.json");
const RSA: &[u8] = include_bytes!("../../gateway/src/auth/testdata/rsa.der");
const P256: &[u8] = include_bytes!("../../gateway/src/auth/testdata/p256.der");
const P384: &[u8] = include_bytes!("../../gateway/src/auth/testdata/p384.der");
const ED25519: &[u8] = include_bytes!("../../gateway/src/auth/testdata/ed25519.der");
/// What verifying may hold beside what the token says: numbers of 4,096 bits, multiplied.
const MEMORY: usize = 128 << 10;

/// Verifiers, and the tokens that they may accept.
struct Known {
    open: Authenticator,
    strict: Authenticator,
    good: Vec<String>,
}

thread_local!(static KNOWN: LazyCell<Known> = LazyCell::new(Known::make));

impl Known {
    fn make() -> Self {
        let keys = KeySet::from_json(JWKS).unwrap();
        let open = verifier(JwtSettings::default(), Some(keys));
        let strict = verifier(
            JwtSettings {
                audience: Some("chat".to_owned()),
                issuer: Some("login".to_owned()),
                rooms_claim: RoomsClaim::Required,
                ..JwtSettings::default()
            },
            None,
        );
        let good: Vec<_> = algorithms()
            .map(|(algorithm, id, key)| good(algorithm, id, &key))
            .collect();
        for token in &good {
            // the first use of each algorithm may make what lasts
            assert!(verify(&open, token).is_ok());
        }
        Self { open, strict, good }
    }
}

fn algorithms() -> impl Iterator<Item = (Algorithm, &'static str, EncodingKey)> {
    let secret = || EncodingKey::from_secret(&SECRET);
    let rsa = || EncodingKey::from_rsa_der(RSA);
    [
        (Algorithm::HS256, "secret", secret()),
        (Algorithm::HS384, "secret", secret()),
        (Algorithm::HS512, "secret", secret()),
        (Algorithm::RS256, "rsa", rsa()),
        (Algorithm::RS384, "rsa", rsa()),
        (Algorithm::RS512, "rsa", rsa()),
        (Algorithm::ES256, "P-256", EncodingKey::from_ec_der(P256)),
        (Algorithm::ES384, "P-384", EncodingKey::from_ec_der(P384)),
        (Algorithm::EdDSA, "ed", EncodingKey::from_ed_der(ED25519)),
    ]
    .into_iter()
}

/// A token that is signed; what it says is the same for each algorithm.
fn good(algorithm: Algorithm, id: &str, key: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(id.to_owned());
    encode(&header, &json!({"sub": "alice", "exp": NOW + 60}), key).unwrap()
}

/// A verifier that knows the secret, and these keys.
fn verifier(settings: JwtSettings, keys: Option<KeySet>) -> Authenticator {
    let jwks = keys.map(|keys| {
        let jwks = Arc::new(Jwks::new().unwrap());
        let keys = std::cell::RefCell::new(Some(keys));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        // as the task that fetches does it, once
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = jwks.run(|| ready(Ok(keys.take().unwrap_or_default()))) => {}
                () = ready(()) => {}
            }
        });
        jwks
    });
    let secret = Some(Secret::new(&SECRET));
    Authenticator::new(&AuthSettings::Jwt(JwtSettings { secret, ..settings }), jwks)
}

fn verify(authenticator: &Authenticator, token: &str) -> Result<Identity, AuthError> {
    authenticator.authenticate(&Credentials::from_token(token), "c1", NOW)
}

/// The first byte chooses what the others are.
pub fn token(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else {
        return;
    };
    KNOWN.with(|known| match choice % 4 {
        0 => forged(known, &String::from_utf8_lossy(rest)),
        1 => signed(known, rest),
        2 => key_set(known, rest),
        _ => placed(&String::from_utf8_lossy(rest)),
    });
}

/// Any text as a token: what was not signed proves nothing.
fn forged(known: &Known, token: &str) {
    let verified = memory::within(MEMORY + 16 * token.len(), || verify(&known.open, token));
    if let Ok(identity) = verified {
        let said = |token: &str| token.rsplit_once('.').map(|(said, _)| said.to_owned());
        assert!(
            known.good.iter().any(|good| said(good) == said(token)),
            "forged: {token}"
        );
        assert_eq!(&*identity.user_id, "alice");
    }
    assert!(verify(&known.strict, token).is_err(), "it names no audience");
}

/// A line with a header, and claims, signed with the secret by the algorithm that the header names.
fn signed(known: &Known, rest: &[u8]) {
    let cut = rest.iter().position(|&byte| byte == b'\n');
    let (head, claims) = rest.split_at(cut.map_or(0, |cut| cut + 1));
    let head = if head.is_empty() {
        br#"{"alg":"HS256"}"#
    } else {
        head
    };
    let parsed: Value = serde_json::from_slice(head).unwrap_or_default();
    let algorithm = match parsed["alg"].as_str() {
        Some("HS384") => Algorithm::HS384,
        Some("HS512") => Algorithm::HS512,
        _ => Algorithm::HS256,
    };
    let said = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = crypto::sign(said.as_bytes(), &EncodingKey::from_secret(&SECRET), algorithm).unwrap();
    let token = format!("{said}.{signature}");
    // what is passed over need not be UTF-8
    let claims: Option<Value> = serde_json::from_str(&String::from_utf8_lossy(claims)).ok();
    for (authenticator, strict) in [(&known.open, false), (&known.strict, true)] {
        let verified = memory::within(MEMORY + 32 * token.len(), || verify(authenticator, &token));
        if let Ok(identity) = verified {
            // what is passed over may be more than a value can hold
            let Some(claims) = claims.as_ref() else { continue };
            assert!(parsed["crit"].is_null(), "nothing critical is understood");
            is_claimed(&identity, claims, strict);
            opens(&identity, claims, strict);
        }
    }
}

/// Who was let in is whom the claims name, for as long as they say.
fn is_claimed(identity: &Identity, claims: &Value, strict: bool) {
    assert_eq!(claims["sub"], *identity.user_id);
    assert!((1..=128).contains(&identity.user_id.len()));
    assert!(!identity.user_id.chars().any(char::is_control));
    let now = NOW as f64;
    if let Some(exp) = claims["exp"].as_f64() {
        assert!(exp > now - LEEWAY, "expired at {exp}");
        assert!(identity.expires_at.is_some_and(|end| end as f64 >= exp.min(1e18)));
    }
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf <= now + LEEWAY));
    if strict {
        let names = |claim: &Value, name: &str| {
            let listed = claim
                .as_array()
                .is_some_and(|list| list.iter().any(|one| one == name));
            claim == name || listed
        };
        assert!(
            names(&claims["aud"], "chat") && names(&claims["iss"], "login"),
            "{claims}"
        );
    }
}

/// The rooms that are open are those that the patterns describe.
fn opens(identity: &Identity, claims: &Value, strict: bool) {
    let join = patterns(&claims["rooms"]);
    let publish = patterns(&claims["publish"]);
    let Some(grants) = &identity.grants else {
        return assert!(!strict && join.is_none() && publish.is_none());
    };
    let mut rooms = vec![String::new(), "chat:1".to_owned(), "aab".to_owned()];
    for pattern in join.iter().chain(&publish).flatten().take(4) {
        rooms.extend([pattern.replace('*', ""), pattern.replace('*', "ab")]);
    }
    for room in rooms.iter().filter(|room| room.len() <= 64) {
        let granted = |patterns: &Option<Vec<String>>, otherwise| match patterns {
            Some(patterns) => patterns.iter().any(|pattern| matches(pattern, room)),
            None => otherwise,
        };
        assert_eq!(grants.may_join(room), granted(&join, !strict), "{join:?}: {room}");
        // without a list of rooms there is nothing to send to
        if !strict || join.is_some() {
            assert_eq!(
                grants.may_publish(room),
                granted(&publish, true),
                "{publish:?}: {room}"
            );
        }
    }
}

fn patterns(claim: &Value) -> Option<Vec<String>> {
    match claim {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => Some(many.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => None,
    }
}

/// The textbook definition, by a table: whether each end of the pattern so far describes each end of the text so far.
fn matches(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    let mut described = vec![false; text.len() + 1];
    described[0] = true;
    for wanted in pattern.bytes() {
        if wanted == b'*' {
            let first = described.iter().position(|&is| is).unwrap_or(described.len());
            described[first..].fill(true);
        } else {
            for at in (0..text.len()).rev() {
                described[at + 1] = described[at] && text[at] == wanted;
            }
            described[0] = false;
        }
    }
    described[text.len()]
}

/// Any document as an issuer's keys, which then verify whatever they verify.
fn key_set(known: &Known, document: &[u8]) {
    // each key as text, parsed, and with what verifying with it needs
    let memory = MEMORY + 64 * document.len();
    let Ok(keys) = memory::within(memory, || KeySet::from_json(document)) else {
        return;
    };
    assert!((1..=256).contains(&keys.len()) && !keys.is_empty());
    let authenticator = verifier(JwtSettings::default(), Some(keys));
    for token in &known.good {
        if let Ok(identity) = verify(&authenticator, token) {
            assert_eq!(&*identity.user_id, "alice");
        }
    }
}

/// Lines: `Authorization`, the query, then values of `Sec-WebSocket-Protocol`.
fn placed(text: &str) {
    let mut lines = text.split('\n');
    let (authorization, query) = (lines.next(), lines.next());
    let protocols: Vec<_> = lines.collect();
    // what is no UTF-8 becomes three bytes a byte, in a buffer that grows
    let memory = 16 * text.len() + 1_024;
    let found = memory::within(memory, || {
        Credentials::find(authorization, protocols.iter().copied(), query)
    });
    assert!(!format!("{found:?}").contains("bearer"), "shown");
    let Some(token) = found.token() else { return };
    assert!(!token.is_empty());
    let offered = || protocols.iter().flat_map(|value| value.split(','));
    let somewhere = authorization.is_some_and(|value| value.contains(token))
        || offered().any(|name| is_credential(name.trim()) && name.contains(token))
        || query.is_some_and(|query| query.contains('='));
    assert!(somewhere, "{token}");
}
