//! TLS handshakes: certificates that change, clients that stop, and those that do not speak TLS at all.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection};
use wsfleet_tests::client::{Client, Connect};
use wsfleet_tests::gateway::{Gateway, OPEN};
use wsfleet_tests::process::{Ports, Process};
use wsfleet_tests::tls::{Certificate, MountedSecret};
use wsfleet_tests::wait::{SOON, soon, until_async};

fn start(secret: &MountedSecret, more: &[&str]) -> Result<Gateway> {
    let flags = secret.flags()?;
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Gateway::start(&[&OPEN[..], &flags, more].concat())
}

async fn client(gateway: &Gateway, config: &Arc<ClientConfig>, name: &str) -> Result<Client> {
    let connect = Connect::to(gateway.ports.clients).tls(config).token(name);
    let mut client = connect.open().await?;
    client.expect("welcome").await?;
    Ok(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_certificate_is_for_new_connections_and_a_broken_one_for_nobody() -> Result<()> {
    let (first, second) = (Certificate::new("first")?, Certificate::new("second")?);
    let mut secret = MountedSecret::new(&first)?;
    let gateway = start(&secret, &[])?;
    let (by_first, by_second) = (first.trusting(&[&TLS13])?, second.trusting(&[&TLS13])?);
    let mut old = client(&gateway, &by_first, "old").await?;
    old.join("room").await?;
    assert!(client(&gateway, &by_second, "early").await.is_err());

    secret.replace(&second)?;
    until_async("new connections get the second certificate", || async {
        Ok(client(&gateway, &by_second, "new").await.is_ok())
    })
    .await?;
    assert!(client(&gateway, &by_first, "late").await.is_err());
    let mut new = client(&gateway, &by_second, "new").await?;
    new.join("room").await?;
    old.say("room", json!("still here")).await?;
    assert_eq!(new.expect("room_message").await?["payload"], "still here");
    new.say("room", json!("welcome")).await?;
    assert_eq!(old.expect("room_message").await?["payload"], "still here");
    assert_eq!(old.expect("room_message").await?["payload"], "welcome");
    assert!(gateway.metric("ws_tls_reload_failures_total", &[]).await? < 0.5);

    secret.break_with(&first, &second)?;
    until_async("the broken one is counted", || async {
        Ok(gateway.metric("ws_tls_reload_failures_total", &[]).await? > 0.5)
    })
    .await?;
    client(&gateway, &by_second, "newer").await?.join("room").await?;

    secret.replace(&first)?;
    until_async("it recovers by itself", || async {
        Ok(client(&gateway, &by_first, "newest").await.is_ok())
    })
    .await?;
    let expiry = gateway.metric("ws_tls_certificate_expiry_seconds", &[]).await?;
    assert!(expiry > wsfleet_tests::client::unix_now() as f64, "{expiry}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_is_told_to_use_tls_and_nonsense_is_cut() -> Result<()> {
    let certificate = Certificate::new("first")?;
    let secret = MountedSecret::new(&certificate)?;
    let gateway = start(&secret, &[])?;
    let trusting = certificate.trusting(&[&TLS13])?;
    let mut ann = client(&gateway, &trusting, "ann").await?;
    let mut sent = 0.0;
    for (bytes, begin) in [
        (&b"GET /ws HTTP/1.1\r\nhost: gateway\r\n\r\n"[..], "HTTP/1.1 400 "),
        (b"\x00\x01\x02", ""),
        // a record of the handshake with half a greeting in it: an alert
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "\x15"),
    ] {
        let mut socket = TcpStream::connect(gateway.ports.clients).await?;
        socket.write_all(bytes).await?;
        let mut answer = Vec::new();
        let _ = soon("the end", socket.read_to_end(&mut answer)).await?;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(begin) && begin.is_empty() == answer.is_empty(),
            "{answer:?}"
        );
        sent += 1.0;
        counted(&gateway, "tls", sent).await?;
    }
    ann.join("room").await?;
    assert!((gateway.metric("ws_connections_total", &[]).await? - 1.0).abs() < 0.5);
    Ok(())
}

/// Awaits that so many were refused for a reason: a client may see its end before it is counted.
async fn counted(gateway: &Gateway, reason: &str, expected: f64) -> Result<()> {
    let label = format!("reason=\"{reason}\"");
    until_async(&format!("{expected} are refused for {reason}"), || async {
        let counted = gateway.metric("ws_admission_rejected_total", &[&label]).await?;
        ensure!((counted - expected).abs() < 0.5, "{counted}");
        Ok(true)
    })
    .await
}

/// The bytes with which a client begins.
fn hello(config: &Arc<ClientConfig>) -> Result<Vec<u8>> {
    let mut client = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_in_the_handshake_go_at_the_deadline_and_hold_up_nobody() -> Result<()> {
    const STOPPED: usize = 120;
    let certificate = Certificate::new("first")?;
    // a third of those that stop would keep everybody out, if they had places
    let limits = ["--handshake-timeout", "10", "--limit", "handshakeConcurrency=20"];
    let secret = MountedSecret::new(&certificate)?;
    let gateway = start(&secret, &limits)?;
    let trusting = certificate.trusting(&[&TLS12, &TLS13])?;
    let hello = hello(&trusting)?;
    let mut stopped = Vec::new();
    for number in 0..STOPPED {
        let mut socket = TcpStream::connect(gateway.ports.clients).await?;
        // at once, within the first record, or with all of it: the gateway has answered then, and waits
        let sent = [0, hello.len() / 2, hello.len()][number % 3];
        socket.write_all(&hello[..sent]).await?;
        stopped.push(socket);
    }
    for number in 0..20 {
        client(&gateway, &trusting, &format!("u{number}"))
            .await?
            .join("room")
            .await?;
    }
    for socket in &mut stopped {
        let mut answer = Vec::new();
        let _ = soon("it is cut", socket.read_to_end(&mut answer)).await?;
    }
    counted(&gateway, "handshake_timeout", STOPPED as f64).await?;
    assert!((gateway.metric("ws_connections_total", &[]).await? - 20.0).abs() < 0.5);
    client(&gateway, &trusting, "late").await?.join("room").await?;
    Ok(())
}

/// What `openssl s_client` hears when it asks for `/healthz`.
fn openssl(gateway: &Gateway, trusted: &str, more: &[&str]) -> Result<String> {
    let address = gateway.ports.clients.to_string();
    let fixed = [
        "s_client",
        "-connect",
        &address,
        "-CAfile",
        trusted,
        "-verify_return_error",
        "-ign_eof",
    ];
    let mut child = Command::new("openssl")
        .args(fixed)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("openssl: install it (apt-get install openssl)")?;
    let mut input = child.stdin.take().context("its input")?;
    input.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let output = child.wait_with_output()?;
    drop(input);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{text}");
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_verifies_the_certificate_agrees_on_http_1_1_and_gets_its_answer() -> Result<()> {
    let certificate = Certificate::new("first")?;
    let secret = MountedSecret::new(&certificate)?;
    let gateway = start(&secret, &[])?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), certificate.pem())?;
    let trusted = file.path().to_str().context("a text")?.to_owned();
    for (flag, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let text = openssl(&gateway, &trusted, &[flag, "-alpn", "h2,http/1.1"])?;
        for part in [
            protocol,
            "ALPN protocol: http/1.1",
            "Verify return code: 0 (ok)",
            "HTTP/1.1 200 OK",
            "\nok\n",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }
    assert!(
        openssl(&gateway, &trusted, &["-alpn", "h2"]).is_err(),
        "it is not spoken"
    );
    Ok(())
}

#[tokio::test]
async fn files_that_do_not_fit_end_the_program_with_64_before_any_port_is_bound() -> Result<()> {
    let (first, second) = (Certificate::new("first")?, Certificate::new("second")?);
    let mut secret = MountedSecret::new(&first)?;
    secret.break_with(&first, &second)?;
    let flags = secret.flags()?;
    let cases: [(Vec<&str>, &[&str]); 3] = [
        (
            flags.iter().map(String::as_str).collect(),
            &["--tls-key-file", "tls.crt", "issued together"],
        ),
        (
            vec![&flags[0], &flags[1]],
            &["--tls-key-file is missing", "give both, or neither"],
        ),
        (
            vec![&flags[2], &flags[3]],
            &["--tls-cert-file is missing", "give both, or neither"],
        ),
    ];
    for (flags, words) in cases {
        let mut process = Process::spawn(Ports::free()?, &[&OPEN[..], &flags].concat())?;
        let status = process.ended_within(SOON).await?;
        let log = process.log()?;
        assert_eq!(status.code(), Some(64), "{log}");
        for word in words {
            assert!(log.contains(word), "nothing of {word}: {log}");
        }
        assert!(!log.contains("panicked") && !log.contains("listen on"), "{log}");
    }
    secret.replace(&first)?;
    let flags = secret.flags()?;
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut process = Process::start(&[&OPEN[..], &flags].concat()).await?;
    process.ready().await?;
    let expected = first.trusting(&[&TLS13])?;
    let mut ann = Connect::to(process.ports.clients)
        .tls(&expected)
        .token("ann")
        .open()
        .await?;
    ann.expect("welcome").await?;
    process.signal(Signal::TERM)?;
    process.signal(Signal::TERM)?;
    assert_eq!(ann.closed().await?, 1012);
    assert!(process.ended_within(SOON).await?.success());
    Ok(())
}
