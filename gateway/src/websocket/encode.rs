//! Frames to clients: final, unmasked (RFC 6455 §5.1), ready to be written to any number of sockets.

use bytes::Bytes;

use super::frame::{CONTROL_MAX, FIN, Opcode};
use crate::protocol::CloseCode;

/// Header size of a payload of 126 to 65,535 bytes: what most messages need.
const USUAL_HEADER: usize = 4;

/// Appends one frame whose payload is what `payload` appends. The length is written in the fewest bytes (§5.2), so a
/// payload that is not of the usual size is moved by a few bytes once.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: impl FnOnce(&mut Vec<u8>)) {
    write_frame_with(out, FIN | opcode.bits(), payload);
}

/// [`write_frame`] with the whole first byte.
pub(super) fn write_frame_with(out: &mut Vec<u8>, first: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; USUAL_HEADER]);
    payload(out);
    let length = out.len() - start - USUAL_HEADER;
    let (header, size) = header(first, length);
    let body = start + USUAL_HEADER;
    if size < USUAL_HEADER {
        out.copy_within(body.., start + size);
        out.truncate(start + size + length);
    } else if size > USUAL_HEADER {
        out.resize(start + size + length, 0);
        out.copy_within(body..body + length, start + size);
    }
    for (slot, byte) in out.iter_mut().skip(start).zip(header).take(size) {
        *slot = byte;
    }
}

/// The header, and how many of its bytes count.
fn header(first: u8, length: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = first;
    match u16::try_from(length) {
        Ok(short @ 0..=125) => {
            header[1] = short as u8;
            (header, 2)
        }
        Ok(long) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&long.to_be_bytes());
            (header, 4)
        }
        Err(_) => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
            (header, 10)
        }
    }
}

/// Opcode and payload of a frame that [`write_frame`] made.
pub(super) fn split_server_frame(frame: &[u8]) -> Option<(Opcode, &[u8])> {
    let [first, second, ..] = *frame else { return None };
    let size = match second {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    Some((Opcode::from_bits(first & !FIN)?, frame.get(size..)?))
}

/// One frame with this payload. Payloads of control frames are cut to the 125 bytes that they may have (§5.5).
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let payload = match payload.get(..CONTROL_MAX) {
        Some(cut) if opcode.is_control() => cut,
        _ => payload,
    };
    let (header, size) = header(FIN | opcode.bits(), payload.len());
    let mut out = Vec::with_capacity(size + payload.len());
    out.extend_from_slice(&header[..size]);
    out.extend_from_slice(payload);
    out.into()
}

/// One text frame.
pub fn text_frame(text: &str) -> Bytes {
    frame(Opcode::Text, text.as_bytes())
}

/// A ping; the peer answers with the same payload (§5.5.3).
pub fn ping_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Ping, payload)
}

/// The answer to a ping, with the ping's payload.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Pong, payload)
}

/// A close frame. `code` `None` makes an empty one; so do the codes that must not be sent (§7.4.1: 1005, 1006). The
/// reason is cut, between characters, to the 123 bytes that it may have.
pub fn close_frame(code: Option<CloseCode>, reason: &str) -> Bytes {
    let Some(code) = code.and_then(|code| CloseCode::from_wire(code.get())) else {
        return frame(Opcode::Close, &[]);
    };
    let reason = &reason[..reason.floor_char_boundary(CONTROL_MAX - 2)];
    let mut payload = Vec::with_capacity(CONTROL_MAX);
    payload.extend_from_slice(&code.get().to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    frame(Opcode::Close, &payload)
}
