//! Tokens on a connection's way: keys that are fetched, tokens that end and are renewed, rooms that they open. None of it
//! depends on the broker.

use anyhow::Result;
use serde_json::{Value, json};
use wsfleet_tests::client::{Client, Connect, unix_now};
use wsfleet_tests::gateway::Gateway;
use wsfleet_tests::guarded::{Guarded, connected};
use wsfleet_tests::issuer::{Issuer, Signer};
use wsfleet_tests::wait::{until, until_async};

async fn refresh(client: &mut Client, claims: &Value) -> Result<()> {
    let token = Guarded::token(claims)?;
    client
        .send(json!({"type": "refresh", "token": token, "id": 7}))
        .await
}

fn for_ten_minutes(user: &str) -> Value {
    json!({"sub": user, "exp": unix_now() + 600})
}

#[tokio::test]
async fn a_refreshed_connection_outlives_its_first_token_and_another_does_not() -> Result<()> {
    let guarded = Guarded::start(&["--token-grace", "1"]).await?;
    // long enough for what comes before its end on a machine that pauses
    let short = |user: &str| json!({"sub": user, "exp": unix_now() + 20});
    let mut ann = guarded.client(&short("ann")).await?;
    let mut bob = guarded.client(&short("bob")).await?;
    let longer = for_ten_minutes("ann");
    refresh(&mut ann, &longer).await?;
    let refreshed = ann.expect("refreshed").await?;
    assert_eq!(refreshed["id"], 7);
    assert_eq!(
        refreshed["expiresAt"].as_u64(),
        longer["exp"].as_u64().map(|at| at * 1_000)
    );
    assert_eq!(ann.during(bob.closed()).await?, 4202);
    ann.all_so_far("room_message").await?;
    // a shorter token shortens
    refresh(&mut ann, &short("ann")).await?;
    ann.expect("refreshed").await?;
    assert_eq!(ann.closed().await?, 4202);
    Ok(())
}

#[tokio::test]
async fn a_token_that_has_ended_can_be_renewed_within_the_grace() -> Result<()> {
    let guarded = Guarded::start(&["--token-grace", "600"]).await?;
    // long enough to connect on a machine that pauses
    let end = unix_now() + 10;
    let mut ann = guarded.client(&json!({"sub": "ann", "exp": end})).await?;
    until("the token has ended", || unix_now() > end).await?;
    ann.join("room").await?;
    refresh(&mut ann, &for_ten_minutes("ann")).await?;
    ann.expect("refreshed").await?;
    Ok(())
}

#[tokio::test]
async fn a_bad_token_does_not_refresh_and_changes_nothing() -> Result<()> {
    let guarded = Guarded::start(&[]).await?;
    let mut ann = guarded.client(&for_ten_minutes("ann")).await?;
    for bad in [
        for_ten_minutes("bob"),
        json!({"sub": "ann", "exp": unix_now() - 60}),
        json!({}),
    ] {
        refresh(&mut ann, &bad).await?;
        let error = ann.expect("error").await?;
        assert_eq!(
            (&error["code"], &error["id"]),
            (&json!("invalid_token"), &json!(7)),
            "{bad}"
        );
    }
    for (message, code) in [
        (json!({"type": "refresh"}), "missing_field"),
        (json!({"type": "refresh", "token": 5}), "invalid_field"),
        (json!({"type": "refresh", "token": "x.y.z"}), "invalid_token"),
    ] {
        ann.send(message.clone()).await?;
        assert_eq!(ann.expect("error").await?["code"], code, "{message}");
    }
    ann.join("room").await?;
    Ok(())
}

#[tokio::test]
async fn a_token_opens_the_rooms_of_its_claims_and_no_others() -> Result<()> {
    let guarded = Guarded::start(&[]).await?;
    let claims = json!({"sub": "ann", "rooms": ["chat:*", "news"], "publish": ["chat:*"]});
    let mut ann = guarded.client(&claims).await?;
    let mut bob = guarded.client(&json!({"sub": "bob"})).await?;
    ann.join("chat:1").await?;
    ann.join("news").await?;
    ann.send(json!({"type": "join", "room": "admin", "id": "j"}))
        .await?;
    let refused = ann.expect("error").await?;
    assert_eq!(
        (&refused["code"], &refused["id"]),
        (&json!("forbidden"), &json!("j"))
    );
    assert_eq!(refused["temporary"], false);
    ann.say_acked("chat:1", json!("hello"), json!(1)).await?;
    ann.send(json!({"type": "room_message", "room": "news", "payload": 1, "id": 2}))
        .await?;
    assert_eq!(ann.expect("error").await?["code"], "forbidden");
    bob.join("admin").await?;
    // a direct message is no matter of rooms
    ann.send(json!({"type": "direct_message", "targetUserId": "bob", "payload": 5}))
        .await?;
    assert_eq!(bob.expect("direct_message").await?["payload"], 5);
    // another token closes what it does not open
    refresh(&mut ann, &json!({"sub": "ann", "rooms": "news"})).await?;
    ann.expect("refreshed").await?;
    assert_eq!(ann.expect("left").await?["room"], "chat:1");
    ann.say_acked("news", json!("hello"), json!(3)).await?;
    ann.send(json!({"type": "room_message", "room": "chat:1", "payload": 1, "id": 4}))
        .await?;
    assert_eq!(ann.expect("error").await?["code"], "not_in_room");
    Ok(())
}

#[tokio::test]
async fn a_token_without_the_claim_opens_nothing_where_the_claim_is_required() -> Result<()> {
    let guarded = Guarded::start(&["--rooms-claim", "required"]).await?;
    let mut ann = guarded.client(&json!({"sub": "ann"})).await?;
    ann.send(json!({"type": "join", "room": "news"})).await?;
    assert_eq!(ann.expect("error").await?["code"], "forbidden");
    let mut bob = guarded.client(&json!({"sub": "bob", "rooms": ["*"]})).await?;
    bob.join("news").await?;
    Ok(())
}

#[tokio::test]
async fn keys_are_fetched_rotated_and_outlive_their_server() -> Result<()> {
    let issuer = Issuer::start(&[Signer::Rsa]).await?;
    let limit = [
        "--limit",
        "handshakesPerSecondPerIp=0",
        "--limit",
        "connectionsPerIp=0",
    ];
    let url = issuer.url();
    let gateway = Gateway::start(&[&["--auth", "jwt", "--jwks-url", &url][..], &limit].concat())?;
    gateway.ready().await?;
    let claims = for_ten_minutes("ann");
    let (old, new) = (Signer::Rsa.sign(&claims)?, Signer::Ecdsa.sign(&claims)?);
    // the first token may come before the first set: it waits for it
    let mut kept = connected(&gateway, &old).await?;
    assert_eq!(issuer.served(), 1);

    issuer.publish(&[Signer::Ecdsa])?;
    // too soon for another fetch: not a verdict on the token
    let mut early = Connect::to(gateway.ports.clients).token(&new).open().await?;
    assert_eq!(early.closed().await?, 1013);
    until_async("the new key is known", || async {
        Ok(connected(&gateway, &new).await.is_ok())
    })
    .await?;
    assert_eq!(issuer.served(), 2, "however often it was tried meanwhile");
    // within the pause a key that was taken out cannot be looked up, and does not verify
    let mut gone = Connect::to(gateway.ports.clients).token(&old).open().await?;
    assert_eq!(gone.closed().await?, 1013);
    kept.join("room").await?;

    drop(issuer);
    until_async("a fetch has failed", || async {
        Ok(gateway.metric("ws_jwks_fetch_failures_total", &[]).await? >= 1.0)
    })
    .await?;
    connected(&gateway, &new).await?;
    Ok(())
}
