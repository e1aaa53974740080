//! What differs between the servers on the wire: how a client gets in, publishes, and knows a delivery when it sees one.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `?room=` in the path, and a token; the server says `joined`; any text goes to the room.
    PlainToken,
    /// wsfleet's JSON protocol (`docs/protocol.md`).
    Gateway,
    /// The same, without a token.
    GatewayWithoutToken,
    /// Engine.IO 4 over WebSocket only, with Socket.IO 5 in it.
    SocketIo,
}

/// What a text means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// To be answered with this text.
    Answer(String),
    Joined,
    /// A published message, with its number.
    Delivery(u32),
    /// Nothing that matters here.
    Quiet,
    /// The server refuses, or says what it must not.
    Unexpected,
}

impl Protocol {
    pub(crate) const fn needs_token(self) -> bool {
        !matches!(self, Self::GatewayWithoutToken)
    }

    /// The request target.
    pub(crate) fn path(self, room: &str, token: &str) -> String {
        match self {
            Self::PlainToken => format!("/ws?room={room}&token={token}"),
            Self::Gateway => format!("/ws?token={token}"),
            Self::GatewayWithoutToken => "/ws".into(),
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket".into(),
        }
    }

    /// Reads a text, or its beginning if it is long; `room` and `token` are the client's.
    pub(crate) fn read(self, text: &[u8], room: &str, token: &str) -> Meaning {
        match self {
            Self::PlainToken => match text {
                b"joined" => Meaning::Joined,
                _ => delivery(text),
            },
            Self::Gateway | Self::GatewayWithoutToken => gateway(text, room),
            Self::SocketIo => socket_io(text, room, token),
        }
    }

    /// The text that publishes `payload`, which needs no escapes.
    pub(crate) fn publish(self, room: &str, payload: &str) -> String {
        match self {
            Self::PlainToken => payload.into(),
            Self::Gateway | Self::GatewayWithoutToken => {
                format!(r#"{{"type":"room_message","room":"{room}","payload":"{payload}"}}"#)
            }
            Self::SocketIo => format!(r#"42["publish","{room}","{payload}"]"#),
        }
    }
}

fn gateway(text: &[u8], room: &str) -> Meaning {
    let is = |kind: &str| {
        text.strip_prefix(br#"{"type":""#)
            .and_then(|rest| rest.strip_prefix(kind.as_bytes()))
            .is_some_and(|rest| rest.starts_with(b"\""))
    };
    if is("room_message") {
        delivery(text)
    } else if is("welcome") {
        Meaning::Answer(format!(r#"{{"type":"join","room":"{room}"}}"#))
    } else if is("joined") {
        Meaning::Joined
    } else if is("error") {
        Meaning::Unexpected
    } else {
        Meaning::Quiet
    }
}

/// Packets: 0 open, 2 ping, 40 connect, 43 acknowledgement (of id 0), 42 event.
fn socket_io(text: &[u8], room: &str, token: &str) -> Meaning {
    match text {
        b"2" => Meaning::Answer("3".into()),
        // closing is said by the frame that follows
        b"1" | b"41" | b"6" => Meaning::Quiet,
        [b'0', ..] => Meaning::Answer(format!(r#"40{{"token":"{token}"}}"#)),
        [b'4', b'0', ..] => Meaning::Answer(format!(r#"420["join","{room}"]"#)),
        [b'4', b'3', b'0', ..] => Meaning::Joined,
        [b'4', b'2', ..] => delivery(text),
        _ => Meaning::Unexpected,
    }
}

/// Digits of a message's number, after `#`.
const DIGITS: usize = 8;

/// A payload of `size` bytes that carries `number`.
pub(crate) fn payload(number: u32, size: usize) -> String {
    let mut text = format!("#{number:0DIGITS$}");
    text.extend(std::iter::repeat_n('x', size.saturating_sub(text.len())));
    text
}

fn delivery(text: &[u8]) -> Meaning {
    let digits = text
        .iter()
        .position(|byte| *byte == b'#')
        .and_then(|at| text.get(at + 1..=at + DIGITS));
    let number = digits.and_then(|digits| {
        digits.iter().try_fold(0, |number: u32, digit| {
            digit
                .is_ascii_digit()
                .then(|| number * 10 + u32::from(digit - b'0'))
        })
    });
    number.map_or(Meaning::Unexpected, Meaning::Delivery)
}

/// A token for each of `count` users (HS256, RFC 7519), valid for an hour.
pub(crate) fn tokens(secret: &[u8], count: usize) -> Result<Vec<String>> {
    #[derive(Serialize)]
    struct Claims {
        sub: String,
        exp: u64,
    }
    let key = EncodingKey::from_secret(secret);
    let exp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3600;
    let token = |user| {
        let claims = Claims {
            sub: format!("user-{user}"),
            exp,
        };
        Ok(jsonwebtoken::encode(&Header::default(), &claims, &key)?)
    };
    (0..count).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_is_read_back_wherever_it_stands() {
        let text = payload(1_234, 100);
        assert_eq!(text.len(), 100);
        let delivered = [
            (Protocol::PlainToken, text.clone()),
            (
                Protocol::Gateway,
                format!(r#"{{"type":"room_message","roomId":"r","userId":"u","payload":"{text}"}}"#),
            ),
            (Protocol::SocketIo, format!(r#"42["message","{text}"]"#)),
        ];
        for (protocol, text) in delivered {
            assert_eq!(
                protocol.read(text.as_bytes(), "r", ""),
                Meaning::Delivery(1_234),
                "{text}"
            );
        }
    }

    #[test]
    fn a_delivery_without_a_number_is_unexpected() {
        for text in ["x", "#12", "#1234567x"] {
            assert_eq!(
                Protocol::PlainToken.read(text.as_bytes(), "r", ""),
                Meaning::Unexpected,
                "{text}"
            );
        }
    }

    #[test]
    fn clients_of_socket_io_connect_join_and_answer_pings() {
        let read = |text: &str| Protocol::SocketIo.read(text.as_bytes(), "r", "t");
        assert_eq!(
            read(r#"0{"sid":"a"}"#),
            Meaning::Answer(r#"40{"token":"t"}"#.into())
        );
        assert_eq!(
            read(r#"40{"sid":"b"}"#),
            Meaning::Answer(r#"420["join","r"]"#.into())
        );
        assert_eq!(read("430[]"), Meaning::Joined);
        assert_eq!(read("2"), Meaning::Answer("3".into()));
        assert_eq!(read(r#"44{"message":"bad signature"}"#), Meaning::Unexpected);
    }

    #[test]
    fn clients_of_the_gateway_join_when_they_are_welcome() {
        let read = |text: &str| Protocol::Gateway.read(text.as_bytes(), "r", "t");
        assert_eq!(
            read(r#"{"type":"welcome","connectionId":"c"}"#),
            Meaning::Answer(r#"{"type":"join","room":"r"}"#.into())
        );
        assert_eq!(read(r#"{"type":"joined","room":"r"}"#), Meaning::Joined);
        assert_eq!(read(r#"{"type":"user_joined","roomId":"r"}"#), Meaning::Quiet);
        assert_eq!(read(r#"{"type":"error","error":"no"}"#), Meaning::Unexpected);
    }
}
