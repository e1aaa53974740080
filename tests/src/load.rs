//! Clients that publish without a pause through whatever happens to the broker, and what they were told.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::gateway::Fleet;

/// The room of all.
pub const LOBBY: &str = "lobby";

/// What publishers were told, by payload.
#[derive(Debug, Default)]
pub struct Told {
    /// Acknowledged.
    pub acked: Mutex<HashSet<String>>,
    /// Refused: it was not sent.
    pub refused: Mutex<HashSet<String>>,
    /// Told that it may have been accepted.
    pub unconfirmed: Mutex<HashSet<String>>,
}

/// A crowd in one room, all of whom publish.
#[derive(Debug)]
pub struct Crowd {
    /// What they were told.
    pub told: Arc<Told>,
    paused: watch::Sender<bool>,
    waiting: Arc<watch::Sender<usize>>,
    over: Arc<AtomicBool>,
    members: Vec<JoinHandle<Result<Member>>>,
}

/// One of them, when it has ended.
#[derive(Debug)]
pub struct Member {
    /// The connection.
    pub client: Client,
    /// The room's messages that it heard.
    pub heard: Vec<Value>,
}

impl Crowd {
    /// So many clients, spread over the gateways, begin to publish.
    pub async fn start(fleet: &Fleet, count: usize) -> Result<Self> {
        let mut crowd = Self {
            told: Arc::default(),
            paused: watch::Sender::new(false),
            waiting: Arc::new(watch::Sender::new(0)),
            over: Arc::default(),
            members: Vec::new(),
        };
        let mut clients = Vec::new();
        for number in 0..count {
            let mut client = fleet.client(number, &format!("u{number}")).await?;
            client.join(LOBBY).await?;
            clients.push(client);
        }
        for (number, client) in clients.into_iter().enumerate() {
            crowd.members.push(tokio::spawn(publish(
                client,
                number,
                Arc::clone(&crowd.told),
                crowd.paused.subscribe(),
                Arc::clone(&crowd.waiting),
                Arc::clone(&crowd.over),
            )));
        }
        Ok(crowd)
    }

    /// Everything that was published has been answered, and nothing more is until [`Crowd::go_on`].
    pub async fn pause(&self) -> Result<()> {
        self.paused.send_replace(true);
        let all = self.members.len();
        self.waiting
            .subscribe()
            .wait_for(|&waiting| waiting == all)
            .await?;
        Ok(())
    }

    /// Publishes again.
    pub fn go_on(&self) {
        self.paused.send_replace(false);
    }

    /// How many messages were acknowledged.
    pub fn acked(&self) -> usize {
        self.told.acked.lock().len()
    }

    /// Ends the publishing; each has heard the room up to one last message then, and is still connected.
    pub async fn end(self) -> Result<Vec<Member>> {
        self.over.store(true, Ordering::Relaxed);
        let ended = try_join_all(self.members).await?;
        let mut members = ended.into_iter().collect::<Result<Vec<_>>>()?;
        if let Some(first) = members.first_mut() {
            let end = json!({"type": "room_message", "room": LOBBY, "payload": "the end", "id": "end"});
            first.client.send(end).await?;
            let answer = first.client.expect_any(&["ack", "error"]).await?;
            ensure!(answer["type"] == "ack", "{answer}");
        }
        for member in &mut members {
            while member
                .heard
                .last()
                .is_none_or(|last| last["payload"] != "the end")
            {
                member.heard.push(member.client.expect("room_message").await?);
            }
        }
        Ok(members)
    }
}

async fn publish(
    mut client: Client,
    publisher: usize,
    told: Arc<Told>,
    mut paused: watch::Receiver<bool>,
    waiting: Arc<watch::Sender<usize>>,
    over: Arc<AtomicBool>,
) -> Result<Member> {
    let mut heard = Vec::new();
    let mut number = 0_u64;
    while !over.load(Ordering::Relaxed) {
        if *paused.borrow_and_update() {
            waiting.send_modify(|waiting| *waiting += 1);
            paused.wait_for(|paused| !paused).await?;
            waiting.send_modify(|waiting| *waiting -= 1);
        }
        number += 1;
        let payload = format!("{publisher}:{number}");
        let message = json!({"type": "room_message", "room": LOBBY, "payload": payload, "id": number});
        client.send(message).await?;
        let answer = client.expect_any(&["ack", "error"]).await?;
        ensure!(answer["id"] == number, "{answer}");
        let list = match (&answer["type"], &answer["code"]) {
            (kind, _) if kind == "ack" => &told.acked,
            (_, code) if code == "unconfirmed" => &told.unconfirmed,
            _ => &told.refused,
        };
        ensure!(answer["type"] == "ack" || answer["temporary"] == true, "{answer}");
        list.lock().insert(payload);
        heard.extend(client.take_kept("room_message"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Member { client, heard })
}

impl Told {
    /// What a member heard, judged by what the publishers were told: nothing acknowledged is missing, nothing refused came,
    /// nothing came twice or out of order.
    pub fn judge(&self, member: &Member) -> Result<()> {
        let mut payloads = HashSet::new();
        for message in &member.heard {
            let payload = message["payload"].as_str().unwrap_or_default().to_owned();
            ensure!(payloads.insert(payload), "came twice: {message}");
        }
        let offsets: Vec<u64> = member.heard.iter().filter_map(|m| m["offset"].as_u64()).collect();
        ensure!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
        let acked = self.acked.lock();
        let missing: Vec<_> = acked.difference(&payloads).collect();
        ensure!(missing.is_empty(), "acknowledged, and not heard: {missing:?}");
        let refused = self.refused.lock();
        let wrong: Vec<_> = refused.intersection(&payloads).collect();
        ensure!(wrong.is_empty(), "refused, and heard: {wrong:?}");
        Ok(())
    }
}
