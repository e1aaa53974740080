//! The real binary: signals, exit codes, and what it says when it cannot start.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;
use wsfleet_tests::client::{Client, Connect, Upgrade};
use wsfleet_tests::farewell::{delays, farewells, half_closed};
use wsfleet_tests::gateway::OPEN;
use wsfleet_tests::process::{Ports, Process};
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::{SOON, until_async};

async fn clients(process: &Process, count: usize) -> Result<Vec<Client>> {
    process.ready().await?;
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = Connect::to(process.ports.clients)
            .token(&format!("u{number}"))
            .open()
            .await?;
        client.expect("welcome").await?;
        client.join("lobby").await?;
        clients.push(client);
    }
    Ok(clients)
}

async fn drain_by_sigterm(broker: &str) -> Result<()> {
    const COUNT: usize = 60;
    let flags = [&OPEN[..], &["--drain-window", "6", "--broker", broker]].concat();
    let mut process = Process::start(&flags).await?;
    let mut clients = clients(&process, COUNT).await?;
    let start = Instant::now();
    process.signal(Signal::TERM)?;
    let refusal = async {
        until_async("new upgrades get 503 and Retry-After", || async {
            match Connect::to(process.ports.clients).token("late").upgrade().await? {
                Upgrade::Refused(answer) => {
                    Ok(answer.status == 503 && answer.header("retry-after").is_some())
                }
                Upgrade::Open(_) => bail!("let in"),
            }
        })
        .await
    };
    let (refusal, outcomes) = tokio::join!(refusal, farewells(&mut clients, start));
    refusal?;
    let outcomes = outcomes?;
    assert!(outcomes.iter().all(|client| client.code == 1012), "{outcomes:?}");
    let told = delays(&outcomes);
    assert!(told > COUNT / 2, "{told} delays for {COUNT} clients");
    // spread over the window; how evenly is proven of the drain in virtual time (gateway/src/drain)
    let half = half_closed(&outcomes);
    assert!(half > Duration::from_secs(2), "half are closed after {half:?}");
    assert!(process.ended_within(SOON).await?.success());
    Ok(())
}

#[tokio::test]
async fn sigterm_spreads_its_closes_over_the_window_and_exits_with_0_alone() -> Result<()> {
    drain_by_sigterm("memory").await
}

#[tokio::test]
async fn sigterm_spreads_its_closes_over_the_window_and_exits_with_0_on_redis() -> Result<()> {
    let redis = RedisServer::start().await?;
    drain_by_sigterm(&redis.url()).await
}

#[tokio::test]
async fn sigterm_while_redis_is_frozen_still_drains_and_exits_with_0() -> Result<()> {
    let redis = RedisServer::start().await?;
    let url = redis.url();
    let flags = [&OPEN[..], &["--drain-window", "2", "--broker", &url]].concat();
    let mut process = Process::start(&flags).await?;
    let mut clients = clients(&process, 5).await?;
    redis.freeze()?;
    process.signal(Signal::TERM)?;
    for client in &mut clients {
        assert_eq!(client.closed().await?, 1012);
    }
    assert!(process.ended_within(SOON).await?.success());
    redis.thaw()
}

#[tokio::test]
async fn a_second_sigterm_shortens_the_drain_to_five_seconds() -> Result<()> {
    let flags = [&OPEN[..], &["--drain-window", "600"]].concat();
    let mut process = Process::start(&flags).await?;
    let mut clients = clients(&process, 10).await?;
    process.signal(Signal::TERM)?;
    until_async("it drains", || async {
        let upgrade = Connect::to(process.ports.clients).token("late").upgrade().await?;
        Ok(matches!(upgrade, Upgrade::Refused(_)))
    })
    .await?;
    let start = Instant::now();
    process.signal(Signal::TERM)?;
    for client in &mut clients {
        assert_eq!(client.closed().await?, 1012);
    }
    assert!(process.ended_within(SOON).await?.success());
    // not the ten minutes of the window
    assert!(start.elapsed() < Duration::from_mins(5), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn without_sockets_it_ends_at_once() -> Result<()> {
    let flags = [&OPEN[..], &["--drain-window", "600"]].concat();
    let mut process = Process::start(&flags).await?;
    process.signal(Signal::TERM)?;
    assert!(process.ended_within(SOON).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_wrong_flag_exits_with_64_before_any_port_is_bound_and_says_what_to_write() -> Result<()> {
    let cases: [(&[&str], &[&str]); 11] = [
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--broker", "rabbit://h"], &["--broker", "memory", "redis://"]),
        (&["--broker", "redis://"], &["--broker", "redis://"]),
        (&["--broker", "redis://:hunter2@h/x"], &["--broker", "redis://"]),
        (
            &["--broker", "redis://:hunter2@h?db=1"],
            &["--broker", "redis://"],
        ),
        (&["--auth", "password"], &["--auth", "jwt", "insecure-token"]),
        (&["--auth", "jwt"], &["--jwt-secret-file"]),
        (
            &["--limit", "messagesPerMinute=3"],
            &["--limit", "messagesPerSecond"],
        ),
        (
            &["--limit", "messagesPerSecond=many"],
            &["--limit", "messagesPerSecond"],
        ),
        (&["--max-connections", "none"], &["--max-connections"]),
        (
            &["--config", "/nowhere/wsfleet.yaml"],
            &["--config", "/nowhere/wsfleet.yaml"],
        ),
    ];
    for (flags, words) in cases {
        let base: &[&str] = if flags[0] == "--auth" {
            &[]
        } else {
            &["--auth", "insecure-token"]
        };
        let ports = Ports::free()?;
        let mut process = Process::spawn(ports, &[base, flags].concat())?;
        let status = process.ended_within(SOON).await?;
        let log = process.log()?;
        assert_eq!(status.code(), Some(64), "{flags:?}: {log}");
        for word in words {
            assert!(log.contains(word), "{flags:?} says nothing of {word}: {log}");
        }
        assert!(!log.contains("hunter2") && !log.contains("panicked"), "{log}");
    }
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_flag() -> Result<()> {
    for (taken, flag) in [(0, "--listen"), (1, "--api-listen"), (2, "--admin-listen")] {
        let mut ports = Ports::free()?;
        let holder = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = holder.local_addr()?;
        *[&mut ports.clients, &mut ports.api, &mut ports.admin][taken] = address;
        let mut process = Process::spawn(ports, &OPEN)?;
        let status = process.ended_within(SOON).await?;
        let log = process.log()?;
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(flag) && log.contains(&address.to_string()), "{log}");
    }
    Ok(())
}

#[tokio::test]
async fn a_secret_is_never_in_the_log() -> Result<()> {
    let redis = RedisServer::start_with(&["--save", "", "--requirepass", "hunter2"]).await?;
    let right = format!("redis://:hunter2@127.0.0.1:{}", redis.port());
    let wrong = format!("redis://:hunter3@127.0.0.1:{}", redis.port());
    for url in [right, wrong] {
        let flags = [&OPEN[..], &["--broker", &url, "--log-filter", "debug"]].concat();
        let process = Process::start(&flags).await?;
        let mut client = Connect::to(process.ports.clients)
            .token("my-own-token")
            .open()
            .await?;
        let _ = client.expect_any(&["welcome"]).await;
        until_async("it says something of Redis", || async {
            Ok(process.log()?.contains("redis"))
        })
        .await?;
        let log = process.log()?;
        assert!(!log.contains("hunter") && !log.contains("my-own-token"), "{log}");
    }
    Ok(())
}
