//! The cache of keys in virtual time, and the fetch over real sockets.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::keys_tests::{JWKS, check, sign};
use super::tests::NOW;
use super::*;
use crate::config::JwtSettings;

/// An issuer in virtual time: each fetch takes a second.
#[derive(Default)]
struct Issuer {
    down: AtomicBool,
    document: Mutex<Vec<u8>>,
    fetches: Mutex<Vec<Instant>>,
}

impl Issuer {
    fn new(document: &[u8]) -> Arc<Self> {
        let issuer = Self::default();
        *issuer.document.lock() = document.to_vec();
        Arc::new(issuer)
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        self.fetches.lock().push(Instant::now());
        sleep(Duration::from_secs(1)).await;
        if self.down.load(Relaxed) {
            return Err(FetchError::Timeout);
        }
        Ok(KeySet::from_json(&self.document.lock())?)
    }
}

/// A verifier whose keys are fetched from the issuer, once already.
async fn verifier(issuer: &Arc<Issuer>) -> Arc<Authenticator> {
    let jwks = Arc::new(Jwks::new().unwrap());
    let (running, from) = (Arc::clone(&jwks), Arc::clone(issuer));
    tokio::spawn(async move { running.run(|| from.fetch()).await });
    assert_eq!(jwks.newer().await, Newer::Fetched);
    let settings = AuthSettings::Jwt(JwtSettings::default());
    Arc::new(Authenticator::new(&settings, Some(jwks)))
}

fn known() -> String {
    sign(Algorithm::ES256, Some("P-256"), &json!({"sub": "alice"}))
}

/// A token of a key that nobody has; it is never verified, so its signature need not be.
fn unknown(number: usize) -> String {
    let head = json!({"alg": "ES256", "kid": format!("unknown-{number}")});
    format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(head.to_string()))
}

#[tokio::test(start_paused = true)]
async fn a_key_set_that_is_down_for_ten_minutes_changes_nothing_for_known_keys() {
    let issuer = Issuer::new(JWKS);
    let verifier = verifier(&issuer).await;
    let token = known();
    issuer.down.store(true, Relaxed);
    let before = issuer.fetches.lock().len();
    for second in 0..600 {
        sleep(Duration::from_secs(1)).await;
        assert!(check(&verifier, &token).is_ok(), "second {second}");
        if second % 60 == 30 {
            let again = verifier.authenticate_again(&unknown(second), NOW).await;
            assert_eq!(
                again,
                Err(AuthError::KeysUnavailable),
                "not a verdict on the token"
            );
        }
    }
    let failed = issuer.fetches.lock().len() - before;
    assert!(failed > 10, "it was asked {failed} times and was down each time");
    // back, with another set: what is gone from the set is gone
    issuer.down.store(false, Relaxed);
    *issuer.document.lock() = only(&["rsa"]);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(check(&verifier, &token), Err(AuthError::UnknownKey));
}

/// The committed set with these keys only.
fn only(ids: &[&str]) -> Vec<u8> {
    let mut document: Value = serde_json::from_slice(JWKS).unwrap();
    let keys = document["keys"].as_array_mut().unwrap();
    keys.retain(|key| ids.iter().any(|id| key["kid"] == **id));
    document.to_string().into_bytes()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_tokens_with_unknown_keys_cause_one_fetch_in_ten_seconds_at_most() {
    let issuer = Issuer::new(JWKS);
    let verifier = verifier(&issuer).await;
    let token = known();
    let mut asked = JoinSet::new();
    for number in 0..10_000 {
        let (asking, unknown) = (Arc::clone(&verifier), unknown(number));
        asked.spawn(async move { asking.authenticate_again(&unknown, NOW).await });
        // bursts of a hundred, two minutes in all
        if number % 100 == 99 {
            sleep(Duration::from_millis(1_200)).await;
            assert!(check(&verifier, &token).is_ok(), "others are not concerned");
        }
    }
    let outcomes = asked.join_all().await;
    let refused = |error| outcomes.iter().filter(|outcome| **outcome == Err(error)).count();
    assert_eq!(
        refused(AuthError::UnknownKey) + refused(AuthError::KeysUnavailable),
        10_000
    );
    assert!(refused(AuthError::UnknownKey) > 0, "some waited for a fetch");
    let fetches = issuer.fetches.lock();
    assert!(fetches.len() > 5, "{} fetches", fetches.len());
    for pair in fetches.windows(2) {
        assert!(pair[1] - pair[0] >= FETCH_PAUSE, "{:?}", pair[1] - pair[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_by_the_first_token_that_names_it() {
    let issuer = Issuer::new(&only(&["rsa"]));
    let verifier = verifier(&issuer).await;
    let token = known();
    assert_eq!(check(&verifier, &token), Err(AuthError::UnknownKey));
    *issuer.document.lock() = only(&["rsa", "P-256"]);
    sleep(FETCH_PAUSE).await;
    assert!(verifier.authenticate_again(&token, NOW).await.is_ok());
    assert_eq!(issuer.fetches.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_comes_right_after_a_fetch_is_told_to_try_again_and_then_known() {
    let issuer = Issuer::new(&only(&["rsa"]));
    let verifier = verifier(&issuer).await;
    let token = known();
    *issuer.document.lock() = only(&["P-256"]);
    assert_eq!(
        verifier.authenticate_again(&token, NOW).await,
        Err(AuthError::KeysUnavailable)
    );
    sleep(FETCH_PAUSE + Duration::from_secs(1)).await;
    assert!(
        check(&verifier, &token).is_ok(),
        "the refused one had asked for the keys"
    );
}

#[tokio::test(start_paused = true)]
async fn few_handshakes_wait_for_a_fetch_and_the_others_are_told_to_try_again() {
    let issuer = Issuer::new(JWKS);
    let verifier = verifier(&issuer).await;
    sleep(FETCH_PAUSE).await;
    let mut asked = JoinSet::new();
    for number in 0..200 {
        let (verifier, token) = (Arc::clone(&verifier), unknown(number));
        asked.spawn(async move { verifier.authenticate_again(&token, NOW).await });
    }
    let outcomes = asked.join_all().await;
    let waited = outcomes
        .iter()
        .filter(|o| **o == Err(AuthError::UnknownKey))
        .count();
    assert_eq!(waited, 64);
}

/// A server that answers one request with these bytes; `None`: never.
async fn answering(answer: Option<Vec<u8>>) -> Fetcher {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4_096];
        let _ = socket.read(&mut request).await;
        match answer {
            Some(answer) => drop(socket.write_all(&answer).await),
            None => std::future::pending().await,
        }
    });
    Fetcher::new(url.parse().unwrap())
}

fn response(status: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{more}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_set_is_fetched_and_what_is_none_is_refused() {
    let fetched = answering(Some(response("200 OK", "", JWKS)))
        .await
        .fetch()
        .await
        .unwrap();
    assert_eq!(fetched.len(), 4);
    let outcome = answering(Some(response("503 Down", "", JWKS)))
        .await
        .fetch()
        .await;
    assert!(
        matches!(outcome, Err(FetchError::Status(status)) if status == 503),
        "{outcome:?}"
    );
    let elsewhere = response("302 Found", "location: http://127.0.0.1:1/\r\n", b"");
    let outcome = answering(Some(elsewhere)).await.fetch().await;
    assert!(
        matches!(outcome, Err(FetchError::Status(status)) if status == 302),
        "{outcome:?}"
    );
    let outcome = answering(Some(response("200 OK", "", b"<html>")))
        .await
        .fetch()
        .await;
    assert!(
        matches!(outcome, Err(FetchError::Keys(KeySetError::Malformed))),
        "{outcome:?}"
    );
    let mut long = JWKS.to_vec();
    long.resize(300 << 10, b' ');
    let outcome = answering(Some(response("200 OK", "", &long))).await.fetch().await;
    assert!(matches!(outcome, Err(FetchError::Body(_))), "{outcome:?}");
    let nobody = Fetcher::new("http://127.0.0.1:1/".parse().unwrap()).fetch().await;
    assert!(matches!(nobody, Err(FetchError::Connection(_))), "{nobody:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let outcome = answering(None).await.fetch().await;
    assert!(matches!(outcome, Err(FetchError::Timeout)), "{outcome:?}");
}
