//! The messages between clients and gateway: one model, tagged by `type`, that travels in one of three [`Codec`]s.
//!
//! Sans-IO. [`ClientMessage::parse`] reads a frame's text without copying it; [`Format::encode_frame`] appends a
//! frame that can be written as it is, to one client or to ten thousand. Additive rule: unknown fields are ignored, an
//! unknown `type` is answered with an [`ErrorCode`], never a reason to close. Close codes are in [`CloseCode`].

mod client;
mod close;
mod codec;
mod error;
mod fields;
mod server;

pub use client::{
    ClientMessage, EVENT_NAME_BYTES, MessageKind, ParseError, Place, REQUEST_ID_BYTES, Rejected, RequestId,
    RoomPlace, USER_ID_BYTES,
};
pub use close::{CloseCode, CloseReason, Initiator, ReconnectAdvice};
pub use codec::{Codec, Format};
pub use error::ErrorCode;
pub use server::{Entry, Lost, ServerMessage, Standing, WelcomeLimits};

#[cfg(test)]
mod tests;
