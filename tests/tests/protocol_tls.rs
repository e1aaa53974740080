//! Clients by TLS, with either version: what holds without TLS holds with it. None of it depends on the broker.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use wsfleet_tests::client::{Client, Connect, Stream};
use wsfleet_tests::gateway::{Gateway, OPEN, UNLIMITED};
use wsfleet_tests::tls::{Certificate, MountedSecret};
use wsfleet_tests::wait::soon;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// No announcements between the messages.
const QUIET: [&str; 2] = ["--limit", "announceMembers=0"];

/// A gateway with a certificate.
struct Secure {
    gateway: Gateway,
    certificate: Certificate,
    _secret: MountedSecret,
}

impl Secure {
    fn start(more: &[&str]) -> Result<Self> {
        let certificate = Certificate::new("first")?;
        let secret = MountedSecret::new(&certificate)?;
        let flags = secret.flags()?;
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Ok(Self {
            gateway: Gateway::start(&[&OPEN[..], &UNLIMITED, &QUIET, &flags, more].concat())?,
            certificate,
            _secret: secret,
        })
    }

    fn connect(&self, name: &str, version: &'static SupportedProtocolVersion) -> Result<Connect> {
        let trusting = self.certificate.trusting(&[version])?;
        Ok(Connect::to(self.gateway.ports.clients).tls(&trusting).token(name))
    }

    async fn client(&self, name: &str, version: &'static SupportedProtocolVersion) -> Result<Client> {
        let mut client = self.connect(name, version)?.open().await?;
        client.expect("welcome").await?;
        Ok(client)
    }
}

/// Sends a text in frames of so many bytes.
async fn send_in_frames(client: &mut Client, text: &str, bytes: usize) -> Result<()> {
    let chunks: Vec<_> = text.as_bytes().chunks(bytes).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let kind = if number == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(chunk.to_vec(), OpCode::Data(kind), number + 1 == chunks.len());
        client.send_frame(Message::Frame(frame)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_size_go_both_ways_whole_in_frames_and_in_pieces_of_bytes() -> Result<()> {
    let secure = Secure::start(&[])?;
    for version in VERSIONS {
        let room = format!("{:?}", version.version);
        let mut ann = secure.client("ann", version).await?;
        let mut bob = secure.client("bob", version).await?;
        ann.join(&room).await?;
        bob.join(&room).await?;
        for size in [0, 1, 100, 16_300, 16_384, 16_500, 60_000] {
            let payload = "x".repeat(size);
            ann.say(&room, json!(payload)).await?;
            assert_eq!(bob.expect("room_message").await?["payload"], payload);
            assert_eq!(ann.expect("room_message").await?["payload"], payload);
        }
        let message =
            json!({"type": "room_message", "room": room, "payload": "y".repeat(50_000)}).to_string();
        send_in_frames(&mut bob, &message, 999).await?;
        assert_eq!(ann.expect("room_message").await?["payload"], "y".repeat(50_000));
        assert_eq!(bob.expect("room_message").await?["payload"], "y".repeat(50_000));

        // two records to each frame
        let ping = [&[0x81, 0x80 | 15, 0, 0, 0, 0][..], br#"{"type":"ping"}"#].concat();
        for byte in ping.chunks(3) {
            bob.raw().write_all(byte).await?;
            bob.raw().flush().await?;
        }
        bob.expect("pong").await?;

        // far more than one record, and than one read
        for number in 0..300 {
            ann.say(&room, json!([number, "z".repeat(1_000)])).await?;
        }
        for (number, message) in bob.expect_many("room_message", 300).await?.iter().enumerate() {
            assert_eq!(message["payload"][0], number);
        }
        assert_eq!(bob.close().await?, 1000);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_members_get_bursts_in_order() -> Result<()> {
    const MEMBERS: usize = 200;
    const BURSTS: usize = 3;
    const BURST: usize = 40;
    let secure = Secure::start(&[])?;
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        let mut client = secure.client(&format!("u{number}"), VERSIONS[number % 2]).await?;
        client.join("room").await?;
        members.push(client);
    }
    for burst in 0..BURSTS {
        for number in 0..BURST {
            let payload = json!([burst * BURST + number, "x".repeat(500)]);
            members[burst].say("room", payload).await?;
        }
        let all = members.iter_mut().map(|member| async {
            let heard = member.expect_many("room_message", BURST).await?;
            anyhow::Ok(
                heard
                    .iter()
                    .map(|message| message["payload"][0].clone())
                    .collect::<Vec<_>>(),
            )
        });
        let expected: Vec<Value> = (burst * BURST..(burst + 1) * BURST).map(Value::from).collect();
        for heard in futures::future::try_join_all(all).await? {
            assert_eq!(heard, expected);
        }
    }
    assert!((secure.gateway.metric("ws_connections_total", &[]).await? - MEMBERS as f64).abs() < 0.5);
    Ok(())
}

/// Publishes until the gateway has counted this; `live` gets every message meanwhile. Gives how many there were.
async fn publish_until(secure: &Secure, live: &mut Client, policy: &str) -> Result<u64> {
    let (label, text) = (format!("policy=\"{policy}\""), "x".repeat(50_000));
    let mut published = 0;
    while secure.gateway.metric("ws_slow_consumer_total", &[&label]).await? < 1.0 {
        ensure!(published < 2_000, "kernel buffers must fill at some time");
        live.say("ticker", json!([published, text])).await?;
        assert_eq!(live.expect("room_message").await?["payload"][0], published);
        published += 1;
    }
    Ok(published)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_read_is_closed_with_4102_behind_what_it_was_sent() -> Result<()> {
    for version in VERSIONS {
        let secure = Secure::start(&["--limit", "queueMessages=20"])?;
        let mut stalled = secure
            .connect("stalled", version)?
            .receive_buffer(16 << 10)
            .open()
            .await?;
        stalled.expect("welcome").await?;
        stalled.join("ticker").await?;
        let mut live = secure.client("live", version).await?;
        live.join("ticker").await?;
        let published = publish_until(&secure, &mut live, "disconnect").await?;
        assert_eq!(stalled.closed().await?, 4102);
        let heard = stalled.take_kept("room_message");
        assert!(!heard.is_empty() && (heard.len() as u64) < published);
        for (number, message) in heard.iter().enumerate() {
            assert_eq!(message["payload"][0], number, "in order, and none is half");
        }
        live.say("ticker", json!(["after"])).await?;
        assert_eq!(live.expect("room_message").await?["payload"][0], "after");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_messages_give_way_a_member_that_reads_again_misses_only_what_it_is_told() -> Result<()> {
    let secure = Secure::start(&[
        "--slow-consumer",
        "ticker=dropOldest",
        "--limit",
        "queueMessages=20",
    ])?;
    let mut stalled = secure
        .connect("stalled", &TLS13)?
        .receive_buffer(16 << 10)
        .open()
        .await?;
    stalled.expect("welcome").await?;
    stalled.join("ticker").await?;
    let mut live = secure.client("live", &TLS12).await?;
    live.join("ticker").await?;
    let published = publish_until(&secure, &mut live, "dropOldest").await?;
    let mut next = 1;
    while next <= published {
        let told = stalled.expect_any(&["room_message", "gap"]).await?;
        let (from, to) = if told["type"] == "gap" {
            (&told["from"], told["to"].as_u64())
        } else {
            (&told["offset"], told["offset"].as_u64())
        };
        assert_eq!(*from, next);
        next = to.context("a number")? + 1;
    }
    Ok(())
}

/// Whether the stream ended with `close_notify`: without, rustls calls its end an error.
async fn ended_by_notice(client: &mut Client) -> Result<bool> {
    let stream = client.raw();
    ensure!(matches!(stream, Stream::Right(_)), "TLS");
    Ok(soon("the end", stream.read(&mut [0]))
        .await?
        .is_ok_and(|read| read == 0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_each_connection_with_a_close_frame_and_close_notify() -> Result<()> {
    let mut secure = Secure::start(&["--drain-window", "1"])?;
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(secure.client(&format!("u{number}"), VERSIONS[number % 2]).await?);
    }
    secure.gateway.shut_down();
    for client in &mut clients {
        client.expect("server_shutdown").await?;
        assert_eq!(client.closed().await?, 1012);
        assert!(ended_by_notice(client).await?);
    }
    secure.gateway.ended().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_websocket_protocol_is_answered_and_the_end_is_told() -> Result<()> {
    let secure = Secure::start(&[])?;
    for version in VERSIONS {
        let mut ann = secure.client("ann", version).await?;
        // unmasked
        ann.raw().write_all(&[0x81, 0x01, b'x']).await?;
        ann.raw().flush().await?;
        assert_eq!(ann.closed().await?, 1002);
    }
    Ok(())
}
