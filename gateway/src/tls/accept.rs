//! The TLS handshake.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::stream::TlsStream;

/// First byte of a TLS connection: a record of the handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// Why there is no TLS with a client.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client went away; there is nobody to tell.
    #[error("the connection ended before the TLS handshake did")]
    Ended,
    /// The client was told why if it spoke TLS at all.
    #[error("the TLS handshake failed")]
    Failed,
}

/// Makes the handshake; gives the connection, and what the client has already sent on it. Not cancel-safe: what was read
/// is lost with the connection.
///
/// What costs something is done with one of the `places`. A client that is slow in between has none.
pub async fn accept(
    config: Arc<ServerConfig>,
    socket: TcpStream,
    places: &Semaphore,
) -> Result<(TlsStream, Vec<u8>), AcceptError> {
    let ended = |_: io::Error| AcceptError::Ended;
    let mut first = [0];
    if socket.peek(&mut first).await.map_err(ended)? == 0 {
        return Err(AcceptError::Ended);
    }
    if first[0] != HANDSHAKE {
        refuse_plain(&socket);
        return Err(AcceptError::Failed);
    }
    let stream = TlsStream::new(config, socket).map_err(|_| AcceptError::Failed)?;
    let mut early = Vec::new();
    while stream.is_handshaking() {
        let socket = stream.socket();
        socket.readable().await.map_err(ended)?;
        {
            let _place = places.acquire().await.map_err(|_| AcceptError::Ended)?;
            match stream.try_read(|bytes| early.extend_from_slice(bytes)) {
                Ok(0) => return Err(AcceptError::Ended),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(AcceptError::Failed),
                Err(_) => return Err(AcceptError::Ended),
            }
        }
        while !stream.try_flush().map_err(ended)? {
            socket.writable().await.map_err(ended)?;
        }
    }
    Ok((stream, early))
}

/// Most who send something else here have typed `ws://`.
fn refuse_plain(socket: &TcpStream) {
    // the request is read, for a reset would overtake the answer
    let mut request = [0; 4 << 10];
    if matches!(socket.try_read(&mut request), Ok(1..)) && request[0].is_ascii_uppercase() {
        let text = "this port speaks TLS: connect with wss:// or https://\n";
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\n\r\n{text}",
            text.len()
        );
        // a client that cannot take so little at once does without
        let _ = socket.try_write(answer.as_bytes());
    }
}
