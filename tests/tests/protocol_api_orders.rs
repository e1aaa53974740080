//! Connections that back ends close, and tokens that they revoke, on whichever gateway they are, with each broker.

use anyhow::Result;
use hyper::Method;
use serde_json::{Value, json};
use wsfleet_tests::client::{Client, Connect, jwt, unix_now};
use wsfleet_tests::gateway::{Fleet, Gateway, Kind};
use wsfleet_tests::http::Ask;
use wsfleet_tests::on_memory_and_redis;
use wsfleet_tests::wait::until_async;

on_memory_and_redis! {
    a_user_is_disconnected_everywhere_with_code_and_reason_and_may_come_back,
    one_connection_is_closed_and_the_users_others_stay,
    a_revoked_token_is_closed_and_refused_everywhere,
    of_a_revoked_user_old_tokens_are_refused_and_a_new_one_comes_in,
    a_connection_that_goes_on_with_another_token_outlives_its_first,
    an_order_that_cannot_be_is_refused_with_what_to_send,
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Result<Value> {
    let answer = gateway.api(&format!("/api/v1/{path}"), body).await?;
    assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
    answer.json()
}

async fn with_token(gateway: &Gateway, token: &str) -> Result<Client> {
    Connect::to(gateway.ports.clients).token(token).open().await
}

/// A fleet that verifies tokens; the file holds their secret.
async fn fleet_of_tokens(kind: Kind) -> Result<(Fleet, tempfile::NamedTempFile)> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), SECRET)?;
    let path = file.path().to_string_lossy().into_owned();
    let fleet = Fleet::start_with(kind, &["--auth", "jwt", "--jwt-secret-file", &path]).await?;
    Ok((fleet, file))
}

fn token(user: &str, id: &str, issued_at: u64) -> Result<String> {
    let claims = json!({"sub": user, "jti": id, "iat": issued_at, "exp": unix_now() + 3_600});
    jwt(SECRET, &claims)
}

async fn a_user_is_disconnected_everywhere_with_code_and_reason_and_may_come_back(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut devices = Vec::new();
    for number in 0..3 {
        devices.push(fleet.client(number, "ann").await?);
    }
    let mut bob = fleet.client(1, "bob").await?;
    let order = json!({"userId": "user_ann", "code": 4711, "reason": "moved out"});
    let answer = post(fleet.gateway(0), "disconnect", &order).await?;
    let here = 3 / fleet.len().min(3);
    assert_eq!(answer, json!({"closedHere": here, "fleet": true}));
    for device in &mut devices {
        assert_eq!(device.closed().await?, 4711);
        assert!(device.state("").contains("moved out"), "{}", device.state(""));
    }
    assert_eq!(
        post(fleet.gateway(0), "disconnect", &json!({"userId": "nobody"})).await?["closedHere"],
        0
    );
    bob.join("still here").await?;
    let mut again = fleet.client(2, "ann").await?;
    again.join("back").await?;
    Ok(())
}

async fn one_connection_is_closed_and_the_users_others_stay(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut devices = Vec::new();
    for number in [1, 1, 2] {
        let mut device = with_token(fleet.gateway(number), "ann").await?;
        let welcome = device.expect("welcome").await?;
        devices.push((device, welcome["connectionId"].clone()));
    }
    let order = json!({"connectionId": devices[0].1});
    let asked = fleet.gateway(0);
    let answer = post(asked, "disconnect", &order).await?;
    let elsewhere = fleet.len() > 1;
    assert_eq!(
        answer,
        json!({"closedHere": usize::from(!elsewhere), "fleet": elsewhere})
    );
    assert_eq!(devices[0].0.closed().await?, 1000);
    for (device, _) in &mut devices[1..] {
        device.join("still here").await?;
    }
    // on its own gateway it is known to be gone
    let again = post(fleet.gateway(1), "disconnect", &order).await?;
    assert_eq!(again, json!({"closedHere": 0, "fleet": false}));
    Ok(())
}

/// Awaits that a gateway refuses a token: it has heard of the revocation.
async fn refused_soon(gateway: &Gateway, token: &str) -> Result<()> {
    until_async("the token is refused with 4005", || async {
        let mut client = with_token(gateway, token).await?;
        let welcomed = client.expect("welcome").await.is_ok();
        Ok(!welcomed && client.closed().await? == 4005)
    })
    .await
}

async fn a_revoked_token_is_closed_and_refused_everywhere(kind: Kind) -> Result<()> {
    let (mut fleet, file) = fleet_of_tokens(kind).await?;
    let (bad, good) = (token("ann", "t-1", unix_now())?, token("ann", "t-2", unix_now())?);
    let mut revoked = with_token(fleet.gateway(1), &bad).await?;
    let mut other = with_token(fleet.gateway(1), &good).await?;
    revoked.expect("welcome").await?;
    other.expect("welcome").await?;
    let until = unix_now() + 1_000;
    let order = json!({"tokenId": "t-1", "until": until});
    let answer = post(fleet.gateway(0), "revoke", &order).await?;
    assert_eq!(
        (&answer["fleet"], &answer["until"]),
        (&json!(true), &json!(until))
    );
    assert_eq!(revoked.closed().await?, 4005);
    for number in 0..fleet.len() {
        refused_soon(fleet.gateway(number), &bad).await?;
    }
    other.join("still here").await?;
    other
        .send(json!({"type": "refresh", "token": bad, "id": 1}))
        .await?;
    assert_eq!(other.expect("error").await?["code"], "invalid_token");
    // a gateway that comes later has not heard the order, and knows it all the same
    if let Some(redis) = fleet.redis.take() {
        let path = file.path().to_string_lossy().into_owned();
        let late = Fleet::on(Some(redis), 1, &["--auth", "jwt", "--jwt-secret-file", &path])?;
        late.gateway(0).ready().await?;
        assert_eq!(with_token(late.gateway(0), &bad).await?.closed().await?, 4005);
        with_token(late.gateway(0), &good)
            .await?
            .expect("welcome")
            .await?;
    }
    Ok(())
}

async fn of_a_revoked_user_old_tokens_are_refused_and_a_new_one_comes_in(kind: Kind) -> Result<()> {
    let (fleet, _file) = fleet_of_tokens(kind).await?;
    let old = token("ann", "t-1", unix_now() - 10)?;
    let mut ann = with_token(fleet.gateway(1), &old).await?;
    ann.expect("welcome").await?;
    post(fleet.gateway(0), "revoke", &json!({"userId": "ann"})).await?;
    assert_eq!(ann.closed().await?, 4005);
    for number in 0..fleet.len() {
        refused_soon(fleet.gateway(number), &old).await?;
        let new = token("ann", "t-2", unix_now() + 2)?;
        with_token(fleet.gateway(number), &new)
            .await?
            .expect("welcome")
            .await?;
        let other = token("bob", "t-3", unix_now() - 10)?;
        with_token(fleet.gateway(number), &other)
            .await?
            .expect("welcome")
            .await?;
    }
    Ok(())
}

async fn a_connection_that_goes_on_with_another_token_outlives_its_first(kind: Kind) -> Result<()> {
    let (fleet, _file) = fleet_of_tokens(kind).await?;
    let mut ann = with_token(fleet.gateway(1), &token("ann", "t-1", unix_now())?).await?;
    ann.expect("welcome").await?;
    let second = token("ann", "t-2", unix_now())?;
    ann.send(json!({"type": "refresh", "token": second, "id": 1}))
        .await?;
    ann.expect("refreshed").await?;
    for number in 0..fleet.len() {
        post(fleet.gateway(number), "revoke", &json!({"tokenId": "t-1"})).await?;
    }
    let answer = post(fleet.gateway(1), "disconnect", &json!({"tokenId": "t-1"})).await?;
    assert_eq!(answer["closedHere"], 0);
    ann.join("still here").await?;
    post(fleet.gateway(0), "disconnect", &json!({"tokenId": "t-2"})).await?;
    assert_eq!(ann.closed().await?, 1000);
    Ok(())
}

async fn an_order_that_cannot_be_is_refused_with_what_to_send(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let cases = [
        ("disconnect", json!({}), "userId"),
        ("disconnect", json!({"userId": "a", "tokenId": "b"}), "one of"),
        ("disconnect", json!({"userId": "a", "code": 1006}), "code"),
        (
            "disconnect",
            json!({"userId": "a", "reason": "x".repeat(124)}),
            "123",
        ),
        ("revoke", json!({"tokenId": ""}), "tokenId"),
        ("revoke", json!({"tokenId": "t", "until": 1}), "until"),
        ("revoke", json!({"tokenId": "t", "until": u64::MAX}), "until"),
    ];
    for (path, body, word) in cases {
        let path = format!("/api/v1/{path}");
        let answer = Ask::json(Method::POST, &path, &body)?
            .send(fleet.gateway(0).ports.api)
            .await?;
        assert_eq!(answer.status, 422, "{path} {body}: {answer:?}");
        assert!(answer.body.contains(word), "{path} {body}: {answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_cut_off_from_redis_hears_of_a_revocation_when_it_is_back() -> Result<()> {
    let (mut fleet, _file) = fleet_of_tokens(Kind::Redis(2)).await?;
    let bad = token("ann", "t-1", unix_now())?;
    let mut ann = with_token(fleet.gateway(1), &bad).await?;
    ann.expect("welcome").await?;
    // the order is kept, and no gateway is there to hear it
    if let Some(redis) = &mut fleet.redis {
        let mut connection = redis.connection().await?;
        let () = ::redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("pubsub")
            .query_async(&mut connection)
            .await?;
    }
    let revoked = until_async("the revocation is taken", || async {
        let answer = fleet
            .gateway(0)
            .api("/api/v1/revoke", &json!({"tokenId": "t-1"}))
            .await?;
        Ok(answer.status == 200)
    });
    revoked.await?;
    assert_eq!(ann.closed().await?, 4005);
    refused_soon(fleet.gateway(1), &bad).await
}
