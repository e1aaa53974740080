//! From the compressed bytes of one message to the message (RFC 7692 §7.2.2).
//!
//! No message refers to one before it (`client_no_context_takeover`), so one inflater a thread serves all connections,
//! and what a connection keeps between messages is nothing.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

use super::decode::Violation;

/// Ends every message; senders leave it out (§7.2.1).
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// Bytes that are made room for at first: most messages need no more, and a bomb is not believed in advance.
const FIRST_ROOM: usize = 1 << 10;

thread_local! {
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Inflates a message of at most `max` bytes; of one that would be larger no more than `max` bytes are ever made.
pub(super) fn inflate(compressed: &[u8], max: usize) -> Result<Vec<u8>, Violation> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let mut out = Vec::new();
        for part in [compressed, &TAIL] {
            inflate_part(inflater, part, &mut out, max)?;
        }
        Ok(out)
    })
}

fn inflate_part(
    inflater: &mut Decompress,
    mut rest: &[u8],
    out: &mut Vec<u8>,
    max: usize,
) -> Result<(), Violation> {
    loop {
        make_room(out, max)?;
        let (taken, made) = (inflater.total_in(), out.len());
        let status = inflater
            .decompress_vec(rest, out, FlushDecompress::Sync)
            .map_err(|_| Violation::Deflate)?;
        let taken = (inflater.total_in() - taken) as usize;
        rest = rest.get(taken..).unwrap_or_default();
        match status {
            // a last block: what follows is a stream of its own (RFC 7692 §7.2.3.4)
            Status::StreamEnd => inflater.reset(false),
            Status::Ok | Status::BufError if out.len() == out.capacity() => continue,
            Status::Ok | Status::BufError if taken == 0 && out.len() == made && !rest.is_empty() => {
                return Err(Violation::Deflate);
            }
            Status::Ok | Status::BufError => {}
        }
        if rest.is_empty() {
            return if out.len() > max {
                Err(Violation::TooBig)
            } else {
                Ok(())
            };
        }
    }
}

/// Room for one byte at least, and never for more than one byte over `max`: that byte is what shows a bomb.
fn make_room(out: &mut Vec<u8>, max: usize) -> Result<(), Violation> {
    if out.len() > max {
        return Err(Violation::TooBig);
    }
    if out.len() == out.capacity() {
        let more = out.len().max(FIRST_ROOM).min(max + 1 - out.len());
        out.reserve_exact(more);
    }
    Ok(())
}
