//! Bytes from a client to messages (RFC 6455 §5, §7, §8.1).

use std::borrow::Cow;

use super::frame::{Header, Opcode, apply_mask};
use super::inflate::inflate;
use crate::protocol::{CloseCode, CloseReason};

/// Empty fragments of one message: more of them serve nothing, and their number is not bounded by the message's size.
const EMPTY_FRAGMENTS: u32 = 1_024;

/// What holds for the messages of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Most bytes of a message: whole, and inflated.
    pub max_message: usize,
    /// permessage-deflate was negotiated: a message whose first frame has RSV1 is compressed (RFC 7692 §6).
    pub deflate: bool,
}

impl Rules {
    /// Most bytes of a message as it comes. DEFLATE makes what cannot be compressed larger, by 5 bytes a stored block
    /// (RFC 1951 §3.2.4), and blocks are as small as the window of the one who compresses: such a message may be as
    /// large as any other.
    pub(super) const fn on_the_wire(self, compressed: bool) -> usize {
        if compressed {
            self.max_message + self.max_message / 32 + 64
        } else {
            self.max_message
        }
    }
}

/// What a connection remembers between reads: nothing, unless a fragmented message is under way.
#[derive(Debug, Default)]
pub struct Decoder {
    assembly: Option<Box<Assembly>>,
}

/// The fragments so far.
#[derive(Debug)]
struct Assembly {
    text: bool,
    compressed: bool,
    data: Vec<u8>,
    /// So many bytes of `data` are known to be whole UTF-8 characters (text that is not compressed).
    valid: usize,
    /// Bytes on the wire, headers included.
    wire: usize,
    /// Fragments without a payload.
    empty: u32,
}

/// What one call of [`Decoder::next`] found.
#[derive(Debug)]
pub struct Decoded<'b> {
    /// Bytes of the buffer that are done with: the next call starts behind them. They were unmasked in place.
    pub used: usize,
    /// Bytes of the message, with all its frames on the wire or inflated, whichever is more: what it is charged with.
    pub cost: usize,
    /// The message that ended there; `None` when the buffer holds no further one: keep what was not used, read more.
    pub message: Option<Incoming<'b>>,
}

/// A whole message from the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'b> {
    /// Text, valid UTF-8. Owned when it came in fragments, or compressed.
    Text(Cow<'b, str>),
    /// Bytes. Owned when they came in fragments, or compressed.
    Binary(Cow<'b, [u8]>),
    /// Wants a pong with the same payload.
    Ping(&'b [u8]),
    /// Answers a ping, or nothing at all (§5.5.3 allows it).
    Pong(&'b [u8]),
    /// The client closes, or answers our close frame. Whatever follows it is to be ignored (§5.5.1).
    Close(PeerClose<'b>),
}

impl Incoming<'_> {
    /// Bytes of a text or binary message, inflated.
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Ping(_) | Self::Pong(_) | Self::Close(_) => 0,
        }
    }
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
    /// An RSV bit that no negotiated extension gives a meaning here (§5.2, RFC 7692 §6).
    #[error("reserved bits are set that no negotiated extension gives a meaning")]
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
    /// More bytes than `messageBytes` (§10.4), as they came or inflated.
    #[error("message too big")]
    TooBig,
    /// What is marked as compressed is no DEFLATE stream (RFC 7692 §7.2.2).
    #[error("compressed message is not DEFLATE")]
    Deflate,
    /// More than 1,024 fragments of one message are empty.
    #[error("too many empty fragments")]
    EmptyFragments,
}

impl Violation {
    /// Why the connection ends: 1009 too big, 1007 not UTF-8 or not DEFLATE, 1008 empty fragments, else 1002 (§7.4.1).
    pub const fn close_reason(self) -> CloseReason {
        match self {
            Self::TooBig => CloseReason::TooBig,
            Self::InvalidUtf8 => CloseReason::InvalidData,
            Self::Deflate => CloseReason::InvalidDeflate,
            Self::EmptyFragments => CloseReason::EmptyFragments,
            _ => CloseReason::ProtocolError,
        }
    }
}

/// A frame that ends a message, or is one: where its unmasked payload lies.
struct Whole {
    header: Header,
    start: usize,
    end: usize,
}

impl Decoder {
    /// Whether a fragmented message is under way.
    pub const fn is_assembling(&self) -> bool {
        self.assembly.is_some()
    }

    /// Finds the next whole message in `buf`. Call it again from behind [`Decoded::used`] until there is none; keep the
    /// rest, at most one frame, for when more has been read.
    ///
    /// After an error, or [`Incoming::Close`], the decoder is not to be used again.
    pub fn next<'b>(&mut self, buf: &'b mut [u8], rules: Rules) -> Result<Decoded<'b>, Violation> {
        let mut used = 0;
        let whole = loop {
            let rest = buf.get_mut(used..).unwrap_or_default();
            let room = |compressed| self.room(rules, compressed);
            let Some(header) = Header::parse(rest, rules.deflate, room)? else {
                break None;
            };
            self.check_order(header.opcode)?;
            let Some(payload) = rest.get_mut(header.size..header.size + header.length) else {
                break None;
            };
            apply_mask(payload, header.mask);
            let (start, end) = (used + header.size, used + header.size + header.length);
            used = end;
            let single = header.opcode.is_control() || (header.fin && self.assembly.is_none());
            if !single {
                self.append(header, payload)?;
            }
            if single || header.fin {
                break Some(Whole { header, start, end });
            }
        };
        let (message, cost) = match whole {
            Some(Whole { header, start, end }) => self.message(header, &buf[start..end], rules)?,
            None => (None, 0),
        };
        Ok(Decoded { used, cost, message })
    }

    /// The message that a frame ends, and what it costs.
    fn message<'b>(
        &mut self,
        last: Header,
        payload: &'b [u8],
        rules: Rules,
    ) -> Result<(Option<Incoming<'b>>, usize), Violation> {
        if last.opcode == Opcode::Continuation {
            let Some(assembly) = self.assembly.take() else {
                return Ok((None, 0));
            };
            let wire = assembly.wire;
            let message = assembly.finish(rules)?;
            let cost = message.len().max(wire);
            return Ok((Some(message), cost));
        }
        let message = single(last, payload, rules)?;
        let cost = message.len().max(last.size + last.length);
        Ok((Some(message), cost))
    }

    /// Bytes that the next data frame may have.
    fn room(&self, rules: Rules, compressed: bool) -> usize {
        match &self.assembly {
            Some(begun) => rules
                .on_the_wire(begun.compressed)
                .saturating_sub(begun.data.len()),
            None => rules.on_the_wire(compressed),
        }
    }

    /// Fragments of one message must not be mixed with another's (§5.4).
    fn check_order(&self, opcode: Opcode) -> Result<(), Violation> {
        match (opcode, &self.assembly) {
            (Opcode::Continuation, None) => Err(Violation::StrayContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::Interleaved),
            _ => Ok(()),
        }
    }

    /// Takes a fragment.
    fn append(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        let assembly = self.assembly.get_or_insert_with(|| {
            Box::new(Assembly {
                text: header.opcode == Opcode::Text,
                compressed: header.compressed,
                data: Vec::new(),
                valid: 0,
                wire: 0,
                empty: 0,
            })
        });
        assembly.wire += header.size + header.length;
        assembly.empty += u32::from(payload.is_empty());
        if assembly.empty > EMPTY_FRAGMENTS {
            return Err(Violation::EmptyFragments);
        }
        assembly.data.extend_from_slice(payload);
        assembly.check_text(header.fin)
    }
}

impl Assembly {
    /// Text is checked as it comes: what can never become UTF-8 is not waited for (§8.1). What is compressed is inflated,
    /// and checked, when it is whole: an inflater between two reads would cost the connection 40 KB.
    fn check_text(&mut self, last: bool) -> Result<(), Violation> {
        if !self.text || self.compressed {
            return Ok(());
        }
        let open = self.data.get(self.valid..).unwrap_or_default();
        match std::str::from_utf8(open) {
            Ok(_) => self.valid = self.data.len(),
            // a character that is cut by the end of the fragment; the next one may complete it
            Err(error) if error.error_len().is_none() && !last => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::InvalidUtf8),
        }
        Ok(())
    }

    fn finish(self, rules: Rules) -> Result<Incoming<'static>, Violation> {
        let data = if self.compressed {
            inflate(&self.data, rules.max_message)?
        } else {
            self.data
        };
        owned(self.text, data)
    }
}

/// A message that came in one frame.
fn single(header: Header, payload: &[u8], rules: Rules) -> Result<Incoming<'_>, Violation> {
    if header.compressed {
        return owned(
            header.opcode == Opcode::Text,
            inflate(payload, rules.max_message)?,
        );
    }
    Ok(match header.opcode {
        Opcode::Text => Incoming::Text(utf8(payload)?.into()),
        Opcode::Binary | Opcode::Continuation => Incoming::Binary(payload.into()),
        Opcode::Ping => Incoming::Ping(payload),
        Opcode::Pong => Incoming::Pong(payload),
        Opcode::Close => Incoming::Close(peer_close(payload)?),
    })
}

fn owned(text: bool, data: Vec<u8>) -> Result<Incoming<'static>, Violation> {
    Ok(if text {
        let text = String::from_utf8(data).map_err(|_| Violation::InvalidUtf8)?;
        Incoming::Text(text.into())
    } else {
        Incoming::Binary(data.into())
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
