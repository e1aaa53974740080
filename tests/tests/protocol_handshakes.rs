//! Handshakes that are slow, too large, or too many. None of it depends on the broker.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use wsfleet_tests::client::{Connect, Upgrade};
use wsfleet_tests::gateway::{Gateway, OPEN};
use wsfleet_tests::wait::{soon, within};

fn start(more: &[&str]) -> Result<Gateway> {
    Gateway::start(&[&OPEN[..], more].concat())
}

/// Sends its request a byte a second for ever; gives what it was answered when it was cut off.
async fn slow(mut socket: TcpStream) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    let request = b"GET /ws HTTP/1.1\r\nhost: gateway\r\nupgrade: websocket\r\n"
        .iter()
        .cycle();
    for byte in request {
        if socket.write_all(&[*byte]).await.is_err() {
            break;
        }
        let read = tokio::time::timeout(Duration::from_secs(1), socket.read_buf(&mut answer)).await;
        if matches!(read, Ok(Ok(0) | Err(_))) {
            break;
        }
    }
    Ok(answer)
}

#[tokio::test]
async fn five_thousand_slow_clients_are_refused_at_the_deadline_and_hold_up_nobody() -> Result<()> {
    const SLOW: usize = 5_000;
    // long enough for everybody to come while the first one still dawdles
    let gateway = start(&["--handshake-timeout", "45"])?;
    let mut slow_clients = JoinSet::new();
    for _ in 0..SLOW {
        let socket = soon("to be accepted", TcpStream::connect(gateway.ports.clients)).await??;
        slow_clients.spawn(slow(socket));
    }
    let mut others = Vec::new();
    for number in 0..200 {
        others.push(gateway.client(&format!("quick-{number}")).await?);
    }
    for client in &mut others {
        client.join("room").await?;
    }
    // not one slow client had to go for that
    let refused = ["reason=\"handshake_timeout\""];
    assert!(gateway.metric("ws_admission_rejected_total", &refused).await? < 1.0);
    assert!(slow_clients.try_join_next().is_none());

    let mut told = 0;
    let mut all = async || -> Result<()> {
        while let Some(answer) = slow_clients.join_next().await {
            told += usize::from(answer??.starts_with(b"HTTP/1.1 408 "));
        }
        Ok(())
    };
    within(Duration::from_mins(3), "all slow clients are refused", all()).await??;
    let counted = gateway.metric("ws_admission_rejected_total", &refused).await?;
    assert!((counted - SLOW as f64).abs() < 0.5, "{counted}");
    // a byte that crosses the answer can tear it down
    assert!(told > SLOW / 2, "{told} were told why");
    gateway.client("late").await?.join("room").await?;
    Ok(())
}

async fn raw(gateway: &Gateway, request: &[u8]) -> Result<String> {
    let mut socket = TcpStream::connect(gateway.ports.clients).await?;
    socket.write_all(request).await?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        ensure!(
            soon("an answer", socket.read_buf(&mut answer)).await?? > 0,
            "no answer"
        );
    }
    Ok(String::from_utf8_lossy(&answer)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

const UPGRADE: &str = "GET /ws?token=ann HTTP/1.1\r\nhost: gateway\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_head_may_be_long_but_not_too_long_and_may_come_in_pieces() -> Result<()> {
    let gateway = start(&[])?;
    let with = |bytes: usize| format!("{UPGRADE}x-padding: {}\r\n\r\n", "x".repeat(bytes));
    assert_eq!(
        raw(&gateway, with(15_000).as_bytes()).await?,
        "HTTP/1.1 101 Switching Protocols"
    );
    assert!(
        raw(&gateway, with(17_000).as_bytes())
            .await?
            .starts_with("HTTP/1.1 431 ")
    );
    let mut socket = TcpStream::connect(gateway.ports.clients).await?;
    socket.set_nodelay(true)?;
    let request = format!("{UPGRADE}\r\n");
    for piece in request.as_bytes().chunks(7) {
        socket.write_all(piece).await?;
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 12];
    soon("an answer", socket.read_exact(&mut answer)).await??;
    assert_eq!(&answer, b"HTTP/1.1 101");
    Ok(())
}

#[tokio::test]
async fn a_key_or_a_version_that_is_sent_twice_is_refused() -> Result<()> {
    let gateway = start(&[])?;
    for again in [
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    ] {
        let answer = raw(&gateway, format!("{UPGRADE}{again}\r\n\r\n").as_bytes()).await?;
        assert_eq!(answer, "HTTP/1.1 400 Bad Request", "{again}");
    }
    Ok(())
}

#[tokio::test]
async fn an_origin_that_is_no_text_or_one_of_two_is_not_listed() -> Result<()> {
    let gateway = start(&["--allowed-origin", "https://a.example"])?;
    let with = |origins: &[u8]| [UPGRADE.as_bytes(), origins, b"\r\n"].concat();
    let listed = raw(&gateway, &with(b"origin: https://a.example\r\n")).await?;
    assert!(listed.starts_with("HTTP/1.1 101 "), "{listed}");
    for origins in [
        &b"origin: https://a.example\xff\r\n"[..],
        b"origin: https://a.example\r\norigin: https://b.example\r\n",
        b"origin: null\r\n",
    ] {
        let answer = raw(&gateway, &with(origins)).await?;
        assert!(
            answer.starts_with("HTTP/1.1 403 "),
            "{}: {answer}",
            origins.escape_ascii()
        );
    }
    Ok(())
}

#[tokio::test]
async fn upgrades_beyond_the_rate_are_told_different_times_to_come_back() -> Result<()> {
    let gateway = start(&["--limit", "handshakesPerSecond=1"])?;
    let mut told = BTreeSet::new();
    let three_times = async {
        while told.len() < 3 {
            if let Upgrade::Refused(answer) =
                Connect::to(gateway.ports.clients).token("ann").upgrade().await?
            {
                ensure!(answer.status == 503, "{answer:?}");
                told.insert(
                    answer
                        .header("retry-after")
                        .context("Retry-After")?
                        .parse::<u64>()?,
                );
            }
        }
        Ok(())
    };
    soon("three different times", Box::pin(three_times)).await??;
    assert!(told.iter().all(|after| (1..=6).contains(after)), "{told:?}");
    Ok(())
}
