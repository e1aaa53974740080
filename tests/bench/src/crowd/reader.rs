//! From bytes to frames, without keeping what nobody looks at: of a long payload only the beginning is held.

use anyhow::{Result, bail};
use wsfleet_load::wire::frame::{self, Head, opcode};

/// How much of a payload is looked at, in bytes; a control frame is never longer (RFC 6455 §5.5).
const LOOK: usize = 256;
/// Longest frame that is taken, in bytes.
const MOST: usize = 1 << 20;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A whole text has come; this is its beginning.
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Close(u16),
}

/// The state between two reads of one socket. An idle one holds no memory.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of a frame that is not complete.
    partial: Vec<u8>,
    /// Bytes of its payload that are still to come, when its beginning is all there.
    missing: usize,
}

impl Reader {
    /// Gives each complete frame to `each`.
    pub(super) fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(Part<'_>) -> Result<()>) -> Result<()> {
        let mut bytes = bytes;
        if self.missing > 0 {
            let taken = self.missing.min(bytes.len());
            self.missing -= taken;
            bytes = &bytes[taken..];
            if self.missing > 0 {
                return Ok(());
            }
            let partial = std::mem::take(&mut self.partial);
            if let Some(head) = frame::head(&partial, MOST)? {
                each(part(head, &partial[head.size..])?)?;
            }
        }
        if self.partial.is_empty() {
            return self.frames(bytes, each);
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(bytes);
        self.frames(&whole, each)
    }

    fn frames(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Part<'_>) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            let head = frame::head(bytes, MOST)?;
            let Some(head) = head.filter(|head| bytes.len() >= head.size + head.length.min(LOOK)) else {
                self.partial = bytes.to_vec();
                return Ok(());
            };
            let (end, look) = (head.size + head.length, head.size + head.length.min(LOOK));
            if bytes.len() < end {
                self.missing = end - bytes.len();
                self.partial = bytes[..look].to_vec();
                return Ok(());
            }
            each(part(head, &bytes[head.size..look])?)?;
            bytes = &bytes[end..];
        }
        Ok(())
    }
}

fn part(head: Head, payload: &[u8]) -> Result<Part<'_>> {
    Ok(match head.opcode {
        opcode::TEXT if head.fin => Part::Text(payload),
        opcode::PING => Part::Ping(payload),
        opcode::CLOSE => Part::Close(frame::close_code(payload)),
        other => bail!("a frame of opcode {other}, fin {}", head.fin),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of a server are those of a client without the mask.
    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        frame::encode(opcode, payload, [0; 4], &mut masked);
        let head = masked.len() - payload.len() - 4;
        masked[1] &= 0x7F;
        masked.drain(head..head + 4);
        masked
    }

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut reader, mut seen) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader
                .feed(piece, &mut |part| {
                    seen.push(match part {
                        Part::Text(text) => format!("text {}", text.len()),
                        other => format!("{other:?}"),
                    });
                    Ok(())
                })
                .unwrap();
        }
        assert!(reader.partial.is_empty() && reader.missing == 0);
        seen
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let mut bytes = server_frame(opcode::TEXT, &[b'a'; 5]);
        bytes.extend(server_frame(opcode::TEXT, &[b'b'; 700]));
        bytes.extend(server_frame(opcode::PING, b"p"));
        bytes.extend(server_frame(opcode::TEXT, &vec![b'c'; 70_000]));
        bytes.extend(server_frame(opcode::CLOSE, &1012u16.to_be_bytes()));
        let expected = ["text 5", "text 256", "Ping([112])", "text 256", "Close(1012)"];
        assert_eq!(read(&[&bytes]), expected);
        for size in [1, 2, 7, 255, 256, 1_000, 65_536] {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(read(&pieces), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_text_counts_when_all_of_it_has_come() {
        let bytes = server_frame(opcode::TEXT, &[b'a'; 1_000]);
        let (mut reader, texts) = (Reader::default(), std::cell::Cell::new(0));
        let mut count = |_: Part<'_>| {
            texts.set(texts.get() + 1);
            Ok(())
        };
        reader.feed(&bytes[..1_002], &mut count).unwrap();
        reader.feed(&bytes[1_002..1_003], &mut count).unwrap();
        assert_eq!(texts.get(), 0);
        reader.feed(&bytes[1_003..], &mut count).unwrap();
        assert_eq!(texts.get(), 1);
    }
}
