//! A gateway's subscription link is cut: how long until all of its rooms are subscribed again and compared with Redis.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tungstenite::{Message, WebSocket};

use super::{Run, Values, redis};
use crate::adapter::tokens;
use crate::http;
use crate::server::{Flags, Gateway};

/// Rooms of one client: below the gateway's default of `roomsPerConnection`.
const ROOMS_EACH: usize = 100;
/// The most that anything may take that a server does in seconds.
const PATIENCE: Duration = Duration::from_secs(90);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Clients that join between two looks at the pings of all.
const HEARTBEAT_EACH: usize = 100;
/// Links of one gateway to one Redis: commands, and subscriptions.
const LINKS: usize = 2;

/// A client in its rooms.
type Client = WebSocket<TcpStream>;

pub(super) fn run(run: &Run<'_>) -> Result<Values> {
    let redis = redis::start(&run.site.work)?;
    let gateway = run.site.gateway(&Flags {
        broker: &format!("redis://{}", redis.address),
        ..Flags::default()
    })?;
    let count = run.scale.rooms.div_ceil(ROOMS_EACH);
    let tokens = tokens(run.secret, count)?;
    let mut clients = Vec::with_capacity(count);
    for (number, token) in tokens.iter().enumerate() {
        clients.push(join(gateway.running.address, number, token)?);
        if number % HEARTBEAT_EACH == 0 {
            answer_pings(&mut clients)?;
        }
    }
    answer_pings(&mut clients)?;
    let links = ask(redis.address, "CLIENT LIST TYPE normal")?
        .lines()
        .filter(is_link)
        .count()
        + ask(redis.address, "CLIENT LIST TYPE pubsub")?
            .lines()
            .filter(is_link)
            .count();
    ensure!(
        links <= LINKS,
        "the gateway has {links} links to Redis, {LINKS} are enough"
    );
    let before = resubscribed(&gateway)?;
    let killed = ask(redis.address, "CLIENT KILL TYPE pubsub")?;
    ensure!(killed.contains('1'), "no subscription link was cut: {killed}");
    let began = Instant::now();
    let after = loop {
        let now = resubscribed(&gateway)?;
        if now.0 > before.0 {
            break now;
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "nothing was resubscribed in {PATIENCE:?}"
        );
        std::thread::sleep(LOOK);
    };
    answer_pings(&mut clients)?;
    each_room_hears(&gateway, &mut clients)?;
    Ok(Values::from([
        ("rooms".into(), (count * ROOMS_EACH) as f64),
        ("seconds".into(), after.1 - before.1),
        ("links".into(), links as f64),
        ("resident_bytes".into(), gateway.running.most_resident()? as f64),
    ]))
}

/// Of the clients of Redis, not the one that asks.
fn is_link(line: &&str) -> bool {
    line.contains("id=") && !line.contains("cmd=client")
}

/// How often the gateway has resubscribed everything, and how many seconds that took in all.
fn resubscribed(gateway: &Gateway) -> Result<(f64, f64)> {
    let metrics = gateway.metrics()?;
    let of = |name: &str| metrics.sum(&format!("ws_broker_resubscribe_seconds_{name}"), "");
    Ok((of("count"), of("sum")))
}

fn room(number: usize, nth: usize) -> String {
    format!("room-{number}-{nth}")
}

/// Connects a client, and joins its rooms.
fn join(to: SocketAddr, number: usize, token: &str) -> Result<Client> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (mut client, _) = tungstenite::client(format!("ws://{to}/ws?token={token}"), stream)?;
    for nth in 0..ROOMS_EACH {
        let join = format!(r#"{{"type":"join","room":"{}"}}"#, room(number, nth));
        client.write(Message::text(join))?;
    }
    client.flush()?;
    for _ in 0..ROOMS_EACH {
        next(&mut client, "joined")?;
    }
    Ok(client)
}

/// Answers the pings that have come: a client that does not within 10 s is closed.
fn answer_pings(clients: &mut [Client]) -> Result<()> {
    for client in clients {
        client.get_ref().set_nonblocking(true)?;
        match client.read() {
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
            Ok(Message::Ping(_)) => client.flush()?,
            Ok(message) => bail!("a client got {message} though nobody has sent anything"),
        }
        client.get_ref().set_nonblocking(false)?;
    }
    Ok(())
}

/// The next message of this kind; an error is one at once.
fn next(client: &mut Client, kind: &str) -> Result<Value> {
    loop {
        let Message::Text(text) = client.read()? else {
            continue;
        };
        let message: Value = serde_json::from_str(&text)?;
        if message["type"] == kind {
            return Ok(message);
        }
        ensure!(message["type"] != "error", "the gateway says: {message}");
    }
}

/// Publishes to one room of each client, which must get it.
fn each_room_hears(gateway: &Gateway, clients: &mut [Client]) -> Result<()> {
    for (number, client) in clients.iter_mut().enumerate() {
        let room = room(number, number % ROOMS_EACH);
        let body = format!(r#"{{"room":"{room}","payload":{number}}}"#);
        http::ask(gateway.api, "POST", "/api/v1/publish", &body)?;
        let message = next(client, "room_message")?;
        if message["roomId"] != room || message["payload"] != number {
            bail!("a member of {room} got {message}");
        }
    }
    Ok(())
}

/// Redis's answer to a command, as it stands on the wire (inline commands of its protocol).
fn ask(redis: SocketAddr, command: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&redis, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
