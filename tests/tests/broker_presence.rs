//! Who is in a room, told by several gateways over a real Redis or NATS, whatever happens to gateways and to those.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use wsfleet_gateway::broker::redis::Timing;
use wsfleet_tests::attendance::{Store, everybody, until_count};
use wsfleet_tests::broker::{PATIENT, room};
use wsfleet_tests::client::Client;
use wsfleet_tests::gateway::{Fleet, Gateway, Kind, OPEN, UNLIMITED};
use wsfleet_tests::on_redis_and_nats;
use wsfleet_tests::process::Process;
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::until_async;

/// No test takes so long: nobody is gone.
const LONG: Duration = Duration::from_mins(10);
/// A lease that runs out soon.
const BRIEF: Timing = Timing {
    lease: Duration::from_secs(2),
    ..PATIENT
};

/// Runs each of these with gateways on a real Redis, and on a real NATS.
macro_rules! on_each_store {
    ($($name:ident),* $(,)?) => {
        mod redis_itself {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name::<wsfleet_tests::redis::RedisServer>().await
            })*
        }
        mod nats_itself {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name::<wsfleet_tests::nats::NatsServer>().await
            })*
        }
    };
}

on_each_store! {
    a_user_on_two_gateways_is_one_and_is_gone_once,
    who_comes_later_is_told_of_those_who_may_be_back,
    pages_name_whoever_stays_once_while_others_come_and_go,
    counts_are_exact_after_ten_gateways_were_killed,
    a_gateway_that_was_taken_for_ended_puts_its_members_back,
}

on_redis_and_nats! {
    a_broker_that_comes_back_empty_is_told_again_and_nobody_is_announced,
    the_members_of_a_killed_gateway_are_gone_and_announced_once,
}

async fn a_user_on_two_gateways_is_one_and_is_gone_once<S: Store>() -> Result<()> {
    let store = S::begin().await?;
    let hold = Duration::from_millis(500);
    let (one, two) = (
        store.node("g1", PATIENT, hold).await?,
        store.node("g2", PATIENT, hold).await?,
    );
    one.subscribe(&room("r")).await?;
    // who is there to be told
    one.enter("r", "zoe", "1-z");
    until_count(&one, "r", 1).await?;
    one.enter("r", "ann", "1-a");
    two.enter("r", "ann", "2-a");
    two.enter("r", "ann", "2-b");
    two.enter("r", "bob", "2-c");
    until_count(&one, "r", 3).await?;
    assert_eq!(everybody(&one, "r", 1).await?.join(" "), "ann bob zoe");
    one.exit("r", "ann", "1-a");
    two.exit("r", "ann", "2-a");
    // twice is once
    two.exit("r", "ann", "2-a");
    two.exit("r", "bob", "2-c");
    until_count(&one, "r", 2).await?;
    two.exit("r", "ann", "2-b");
    until_count(&one, "r", 1).await?;
    one.wait_delivered(5).await?;
    let told = |came, user: &str| (came, user.to_owned());
    assert_eq!(
        one.announced(),
        [
            told(true, "zoe"),
            told(true, "ann"),
            told(true, "bob"),
            told(false, "bob"),
            told(false, "ann")
        ]
    );
    one.exit("r", "zoe", "1-z");
    until_async("nothing is left behind", || async {
        Ok(store.left_of("r", "none").await? == 0)
    })
    .await?;
    Ok(())
}

async fn who_comes_later_is_told_of_those_who_may_be_back<S: Store>() -> Result<()> {
    let store = S::begin().await?;
    let (one, two) = (
        store.node("g1", PATIENT, LONG).await?,
        store.node("g2", PATIENT, LONG).await?,
    );
    one.enter("r", "ann", "1-a");
    until_count(&two, "r", 1).await?;
    one.exit("r", "ann", "1-a");
    two.subscribe(&room("r")).await?;
    two.enter("r", "bob", "2-b");
    until_count(&two, "r", 2).await?;
    assert_eq!(everybody(&two, "r", 1).await?, [Arc::from("ann"), "bob".into()]);
    one.enter("r", "ann", "1-c");
    one.enter("r", "cleo", "1-d");
    two.wait_delivered(2).await?;
    let came = |user: &str| (true, user.to_owned());
    assert_eq!(two.announced(), [came("bob"), came("cleo")]);
    Ok(())
}

/// A rollout: everybody of a large room leaves a gateway and is back on another one within 15 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_members_that_are_back_in_time_are_not_announced() -> Result<()> {
    const MEMBERS: usize = 10_000;
    let redis = RedisServer::start().await?;
    let hold = Duration::from_secs(15);
    let (old, new) = (
        redis.node("g1", PATIENT, hold).await?,
        redis.node("g2", PATIENT, hold).await?,
    );
    let users: Vec<String> = (0..MEMBERS).map(|number| format!("user-{number:05}")).collect();
    let begun = Instant::now();
    for user in &users {
        old.enter("r", user, &format!("1-{user}"));
    }
    until_count(&old, "r", MEMBERS as u64).await?;
    println!("{MEMBERS} joins in {:?}", begun.elapsed());
    new.subscribe(&room("r")).await?;
    let begun = Instant::now();
    for user in &users {
        old.exit("r", user, &format!("1-{user}"));
        new.enter("r", user, &format!("2-{user}"));
    }
    until_async("nobody is leaving", || async {
        let mut connection = redis.connection().await?;
        let there: usize = redis::cmd("ZCARD")
            .arg("wsfleet:0:room.leaving:{r}")
            .query_async(&mut connection)
            .await?;
        Ok(there == 0 && old.sink.members.lock().is_empty())
    })
    .await?;
    println!("{MEMBERS} moved in {:?}", begun.elapsed());
    assert_eq!(everybody(&new, "r", 500).await?.len(), MEMBERS);
    assert_eq!(new.announced(), [], "nobody has heard of it");
    Ok(())
}

async fn pages_name_whoever_stays_once_while_others_come_and_go<S: Store>() -> Result<()> {
    const STAY: usize = 10_000;
    let store = S::begin().await?;
    let (one, two) = (
        store.node("g1", PATIENT, Duration::ZERO).await?,
        store.node("g2", PATIENT, LONG).await?,
    );
    for number in 0..STAY {
        one.enter("r", &format!("stays-{number:05}"), &format!("1-{number}"));
    }
    until_count(&two, "r", STAY as u64).await?;
    let (mut all, mut pages): (Vec<Arc<str>>, usize) = (Vec::new(), 0);
    loop {
        // before and behind where the reader is
        for place in [pages * 500, pages * 700 + 250] {
            let user = format!("stays-{place:05}-visits");
            two.enter("r", &user, &format!("2-{pages}-{place}"));
            one.enter("r", &user, &format!("1-{pages}-{place}"));
            one.exit("r", &user, &format!("1-{pages}-{place}"));
        }
        let page = one.attendance("r", all.last().cloned(), 500).await?;
        ensure!(page.count >= STAY as u64, "{} users", page.count);
        all.extend(page.users);
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert!(all.is_sorted_by(|one, other| one < other), "in order, each once");
    let stay = all.iter().filter(|user| !user.ends_with("visits"));
    assert!(
        stay.map(ToString::to_string)
            .eq((0..STAY).map(|number| format!("stays-{number:05}")))
    );
    Ok(())
}

async fn counts_are_exact_after_ten_gateways_were_killed<S: Store>() -> Result<()> {
    let store = S::begin().await?;
    let hold = Duration::from_millis(300);
    let stays = store.node("stays", BRIEF, hold).await?;
    for name in ["a", "b"] {
        stays.subscribe(&room(name)).await?;
        for number in 0..30 {
            stays.enter(name, &format!("user-{number:03}"), &format!("s-{number}"));
        }
    }
    let mut ends = Vec::new();
    for kill in 0..10 {
        let killed = store.node(&format!("k{kill}"), BRIEF, hold).await?;
        for number in kill * 5..kill * 5 + 40 {
            for (name, device) in [("a", 1), ("b", 1), ("b", 2)] {
                killed.enter(
                    name,
                    &format!("user-{number:03}"),
                    &format!("{kill}-{number}-{device}"),
                );
            }
        }
        // its last users are there
        let last = format!("user-{:03}", kill * 5 + 38);
        until_async("they are in the room", || async {
            let page = stays.attendance("b", Some(last.as_str().into()), 1).await?;
            Ok(!page.users.is_empty())
        })
        .await?;
        // without a word to Redis: what it held is there until its lease has run out
        drop(killed.broker);
        ends.push(killed.sink);
    }
    for name in ["a", "b"] {
        until_count(&stays, name, 30).await?;
        let there = everybody(&stays, name, 7).await?;
        assert!(
            there
                .iter()
                .map(ToString::to_string)
                .eq((0..30).map(|number| format!("user-{number:03}")))
        );
    }
    let mut balance: BTreeMap<String, i32> = BTreeMap::new();
    until_async("everybody who came is announced as gone", || async {
        let announced = stays.announced();
        Ok(announced.iter().filter(|(came, _)| !came).count() >= 2 * 55)
    })
    .await?;
    let announced = stays.announced();
    for (came, user) in &announced {
        let there = balance.entry(user.clone()).or_default();
        *there += if *came { 1 } else { -1 };
        let of_user: Vec<_> = announced.iter().filter(|(_, other)| other == user).collect();
        ensure!((0..=2).contains(there), "of {user} was told: {of_user:?}");
    }
    assert!(
        balance
            .iter()
            .all(|(user, rooms)| *rooms == if user.as_str() < "user-030" { 2 } else { 0 }),
        "{balance:?}"
    );
    until_async("nothing is left behind of them", || async {
        Ok(store.left_of("none", "k").await? == 0)
    })
    .await?;
    Ok(())
}

async fn a_gateway_that_was_taken_for_ended_puts_its_members_back<S: Store>() -> Result<()> {
    let store = S::begin().await?;
    let (one, two) = (
        store.node("g1", BRIEF, LONG).await?,
        store.node("g2", BRIEF, LONG).await?,
    );
    for number in 0..100 {
        one.enter("r", &format!("user-{number}"), &format!("1-{number}"));
    }
    until_count(&two, "r", 100).await?;
    two.subscribe(&room("r")).await?;
    store.forget_members().await?;
    until_count(&two, "r", 100).await?;
    assert_eq!(two.announced(), [], "they were there all the time");
    // whoever leaves may be back, and is not there by half
    for number in 0..100 {
        one.exit("r", &format!("user-{number}"), &format!("1-{number}"));
    }
    let late = store.node("g3", BRIEF, LONG).await?;
    until_count(&late, "r", 100).await?;
    drop(one);
    until_count(&two, "r", 100).await?;
    Ok(())
}

async fn member(gateway: &Gateway, name: &str) -> Result<Client> {
    let mut client = gateway.client(name).await?;
    client.join("r").await?;
    Ok(client)
}

/// Awaits that the clients of the gateways are told of so many users.
async fn until_there(client: Client, count: u64) -> Result<Client> {
    let client = tokio::sync::Mutex::new(client);
    until_async(&format!("{count} users"), || async {
        let mut asks = client.lock().await;
        asks.send(json!({"type": "presence", "room": "r"})).await?;
        let answer = asks.expect_any(&["presence", "error"]).await?;
        Ok(answer["count"] == count)
    })
    .await?;
    Ok(client.into_inner())
}

async fn a_broker_that_comes_back_empty_is_told_again_and_nobody_is_announced(kind: Kind) -> Result<()> {
    let mut fleet = Fleet::start_with(kind, &UNLIMITED).await?;
    let mut members = Vec::new();
    for number in 0..10 {
        members.push(member(fleet.gateway(number), &format!("u{number}")).await?);
    }
    // what is announced last shows that nothing is on its way any more
    let _last = member(fleet.gateway(1), "last").await?;
    for client in &mut members {
        while client.expect("user_joined").await?["userId"] != "user_last" {}
    }
    let asks = until_there(fleet.client(0, "asks").await?, 11).await?;
    match &mut fleet.redis {
        Some(redis) => redis.stop()?,
        // what is in memory only is lost
        None => fleet.kill_broker()?,
    }
    fleet.restart_broker().await?;
    fleet.gateway(0).ready().await?;
    fleet.gateway(1).ready().await?;
    until_there(asks, 11).await?;
    for client in &mut members {
        for kind in ["user_joined", "user_left"] {
            assert_eq!(client.all_so_far(kind).await?, Vec::<serde_json::Value>::new());
        }
    }
    Ok(())
}

/// With the defaults: it takes about 20 s, and 30 s are promised.
async fn the_members_of_a_killed_gateway_are_gone_and_announced_once(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &UNLIMITED).await?;
    let url = fleet.url()?;
    let flags = [&OPEN[..], &UNLIMITED, &["--broker", &url]].concat();
    let killed = Process::start(&flags).await?;
    killed.ready().await?;
    let living = [Gateway::start(&flags)?, Gateway::start(&flags)?];
    let mut watchers = Vec::new();
    for (gateway, name) in living.iter().zip(["w0", "w1"]) {
        gateway.ready().await?;
        watchers.push(member(gateway, name).await?);
    }
    let mut lost = Vec::new();
    for number in 0..5 {
        let connect = wsfleet_tests::client::Connect::to(killed.ports.clients);
        let mut client = connect.token(&format!("u{number}")).open().await?;
        client.join("r").await?;
        lost.push(client);
    }
    let stays = living[0].client("u0").await?;
    let mut stays = until_there(stays, 7).await?;
    stays.join("r").await?;
    killed.signal(Signal::KILL)?;
    // whoever is not read from answers no ping, and is closed
    let told = watchers
        .iter_mut()
        .map(|watcher| watcher.expect_many("user_left", 4));
    let (stays, told) = tokio::join!(until_there(stays, 3), futures::future::try_join_all(told));
    let _stays = stays?;
    for (watcher, told) in watchers.iter_mut().zip(told?) {
        let mut gone = Vec::new();
        for left in told {
            gone.push(left["userId"].as_str().unwrap_or_default().to_owned());
        }
        gone.sort();
        assert_eq!(gone, ["user_u1", "user_u2", "user_u3", "user_u4"]);
        assert!(watcher.all_so_far("user_left").await?.is_empty());
    }
    Ok(())
}
