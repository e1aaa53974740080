//! The whole gateway on real sockets, in one process, with the memory broker.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy lets test functions unwrap, but not the helpers of integration tests"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use wsfleet_gateway::config::{Args, Settings};
use wsfleet_gateway::{Listeners, RunError, ShutdownSignal, ShutdownTrigger, run};

const DEADLINE: Duration = Duration::from_mins(1);

struct Gateway {
    clients: SocketAddr,
    api: SocketAddr,
    admin: SocketAddr,
    shutdown: ShutdownTrigger,
    ended: JoinHandle<Result<(), RunError>>,
}

fn settings(flags: &[&str]) -> Settings {
    let ports = [
        "--listen=127.0.0.1:0",
        "--api-listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
    ];
    let command = ["wsfleet-gateway", "--auth=insecure-token", "--server-id=gw"];
    let at_once = if flags.iter().any(|flag| flag.starts_with("--drain-window")) {
        None
    } else {
        Some("--drain-window=0")
    };
    let words = command
        .iter()
        .chain(&ports)
        .copied()
        .chain(at_once)
        .chain(flags.iter().copied());
    Settings::load_with(Args::from_command_line(words).unwrap(), |_| None).unwrap()
}

fn start(flags: &[&str]) -> Gateway {
    let settings = settings(flags);
    let listeners = Listeners::bind(&settings).unwrap();
    let (shutdown, signal) = ShutdownSignal::manual();
    Gateway {
        clients: listeners.clients.local_addr().unwrap(),
        api: listeners.api.local_addr().unwrap(),
        admin: listeners.admin.local_addr().unwrap(),
        shutdown,
        ended: tokio::spawn(run(settings, listeners, signal)),
    }
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Gateway {
    async fn connect(&self, token: &str) -> Client {
        let mut client = self.connect_unwelcomed(token).await.unwrap();
        assert_eq!(client.next_of("welcome").await["userId"], format!("user_{token}"));
        client
    }

    async fn connect_unwelcomed(&self, token: &str) -> Result<Client, Box<Error>> {
        let url = format!("ws://{}/ws?token={token}", self.clients);
        Ok(Client(connect_async(url).await.map_err(Box::new)?.0))
    }

    async fn member(&self, token: &str, room: &str) -> Client {
        let mut client = self.connect(token).await;
        client.send(json!({"type": "join", "room": room})).await;
        client.next_of("joined").await;
        client
    }

    async fn drain(&self, body: Value) -> (u16, Value) {
        request(self.admin, "PUT", "/admin/v1/drain", &body.to_string()).await
    }

    async fn end(self) {
        self.shutdown.trigger();
        tokio::time::timeout(DEADLINE, self.ended)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

impl Client {
    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        tokio::time::timeout(DEADLINE, self.0.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }

    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            if let Message::Text(text) = self.next().await {
                let value: Value = serde_json::from_str(&text).unwrap();
                if value["type"] == kind {
                    return value;
                }
            }
        }
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame.unwrap().code.into();
            }
        }
    }
}

/// One request; status and JSON body (null when it is none).
async fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_message_reaches_all_members_its_sender_included_and_is_acknowledged() {
    let gateway = start(&[]);
    let mut alice = gateway.member("alice", "events").await;
    let mut bob = gateway.member("bob", "events").await;
    alice
        .send(json!({"type": "room_message", "room": "events", "payload": {"n": 1}, "id": "x"}))
        .await;
    assert_eq!(alice.next_of("ack").await["offset"], 1);
    for client in [&mut alice, &mut bob] {
        let message = client.next_of("room_message").await;
        assert_eq!(
            (&message["userId"], &message["payload"]),
            (&json!("user_alice"), &json!({"n": 1}))
        );
        assert_eq!(
            (&message["roomId"], &message["offset"]),
            (&json!("events"), &json!(1))
        );
    }
    let mut carol = gateway.connect("carol").await;
    carol
        .send(json!({"type": "room_message", "room": "events", "payload": 1, "id": 2}))
        .await;
    assert_eq!(carol.next_of("error").await["code"], "not_in_room");
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_message_reaches_every_device_and_back_ends_can_send_too() {
    let gateway = start(&[]);
    let (mut phone, mut laptop) = (gateway.connect("bob").await, gateway.connect("bob").await);
    let mut alice = gateway.connect("alice").await;
    alice
        .send(json!({"type": "direct_message", "targetUserId": "user_bob", "payload": "hi", "id": 1}))
        .await;
    alice.next_of("ack").await;
    let body = json!({"userId": "user_bob", "payload": "from the back end"}).to_string();
    let (status, placed) = request(gateway.api, "POST", "/api/v1/direct", &body).await;
    assert_eq!((status, &placed["offset"]), (200, &json!(2)));
    for device in [&mut phone, &mut laptop] {
        assert_eq!(device.next_of("direct_message").await["payload"], "hi");
        assert_eq!(device.next_of("direct_message").await["fromUserId"], "server");
    }
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_a_token_and_those_that_break_the_protocol_are_told_by_code() {
    let gateway = start(&["--limit=messageBytes=1024"]);
    assert_eq!(
        gateway.connect_unwelcomed("").await.unwrap().close_code().await,
        4001
    );
    let mut big = gateway.connect("a").await;
    big.send(json!({"type": "ping", "x": "y".repeat(2_000)})).await;
    assert_eq!(big.close_code().await, 1009);
    let mut binary = gateway.connect("b").await;
    binary.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(binary.close_code().await, 1003);
    let mut polite = gateway.connect("c").await;
    polite.send(json!({"type": "nonsense"})).await;
    assert_eq!(polite.next_of("error").await["error"], "Unknown message type");
    polite.send(json!({"type": "ping"})).await;
    polite.next_of("pong").await;
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_gateway_refuses_at_once_with_retry_after_and_accepts_again_after_resume() {
    let gateway = start(&[]);
    let mut stays = gateway.connect("stays").await;
    let request = |mode: &str, epoch: u64| json!({"drainId": "d", "epoch": epoch, "mode": mode});
    let (status, state) = gateway.drain(request("cordon", 3)).await;
    assert_eq!(
        (status, &state["phase"], &state["accepting"]),
        (200, &json!("cordoned"), &json!(false))
    );
    let Err(refused) = gateway.connect_unwelcomed("x").await.map(|_| ()) else {
        panic!("refused")
    };
    let Error::Http(response) = *refused else {
        panic!("an HTTP answer")
    };
    assert_eq!(response.status(), 503);
    let retry_after: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=10).contains(&retry_after));
    let (status, problem) = gateway.drain(request("resume", 2)).await;
    assert_eq!(
        (status, &problem["title"]),
        (409, &json!("Conflict")),
        "a deposed leader is fenced"
    );
    assert_eq!(gateway.drain(request("resume", 3)).await.0, 200);
    gateway.connect("again").await;
    stays.send(json!({"type": "ping"})).await;
    stays.next_of("pong").await;
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_by_request_closes_at_its_rate_with_its_code_and_stops_when_resumed() {
    let gateway = start(&["--limit=connectionsPerIp=0", "--limit=handshakesPerSecondPerIp=0"]);
    let mut clients = Vec::new();
    for id in 0..30 {
        clients.push(gateway.member(&id.to_string(), "r").await);
    }
    let body = json!({"drainId": "d", "epoch": 1, "mode": "drain", "ratePerSecond": 5, "closeCode": 4200});
    let started = Instant::now();
    assert_eq!(gateway.drain(body).await.0, 200);
    loop {
        let (_, state) = request(gateway.admin, "GET", "/admin/v1/state", "").await;
        if state["forcedClosed"].as_u64().unwrap() >= 5 {
            break;
        }
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "5 closes at 5 a second take half a second, what a pause saves included"
    );
    gateway
        .drain(json!({"drainId": "d", "epoch": 1, "mode": "resume"}))
        .await;
    let (_, state) = request(gateway.admin, "GET", "/admin/v1/state", "").await;
    let closed = state["forcedClosed"].as_u64().unwrap() as usize;
    assert!(closed < 30);
    let (mut told, mut codes) = (0, 0);
    for client in &mut clients {
        client.send(json!({"type": "ping"})).await;
        loop {
            match client.next().await {
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.unwrap().code), 4200);
                    codes += 1;
                    break;
                }
                Message::Text(text) if text.contains("server_shutdown") => told += 1,
                Message::Text(text) if text.contains("pong") => break,
                _ => {}
            }
        }
    }
    assert_eq!(codes, closed);
    assert!(told >= closed, "nobody is closed untold");
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_tells_each_client_its_own_delay_closes_them_one_by_one_and_ends() {
    let flags = [
        "--limit=connectionsPerIp=0",
        "--limit=handshakesPerSecondPerIp=0",
        "--drain-window=3",
    ];
    let gateway = start(&flags);
    let mut clients = Vec::new();
    for id in 0..60 {
        clients.push(gateway.member(&id.to_string(), &format!("r{}", id % 3)).await);
    }
    let asked = Instant::now();
    gateway.shutdown.trigger();
    let mut seen = tokio::task::JoinSet::new();
    for mut client in clients {
        seen.spawn(async move {
            let delay = client.next_of("server_shutdown").await["reconnectDelay"]
                .as_u64()
                .unwrap();
            (delay, client.close_code().await, asked.elapsed())
        });
    }
    let (mut delays, mut times) = (BTreeSet::new(), Vec::new());
    while let Some(client) = seen.join_next().await {
        let (delay, code, at) = client.unwrap();
        assert_eq!(code, 1012);
        delays.insert(delay);
        times.push(at);
    }
    assert!(delays.len() >= 30, "{} distinct delays of 60", delays.len());
    times.sort_unstable();
    // that the last is closed in time is proven of the drain in virtual time (src/drain): a machine may pause
    assert!(
        times[30] >= Duration::from_secs(1),
        "half are closed after half of the window, not at once"
    );
    tokio::time::timeout(DEADLINE, gateway.ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flag = format!("--api-listen={}", taken.local_addr().unwrap());
    let command = [
        "wsfleet-gateway",
        "--auth=anonymous",
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
    ];
    let args = Args::from_command_line(command.iter().copied().chain([&*flag])).unwrap();
    let settings = Settings::load_with(args, |_| None).unwrap();
    let error = Listeners::bind(&settings).unwrap_err().to_string();
    assert!(
        error.starts_with("--api-listen: cannot listen on 127.0.0.1:"),
        "{error}"
    );
}
