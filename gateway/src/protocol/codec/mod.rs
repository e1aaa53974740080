//! The forms in which a connection's messages travel, one of which is negotiated as its subprotocol.
//!
//! There is one model, and its form inside the gateway and between gateways is JSON text. What a client sends in another
//! codec becomes that text first and is then read by [`ClientMessage::parse`], so that each rule holds in every codec.
//! What the gateway sends is a [`ServerMessage`], encoded at most once per [`Format`] however many members get it.
//!
//! [`ClientMessage::parse`]: super::ClientMessage::parse
//! [`ServerMessage`]: super::ServerMessage

mod from_json;
mod msgpack;
mod proto;

use std::borrow::Cow;

use super::client::ParseError;
use super::server::ServerMessage;
use crate::websocket::{self, Deflate, Opcode};

/// Bytes that most messages fit in.
const USUAL: usize = 256;

/// How messages are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON in text frames; what is spoken when no subprotocol is offered.
    #[default]
    Json,
    /// The same maps as MessagePack, in binary frames.
    MsgPack,
    /// Protocol Buffers by `docs/wsfleet.v1.proto`, in binary frames.
    Proto,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Self; 3] = [Self::Json, Self::MsgPack, Self::Proto];

    /// Its name in `Sec-WebSocket-Protocol` (RFC 6455 §1.9).
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "wsfleet.v1.json",
            Self::MsgPack => "wsfleet.v1.msgpack",
            Self::Proto => "wsfleet.v1.proto",
        }
    }

    /// The codec of that name.
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.subprotocol() == name)
    }

    /// The frames that its messages travel in; the other kind is not served.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Json => Opcode::Text,
            Self::MsgPack | Self::Proto => Opcode::Binary,
        }
    }

    /// A client's binary frame as JSON text of at most `max` bytes: escapes make text longer than what it says, and
    /// whoever gets the text must not pay for that.
    pub fn to_json(self, frame: &[u8], max: usize) -> Result<Cow<'_, str>, ParseError> {
        let text = match self {
            Self::Json => Cow::Borrowed(std::str::from_utf8(frame).map_err(|_| ParseError::InvalidJson)?),
            Self::MsgPack => msgpack::to_json(frame, max)?.into(),
            Self::Proto => proto::to_json(frame)?.into(),
        };
        if text.len() > max {
            return Err(ParseError::TooBig(max));
        }
        Ok(text)
    }

    /// Appends a message without a frame around it.
    pub fn encode(self, message: &ServerMessage<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => message.encode(out),
            Self::MsgPack => {
                let mut json = Vec::with_capacity(USUAL);
                message.encode(&mut json);
                from_json::to_msgpack(&json, out);
            }
            Self::Proto => proto::encode(message, out),
        }
    }
}

/// What tells apart the bytes that members of one room get: those of one format share them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Format {
    /// How messages are written down.
    pub codec: Codec,
    /// How they are compressed; `None`: they are not.
    pub deflate: Option<Deflate>,
}

impl Format {
    /// Appends one frame, not compressed, as it goes to a client. May follow other frames in `out`.
    pub fn encode_frame(self, message: &ServerMessage<'_>, out: &mut Vec<u8>) {
        websocket::write_frame(out, self.codec.opcode(), |out| self.codec.encode(message, out));
    }

    /// One frame of its own.
    pub fn frame(self, message: &ServerMessage<'_>) -> bytes::Bytes {
        let mut out = Vec::with_capacity(USUAL);
        self.encode_frame(message, &mut out);
        out.into()
    }
}

impl From<Codec> for Format {
    fn from(codec: Codec) -> Self {
        Self { codec, deflate: None }
    }
}

#[cfg(test)]
mod tests;
