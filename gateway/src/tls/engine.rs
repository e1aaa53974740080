//! TLS without I/O: records in, plaintext out, and the other way round.
//!
//! By rustls's unbuffered interface, for its other one leaves 4 KiB with every idle connection: here there are only the
//! bytes of a record that is not complete, and those that the socket did not take.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{Error, ServerConfig};

/// Bytes of plaintext in a record, at most (RFC 8446 §5.1).
pub(super) const RECORD: usize = 16 << 10;
/// What a record has beside its plaintext, and room for a message of TLS itself before it.
const OVERHEAD: usize = 64;
/// Bytes that are kept of what is not complete: a message of the handshake may span records.
const PARTIAL_BYTES: usize = 64 << 10;

/// One connection.
pub(super) struct Engine {
    tls: UnbufferedServerConnection,
    /// Received, not complete. rustls remembers positions in it: it has to see these bytes whenever it is called.
    pub(super) partial: Vec<u8>,
    /// To be sent: about one record.
    pub(super) waiting: Vec<u8>,
    /// Nothing more is received.
    ended: bool,
    /// Nothing more is sent.
    closed: bool,
}

/// What is to be sent when rustls has nothing of its own to do.
enum Send<'a> {
    Nothing,
    Data(&'a [u8]),
    CloseNotify,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config)?,
            partial: Vec::new(),
            waiting: Vec::new(),
            ended: false,
            closed: false,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The peer ended the stream, or broke the protocol.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes received bytes, with those of [`Engine::partial`] before them, and gives the plaintext. What is not complete
    /// is kept. After an error, whose alert is waiting, the connection has ended.
    pub(super) fn receive(&mut self, records: &mut [u8], give: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let used = self
            .process(records, give, &Send::Nothing)
            .inspect_err(|_| self.fail())?;
        let rest = &records[used..];
        if rest.len() > PARTIAL_BYTES {
            self.fail();
            return Err(Error::General(
                "a message of the handshake is too large".to_owned(),
            ));
        }
        self.partial = rest.to_vec();
        if self.ended {
            self.close();
        }
        Ok(())
    }

    /// Encrypts one record's worth behind what waits.
    pub(super) fn encrypt(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.send(&Send::Data(plaintext))
            .map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error))
    }

    /// `close_notify` goes behind what waits, nothing goes behind it.
    pub(super) fn close(&mut self) {
        // fails where there is nobody who could read it
        let _ = self.send(&Send::CloseNotify);
        self.closed = true;
    }

    /// So much of what waits is sent.
    pub(super) fn written(&mut self, bytes: usize) {
        if bytes < self.waiting.len() {
            self.waiting.drain(..bytes);
        } else {
            self.waiting = Vec::new();
        }
    }

    fn send(&mut self, what: &Send<'_>) -> Result<(), Error> {
        if self.closed {
            return Err(Error::General("the connection is closed".to_owned()));
        }
        let mut partial = std::mem::take(&mut self.partial);
        // no record in it is complete, so there is nothing to give
        let used = self.process(&mut partial, &mut |_| {}, what);
        partial.drain(..*used.as_ref().unwrap_or(&0));
        self.partial = partial;
        used.map(drop)
    }

    fn fail(&mut self) {
        self.ended = true;
        self.closed = true;
    }

    /// Goes on until rustls has no use for `records` any more; gives how many bytes it is done with.
    fn process(
        &mut self,
        records: &mut [u8],
        give: &mut dyn FnMut(&[u8]),
        send: &Send<'_>,
    ) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut records[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        used += record.discard;
                        give(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(&mut self.waiting, OVERHEAD, |out| needed(&message.encode(out)))?;
                }
                // its order among what waits is kept: that is all that is asked for
                Ok(ConnectionState::TransmitTlsData(messages)) => messages.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    match send {
                        Send::Nothing => {}
                        Send::Data(data) => append(&mut self.waiting, data.len() + OVERHEAD, |out| {
                            possible(&traffic.encrypt(data, out))
                        })?,
                        Send::CloseNotify => append(&mut self.waiting, OVERHEAD, |out| {
                            possible(&traffic.queue_close_notify(out))
                        })?,
                    }
                    return Ok(used);
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    return match send {
                        Send::Data(_) => Err(Error::HandshakeNotComplete),
                        Send::Nothing | Send::CloseNotify => Ok(used),
                    };
                }
                // early data is not offered
                Ok(_) => return Err(Error::HandshakeNotComplete),
                Err(error) => {
                    self.tell(&mut records[used..]);
                    return Err(error);
                }
            }
        }
    }

    /// After an error: its alert, if there is one, is to be sent. As long as something is, rustls looks at no record.
    fn tell(&mut self, records: &mut [u8]) {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(records).state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    let _ = append(&mut self.waiting, OVERHEAD, |out| needed(&message.encode(out)));
                }
                _ => return,
            }
        }
    }
}

/// How a buffer was not written to.
enum Failed {
    /// It needs so many bytes.
    Small(usize),
    Never,
}

fn needed(encoded: &Result<usize, EncodeError>) -> Result<usize, Failed> {
    match encoded {
        Ok(written) => Ok(*written),
        Err(EncodeError::InsufficientSize(size)) => Err(Failed::Small(size.required_size)),
        Err(EncodeError::AlreadyEncoded) => Err(Failed::Never),
    }
}

fn possible(encrypted: &Result<usize, EncryptError>) -> Result<usize, Failed> {
    match encrypted {
        Ok(written) => Ok(*written),
        Err(EncryptError::InsufficientSize(size)) => Err(Failed::Small(size.required_size)),
        Err(EncryptError::EncryptExhausted) => Err(Failed::Never),
    }
}

/// Appends what `write` writes into a buffer of `room` bytes, or of as many as it needs.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Failed>,
) -> Result<(), Error> {
    let start = out.len();
    out.resize(start + room, 0);
    loop {
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Failed::Small(needed)) if start + needed > out.len() => out.resize(start + needed, 0),
            Err(_) => {
                out.truncate(start);
                return Err(Error::EncryptError);
            }
        }
    }
}
