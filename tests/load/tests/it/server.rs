//! A small server that speaks the protocol on real sockets, one process, in memory; it can be told to misbehave.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use futures::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// What is done to the deliveries of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The member with the lowest id does not get it.
    Drop,
    /// That member gets it twice.
    Repeat,
    /// That member gets it after the next one.
    Hold,
}

/// What the server does to one socket.
enum Order {
    Send(Value),
    Close(u16),
    Cut,
}

#[derive(Default)]
struct Room {
    offset: u64,
    members: BTreeMap<u64, UnboundedSender<Order>>,
    held: Option<Value>,
}

#[derive(Default)]
struct State {
    rooms: HashMap<String, Room>,
    sockets: BTreeMap<u64, UnboundedSender<Order>>,
    faults: Vec<(u64, Fault)>,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// So many upgrades are answered with 503 and `Retry-After: 1`.
    pub(crate) refuse: Arc<AtomicU32>,
    /// Upgrades are closed at once with this code, unless 0.
    pub(crate) close_at_once: Arc<AtomicU32>,
    next: Arc<AtomicU64>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            refuse: Arc::default(),
            close_at_once: Arc::default(),
            next: Arc::default(),
        };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// The message with this offset is mishandled, in every room.
    pub(crate) fn fault(&self, offset: u64, fault: Fault) {
        self.state.lock().faults.push((offset, fault));
    }

    /// Tells every socket that is open now to leave, each with its own delay in milliseconds.
    pub(crate) fn shut_down(&self, delay: impl Fn(u64) -> u64) {
        for (nth, socket) in self.state.lock().sockets.values().enumerate() {
            let delay = delay(nth as u64);
            let told = json!({"type": "server_shutdown", "reason": "drain", "reconnectDelay": delay, "resume": false});
            let _ = socket.send(Order::Send(told));
        }
    }

    /// Closes every socket with `code`.
    pub(crate) fn close_all(&self, code: u16) {
        for socket in self.state.lock().sockets.values() {
            let _ = socket.send(Order::Close(code));
        }
    }

    /// Ends every connection without a close frame.
    pub(crate) fn cut_all(&self) {
        for socket in self.state.lock().sockets.values() {
            let _ = socket.send(Order::Cut);
        }
    }

    async fn serve(self, stream: TcpStream) {
        let refuse = self
            .refuse
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok();
        #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let callback = |_: &Request, response: Response| {
            if !refuse {
                return Ok(response);
            }
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = 503.try_into().unwrap();
            refusal.headers_mut().insert("retry-after", "1".parse().unwrap());
            Err(refusal)
        };
        let Ok(socket) = accept_hdr_async(stream, callback).await else {
            return;
        };
        let (mut sink, mut source) = socket.split();
        let id = self.next.fetch_add(1, SeqCst);
        let (orders, mut inbox) = unbounded_channel();
        self.state.lock().sockets.insert(id, orders.clone());
        let code = self.close_at_once.load(SeqCst) as u16;
        if code == 0 {
            let _ = orders.send(Order::Send(
                json!({"type": "welcome", "connectionId": id, "serverId": "tiny"}),
            ));
        } else {
            let _ = orders.send(Order::Close(code));
        }
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order::Send(value)) => drop(sink.send(Message::text(value.to_string())).await),
                    Some(Order::Close(code)) => {
                        let frame = CloseFrame { code: code.into(), reason: "told".into() };
                        drop(sink.send(Message::Close(Some(frame))).await);
                    }
                    Some(Order::Cut) | None => break,
                },
                message = source.next() => match message {
                    Some(Ok(Message::Text(text))) => self.message(id, &orders, &serde_json::from_str(&text).unwrap()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                },
            }
        }
        let mut state = self.state.lock();
        state.sockets.remove(&id);
        state
            .rooms
            .values_mut()
            .for_each(|room| drop(room.members.remove(&id)));
    }

    fn message(&self, id: u64, reply: &UnboundedSender<Order>, message: &Value) {
        let mut state = self.state.lock();
        let State { rooms, faults, .. } = &mut *state;
        let name = message["room"].as_str().unwrap();
        let room = rooms.entry(name.into()).or_default();
        let answer = match message["type"].as_str().unwrap() {
            "join" => {
                room.members.insert(id, reply.clone());
                json!({"type": "joined", "room": name, "epoch": "e1", "offset": room.offset})
            }
            "room_message" => {
                room.offset += 1;
                room.deliver(name, &message["payload"], faults);
                json!({"type": "ack", "id": message["id"], "epoch": "e1", "offset": room.offset, "duplicate": false})
            }
            other => {
                json!({"type": "error", "error": "Unknown message type", "code": "unknown_type", "was": other})
            }
        };
        let _ = reply.send(Order::Send(answer));
    }
}

impl Room {
    fn deliver(&mut self, name: &str, payload: &Value, faults: &[(u64, Fault)]) {
        let message = json!({
            "type": "room_message", "roomId": name, "userId": "u", "payload": payload, "timestamp": 1,
            "serverId": "tiny", "offset": self.offset,
        });
        let fault = faults
            .iter()
            .find(|(offset, _)| *offset == self.offset)
            .map(|(_, fault)| *fault);
        let held = self.held.take();
        for (nth, member) in self.members.values().enumerate() {
            let mut send = |value: &Value| drop(member.send(Order::Send(value.clone())));
            match fault.filter(|_| nth == 0) {
                Some(Fault::Drop) => {}
                Some(Fault::Hold) => self.held = Some(message.clone()),
                Some(Fault::Repeat) => [&message, &message].into_iter().for_each(&mut send),
                None => send(&message),
            }
            if let (0, Some(held)) = (nth, &held) {
                send(held);
            }
        }
    }
}
