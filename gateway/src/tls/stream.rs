//! TLS on a socket. Whoever reads, and whoever writes, does the work of TLS on its own thread.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::engine::{Engine, RECORD};

/// Bytes of a worker's read buffer.
const SCRATCH: usize = 64 << 10;
/// Room that is made behind a record that is not complete.
const MORE: usize = 16 << 10;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// A connection with TLS, from its first byte. Idle, it has no buffer.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    engine: Mutex<Engine>,
}

impl TlsStream {
    /// TLS on a socket from which nothing was read.
    pub(super) fn new(config: Arc<ServerConfig>, socket: TcpStream) -> Result<Self, rustls::Error> {
        Ok(Self {
            socket,
            engine: Mutex::new(Engine::new(config)?),
        })
    }

    /// The socket.
    pub const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.engine.lock().is_handshaking()
    }

    /// Reads once and gives what the client has sent; 0 at the end of the stream. `WouldBlock`: nothing came, or nothing
    /// that is for us. `InvalidData`: the client broke TLS, and was told so.
    pub fn try_read(&self, mut give: impl FnMut(&[u8])) -> io::Result<usize> {
        let engine = &mut *self.engine.lock();
        if engine.has_ended() {
            return Ok(0);
        }
        let mut given = 0;
        let mut count = |bytes: &[u8]| {
            given += bytes.len();
            give(bytes);
        };
        let received = if engine.partial.is_empty() {
            SCRATCH_BUFFER.with_borrow_mut(|scratch| {
                let read = self.socket.try_read(scratch)?;
                Ok((read, engine.receive(&mut scratch[..read], &mut count)))
            })
        } else {
            engine.partial.reserve(MORE);
            self.socket.try_read_buf(&mut engine.partial).map(|read| {
                let mut records = std::mem::take(&mut engine.partial);
                (read, engine.receive(&mut records, &mut count))
            })
        };
        let (read, outcome) = received?;
        // an answer of TLS itself; what the socket does not take now goes before whatever is written next
        let _ = self.flush(engine);
        match outcome {
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            Ok(()) if given == 0 && read > 0 && !engine.has_ended() => Err(io::ErrorKind::WouldBlock.into()),
            Ok(()) => Ok(given),
        }
    }

    /// Encrypts and writes; gives how much was taken. Of that, the last record may wait for [`TlsStream::try_flush`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let engine = &mut *self.engine.lock();
        let mut taken = 0;
        while self.flush(engine)? {
            let rest = &bytes[taken..];
            if rest.is_empty() {
                return Ok(taken);
            }
            let record = &rest[..rest.len().min(RECORD)];
            engine.encrypt(record)?;
            taken += record.len();
        }
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    /// As [`TlsStream::try_write`], at most one record.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut record = Vec::with_capacity(total.min(RECORD));
        for slice in slices {
            let room = RECORD - record.len();
            record.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        self.try_write(&record)
    }

    /// Whether the system has all that was taken.
    pub fn is_flushed(&self) -> bool {
        self.engine.lock().waiting.is_empty()
    }

    /// True when the system has all that was taken now, false when the socket takes no more.
    pub fn try_flush(&self) -> io::Result<bool> {
        self.flush(&mut self.engine.lock())
    }

    /// Sends `close_notify` behind what was taken: true when that is done, or cannot be done.
    pub fn try_end(&self) -> bool {
        let engine = &mut *self.engine.lock();
        engine.close();
        self.flush(engine).unwrap_or(true)
    }

    fn flush(&self, engine: &mut Engine) -> io::Result<bool> {
        while !engine.waiting.is_empty() {
            match self.socket.try_write(&engine.waiting) {
                Ok(written) => engine.written(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
