//! Frame headers (RFC 6455 §5.2).

use super::decode::Violation;

/// What a frame carries (§5.2, §11.8). Reserved opcodes are refused while parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// The next part of a fragmented message.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// Ends the connection.
    Close,
    /// Wants a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    /// The four bits.
    pub(super) const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Text and binary frames begin a message (§5.4).
    const fn begins_message(self) -> bool {
        matches!(self, Self::Text | Self::Binary)
    }

    /// Control frames may stand between the fragments of a message (§5.5).
    pub(super) const fn is_control(self) -> bool {
        self.bits() >= 0x8
    }
}

pub(super) const FIN: u8 = 0x80;
/// Marks the first frame of a compressed message (RFC 7692 §6).
pub(super) const RSV1: u8 = 0x40;
/// Of no extension that is served.
const RSV: u8 = 0x30;
const MASKED: u8 = 0x80;
/// Longest payload of a control frame (§5.5).
pub(super) const CONTROL_MAX: usize = 125;

/// The header of a client's frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// RSV1: the message that begins here is compressed.
    pub(super) compressed: bool,
    /// Bytes of the header itself.
    pub(super) size: usize,
    /// Bytes of the payload.
    pub(super) length: usize,
    pub(super) mask: [u8; 4],
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` until enough of it is there. What is wrong is found in the
    /// first byte that shows it: `room`, told whether the frame is marked as compressed, bounds the payload of data
    /// frames before any of it has come. Without `deflate` the mark means nothing, and is refused.
    pub(super) fn parse(
        bytes: &[u8],
        deflate: bool,
        room: impl FnOnce(bool) -> usize,
    ) -> Result<Option<Self>, Violation> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if first & RSV != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
        let compressed = first & RSV1 != 0;
        // neither a control frame nor a later fragment has the mark (RFC 7692 §6.1)
        if compressed && !(deflate && opcode.begins_message()) {
            return Err(Violation::ReservedBits);
        }
        let fin = first & FIN != 0;
        if opcode.is_control() && !fin {
            return Err(Violation::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if second & MASKED == 0 {
            return Err(Violation::Unmasked);
        }
        let short = second & 0x7F;
        if opcode.is_control() && usize::from(short) > CONTROL_MAX {
            return Err(Violation::LongControl);
        }
        let Some((length, size)) = length(short, bytes)? else {
            return Ok(None);
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|&length| opcode.is_control() || length <= room(compressed));
        let length = length.ok_or(Violation::TooBig)?;
        let Some(&mask) = bytes.get(size..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        Ok(Some(Self {
            fin,
            opcode,
            compressed,
            size: size + mask.len(),
            length,
            mask,
        }))
    }
}

/// Length of the payload, and the place of what follows it. `None` until all of it is there.
fn length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    let rest = bytes.get(2..).unwrap_or_default();
    let (length, size, least) = match short {
        126 => match rest.first_chunk() {
            Some(&long) => (u64::from(u16::from_be_bytes(long)), 4, 126),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(&long) => (u64::from_be_bytes(long), 10, 1 << 16),
            None => return Ok(None),
        },
        short => (u64::from(short), 2, 0),
    };
    if length >> 63 != 0 {
        return Err(Violation::LengthSign);
    }
    if length < least {
        return Err(Violation::LengthEncoding);
    }
    Ok(Some((length, size)))
}

/// Masks or unmasks (§5.3), eight bytes at a time.
pub(super) fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}
