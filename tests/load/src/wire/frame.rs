//! Frames as a client sees them: what a server sends is unmasked and read in place, what a client sends is masked
//! (RFC 6455 §5.1). No extensions, so reserved bits must be zero.

/// Opcodes of RFC 6455 §5.2 that are used here.
pub mod opcode {
    /// A further part of a message.
    pub const CONTINUATION: u8 = 0x0;
    /// A text message, or its first part.
    pub const TEXT: u8 = 0x1;
    /// The last frame of a side.
    pub const CLOSE: u8 = 0x8;
    /// Asks for a pong.
    pub const PING: u8 = 0x9;
    /// Answers a ping with its payload.
    pub const PONG: u8 = 0xA;
}

/// One frame, borrowed from the buffer it was read into.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Last (or only) part of its message.
    pub fin: bool,
    /// What it is, see [`opcode`].
    pub opcode: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Last (or only) part of its message.
    pub fin: bool,
    /// What it is, see [`opcode`].
    pub opcode: u8,
    /// Bytes before the payload.
    pub size: usize,
    /// Bytes of payload.
    pub length: usize,
}

/// The server broke the protocol, or sent more than this client takes; the connection is of no use any more.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// RFC 6455 §5.1: only clients mask.
    #[error("the server sent a masked frame")]
    Masked,
    /// No extension was negotiated that could give them a meaning.
    #[error("the server set reserved bits without an extension")]
    ReservedBits,
    /// RFC 6455 §5.5.
    #[error("the server sent a control frame that is fragmented or longer than 125 bytes")]
    Control,
    /// Longer than the caller takes.
    #[error("the server sent a frame of {0} bytes")]
    TooLarge(u64),
}

/// Reads one frame from the front of `buf`: the frame and the bytes it took, or `None` when it is not complete yet.
/// A frame of more than `most` bytes is an error.
pub fn decode(buf: &[u8], most: usize) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some(head) = head(buf, most)? else {
        return Ok(None);
    };
    let end = head.size + head.length;
    let frame = buf.get(head.size..end).map(|payload| Frame {
        fin: head.fin,
        opcode: head.opcode,
        payload,
    });
    Ok(frame.map(|frame| (frame, end)))
}

/// Reads a frame's head from the front of `buf`, whether its payload is there or not; `None` when it is not complete.
/// A frame of more than `most` bytes is an error.
pub fn head(buf: &[u8], most: usize) -> Result<Option<Head>, FrameError> {
    let &[first, second, ref rest @ ..] = buf else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
    let length = match second & 0x7F {
        126 => rest
            .first_chunk::<2>()
            .map(|bytes| (2, u64::from(u16::from_be_bytes(*bytes)))),
        127 => rest
            .first_chunk::<8>()
            .map(|bytes| (8, u64::from_be_bytes(*bytes))),
        short => Some((0, u64::from(short))),
    };
    let Some((extra, length)) = length else {
        return Ok(None);
    };
    if opcode >= opcode::CLOSE && (!fin || length > 125) {
        return Err(FrameError::Control);
    }
    if length > most as u64 {
        return Err(FrameError::TooLarge(length));
    }
    Ok(Some(Head {
        fin,
        opcode,
        size: 2 + extra,
        length: length as usize,
    }))
}

/// Appends one masked frame.
pub fn encode(opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..65_536 => {
            out.push(0x80 + 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 + 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}

/// The code in a close frame's payload; 1005 when there is none (RFC 6455 §7.1.5).
pub fn close_code(payload: &[u8]) -> u16 {
    payload
        .first_chunk::<2>()
        .map_or(1005, |bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::coding::{Data, OpCode};
    use tungstenite::protocol::frame::{Frame as Reference, FrameHeader};

    use super::*;

    fn server_frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Reference::message(payload.to_vec(), OpCode::Data(Data::Text), true)
            .format(&mut bytes)
            .unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn frames_of_a_server_are_read_whole_or_not_at_all(length in 0usize..70_000, cut in 0.0f64..1.0) {
            let payload = vec![b'x'; length];
            let bytes = server_frame(&payload);
            let (frame, used) = decode(&bytes, 1 << 17).unwrap().unwrap();
            prop_assert_eq!(used, bytes.len());
            prop_assert_eq!(frame, Frame { fin: true, opcode: opcode::TEXT, payload: &payload });
            let part = (bytes.len() as f64 * cut) as usize;
            prop_assert_eq!(decode(&bytes[..part], 1 << 17), Ok(None));
        }

        #[test]
        fn frames_of_this_client_are_read_by_another_implementation(payload: Vec<u8>, mask: [u8; 4]) {
            let mut bytes = Vec::new();
            encode(opcode::TEXT, &payload, mask, &mut bytes);
            let mut cursor = std::io::Cursor::new(&bytes);
            let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            prop_assert_eq!(header.mask, Some(mask));
            prop_assert_eq!(length, payload.len() as u64);
            let start = cursor.position() as usize;
            let unmasked: Vec<u8> =
                bytes[start..].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            prop_assert_eq!(unmasked, payload);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes, 1 << 17);
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error() {
        assert_eq!(decode(&[0x81, 0x80], 100), Err(FrameError::Masked));
        assert_eq!(decode(&[0xC1, 0x00], 100), Err(FrameError::ReservedBits));
        assert_eq!(decode(&[0x09, 0x00], 100), Err(FrameError::Control));
        assert_eq!(decode(&[0x88, 126, 0, 200], 100), Err(FrameError::Control));
        assert_eq!(decode(&[0x81, 101], 100), Err(FrameError::TooLarge(101)));
    }

    #[test]
    fn a_close_without_a_code_is_1005() {
        assert_eq!(close_code(&[]), 1005);
        assert_eq!(close_code(&[0x03, 0xF4, b'b', b'y', b'e']), 1012);
    }
}
