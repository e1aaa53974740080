//! The clients: some thousand sockets in one thread, one `read` per wake-up and no parsing beyond a frame's head and a
//! message's number, so that they cost little beside the server.
//!
//! Every client must get every message of its room exactly once and in order. Anything else is an error at once, and so is a
//! socket that ends where it should not: no benchmark is faster because it lost something.

mod reader;
mod socket;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use wsfleet_load::Sources;
use wsfleet_load::wire::frame::opcode;

use crate::adapter::{Meaning, Protocol, payload};
use reader::Part;
use socket::{Bytes, Socket, Stage};

/// What one read takes at most.
const SCRATCH: usize = 256 * 1024;
/// Connects under way at once.
const IN_FLIGHT: usize = 500;
/// The most that anything may take that a server does in seconds.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longest latency that is told apart from longer ones, in microseconds.
const LONGEST: u64 = 120_000_000;
/// A stream that ended without a close frame (RFC 6455 §7.1.5).
pub(crate) const CUT: u16 = 1006;

/// Who is to connect where.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) protocol: Protocol,
    /// The servers; clients are spread over them in turn.
    pub(crate) addresses: &'a [SocketAddr],
    /// Rooms are called so, and a number.
    pub(crate) rooms: &'static str,
    pub(crate) room_size: usize,
    /// One client for each.
    pub(crate) tokens: &'a [String],
    /// The kernel's receive buffer of each, in bytes; as large as it likes by default.
    pub(crate) receive_buffer: Option<usize>,
}

/// A room: its first member publishes.
#[derive(Debug)]
struct Room {
    name: String,
    members: usize,
    /// When each of the messages was sent that not every member has got; `base` is the number of the first.
    sent: VecDeque<(Instant, usize)>,
    base: u32,
}

/// What an end of a socket means.
#[derive(Debug)]
enum Ends {
    AreErrors,
    /// When they are counted from, and what came: time and code.
    AreCounted(Instant, Vec<(Duration, u16)>),
}

/// The clients of one server.
#[derive(Debug)]
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    sockets: Vec<Option<Socket>>,
    shared: Shared,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    tokens: Vec<String>,
    room_size: usize,
    rooms: Vec<Room>,
    joined: usize,
    delivered: u64,
    /// Microseconds from connect to joined, or from publish to delivery, since it was taken last.
    latency: Histogram<u64>,
    ends: Ends,
}

impl Crowd {
    /// Connects all clients, authenticates them and joins their rooms; how long that took.
    pub(crate) fn open(plan: &Plan<'_>) -> Result<(Self, Duration)> {
        let mut crowd = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            sockets: Vec::with_capacity(plan.tokens.len()),
            shared: Shared::new(plan)?,
            scratch: vec![0; SCRATCH],
        };
        let sources = Sources::new(&[[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]);
        let began = Instant::now();
        while crowd.shared.joined < plan.tokens.len() {
            while crowd.sockets.len() < plan.tokens.len()
                && crowd.sockets.len() < crowd.shared.joined + IN_FLIGHT
            {
                crowd.connect(plan, &sources)?;
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "only {} of {} clients have joined within {PATIENCE:?}",
                crowd.shared.joined,
                plan.tokens.len()
            );
            crowd.turn(Duration::from_secs(1))?;
        }
        Ok((crowd, began.elapsed()))
    }

    fn connect(&mut self, plan: &Plan<'_>, sources: &Sources) -> Result<()> {
        let index = self.sockets.len();
        let room = index / plan.room_size;
        let path = plan
            .protocol
            .path(&self.shared.rooms[room].name, &plan.tokens[index]);
        let mut socket = Socket::connect(sources, index, plan, room, &path)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket.stream, Token(index), both)?;
        self.sockets.push(Some(socket));
        Ok(())
    }

    pub(crate) const fn members(&self) -> usize {
        self.sockets.len()
    }

    pub(crate) const fn rooms(&self) -> usize {
        self.shared.rooms.len()
    }

    /// The first member of a room publishes `count` messages of `size` bytes, in one write.
    pub(crate) fn publish(&mut self, room: usize, count: u32, size: usize) -> Result<()> {
        let state = &mut self.shared.rooms[room];
        let publisher = self.sockets[room * self.shared.room_size]
            .as_mut()
            .context("the publisher is gone")?;
        for _ in 0..count {
            let number = state.base + state.sent.len() as u32;
            let text = self.shared.protocol.publish(&state.name, &payload(number, size));
            publisher.push(opcode::TEXT, text.as_bytes());
            state.sent.push_back((Instant::now(), state.members));
        }
        publisher.flush();
        Ok(())
    }

    /// Somebody else publishes the next message of a room: its name, and the payload of `size` bytes that members wait for.
    pub(crate) fn expect(&mut self, room: usize, size: usize) -> (&str, String) {
        let state = &mut self.shared.rooms[room];
        let number = state.base + state.sent.len() as u32;
        state.sent.push_back((Instant::now(), state.members));
        (&state.name, payload(number, size))
    }

    /// Waits until every member has got everything.
    pub(crate) fn deliver(&mut self) -> Result<()> {
        let began = Instant::now();
        while let Some(room) = self.shared.rooms.iter().find(|room| !room.sent.is_empty()) {
            ensure!(
                began.elapsed() < PATIENCE,
                "{} of {} members of {} still lack message {} after {PATIENCE:?}",
                room.sent[0].1,
                room.members,
                room.name,
                room.base
            );
            self.turn(Duration::from_secs(1))?;
        }
        Ok(())
    }

    /// Messages that members have got, in all.
    pub(crate) const fn delivered(&self) -> u64 {
        self.shared.delivered
    }

    /// The latencies since the last call, in microseconds.
    pub(crate) fn take_latency(&mut self) -> Result<Histogram<u64>> {
        Ok(std::mem::replace(&mut self.shared.latency, histogram()?))
    }

    /// From now on sockets may end; when and how is noted.
    pub(crate) fn count_ends(&mut self) {
        self.shared.ends = Ends::AreCounted(Instant::now(), Vec::new());
    }

    /// The ends since [`Self::count_ends`]: time and close code.
    pub(crate) fn ends(&self) -> &[(Duration, u16)] {
        match &self.shared.ends {
            Ends::AreErrors => &[],
            Ends::AreCounted(_, ends) => ends,
        }
    }

    /// Does what there is to do for `time`.
    pub(crate) fn idle(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// Waits for something to do, at most so long, and does it.
    pub(crate) fn turn(&mut self, timeout: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            let index = event.token().0;
            let Some(socket) = &mut self.sockets[index] else {
                continue;
            };
            if event.is_writable() {
                socket.writable()?;
            }
            let ended = event.is_readable() && {
                let to_the_end = event.is_read_closed() || event.is_error();
                self.shared
                    .readable(index, socket, &mut self.scratch, to_the_end)?
            };
            if ended {
                self.sockets[index] = None;
            }
        }
        Ok(())
    }
}

impl Shared {
    fn new(plan: &Plan<'_>) -> Result<Self> {
        let members = plan.tokens.len();
        let room = |index: usize| Room {
            name: format!("{}{index}", plan.rooms),
            members: plan.room_size.min(members - index * plan.room_size),
            sent: VecDeque::new(),
            base: 0,
        };
        Ok(Self {
            protocol: plan.protocol,
            tokens: plan.tokens.to_vec(),
            room_size: plan.room_size,
            rooms: (0..members.div_ceil(plan.room_size)).map(room).collect(),
            joined: 0,
            delivered: 0,
            latency: histogram()?,
            ends: Ends::AreErrors,
        })
    }

    /// Reads what there is. A read that fills less than the buffer has emptied the socket (epoll(7)), unless its end has come
    /// too. True when the stream has ended.
    fn readable(
        &mut self,
        index: usize,
        socket: &mut Socket,
        scratch: &mut [u8],
        to_the_end: bool,
    ) -> Result<bool> {
        loop {
            let (read, more) = match socket.read(scratch) {
                Bytes::Some(read) => (read, true),
                Bytes::Last(read) => (read, to_the_end),
                Bytes::Nothing => return Ok(false),
                Bytes::End => {
                    if !matches!(socket.stage, Stage::Closed) {
                        self.end(CUT)?;
                    }
                    return Ok(true);
                }
            };
            self.bytes(index, socket, &scratch[..read])?;
            if !more {
                return Ok(false);
            }
        }
    }

    fn bytes(&mut self, index: usize, socket: &mut Socket, bytes: &[u8]) -> Result<()> {
        let early;
        let bytes = if matches!(socket.stage, Stage::Open { .. } | Stage::Closed) {
            bytes
        } else {
            let Some(frames) = socket.upgrade(bytes)? else {
                return Ok(());
            };
            early = frames;
            &early
        };
        let now = Instant::now();
        let mut reader = std::mem::take(&mut socket.reader);
        let fed = reader.feed(bytes, &mut |part| self.part(index, socket, &part, now));
        socket.reader = reader;
        fed
    }

    fn part(&mut self, index: usize, socket: &mut Socket, part: &Part<'_>, now: Instant) -> Result<()> {
        match *part {
            Part::Ping(payload) => {
                socket.push(opcode::PONG, payload);
                socket.flush();
                Ok(())
            }
            Part::Close(code) => {
                socket.stage = Stage::Closed;
                socket.push(opcode::CLOSE, if code == 1005 { &[] } else { &[0x03, 0xE8] });
                socket.flush();
                self.end(code)
            }
            Part::Text(text) => self.text(index, socket, text, now),
        }
    }

    fn text(&mut self, index: usize, socket: &mut Socket, text: &[u8], now: Instant) -> Result<()> {
        let room = &self.rooms[socket.room].name;
        match self.protocol.read(text, room, &self.tokens[index]) {
            Meaning::Delivery(number) => self.delivery(index, socket, number, now)?,
            Meaning::Quiet => {}
            Meaning::Answer(answer) => {
                socket.push(opcode::TEXT, answer.as_bytes());
                socket.flush();
            }
            Meaning::Joined => {
                ensure!(
                    matches!(socket.stage, Stage::Open { joined: false }),
                    "member {index} was joined twice"
                );
                socket.stage = Stage::Open { joined: true };
                self.joined += 1;
                self.latency
                    .saturating_record((now - socket.began).as_micros() as u64);
            }
            Meaning::Unexpected => bail!("member {index} got: {}", String::from_utf8_lossy(text)),
        }
        Ok(())
    }

    fn delivery(&mut self, index: usize, socket: &mut Socket, number: u32, now: Instant) -> Result<()> {
        let room = &mut self.rooms[socket.room];
        ensure!(
            number == socket.next,
            "member {index} of {} got message {number} where {} was due",
            room.name,
            socket.next
        );
        let Some((sent, lack)) = room.sent.get_mut((number - room.base) as usize) else {
            bail!(
                "member {index} of {} got message {number} before it was sent",
                room.name
            );
        };
        *lack -= 1;
        self.latency
            .saturating_record(now.saturating_duration_since(*sent).as_micros() as u64);
        while room.sent.front().is_some_and(|(_, lack)| *lack == 0) {
            room.sent.pop_front();
            room.base += 1;
        }
        socket.next += 1;
        self.delivered += 1;
        Ok(())
    }

    fn end(&mut self, code: u16) -> Result<()> {
        match &mut self.ends {
            Ends::AreErrors => bail!("the server ended a socket with {code}"),
            Ends::AreCounted(since, ends) => ends.push((since.elapsed(), code)),
        }
        Ok(())
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LONGEST, 3)?)
}
