//! A small server that speaks the protocol on real sockets, one process, in memory; it can be told to misbehave.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

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
    /// Who comes back and has missed it does not get it, and is told that nothing is missing.
    Withhold,
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
    log: Vec<Value>,
    /// Offsets by `msgId`.
    accepted: HashMap<String, u64>,
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
    /// So many messages are accepted without an answer, and their sender's connection is cut.
    pub(crate) swallow_acks: Arc<AtomicU32>,
    /// What is sent again is taken for something new.
    pub(crate) forgets_ids: Arc<AtomicBool>,
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
            swallow_acks: Arc::default(),
            forgets_ids: Arc::default(),
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
                    Some(Ok(Message::Text(text))) => self.message(id, &orders, serde_json::from_str(&text).unwrap()),
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

    fn message(&self, id: u64, reply: &UnboundedSender<Order>, mut message: Value) {
        let mut state = self.state.lock();
        let State { rooms, faults, .. } = &mut *state;
        let kind = message["type"].take();
        match kind.as_str().unwrap() {
            "join" => room(rooms, &message["room"]).join(id, reply, &message, faults),
            "resume" => {
                for place in message["rooms"].as_array().unwrap() {
                    room(rooms, &place["room"]).join(id, reply, place, faults);
                }
            }
            "room_message" => {
                let room = room(rooms, &message["room"]);
                let ack = room.accept(&message, faults, self.forgets_ids.load(SeqCst));
                let swallow = self
                    .swallow_acks
                    .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
                let order = if swallow.is_ok() {
                    Order::Cut
                } else {
                    Order::Send(ack)
                };
                drop(reply.send(order));
            }
            other => {
                let error = json!({"type": "error", "error": "Unknown message type", "code": "unknown_type", "was": other});
                drop(reply.send(Order::Send(error)));
            }
        }
    }
}

fn room<'a>(rooms: &'a mut HashMap<String, Room>, name: &Value) -> &'a mut Room {
    rooms.entry(name.as_str().unwrap().to_owned()).or_default()
}

impl Room {
    /// Lets a member in, and gives it what it has missed when it says where it was.
    fn join(&mut self, id: u64, reply: &UnboundedSender<Order>, place: &Value, faults: &[(u64, Fault)]) {
        self.members.insert(id, reply.clone());
        let mut joined =
            json!({"type": "joined", "room": place["room"], "epoch": "e1", "offset": self.offset});
        let mut missed = Vec::new();
        if let Some(from) = place["offset"].as_u64() {
            joined["recovered"] = json!(true);
            let withheld = |offset| faults.contains(&(offset, Fault::Withhold));
            let log = self.log.iter().skip(from as usize);
            missed.extend(log.filter(|message| !withheld(message["offset"].as_u64().unwrap())));
        }
        for message in [&joined].into_iter().chain(missed) {
            drop(reply.send(Order::Send(message.clone())));
        }
    }

    /// Takes a message, and gives the answer.
    fn accept(&mut self, message: &Value, faults: &[(u64, Fault)], forgets_ids: bool) -> Value {
        let ack = |offset, duplicate| json!({"type": "ack", "id": message["id"], "epoch": "e1", "offset": offset, "duplicate": duplicate});
        let msg_id = message["msgId"].as_str();
        if let Some(offset) = msg_id.and_then(|msg_id| self.accepted.get(msg_id))
            && !forgets_ids
        {
            return ack(*offset, true);
        }
        self.offset += 1;
        self.accepted
            .extend(msg_id.map(|msg_id| (msg_id.to_owned(), self.offset)));
        self.deliver(message["room"].as_str().unwrap(), &message["payload"], faults);
        ack(self.offset, false)
    }

    fn deliver(&mut self, name: &str, payload: &Value, faults: &[(u64, Fault)]) {
        let message = json!({
            "type": "room_message", "roomId": name, "userId": "u", "payload": payload, "timestamp": 1,
            "serverId": "tiny", "offset": self.offset,
        });
        self.log.push(message.clone());
        let fault = faults
            .iter()
            .find(|(offset, fault)| *offset == self.offset && *fault != Fault::Withhold)
            .map(|(_, fault)| *fault);
        let held = self.held.take();
        for (nth, member) in self.members.values().enumerate() {
            let mut send = |value: &Value| drop(member.send(Order::Send(value.clone())));
            match fault.filter(|_| nth == 0) {
                Some(Fault::Drop) => {}
                Some(Fault::Hold) => self.held = Some(message.clone()),
                Some(Fault::Repeat) => [&message, &message].into_iter().for_each(&mut send),
                Some(Fault::Withhold) | None => send(&message),
            }
            if let (0, Some(held)) = (nth, &held) {
                send(held);
            }
        }
    }
}
