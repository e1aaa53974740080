//! The example worker on the events of real clients: what a killed one has begun another one ends, and nobody is answered twice.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;
use wsfleet_tests::client::Client;
use wsfleet_tests::gateway::{Fleet, Kind, UNLIMITED};
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{SOON, until, until_async};
use wsfleet_tests::worker::{DEAD, GROUP, STREAM, Worker, entries, pending, send_event};

/// Two gateways that keep every answer for who comes later.
const KEEP: [&str; 2] = ["--direct-history", "10000/3600"];

async fn fleet() -> Result<Fleet> {
    Fleet::start_with(Kind::Redis(2), &[&UNLIMITED[..], &KEEP].concat()).await
}

fn redis(fleet: &Fleet) -> Result<&RedisServer> {
    fleet.redis.as_ref().context("a fleet on Redis")
}

fn worker(fleet: &Fleet, number: usize, flags: &[&str]) -> Result<Worker> {
    let api = fleet.gateway(number).ports.api;
    Worker::start(&format!("w{number}"), &redis(fleet)?.url(), api, flags)
}

/// Stops the worker when it has events in hand, and kills it so; tells how many these are. Until then it is given more.
async fn kill_in_the_middle(
    worker: &mut Worker,
    redis: &RedisServer,
    client: &mut Client,
    sent: &mut BTreeSet<u64>,
) -> Result<usize> {
    let mut connection = redis.connection().await?;
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        worker.signal(Signal::STOP)?;
        let in_hand = pending(&mut connection).await?.get(&worker.name).copied();
        if let Some(in_hand @ 1..) = in_hand {
            worker.kill()?;
            return Ok(in_hand);
        }
        worker.signal(Signal::CONT)?;
        sent.extend(send_all(client, sent.len()..sent.len() + 20).await?);
    }
    bail!("the worker takes no event: {}", worker.log()?)
}

/// Sends events and awaits their acks; tells which were acknowledged.
async fn send_all(client: &mut Client, numbers: std::ops::Range<usize>) -> Result<BTreeSet<u64>> {
    for number in numbers.clone() {
        let message = json!({"type": "event", "name": "echo", "payload": {"n": number}, "id": number});
        client.send(message).await?;
    }
    let acks = client.expect_many("ack", numbers.len()).await?;
    acks.iter()
        .map(|ack| ack["id"].as_u64().context("an id"))
        .collect()
}

/// The answers that came: how often to which event.
fn answered(messages: &[Value]) -> Result<BTreeMap<u64, usize>> {
    let mut answered = BTreeMap::new();
    for message in messages {
        assert_eq!(message["fromUserId"], GROUP);
        let number = message["payload"]["answer"]["n"].as_u64();
        *answered.entry(number.context("an answer")?).or_insert(0) += 1;
    }
    Ok(answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_in_the_middle_loses_no_event_and_answers_none_twice() -> Result<()> {
    const USERS: usize = 4;
    const EACH: usize = 500;
    let fleet = fleet().await?;
    let flags = ["--claim-after", "2"];
    let mut killed = worker(&fleet, 0, &flags)?;
    let left = worker(&fleet, 1, &flags)?;
    let mut clients = Vec::new();
    for number in 0..USERS {
        clients.push(fleet.client(number, &format!("u{number}")).await?);
    }
    let mut acknowledged = Vec::new();
    let mut in_hand = 0;
    for (number, client) in clients.iter_mut().enumerate() {
        let mut sent = send_all(client, 0..EACH).await?;
        if number == 0 {
            in_hand = kill_in_the_middle(&mut killed, redis(&fleet)?, client, &mut sent).await?;
        }
        acknowledged.push(sent);
    }
    // all at once: who is not read from answers no ping
    let each = clients.iter_mut().zip(&acknowledged);
    let each = each.map(|(client, sent)| client.expect_many("direct_message", sent.len()));
    let messages = try_join_all(each).await;
    let messages = messages.with_context(|| left.log().unwrap_or_default())?;
    for (messages, acknowledged) in messages.iter().zip(&acknowledged) {
        let answers = answered(messages)?;
        assert!(
            answers.keys().eq(acknowledged),
            "every acknowledged event is answered"
        );
        assert!(answers.values().all(|times| *times == 1), "once");
    }
    let total = messages.iter().map(Vec::len).sum::<usize>();
    let mut connection = redis(&fleet)?.connection().await?;
    until_async("nothing is pending any more", || {
        let mut connection = connection.clone();
        async move { Ok(pending(&mut connection).await?.values().sum::<usize>() == 0) }
    })
    .await?;
    for client in &mut clients {
        assert_eq!(client.all_so_far("direct_message").await?, [] as [Value; 0]);
    }
    println!("{total} events acknowledged and answered once; the killed worker had {in_hand} in hand");
    assert!(entries(redis(&fleet)?, DEAD).await?.is_empty());
    assert!(pending(&mut connection).await?.contains_key(&left.name));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_sent_before_the_worker_could_say_so_is_not_sent_again() -> Result<()> {
    let fleet = fleet().await?;
    let mut ann = fleet.client(0, "ann").await?;
    let first = worker(&fleet, 0, &[])?;
    send_event(&mut ann, "echo", json!({"n": 1}), json!({})).await?;
    let answer = ann.expect("direct_message").await?;
    let (id, _) = entries(redis(&fleet)?, STREAM).await?.pop().context("an entry")?;
    assert_eq!(
        answer["payload"],
        json!({"event": id, "name": "echo", "answer": {"n": 1}})
    );
    let mut connection = redis(&fleet)?.connection().await?;
    until_async("it is acknowledged", || {
        let mut connection = connection.clone();
        async move { Ok(pending(&mut connection).await?.values().sum::<usize>() == 0) }
    })
    .await?;
    drop(first);
    // as if it had been killed between the answer and its acknowledgement
    let force = ["XCLAIM", STREAM, GROUP, "w0", "0", &id, "FORCE", "JUSTID"];
    let mut claim = redis::cmd(force[0]);
    let claimed: Vec<String> = claim.arg(&force[1..]).query_async(&mut connection).await?;
    ensure!(claimed == [id], "{claimed:?}");
    let _second = worker(&fleet, 1, &["--claim-after", "0.1"])?;
    until_async("the other one has ended it", || {
        let mut connection = connection.clone();
        async move { Ok(pending(&mut connection).await?.values().sum::<usize>() == 0) }
    })
    .await?;
    assert_eq!(ann.all_so_far("direct_message").await?, [] as [Value; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_always_fails_is_put_aside_and_holds_up_no_other() -> Result<()> {
    let fleet = fleet().await?;
    let mut ann = fleet.client(0, "ann").await?;
    let mut worker = worker(&fleet, 0, &["--claim-after", "0.1", "--tries", "3"])?;
    send_event(&mut ann, "nobody.knows", json!({"why": "?"}), json!({})).await?;
    send_event(&mut ann, "echo", json!({"n": 1}), json!({})).await?;
    assert_eq!(
        ann.expect("direct_message").await?["payload"]["answer"],
        json!({"n": 1})
    );
    until_async("it is put aside", || async {
        Ok(entries(redis(&fleet)?, DEAD).await?.len() == 1)
    })
    .await?;
    let (_, fields) = entries(redis(&fleet)?, DEAD).await?.pop().context("an entry")?;
    let (original, _) = entries(redis(&fleet)?, STREAM).await?.swap_remove(0);
    assert_eq!(
        ["name", "payload", "userId", "group", "entry"].map(|field| &*fields[field]),
        ["nobody.knows", r#"{"why":"?"}"#, "user_ann", GROUP, &original]
    );
    let log = worker.log()?;
    assert_eq!(log.matches("KeyError: 'nobody.knows'").count(), 3, "{log}");
    // it leaves the group when it is asked to end, with nothing pending
    worker.signal(Signal::TERM)?;
    assert!(worker.ended().await?.success());
    let mut connection = redis(&fleet)?.connection().await?;
    assert_eq!(pending(&mut connection).await?, BTreeMap::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_outlives_its_redis_and_answers_what_was_sent_meanwhile() -> Result<()> {
    let redis = RedisServer::start_durable().await?;
    let mut fleet = Fleet::on(Some(redis), 1, &KEEP)?;
    fleet.gateway(0).ready().await?;
    let mut ann = fleet.client(0, "ann").await?;
    let worker = worker(&fleet, 0, &["--claim-after", "1"])?;
    send_event(&mut ann, "echo", json!({"n": 1}), json!({})).await?;
    assert_eq!(ann.expect("direct_message").await?["payload"]["answer"]["n"], 1);
    fleet.redis.as_mut().context("Redis")?.kill()?;
    until("the worker has noticed", || {
        worker
            .log()
            .is_ok_and(|log| log.contains("Redis cannot be reached"))
    })
    .await?;
    fleet.redis.as_mut().context("Redis")?.restart().await?;
    fleet.gateway(0).ready().await?;
    send_event(&mut ann, "echo", json!({"n": 2}), json!({})).await?;
    assert_eq!(ann.expect("direct_message").await?["payload"]["answer"]["n"], 2);
    Ok(())
}
