//! One client: its stream, how far it has come, and what it must get next.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use mio::net::TcpStream;
use rand::Rng as _;
use socket2::{Domain, SockRef, Socket as Raw, Type};
use wsfleet_load::Sources;
use wsfleet_load::wire::frame;
use wsfleet_load::wire::handshake::{self, Answer};

use super::Plan;
use super::reader::Reader;

/// Ports tried for one connection: a crowd beside another one may begin anywhere in the ports that the other holds in a row.
const TRIES: u32 = 1 << 15;
/// Linux's EINPROGRESS.
const IN_PROGRESS: i32 = 115;
/// Each client's mask: RFC 6455 asks for one that scripts can't guess, and there are none here.
const MASK: [u8; 4] = [0x5A, 0x13, 0xC7, 0x88];

/// How far a client has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// TCP is being connected; then this request is sent.
    Connecting { request: String, key: String },
    /// The request is sent; so much of the answer's head is there.
    Upgrading { key: String, head: Vec<u8> },
    /// Frames are spoken.
    Open { joined: bool },
    /// A close frame came.
    Closed,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    pub(super) stage: Stage,
    pub(super) reader: Reader,
    /// Number of its room.
    pub(super) room: usize,
    /// Number of the next message of its room that it must get.
    pub(super) next: u32,
    /// When the connect began.
    pub(super) began: Instant,
    /// What a write has left.
    out: Vec<u8>,
}

/// What one read brought.
pub(super) enum Bytes {
    /// So many, and there may be more.
    Some(usize),
    /// So many, and that is all for now.
    Last(usize),
    Nothing,
    /// The server has ended the stream, or cut it.
    End,
}

impl Socket {
    /// Begins to connect; sends `path`'s request when that is done.
    pub(super) fn connect(
        sources: &Sources,
        index: usize,
        plan: &Plan<'_>,
        room: usize,
        path: &str,
    ) -> Result<Self> {
        let key = handshake::key(rand::rng().random());
        let address = plan.addresses[index % plan.addresses.len()];
        Ok(Self {
            began: Instant::now(),
            stream: begin(sources, index, plan, address)?,
            stage: Stage::Connecting {
                request: handshake::request(path, &address.to_string(), &key),
                key,
            },
            reader: Reader::default(),
            room,
            next: 0,
            out: Vec::new(),
        })
    }

    /// The stream is writable: the connect is done, or what was left can go out.
    pub(super) fn writable(&mut self) -> Result<()> {
        if let Stage::Connecting { request, key } = &mut self.stage {
            let error = SockRef::from(&self.stream).take_error()?;
            if let Some(error) = error {
                return Err(error).context("a connect failed");
            }
            if self.stream.peer_addr().is_err() {
                return Ok(());
            }
            self.out.extend_from_slice(request.as_bytes());
            self.stage = Stage::Upgrading {
                key: std::mem::take(key),
                head: Vec::new(),
            };
        }
        self.flush();
        Ok(())
    }

    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Bytes {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Bytes::End,
                Ok(read) if read == scratch.len() => return Bytes::Some(read),
                Ok(read) => return Bytes::Last(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Bytes::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Bytes::End,
            }
        }
    }

    /// Takes bytes of the answer's head; frames that follow it, once it is complete.
    pub(super) fn upgrade(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let Stage::Upgrading { key, head } = &mut self.stage else {
            bail!("bytes came before the request was sent");
        };
        head.extend_from_slice(bytes);
        match handshake::answer(head, key)? {
            None => Ok(None),
            Some(Answer::Upgraded { head: end }) => {
                let early = head.split_off(end);
                self.stage = Stage::Open { joined: false };
                Ok(Some(early))
            }
            Some(Answer::Refused { status, .. }) => bail!("an upgrade was refused with {status}"),
        }
    }

    /// Appends a frame to what goes out with the next [`Self::flush`].
    pub(super) fn push(&mut self, opcode: u8, payload: &[u8]) {
        frame::encode(opcode, payload, MASK, &mut self.out);
    }

    /// Writes what there is, as far as the kernel takes it; the rest goes when the stream is writable again.
    pub(super) fn flush(&mut self) {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.write(&self.out[written..]) {
                Ok(some) => written += some,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // a server that is closing reads no more; the stream's end is seen by reading
                Err(_) => written = self.out.len(),
            }
        }
        self.out.drain(..written);
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }
}

/// A stream that is being connected from one of the sources. It is reset when it is dropped, so that none of its ports
/// waits (TIME_WAIT).
fn begin(sources: &Sources, index: usize, plan: &Plan<'_>, address: SocketAddr) -> Result<TcpStream> {
    for _ in 0..TRIES {
        let raw = Raw::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        raw.set_tcp_nodelay(true)?;
        raw.set_linger(Some(std::time::Duration::ZERO))?;
        if let Some(bytes) = plan.receive_buffer {
            raw.set_recv_buffer_size(bytes)?;
        }
        let connected = match sources.take(index as u32) {
            Some(from) => {
                raw.set_reuse_address(true)?;
                raw.bind(&from.into()).and_then(|()| raw.connect(&address.into()))
            }
            None => raw.connect(&address.into()),
        };
        match connected {
            Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) => {}
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => {
                return Err(error).context("a connect failed");
            }
            _ => return Ok(TcpStream::from_std(raw.into())),
        }
    }
    bail!("there is no free port to connect from")
}
