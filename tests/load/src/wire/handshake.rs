//! The opening handshake (RFC 6455 §4.1), as text: no HTTP client lives longer than the upgrade.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tungstenite::handshake::derive_accept_key;

/// Longest answer head that is read.
pub const HEAD_MOST: usize = 16 * 1024;

/// Appends the request; the same `key` is needed to check the answer.
pub fn request(path: &str, host: &str, key: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
}

/// A `Sec-WebSocket-Key`.
pub fn key(nonce: [u8; 16]) -> String {
    BASE64.encode(nonce)
}

/// The answer's head.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Upgraded; frames begin after so many bytes.
    Upgraded {
        /// Bytes.
        head: usize,
    },
    /// Another status.
    Refused {
        /// HTTP status.
        status: u16,
        /// How long the server asks to stay away.
        retry_after: Option<Duration>,
    },
}

/// The answer cannot be trusted to be a WebSocket server's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnswerError {
    /// Or no HTTP that can be read.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// Nobody needs that much.
    #[error("the answer's head is longer than {HEAD_MOST} bytes")]
    TooLong,
    /// RFC 6455 §4.1, point 4 of the checks.
    #[error("Sec-WebSocket-Accept is missing or does not match the key")]
    Accept,
}

/// Reads the answer from the front of `buf`; `None` when its head is not complete yet.
pub fn answer(buf: &[u8], key: &str) -> Result<Option<Answer>, AnswerError> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(buf) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if buf.len() < HEAD_MOST => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(AnswerError::TooLong),
        Err(_) => return Err(AnswerError::NotHttp),
    };
    let status = response.code.ok_or(AnswerError::NotHttp)?;
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    if status != 101 {
        let retry_after = header("retry-after")
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_secs);
        return Ok(Some(Answer::Refused { status, retry_after }));
    }
    let expected = derive_accept_key(key.as_bytes());
    if header("sec-websocket-accept") != Some(expected.as_str()) {
        return Err(AnswerError::Accept);
    }
    Ok(Some(Answer::Upgraded { head }))
}

#[cfg(test)]
mod tests {
    use super::*;

    // key and answer of the example in RFC 6455 §1.3
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn an_upgrade_is_accepted_and_says_where_frames_begin() {
        let with_frames = format!("{ANSWER}frames");
        let expected = Answer::Upgraded { head: ANSWER.len() };
        assert_eq!(answer(with_frames.as_bytes(), KEY), Ok(Some(expected)));
        assert_eq!(answer(&ANSWER.as_bytes()[..80], KEY), Ok(None));
        assert_eq!(answer(ANSWER.as_bytes(), "other"), Err(AnswerError::Accept));
    }

    #[test]
    fn a_refusal_carries_its_status_and_retry_after() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 4\r\nContent-Length: 0\r\n\r\n";
        let expected = Answer::Refused {
            status: 503,
            retry_after: Some(Duration::from_secs(4)),
        };
        assert_eq!(answer(text, KEY), Ok(Some(expected)));
    }

    #[test]
    fn what_is_not_http_or_has_no_end_is_an_error() {
        assert_eq!(answer(b"SSH-2.0-OpenSSH\r\n\r\n", KEY), Err(AnswerError::NotHttp));
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MOST));
        assert_eq!(answer(endless.as_bytes(), KEY), Err(AnswerError::TooLong));
    }

    #[test]
    fn the_request_is_one_that_another_implementation_accepts() {
        let text = request("/ws?token=abc", "127.0.0.1:80", &key([7; 16]));
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(parsed.parse(text.as_bytes()).unwrap().is_complete());
        assert_eq!(parsed.path, Some("/ws?token=abc"));
    }
}
