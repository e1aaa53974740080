//! The example worker for NATS on the events of real clients: what a killed one has begun another one ends, and nobody is answered
//! twice.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;
use wsfleet_tests::client::Client;
use wsfleet_tests::gateway::{Fleet, Kind, UNLIMITED};
use wsfleet_tests::nats::NatsServer;
use wsfleet_tests::wait::{SOON, until_async};
use wsfleet_tests::worker::{GROUP, NATS_STREAM, Worker, send_event};

/// Two gateways that keep every answer for who comes later.
const KEEP: [&str; 2] = ["--direct-history", "10000/3600"];

async fn fleet() -> Result<Fleet> {
    Fleet::start_with(Kind::Nats(2), &[&UNLIMITED[..], &KEEP].concat()).await
}

fn nats(fleet: &Fleet) -> Result<&NatsServer> {
    fleet.nats.as_ref().context("a fleet on NATS")
}

fn worker(fleet: &Fleet, number: usize, flags: &[&str]) -> Result<Worker> {
    let api = fleet.gateway(number).ports.api;
    Worker::on_nats(&format!("w{number}"), &nats(fleet)?.url(), api, flags)
}

/// Sends events and awaits their acks.
async fn send_all(client: &mut Client, numbers: std::ops::Range<usize>) -> Result<()> {
    for number in numbers.clone() {
        let message = json!({"type": "event", "name": "echo", "payload": {"n": number}, "id": number});
        client.send(message).await?;
    }
    client.expect_many("ack", numbers.len()).await?;
    Ok(())
}

/// Stops the only worker when it has events in hand, and kills it so; tells how many these are. Until then it is given more.
async fn kill_in_the_middle(
    worker: &mut Worker,
    nats: &NatsServer,
    client: &mut Client,
    sent: &mut usize,
) -> Result<u64> {
    until_async("the worker has begun", || async {
        Ok(worker.log()?.contains("reads wsfleet-events"))
    })
    .await?;
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        worker.signal(Signal::STOP)?;
        let (in_hand, _) = nats.consumer(NATS_STREAM, GROUP).await?;
        if in_hand > 0 {
            worker.kill()?;
            return Ok(in_hand);
        }
        worker.signal(Signal::CONT)?;
        send_all(client, *sent..*sent + 20).await?;
        *sent += 20;
    }
    bail!("the worker takes no event: {}", worker.log()?)
}

async fn all_is_acknowledged(fleet: &Fleet) -> Result<()> {
    until_async("nothing is in hand, and nothing left", || async {
        Ok(nats(fleet)?.consumer(NATS_STREAM, GROUP).await? == (0, 0))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_in_the_middle_loses_no_event_and_answers_none_twice() -> Result<()> {
    let fleet = fleet().await?;
    let flags = ["--claim-after", "1"];
    let mut killed = worker(&fleet, 0, &flags)?;
    let mut ann = fleet.client(0, "ann").await?;
    let mut sent = 500;
    send_all(&mut ann, 0..sent).await?;
    let in_hand = kill_in_the_middle(&mut killed, nats(&fleet)?, &mut ann, &mut sent).await?;
    send_all(&mut ann, sent..sent + 200).await?;
    sent += 200;
    // they share what the killed one has left, and what it had in hand
    let left = [worker(&fleet, 1, &flags)?, worker(&fleet, 0, &flags)?];
    let messages = ann.expect_many("direct_message", sent).await;
    let messages = messages.with_context(|| left[0].log().unwrap_or_default())?;
    let mut answered = BTreeMap::new();
    for message in &messages {
        assert_eq!(message["fromUserId"], GROUP);
        let number = message["payload"]["answer"]["n"].as_u64();
        *answered.entry(number.context("an answer")?).or_insert(0) += 1;
    }
    assert!(
        answered.keys().copied().eq(0..u64::try_from(sent)?),
        "every event"
    );
    assert!(answered.values().all(|times| *times == 1), "once");
    all_is_acknowledged(&fleet).await?;
    assert!(ann.all_so_far("direct_message").await?.is_empty());
    println!("{sent} events acknowledged and answered once; the killed worker had {in_hand} in hand");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_always_fails_is_put_aside_and_holds_up_no_other() -> Result<()> {
    let fleet = fleet().await?;
    let mut ann = fleet.client(0, "ann").await?;
    let mut worker = worker(&fleet, 0, &["--claim-after", "0.1", "--tries", "3"])?;
    send_event(&mut ann, "nobody.knows", json!({"why": "?"}), json!({})).await?;
    send_event(&mut ann, "echo", json!({"n": 1}), json!({})).await?;
    let answer = ann.expect("direct_message").await?;
    assert_eq!(answer["payload"]["answer"], json!({"n": 1}));
    until_async("it is put aside", || async {
        let stored = nats(&fleet)?.stored("workers-dead").await;
        Ok(stored.is_ok_and(|stored| stored.len() == 1))
    })
    .await?;
    let stored = nats(&fleet)?.stored("workers-dead").await?;
    let event: serde_json::Value = serde_json::from_slice(&stored[0])?;
    assert_eq!(
        (&event["name"], &event["payload"], &event["userId"]),
        (&json!("nobody.knows"), &json!({"why": "?"}), &json!("user_ann"))
    );
    all_is_acknowledged(&fleet).await?;
    let log = worker.log()?;
    assert_eq!(log.matches("KeyError: 'nobody.knows'").count(), 3, "{log}");
    worker.signal(Signal::TERM)?;
    assert!(worker.ended().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_a_part_of_the_events_gets_no_other() -> Result<()> {
    let fleet = fleet().await?;
    let mut ann = fleet.client(0, "ann").await?;
    let filter = ["--group", "carts", "--filter", "wsfleet.events.cart.>"];
    let _worker = worker(&fleet, 0, &filter)?;
    send_event(&mut ann, "echo", json!({"n": 1}), json!({})).await?;
    let cart = json!([{"price": 3, "count": 2}]);
    send_event(&mut ann, "cart.total", cart, json!({})).await?;
    let answer = ann.expect("direct_message").await?;
    assert_eq!(
        (&answer["fromUserId"], &answer["payload"]["answer"]),
        (&json!("carts"), &json!({"total": 6}))
    );
    assert!(ann.all_so_far("direct_message").await?.is_empty());
    Ok(())
}
