//! What clients say that come back, and what they hear.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::client::Client;

/// Flags of gateways to which clients may send as fast as they can.
pub const FAST: [&str; 4] = ["--limit", "messagesPerSecond=0", "--limit", "bytesPerSecond=0"];

/// Says so many things, and awaits that they are accepted.
pub async fn say(client: &mut Client, room: &str, from: u64, to: u64) -> Result<()> {
    for number in from..=to {
        let ack = client.say_acked(room, json!(number), json!(number)).await?;
        ensure!(ack["offset"] == number, "{ack}");
    }
    Ok(())
}

/// Joins where the client was; gives the `joined` message.
pub async fn join_at(client: &mut Client, room: &str, epoch: &Value, offset: u64) -> Result<Value> {
    client
        .send(json!({"type": "join", "room": room, "epoch": epoch, "offset": offset}))
        .await?;
    let joined = client.expect("joined").await?;
    ensure!(joined["room"] == room, "{joined}");
    Ok(joined)
}

/// The next messages of a kind are those with these offsets.
pub async fn hears(client: &mut Client, kind: &str, offsets: RangeInclusive<u64>) -> Result<()> {
    for offset in offsets {
        let message = client.expect(kind).await?;
        ensure!(message["offset"] == offset, "{offset} is expected: {message}");
    }
    Ok(())
}
