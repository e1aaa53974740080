//! The request's head, before anything is done about it.
//!
//! A client that sends its request slowly, or never, costs a socket and the bytes that came, and none of the places that
//! handshakes are done in (`handshakeConcurrency`): those of others do not wait for it. Only a whole head is given to
//! hyper, together with the socket ([`Rewound`]). The answer to an upgrade is held back for the first message to go with it.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Bytes of a request's head, at most.
pub const HEAD_BYTES: usize = 16 << 10;
/// Most heads are smaller.
const USUAL_BYTES: usize = 1 << 10;

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The client went away; there is nobody to tell.
    #[error("the connection ended before the request did")]
    Ended,
    /// More than [`HEAD_BYTES`]: answered with 431.
    #[error("the request's head is larger than {HEAD_BYTES} bytes")]
    TooLarge,
}

impl From<io::Error> for HeadError {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

/// Reads until the empty line that ends the head (RFC 9112 §2.1), and what came with it; `head` came before. Not
/// cancel-safe: what was read is lost with the connection.
pub async fn read(socket: &Stream, mut head: Vec<u8>) -> Result<Vec<u8>, HeadError> {
    let mut seen = 0;
    loop {
        let end = end_of_head(&head, seen);
        if end.unwrap_or(head.len()) > HEAD_BYTES {
            return Err(HeadError::TooLarge);
        }
        if end.is_some() {
            return Ok(head);
        }
        seen = head.len();
        // no buffer before there is something to read
        socket.readable().await?;
        head.reserve(USUAL_BYTES);
        match socket.try_read_buf(&mut head) {
            Ok(0) => return Err(HeadError::Ended),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where the head ends; nothing before `seen` ended it. A bare line feed ends a line, too (RFC 9112 §2.2).
pub fn end_of_head(bytes: &[u8], seen: usize) -> Option<usize> {
    let start = seen.saturating_sub(3);
    let rest = &bytes[start..];
    (0..rest.len()).find_map(|at| {
        let after = &rest[at..];
        let length = if after.starts_with(b"\n\r\n") {
            3
        } else if after.starts_with(b"\n\n") {
            2
        } else {
            return None;
        };
        Some(start + at + length)
    })
}

/// What the answer to an upgrade begins with, and no other.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// A socket of which some was read already. What is written to it goes out when it is flushed, unless it is the answer to
/// an upgrade: that is left to who takes the socket.
#[derive(Debug)]
pub struct Rewound {
    read: Bytes,
    written: Vec<u8>,
    socket: Stream,
}

/// What is left of a [`Rewound`].
#[derive(Debug)]
pub struct Left {
    /// What was not read again.
    pub read: Bytes,
    /// The answer that is to be sent first.
    pub answer: Bytes,
    /// The socket.
    pub socket: Stream,
}

impl Rewound {
    /// As if `read` were still to come.
    pub fn new(read: Vec<u8>, socket: Stream) -> Self {
        Self {
            read: read.into(),
            written: Vec::new(),
            socket,
        }
    }

    /// The socket, and what has to be done with it.
    pub fn into_left(self) -> Left {
        Left {
            read: self.read,
            answer: self.written.into(),
            socket: self.socket,
        }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            ready!(self.socket.poll_read_ready(cx))?;
            let mut read = Vec::with_capacity(USUAL_BYTES);
            match self.socket.try_read_buf(&mut read) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => self.read = read.into(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let length = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { written, socket, .. } = &mut *self;
        if written.starts_with(SWITCHING) {
            return Poll::Ready(Ok(()));
        }
        while !written.is_empty() {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_write(written) {
                Ok(count) => drop(written.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        while !socket.try_flush()? {
            ready!(socket.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        while !self.socket.try_end() {
            ready!(self.socket.poll_write_ready(cx))?;
        }
        self.socket.shut_down(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_head_ends_at_the_first_empty_line_however_it_is_written() {
        let table: [(&[u8], Option<usize>); 6] = [
            (b"GET / HTTP/1.1\r\n\r\nrest", Some(18)),
            (b"GET / HTTP/1.1\n\nrest", Some(16)),
            (b"GET / HTTP/1.1\r\nA: b\n\r\n", Some(23)),
            (b"GET / HTTP/1.1\r\nA: b\r\n", None),
            (b"\r\r\r\n", None),
            (b"", None),
        ];
        for (bytes, expected) in table {
            assert_eq!(end_of_head(bytes, 0), expected, "{}", bytes.escape_ascii());
        }
    }

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0.into())
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused_and_one_that_is_cut_off_is_none() {
        let (mut client, server) = pair().await;
        tokio::spawn(async move { client.write_all(&vec![b'a'; HEAD_BYTES + 1]).await });
        assert!(matches!(
            read(&server, Vec::new()).await,
            Err(HeadError::TooLarge)
        ));
        let (mut client, server) = pair().await;
        client.write_all(b"GET /ws HTTP/1.1\r\n").await.unwrap();
        drop(client);
        assert!(matches!(read(&server, Vec::new()).await, Err(HeadError::Ended)));
    }

    #[tokio::test]
    async fn an_answer_goes_out_when_it_is_flushed_unless_it_is_that_to_an_upgrade() {
        let (mut client, server) = pair().await;
        let mut rewound = Rewound::new(Vec::new(), server);
        rewound.write_all(b"HTTP/1.1 404 ").await.unwrap();
        rewound.write_all(b"Not Found").await.unwrap();
        rewound.flush().await.unwrap();
        let mut seen = [0; 22];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"HTTP/1.1 404 Not Found");
        rewound.write_all(b"HTTP/1.1 101 Switching").await.unwrap();
        rewound.flush().await.unwrap();
        let left = rewound.into_left();
        assert_eq!(&left.answer[..], b"HTTP/1.1 101 Switching");
        drop(left);
        assert_eq!(client.read(&mut seen).await.unwrap(), 0, "nothing of it was sent");
    }

    proptest! {
        #[test]
        fn the_end_is_found_wherever_the_reads_are_cut(
            bytes in "[ab\r\n]{0,30}", cuts in proptest::collection::btree_set(0..30_usize, 0..6),
        ) {
            let bytes = bytes.as_bytes();
            let whole = end_of_head(bytes, 0);
            let (mut seen, mut found) = (0, None);
            for cut in cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]) {
                found = found.or_else(|| end_of_head(&bytes[..cut], seen));
                seen = cut;
            }
            prop_assert_eq!(found, whole);
        }
    }
}
