//! RFC 6455, the server's side: bytes to messages and messages to frames. Sans-IO.
//!
//! [`Decoder::next`] works in the caller's buffer: it unmasks in place and lends out the message, so a message that
//! came in one frame is never copied. A connection keeps a [`Decoder`] (one pointer) and whatever bytes the decoder did
//! not use; nothing is allocated unless a fragmented message is under way, and nothing is believed before it is
//! checked: a frame that is too large is refused by its header, before a byte of it is kept.
//!
//! Frames to clients are never masked (§5.1) and never fragmented, so one frame can be written to every member of a
//! room. permessage-deflate (RFC 7692) is a step between the assembly of a message and its UTF-8 validation. Neither side
//! keeps a context from one message to the next, so compressor and inflater belong to the thread, and a connection has
//! one byte that says what was negotiated.

mod decode;
mod deflate;
mod encode;
mod extension;
mod frame;
mod handshake;
mod inflate;

pub use decode::{Decoded, Decoder, Incoming, PeerClose, Rules, Violation};
pub use deflate::{DEFLATE_FROM, deflate_frame, write_deflated_frame};
pub use encode::{close_frame, frame, ping_frame, pong_frame, text_frame, write_frame};
pub use extension::{Agreed, Deflate, InvalidExtensions};
pub use frame::Opcode;
pub use handshake::{InvalidKey, VERSION, accept_key};

#[cfg(test)]
mod tests;
