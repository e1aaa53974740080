//! Bytes from a client to messages (RFC 6455 §5, §7, §8.1).

use std::borrow::Cow;

use super::frame::{Header, Opcode, apply_mask};
use crate::protocol::{CloseCode, CloseReason};

/// What a connection remembers between reads: nothing, unless a fragmented message is under way.
#[derive(Debug, Default)]
pub struct Decoder {
    assembly: Option<Box<Assembly>>,
}

/// The fragments so far.
#[derive(Debug)]
struct Assembly {
    text: bool,
    data: Vec<u8>,
    /// So many bytes of `data` are known to be whole UTF-8 characters (text only).
    valid: usize,
}

/// What one call of [`Decoder::next`] found.
#[derive(Debug)]
pub struct Decoded<'b> {
    /// Bytes of the buffer that are done with: the next call starts behind them. They were unmasked in place.
    pub used: usize,
    /// The message that ended there; `None` when the buffer holds no further one: keep what was not used, read more.
    pub message: Option<Incoming<'b>>,
}

/// A whole message from the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'b> {
    /// Text, valid UTF-8. Owned when it came in fragments.
    Text(Cow<'b, str>),
    /// Bytes. Owned when they came in fragments.
    Binary(Cow<'b, [u8]>),
    /// Wants a pong with the same payload.
    Ping(&'b [u8]),
    /// Answers a ping, or nothing at all (§5.5.3 allows it).
    Pong(&'b [u8]),
    /// The client closes, or answers our close frame. Whatever follows it is to be ignored (§5.5.1).
    Close(PeerClose<'b>),
}

/// What a client's close frame said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerClose<'b> {
    /// Its code; `None` when the frame was empty (§7.1.5: that reads as 1005).
    pub code: Option<CloseCode>,
    /// Its reason, valid UTF-8.
    pub reason: &'b str,
}

/// The client broke the protocol: the connection must be failed (§7.1.7) with [`Violation::close_reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An RSV bit without an extension that gives it a meaning (§5.2).
    #[error("reserved bits are set but no extension is negotiated")]
    ReservedBits,
    /// Opcode 3–7 or B–F (§5.2).
    #[error("reserved opcode")]
    ReservedOpcode,
    /// Clients must mask every frame (§5.1).
    #[error("client frames must be masked")]
    Unmasked,
    /// A control frame without FIN (§5.5).
    #[error("control frames must not be fragmented")]
    FragmentedControl,
    /// A control frame of more than 125 bytes (§5.5).
    #[error("control frames carry at most 125 bytes")]
    LongControl,
    /// A 64-bit length with its highest bit set (§5.2).
    #[error("the highest bit of a 64-bit length must be 0")]
    LengthSign,
    /// A length in more bytes than it needs (§5.2).
    #[error("the length must be written in the fewest bytes")]
    LengthEncoding,
    /// A continuation, but nothing to continue (§5.4).
    #[error("continuation without a message to continue")]
    StrayContinuation,
    /// A new text or binary frame before the last message ended (§5.4).
    #[error("a new message began before the last one ended")]
    Interleaved,
    /// A close payload of one byte (§5.5.1).
    #[error("a close payload is empty or at least 2 bytes")]
    ClosePayload,
    /// A close code that must not be sent (§7.4).
    #[error("invalid close code {0}")]
    CloseCode(u16),
    /// A text message, or a close reason, that is not UTF-8 (§8.1).
    #[error("text is not UTF-8")]
    InvalidUtf8,
    /// More bytes than `messageBytes` (§10.4).
    #[error("message too big")]
    TooBig,
}

impl Violation {
    /// Why the connection ends: 1009 too big, 1007 not UTF-8, else 1002 (§7.4.1).
    pub const fn close_reason(self) -> CloseReason {
        match self {
            Self::TooBig => CloseReason::TooBig,
            Self::InvalidUtf8 => CloseReason::InvalidData,
            _ => CloseReason::ProtocolError,
        }
    }
}

/// A frame that ends a message, or is one: where its unmasked payload lies.
struct Whole {
    opcode: Opcode,
    start: usize,
    end: usize,
}

impl Decoder {
    /// Whether a fragmented message is under way.
    pub const fn is_assembling(&self) -> bool {
        self.assembly.is_some()
    }

    /// Finds the next whole message in `buf`, at most `max_message` bytes long. Call it again from behind
    /// [`Decoded::used`] until there is none; keep the rest, at most one frame, for when more has been read.
    ///
    /// After an error, or [`Incoming::Close`], the decoder is not to be used again.
    pub fn next<'b>(&mut self, buf: &'b mut [u8], max_message: usize) -> Result<Decoded<'b>, Violation> {
        let mut used = 0;
        let whole = loop {
            let rest = buf.get_mut(used..).unwrap_or_default();
            let room = max_message - self.assembled().min(max_message);
            let Some(header) = Header::parse(rest, room)? else {
                break None;
            };
            self.check_order(header.opcode)?;
            let Some(payload) = rest.get_mut(header.size..header.size + header.length) else {
                break None;
            };
            apply_mask(payload, header.mask);
            let (start, end) = (used + header.size, used + header.size + header.length);
            used = end;
            if header.opcode.is_control() || (header.fin && self.assembly.is_none()) {
                break Some(Whole {
                    opcode: header.opcode,
                    start,
                    end,
                });
            }
            self.append(header.opcode, payload, header.fin)?;
            if header.fin {
                break Some(Whole {
                    opcode: Opcode::Continuation,
                    start,
                    end,
                });
            }
        };
        let message = match whole {
            Some(Whole {
                opcode: Opcode::Continuation,
                ..
            }) => self.take_assembled()?,
            Some(Whole { opcode, start, end }) => Some(single(opcode, &buf[start..end])?),
            None => None,
        };
        Ok(Decoded { used, message })
    }

    fn assembled(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.data.len())
    }

    /// Fragments of one message must not be mixed with another's (§5.4).
    fn check_order(&self, opcode: Opcode) -> Result<(), Violation> {
        match (opcode, &self.assembly) {
            (Opcode::Continuation, None) => Err(Violation::StrayContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::Interleaved),
            _ => Ok(()),
        }
    }

    /// Takes a fragment. Text is checked as it comes: what can never become UTF-8 is not waited for (§8.1).
    fn append(&mut self, opcode: Opcode, payload: &[u8], last: bool) -> Result<(), Violation> {
        let assembly = self.assembly.get_or_insert_with(|| {
            Box::new(Assembly {
                text: opcode == Opcode::Text,
                data: Vec::new(),
                valid: 0,
            })
        });
        assembly.data.extend_from_slice(payload);
        if !assembly.text {
            return Ok(());
        }
        let open = assembly.data.get(assembly.valid..).unwrap_or_default();
        match std::str::from_utf8(open) {
            Ok(_) => assembly.valid = assembly.data.len(),
            // a character that is cut by the end of the fragment; the next one may complete it
            Err(error) if error.error_len().is_none() && !last => assembly.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::InvalidUtf8),
        }
        Ok(())
    }

    fn take_assembled(&mut self) -> Result<Option<Incoming<'static>>, Violation> {
        let Some(assembly) = self.assembly.take() else {
            return Ok(None);
        };
        Ok(Some(if assembly.text {
            let text = String::from_utf8(assembly.data).map_err(|_| Violation::InvalidUtf8)?;
            Incoming::Text(text.into())
        } else {
            Incoming::Binary(assembly.data.into())
        }))
    }
}

/// A message that came in one frame.
fn single(opcode: Opcode, payload: &[u8]) -> Result<Incoming<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Incoming::Text(utf8(payload)?.into()),
        Opcode::Binary | Opcode::Continuation => Incoming::Binary(payload.into()),
        Opcode::Ping => Incoming::Ping(payload),
        Opcode::Pong => Incoming::Pong(payload),
        Opcode::Close => Incoming::Close(peer_close(payload)?),
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(bytes).map_err(|_| Violation::InvalidUtf8)
}

fn peer_close(payload: &[u8]) -> Result<PeerClose<'_>, Violation> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(PeerClose {
                code: None,
                reason: "",
            }),
            _ => Err(Violation::ClosePayload),
        };
    };
    let code = u16::from_be_bytes(code);
    let code = CloseCode::from_wire(code).ok_or(Violation::CloseCode(code))?;
    Ok(PeerClose {
        code: Some(code),
        reason: utf8(reason)?,
    })
}
