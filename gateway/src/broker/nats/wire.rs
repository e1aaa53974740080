//! The lines that a NATS server sends (docs.nats.io, "Client Protocol"), taken apart. No I/O.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line without its payload; a server's is 4 KiB unless its settings say more, `INFO` may be longer.
const LONGEST_LINE: usize = 64 << 10;
/// Largest payload that a server can be told to allow.
const LARGEST: usize = 64 << 20;

/// One thing that the server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// What it is and allows, as JSON.
    Info(Bytes),
    /// It asks whether we are there.
    Ping,
    /// It has taken everything that was sent before a `PING`.
    Pong,
    /// A complaint.
    Error(String),
    /// A message.
    Message(Message),
    /// Nothing of interest.
    Nothing,
}

/// A message for one of our subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) subject: Bytes,
    /// What the subscription is called.
    pub(super) subscription: Bytes,
    /// `NATS/1.0`, a status if there is one, and the headers.
    pub(super) headers: Bytes,
    pub(super) payload: Bytes,
}

impl Message {
    /// The status of an answer that is no message: 404 when there is none, 503 when nobody answers.
    pub(super) fn status(&self) -> Option<u16> {
        let line = self.headers.split(|&byte| byte == b'\r').next()?;
        let text = std::str::from_utf8(line).ok()?.strip_prefix("NATS/1.0 ")?;
        text.split(' ').next()?.parse().ok()
    }

    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.headers).ok()?;
        text.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// It does not speak NATS, or says more than it may.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("what came is not NATS; is this the port for clients?")]
pub(super) struct Malformed;

/// Takes the next thing off the front; `None` when it is not there in full.
pub(super) fn next(buffer: &mut BytesMut) -> Result<Option<Said>, Malformed> {
    let Some(end) = buffer
        .windows(2)
        .take(LONGEST_LINE)
        .position(|pair| pair == b"\r\n")
    else {
        return if buffer.len() > LONGEST_LINE {
            Err(Malformed)
        } else {
            Ok(None)
        };
    };
    let line = std::str::from_utf8(&buffer[..end]).map_err(|_| Malformed)?;
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let said = match verb.to_ascii_uppercase().as_str() {
        "MSG" => return message(buffer, end, false),
        "HMSG" => return message(buffer, end, true),
        "INFO" => Said::Info(Bytes::copy_from_slice(rest.trim().as_bytes())),
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "-ERR" => Said::Error(rest.trim_matches([' ', '\'']).to_owned()),
        "+OK" => Said::Nothing,
        _ => return Err(Malformed),
    };
    buffer.advance(end + 2);
    Ok(Some(said))
}

/// `MSG subject subscription [reply] bytes`, or `HMSG subject subscription [reply] header-bytes bytes`.
fn message(buffer: &mut BytesMut, end: usize, with_headers: bool) -> Result<Option<Said>, Malformed> {
    let line = std::str::from_utf8(&buffer[..end]).map_err(|_| Malformed)?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let fixed = if with_headers { 5 } else { 4 };
    if words.len() != fixed && words.len() != fixed + 1 {
        return Err(Malformed);
    }
    let number = |word: Option<&&str>| -> Result<usize, Malformed> {
        let number = word.and_then(|word| word.parse().ok());
        number.filter(|&number| number <= LARGEST).ok_or(Malformed)
    };
    let total = number(words.last())?;
    let head = if with_headers {
        number(words.get(words.len() - 2))?
    } else {
        0
    };
    if head > total {
        return Err(Malformed);
    }
    if buffer.len() < end + 2 + total + 2 {
        return Ok(None);
    }
    let (subject, subscription) = (words[1], words[2]);
    let start = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
    let subject = start(subject)..start(subject) + subject.len();
    let subscription = start(subscription)..start(subscription) + subscription.len();
    let line = buffer.split_to(end + 2).freeze();
    let mut body = buffer.split_to(total + 2).freeze();
    if body.split_off(total) != b"\r\n"[..] {
        return Err(Malformed);
    }
    let headers = body.split_to(head);
    Ok(Some(Said::Message(Message {
        subject: line.slice(subject),
        subscription: line.slice(subscription),
        headers,
        payload: body,
    })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &[u8] =
        b"INFO {\"a\":1} \r\nPING\r\n+OK\r\n-ERR 'Authorization Violation'\r\nMSG a.b r.x 4\r\nhi\r\n\r\n\
        HMSG a s _INBOX.1.2 35 37\r\nNATS/1.0 404 No Messages\r\nA: b \r\n\r\nhi\r\nPONG\r\n";

    #[test]
    fn everything_that_a_server_says_is_taken_apart_however_it_is_cut() {
        for cut in 0..STREAM.len() {
            let mut buffer = BytesMut::new();
            let mut said = Vec::new();
            for part in [&STREAM[..cut], &STREAM[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(next) = next(&mut buffer).unwrap() {
                    said.push(next);
                }
            }
            assert_eq!(said.len(), 7, "{said:?}");
            assert_eq!(said[0], Said::Info(Bytes::from_static(b"{\"a\":1}")));
            assert_eq!(said[3], Said::Error("Authorization Violation".into()));
            let Said::Message(plain) = &said[4] else {
                panic!("{said:?}")
            };
            assert_eq!(
                (&plain.subscription[..], &plain.payload[..]),
                (&b"r.x"[..], &b"hi\r\n"[..])
            );
            let Said::Message(answer) = &said[5] else {
                panic!("{said:?}")
            };
            assert_eq!((answer.status(), answer.header("a")), (Some(404), Some("b")));
            assert_eq!(
                (&answer.subject[..], &answer.payload[..]),
                (&b"a"[..], &b"hi"[..])
            );
        }
    }

    #[test]
    fn what_is_not_nats_is_refused() {
        for bytes in [
            "HTTP/1.1 400 Bad Request\r\n",
            "MSG a\r\n",
            "MSG a b 99999999999\r\n",
            "MSG a b 1\r\nxyz",
        ] {
            assert_eq!(next(&mut BytesMut::from(bytes)), Err(Malformed), "{bytes}");
        }
        let mut endless = BytesMut::zeroed(LONGEST_LINE + 1);
        assert_eq!(next(&mut endless), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in "(MSG|HMSG|INFO|PING)? ?[a-z0-9 ]{0,30}(\r\n)?.{0,30}") {
            let _ = next(&mut BytesMut::from(bytes.as_str()));
        }
    }
}
