//! Members that read too slowly: what gives way is the room's choice, and nobody else notices.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wsfleet_gateway::protocol::Codec;
use wsfleet_tests::client::{Client, Connect};
use wsfleet_tests::gateway::{Fleet, Kind, UNLIMITED};
use wsfleet_tests::on_memory_and_redis;

on_memory_and_redis! {
    where_messages_give_way_a_stalled_member_stays_and_is_told_which_it_missed,
    of_each_sender_the_latest_message_reaches_a_stalled_member,
}

const FLAGS: [&str; 10] = [
    "--slow-consumer",
    "ticker*=dropOldest",
    "--slow-consumer",
    "cursor*=keepLatest",
    "--limit",
    "queueBytes=262144",
    "--limit",
    "queueMessages=20",
    "--limit",
    "announceMembers=0",
];

/// A room with a member that does not read, and members that do, with a codec each.
struct Scene {
    fleet: Fleet,
    room: &'static str,
    stalled: Client,
    live: Vec<Client>,
    published: u64,
}

impl Scene {
    async fn new(kind: Kind, room: &'static str, stalled: Codec) -> Result<Self> {
        let fleet = Fleet::start_with(kind, &[&FLAGS[..], &UNLIMITED].concat()).await?;
        let to = Connect::to(fleet.gateway(1).ports.clients).token("stalled");
        let mut stalled = to.receive_buffer(16 << 10).codec(stalled).open().await?;
        stalled.expect("welcome").await?;
        stalled.join(room).await?;
        let mut live = Vec::new();
        for (number, codec) in Codec::ALL.into_iter().enumerate() {
            let mut client = fleet
                .client_as(number, &format!("u{number}"), Some(codec))
                .await?;
            client.join(room).await?;
            live.push(client);
        }
        Ok(Self {
            fleet,
            room,
            stalled,
            live,
            published: 0,
        })
    }

    /// Publishes until the gateway of the stalled member has counted this; the others get every message meanwhile.
    async fn until(&mut self, policy: &str, times: f64) -> Result<()> {
        let label = format!("policy=\"{policy}\"");
        let text = "x".repeat(50_000);
        while self
            .fleet
            .gateway(1)
            .metric("ws_slow_consumer_total", &[&label])
            .await?
            < times
        {
            ensure!(self.published < 2_000, "kernel buffers must fill at some time");
            let from = self.published as usize % self.live.len();
            self.live[from]
                .say(self.room, json!({ "n": self.published, "text": text }))
                .await?;
            self.published += 1;
            for client in &mut self.live {
                let message = client.expect("room_message").await?;
                assert_eq!(
                    (&message["offset"], &message["payload"]["n"]),
                    (&json!(self.published), &json!(self.published - 1))
                );
            }
        }
        Ok(())
    }

    /// The stalled member reads: messages and gaps are every offset once, in order. Gives the messages.
    async fn catch_up(&mut self) -> Result<Vec<Value>> {
        let (mut next, mut messages, mut gaps) = (1, Vec::new(), 0);
        while next <= self.published {
            let told = self.stalled.expect_any(&["room_message", "gap"]).await?;
            if told["type"] == "gap" {
                ensure!(told["room"] == self.room && told["epoch"].is_string(), "{told}");
                ensure!(told["from"] == next, "{told} instead of {next}");
                next = told["to"].as_u64().context("a number")? + 1;
                gaps += 1;
            } else {
                ensure!(told["offset"] == next, "{} instead of {next}", told["offset"]);
                next += 1;
                messages.push(told);
            }
        }
        ensure!(gaps > 0, "nothing was dropped");
        let gateway = self.fleet.gateway(1);
        let dropped = gateway
            .metric("ws_slow_consumer_dropped_messages_total", &[])
            .await?;
        assert_eq!(dropped as u64, self.published - messages.len() as u64);
        assert!(
            gateway
                .metric("ws_slow_consumer_dropped_bytes_total", &[])
                .await?
                > dropped * 50_000.0
        );
        Ok(messages)
    }
}

async fn where_messages_give_way_a_stalled_member_stays_and_is_told_which_it_missed(
    kind: Kind,
) -> Result<()> {
    for codec in Codec::ALL {
        let mut scene = Scene::new(kind, "ticker 1", codec).await?;
        scene.until("dropOldest", 5.0).await?;
        let messages = scene.catch_up().await?;
        let last = messages.last().context("a message")?;
        assert_eq!(last["offset"], scene.published, "the newest are kept");
        scene.live[0].say(scene.room, json!("after")).await?;
        assert_eq!(scene.stalled.expect("room_message").await?["payload"], "after");
    }
    Ok(())
}

async fn of_each_sender_the_latest_message_reaches_a_stalled_member(kind: Kind) -> Result<()> {
    let mut scene = Scene::new(kind, "cursor 1", Codec::Json).await?;
    scene.until("keepLatest", 1.0).await?;
    let messages = scene.catch_up().await?;
    let last: Vec<_> = messages
        .iter()
        .rev()
        .take(scene.live.len())
        .map(|message| &message["offset"])
        .collect();
    let published = scene.published;
    assert_eq!(
        last,
        [published, published - 1, published - 2],
        "the senders took turns"
    );
    Ok(())
}
