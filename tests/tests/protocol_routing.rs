//! The routing token, as clients see it: told behind the welcome, taken back without a word whatever it is.

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;
use wsfleet_gateway::protocol::Codec;
use wsfleet_tests::client::Connect;
use wsfleet_tests::gateway::{Gateway, OPEN};

/// Gateways of these names with one key.
fn fleet<const N: usize>(names: [&str; N]) -> Result<([Gateway; N], TempDir)> {
    let folder = TempDir::new()?;
    let path = folder.path().join("key");
    std::fs::write(&path, "a key of sixteen bytes or more\n")?;
    let path = path.to_str().context("a path")?;
    let start = |name| {
        let flags = ["--server-id", name, "--routing-key-file", path];
        Gateway::start(&[&OPEN[..], &flags].concat())
    };
    let gateways: Vec<_> = names.into_iter().map(start).collect::<Result<_>>()?;
    let gateways = <[Gateway; N]>::try_from(gateways).ok().context("as many")?;
    Ok((gateways, folder))
}

/// The token that a client is told.
async fn told(gateway: &Gateway, codec: Codec) -> Result<String> {
    let mut client = gateway.client_as("ann", codec).await?;
    assert!(
        client.kept("routing_token").is_empty(),
        "the welcome is the first"
    );
    let token = client.expect("routing_token").await?;
    Ok(token["token"].as_str().context("a text")?.to_owned())
}

async fn hints(gateway: &Gateway) -> Result<[f64; 3]> {
    let mut counts = [0.0; 3];
    for (count, result) in counts.iter_mut().zip(["own", "other", "invalid"]) {
        let label = format!("result=\"{result}\"");
        *count = gateway.metric("ws_routing_hints_total", &[&label]).await?;
    }
    Ok(counts)
}

async fn come_with(gateway: &Gateway, token: &str) -> Result<()> {
    let way = Connect::to(gateway.ports.clients).token("ann").routing(token);
    let mut client = way.open().await?;
    client.expect("welcome").await?;
    client.join("r").await?;
    client.say_acked("r", json!(1), json!("id")).await?;
    Ok(())
}

#[tokio::test]
async fn it_is_one_text_for_all_clients_in_every_codec_and_names_the_gateway() -> Result<()> {
    let ([one, two], _key) = fleet(["chat-1", "chat-2"])?;
    let token = told(&one, Codec::Json).await?;
    for codec in Codec::ALL {
        assert_eq!(told(&one, codec).await?, token, "{codec:?}");
    }
    assert_eq!(token.split_once('.').map(|(_, name)| name), Some("chat-1"));
    let other = told(&two, Codec::Json).await?;
    assert_eq!(other.split_once('.').map(|(_, name)| name), Some("chat-2"));
    Ok(())
}

#[tokio::test]
async fn whatever_a_client_comes_with_it_is_served_and_counted() -> Result<()> {
    let ([one, two], _key) = fleet(["chat-1", "chat-2"])?;
    let (mine, others) = (told(&one, Codec::Json).await?, told(&two, Codec::Json).await?);
    assert_eq!(hints(&one).await.map(|counts| counts.map(f64::to_bits))?, [0; 3]);
    come_with(&one, &mine).await?;
    come_with(&one, &others).await?;
    come_with(&one, &others).await?;
    let forged = mine.replace("chat-1", "chat-2");
    let long = "x".repeat(8_000);
    for odd in [forged.as_str(), "x", ".", "%00%ff", "%F0%9F%92%A9.chat-1", &long] {
        come_with(&one, odd).await?;
    }
    // nothing was said
    come_with(&one, "").await?;
    let counts = hints(&one).await?.map(|count| format!("{count:.0}"));
    assert_eq!(counts, ["1", "2", "6"]);
    Ok(())
}

#[tokio::test]
async fn without_a_key_there_is_none() -> Result<()> {
    let ([with], _key) = fleet(["chat-1"])?;
    let token = told(&with, Codec::Json).await?;
    let without = Gateway::start(&OPEN)?;
    for (gateway, expected) in [(&with, true), (&without, false)] {
        let mut client = Connect::to(gateway.ports.clients)
            .token("ann")
            .routing(&token)
            .open()
            .await?;
        let welcome = client.expect("welcome").await?;
        let features = welcome["features"].as_array().context("a list")?;
        assert_eq!(features.contains(&json!("routing_token")), expected, "{welcome}");
        let tokens = client.all_so_far("routing_token").await?;
        assert_eq!(tokens.len(), usize::from(expected));
    }
    let counts = hints(&without).await?.map(|count| format!("{count:.0}"));
    assert_eq!(counts, ["0", "0", "0"]);
    Ok(())
}
