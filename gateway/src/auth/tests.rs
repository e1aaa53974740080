//! Tokens, good and bad.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{JwtSettings, Secret};

pub(super) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
pub(super) const NOW: u64 = 1_800_000_000;
const LEEWAY: u64 = 5;

fn sign_with(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn sign(claims: &Value) -> String {
    sign_with(Algorithm::HS256, SECRET, claims)
}

fn jwt(audience: Option<&str>, issuer: Option<&str>) -> Authenticator {
    let settings = JwtSettings {
        secret: Some(Secret::new(SECRET)),
        audience: audience.map(str::to_owned),
        issuer: issuer.map(str::to_owned),
        ..JwtSettings::default()
    };
    Authenticator::new(&AuthSettings::Jwt(settings), None)
}

fn check(authenticator: &Authenticator, token: &str) -> Result<Identity, AuthError> {
    let header = format!("Bearer {token}");
    authenticator.authenticate(&Credentials::find(Some(&header), [], None), "c1", NOW)
}

#[test]
fn a_token_is_found_in_the_header_the_subprotocol_and_the_query() {
    let find = |header, protocols: &[&'static str], query| {
        Credentials::find(header, protocols.iter().copied(), query)
            .token()
            .map(str::to_owned)
    };
    assert_eq!(find(Some("Bearer abc"), &[], None).as_deref(), Some("abc"));
    assert_eq!(
        find(Some("bearer  abc "), &[], None).as_deref(),
        Some("abc"),
        "the scheme has no case"
    );
    assert_eq!(find(Some("Basic abc"), &[], None), None);
    assert_eq!(
        find(None, &["wsfleet.v1.json, bearer.a.b-c_d"], None).as_deref(),
        Some("a.b-c_d")
    );
    assert_eq!(
        find(None, &["wsfleet.v1.json", "bearer.abc"], None).as_deref(),
        Some("abc")
    );
    assert_eq!(
        find(None, &[], Some("x=1&token=a%20b&token=c")).as_deref(),
        Some("a b")
    );
    assert_eq!(find(None, &[], Some("tokens=1&Token=2")), None);
    assert_eq!(find(None, &[], Some("token=")), None, "an empty token is none");
    assert_eq!(
        find(Some("Bearer h"), &["bearer.p"], Some("token=q")).as_deref(),
        Some("h")
    );
    assert_eq!(find(None, &["bearer.p"], Some("token=q")).as_deref(), Some("p"));
    assert!(is_credential("bearer.abc") && !is_credential("wsfleet.v1.json"));
}

#[test]
fn insecure_tokens_name_their_user() {
    let user =
        |query| Authenticator::InsecureToken.authenticate(&Credentials::find(None, [], query), "c1", NOW);
    assert_eq!(&*user(Some("token=abc")).unwrap().user_id, "user_abc");
    assert_eq!(user(None), Err(AuthError::Missing));
    assert_eq!(user(Some("token=a%00b")), Err(AuthError::UserId));
    let long = format!("token={}", "x".repeat(124));
    assert_eq!(user(Some(&long)), Err(AuthError::UserId));
    assert!(user(Some(&long[..long.len() - 1])).is_ok(), "128 bytes in all");
}

#[test]
fn anonymous_connections_are_users_of_their_own() {
    let identity = Authenticator::Anonymous
        .authenticate(&Credentials::default(), "c1", NOW)
        .unwrap();
    assert_eq!(
        identity,
        Identity {
            user_id: "anonymous_c1".into(),
            expires_at: None,
            grants: None,
            token_id: None,
            issued_at: None,
        }
    );
}

#[test]
fn a_good_jwt_names_user_and_end() {
    let token =
        sign(&json!({"sub": "alice", "exp": NOW + 1, "nbf": NOW, "aud": "unasked", "iss": "unasked"}));
    let identity = check(&jwt(None, None), &token).unwrap();
    assert_eq!(
        identity,
        Identity {
            user_id: "alice".into(),
            expires_at: Some(NOW + 1),
            grants: None,
            token_id: None,
            issued_at: None,
        }
    );
    let named = sign(&json!({"sub": "alice", "jti": "t-1", "iat": 5.5}));
    let named = check(&jwt(None, None), &named).unwrap();
    assert_eq!(
        (named.token_id.as_deref(), named.issued_at),
        (Some("t-1"), Some(5))
    );
    let endless = check(&jwt(None, None), &sign(&json!({"sub": "alice"}))).unwrap();
    assert_eq!(endless.expires_at, None);
    let strict = jwt(Some("chat"), Some("login"));
    for audience in [json!("chat"), json!(["mail", "chat"])] {
        let token = sign(&json!({"sub": "alice", "aud": audience, "iss": "login"}));
        assert!(check(&strict, &token).is_ok(), "{audience}");
    }
}

#[test]
fn a_bad_jwt_is_refused_for_what_is_wrong_with_it() {
    let strict = jwt(Some("chat"), Some("login"));
    let with = |key: &str, value: Value| {
        let mut claims = json!({"sub": "alice", "aud": "chat", "iss": "login"});
        claims[key] = value;
        sign(&claims)
    };
    let good = sign(&json!({"sub": "alice", "aud": "chat", "iss": "login"}));
    let claims = json!({"sub": "alice", "aud": "chat", "iss": "login"});
    let others = with("sub", json!("mallory"));
    let (body, signature) = (
        others.rsplit_once('.').unwrap().0,
        good.rsplit_once('.').unwrap().1,
    );
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.";
    let table = [
        (with("exp", json!(NOW - LEEWAY)), AuthError::Expired),
        (
            with("exp", json!((NOW - LEEWAY) as f64 - 0.5)),
            AuthError::Expired,
        ),
        (with("exp", json!(-1)), AuthError::Expired),
        (with("nbf", json!(NOW + LEEWAY + 1)), AuthError::NotYetValid),
        (with("exp", json!("tomorrow")), AuthError::Malformed),
        (with("aud", json!("mail")), AuthError::Audience),
        (with("iss", json!("me")), AuthError::Issuer),
        (
            sign(&json!({"sub": "alice", "iss": "login"})),
            AuthError::Audience,
        ),
        (sign(&json!({"sub": "alice", "aud": "chat"})), AuthError::Issuer),
        (sign(&json!({"aud": "chat", "iss": "login"})), AuthError::UserId),
        (with("sub", json!("")), AuthError::UserId),
        (with("sub", json!("x".repeat(129))), AuthError::UserId),
        (with("sub", json!("a\nb")), AuthError::UserId),
        (with("sub", json!(5)), AuthError::Malformed),
        (sign_with(Algorithm::HS512, SECRET, &claims), AuthError::Algorithm),
        (
            sign_with(Algorithm::HS256, b"another secret of at least 32 bytes", &claims),
            AuthError::Signature,
        ),
        (format!("{body}.{signature}"), AuthError::Signature),
        (unsigned.to_owned(), AuthError::Algorithm),
        ("abc".to_owned(), AuthError::Malformed),
        ("a.b.c".to_owned(), AuthError::Malformed),
        ("x".repeat(10_000), AuthError::Malformed),
    ];
    for (token, expected) in table {
        assert_eq!(check(&strict, &token), Err(expected), "{token:.120}");
    }
    assert_eq!(
        strict.authenticate(&Credentials::default(), "c1", NOW),
        Err(AuthError::Missing)
    );
}

#[test]
fn tokens_and_secrets_are_never_shown() {
    let query = "token=hunter2";
    let shown = format!("{:?}", Credentials::find(None, [], Some(query)));
    assert!(!shown.contains("hunter2"), "{shown}");
    let shown = format!("{:?} {:?}", jwt(None, None), Secret::new(b"hunter2"));
    assert!(!shown.contains("hunter2") && !shown.contains("0123"), "{shown}");
}

proptest! {
    #[test]
    fn hostile_requests_never_panic_and_prove_nothing(
        header: Option<String>, protocols: Vec<String>, query: Option<String>, token in "[A-Za-z0-9_.-]{0,80}",
    ) {
        let verifier = jwt(None, None);
        let found = Credentials::find(header.as_deref(), protocols.iter().map(String::as_str), query.as_deref());
        prop_assert!(verifier.authenticate(&found, "c1", NOW).is_err());
        prop_assert!(check(&verifier, &token).is_err());
    }

    #[test]
    fn a_token_with_one_character_changed_is_refused(place: usize, other in "[A-Za-z0-9_-]") {
        let token = sign(&json!({"sub": "alice", "exp": NOW + 60}));
        // the last character holds four bits that base64 decoders may ignore
        let place = place % (token.len() - 1);
        let changed = format!("{}{other}{}", &token[..place], &token[place + 1..]);
        prop_assume!(changed != token);
        prop_assert!(check(&jwt(None, None), &changed).is_err());
    }
}
