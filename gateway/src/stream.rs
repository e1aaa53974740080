//! A client's connection as the gateway uses it: a TCP socket, or TLS on one.
//!
//! A plain one costs what its socket costs, and one system call for each write; what TLS needs is behind a pointer.
//! Nothing here waits, but the two that await readiness.

use std::future::poll_fn;
use std::hint;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::tls::TlsStream;

/// A connection of either kind. Many may write and one may read at a time.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self(Kind::Plain(socket))
    }
}

impl From<TlsStream> for Stream {
    fn from(tls: TlsStream) -> Self {
        Self(Kind::Tls(Box::new(tls)))
    }
}

impl Stream {
    const fn socket(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(socket) => socket,
            Kind::Tls(tls) => tls.socket(),
        }
    }

    /// Ready when a read may give something.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_read_ready(cx)
    }

    /// Ready when a write, or a flush, may get on.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_write_ready(cx)
    }

    /// Awaits that a read may give something. Cancel-safe: nothing is read.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Reads what there is into a buffer that is larger than one read's worth; 0 at the end of the stream.
    /// `WouldBlock`: nothing that is for us.
    pub fn try_read(&self, scratch: &mut Vec<u8>) -> io::Result<usize> {
        match &self.0 {
            Kind::Plain(socket) => socket.try_read(scratch),
            Kind::Tls(tls) => {
                let mut end = 0;
                tls.try_read(|bytes| {
                    let start = end;
                    end += bytes.len();
                    if end > scratch.len() {
                        scratch.resize(end, 0);
                    }
                    scratch[start..end].copy_from_slice(bytes);
                })
            }
        }
    }

    /// Reads what there is behind what is in `into`, which has room; 0 at the end of the stream. `WouldBlock`: nothing
    /// that is for us.
    pub fn try_read_buf(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        match &self.0 {
            Kind::Plain(socket) => socket.try_read_buf(into),
            Kind::Tls(tls) => tls.try_read(|bytes| into.extend_from_slice(bytes)),
        }
    }

    /// Has the processor fetch what a write needs to know of the socket.
    pub fn fetch(&self) {
        if let Kind::Plain(socket) = &self.0 {
            hint::black_box(socket.as_raw_fd());
        }
    }

    /// Writes; gives how much was taken. With TLS, what was taken may have to be flushed: see [`Stream::is_flushed`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            // the runtime is asked, and told, only when the socket takes nothing: what it keeps about a socket is one more
            // cache line for each of ten thousand members; and the C library makes of every call a point at which a thread may
            // be cancelled
            Kind::Plain(socket) => match send(socket, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::WOULDBLOCK) => socket.try_write(bytes),
                sent => Ok(sent?),
            },
            Kind::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// [`Stream::try_write`] from several buffers.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            Kind::Plain(socket) => socket.try_write_vectored(slices),
            Kind::Tls(tls) => tls.try_write_vectored(slices),
        }
    }

    /// Whether the system has all that was taken.
    pub fn is_flushed(&self) -> bool {
        match &self.0 {
            Kind::Plain(_) => true,
            Kind::Tls(tls) => tls.is_flushed(),
        }
    }

    /// Passes on what was taken: true when all of it is the system's now, false when the socket takes no more.
    pub fn try_flush(&self) -> io::Result<bool> {
        match &self.0 {
            Kind::Plain(_) => Ok(true),
            Kind::Tls(tls) => tls.try_flush(),
        }
    }

    /// Tells the peer, where the protocol has words for it, that nothing comes any more: true when it is told or cannot
    /// be told, false when the socket takes no more.
    pub fn try_end(&self) -> bool {
        match &self.0 {
            Kind::Plain(_) => true,
            Kind::Tls(tls) => tls.try_end(),
        }
    }

    /// From now on the system keeps nothing for the peer once the socket is closed, but resets the connection: for one
    /// that does not read, and for which megabytes would else wait until the system gives up, minutes later.
    pub fn abort_when_closed(&self) {
        // fails only when the peer is gone already, and then nothing waits
        let _ = self.socket().set_zero_linger();
    }

    /// Shuts the socket down. A read of ours ends by `Both`.
    pub fn shut_down(&self, how: Shutdown) {
        // fails only when the peer is gone already, which the reader sees as well
        let _ = SockRef::from(self.socket()).shutdown(how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_is_tls_costs_a_plain_connection_nothing() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }
}
