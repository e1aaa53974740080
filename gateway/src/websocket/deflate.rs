//! permessage-deflate for what is sent: each message alone (RFC 7692 §7.2.1, `server_no_context_takeover`), so that the
//! same compressed frame can be written to every member of a room, and no connection has a compressor.

use std::cell::RefCell;

use flate2::{Compress, Compression, FlushCompress};

use super::encode::{split_server_frame, write_frame_with};
use super::extension::Deflate;
use super::frame::{FIN, Opcode, RSV1};
use super::inflate::TAIL;
use super::write_frame;

/// Payloads of fewer bytes are sent as they are: alone, without what was said before, a small message saves little, and
/// inflating it costs the client more than the bytes do.
pub const DEFLATE_FROM: usize = 512;

/// Fast, with most of what a higher level would save on texts of this size.
const LEVEL: u32 = 3;
/// Room that one call of the compressor is given at least.
const ROOM: usize = 256;

thread_local! {
    /// A compressor for each size of window that clients have asked for.
    static DEFLATERS: RefCell<Vec<(Deflate, Compress)>> = const { RefCell::new(Vec::new()) };
}

/// Appends one compressed frame with this payload, even if that makes it larger. Control frames are never compressed
/// (RFC 7692 §6.1).
pub fn write_deflated_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], deflate: Deflate) {
    let start = out.len();
    if !opcode.is_control() {
        let mut done = false;
        write_frame_with(out, FIN | RSV1 | opcode.bits(), |out| {
            done = append_deflated(out, payload, deflate);
        });
        if done {
            return;
        }
        out.truncate(start);
    }
    write_frame(out, opcode, |out| out.extend_from_slice(payload));
}

/// Appends a frame that [`write_frame`] made: compressed, if its payload has [`DEFLATE_FROM`] bytes and that makes it
/// smaller. True when it does.
pub fn deflate_frame(out: &mut Vec<u8>, frame: &[u8], deflate: Deflate) -> bool {
    let start = out.len();
    if let Some((opcode, payload)) = split_server_frame(frame)
        && payload.len() >= DEFLATE_FROM
    {
        write_deflated_frame(out, opcode, payload, deflate);
        if out.len() - start < frame.len() {
            return true;
        }
        out.truncate(start);
    }
    out.extend_from_slice(frame);
    false
}

/// Appends the compressed payload without its tail. False when the compressor failed, which it does not.
fn append_deflated(out: &mut Vec<u8>, payload: &[u8], deflate: Deflate) -> bool {
    let start = out.len();
    DEFLATERS.with_borrow_mut(|deflaters| {
        let deflater = deflater(deflaters, deflate);
        deflater.reset();
        let mut rest = payload;
        loop {
            out.reserve(ROOM);
            let before = deflater.total_in();
            let flushed = deflater.compress_vec(rest, out, FlushCompress::Sync);
            let taken = (deflater.total_in() - before) as usize;
            rest = rest.get(taken..).unwrap_or_default();
            if flushed.is_err() {
                return false;
            }
            // room was left over: everything that there was has been written
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
        let whole = out[start..].ends_with(&TAIL);
        if whole {
            out.truncate(out.len() - TAIL.len());
        }
        whole
    })
}

fn deflater(deflaters: &mut Vec<(Deflate, Compress)>, deflate: Deflate) -> &mut Compress {
    let known = deflaters.iter().position(|(known, _)| *known == deflate);
    let index = known.unwrap_or_else(|| {
        let level = Compression::new(LEVEL);
        let deflater = Compress::new_with_window_bits(level, false, deflate.window_bits());
        deflaters.push((deflate, deflater));
        deflaters.len() - 1
    });
    &mut deflaters[index].1
}
