//! The floor: what the gateway's work on the wire costs at least on tokio. One task per socket, no HTTP library, no tokens, no
//! limits, no queue, no JSON library. It exchanges the same messages as the gateway does, in as many bytes and as many round
//! trips: what a server needs beyond it is its own. What one read of a publisher brings is concatenated, and written to each
//! member of its room in one call; a member that is slow holds up its room.
//!
//! `wsfleet-bench-floor PORT`; clients connect to any path, are welcome, and `join` a room.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tungstenite::handshake::derive_accept_key;

/// What one read takes at most: a burst of a hundred small messages, or one of 64 KiB.
const READ_MOST: usize = 128 * 1024;

/// The first message of the gateway, with the usual values.
const WELCOME: &str = r#"{"type":"welcome","connectionId":"2a945179-1","userId":"user-0","serverId":"vm","pingInterval":30000,"limits":{"messageBytes":65536,"roomNameBytes":255,"roomsPerConnection":128,"messagesPerSecond":0,"bytesPerSecond":0},"features":["ack","gap","offsets","refresh","user_left"]}"#;
/// What clients say, up to the room's name.
const JOIN: &[u8] = br#"{"type":"join","room":""#;
const MESSAGE: &[u8] = br#"{"type":"room_message","room":""#;

type Members = Arc<Mutex<Vec<Arc<TcpStream>>>>;
type Rooms = Arc<parking_lot::Mutex<HashMap<Vec<u8>, Members>>>;

/// A client, and the room it has joined.
struct Client {
    stream: Arc<TcpStream>,
    rooms: Rooms,
    room: Option<Members>,
}

/// What the texts of one read lead to.
#[derive(Default)]
struct Turn {
    /// For the client.
    answers: Vec<u8>,
    /// For the members of its room.
    messages: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_MOST]);
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args()
        .nth(1)
        .context("usage: wsfleet-bench-floor PORT")?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], port.parse()?).into())?;
    let listener: TcpListener = socket.listen(4096)?;
    let rooms = Rooms::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let rooms = Arc::clone(&rooms);
        tokio::spawn(async move {
            // a socket that breaks is gone, and nobody has to be told
            let _ = serve(stream, rooms).await;
        });
    }
}

async fn serve(stream: TcpStream, rooms: Rooms) -> io::Result<()> {
    let mut client = Client {
        stream: Arc::new(stream),
        rooms,
        room: None,
    };
    handshake(&client.stream).await?;
    let served = client.relay().await;
    if let Some(room) = client.room {
        room.lock()
            .await
            .retain(|member| !Arc::ptr_eq(member, &client.stream));
    }
    served
}

/// Answers the request, and says `welcome` in the same write.
async fn handshake(stream: &TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    loop {
        stream.readable().await?;
        if read_some(stream, &mut request)?
            && let Some(answer) = upgrade(&request)?
        {
            return write_all(stream, &answer).await;
        }
    }
}

/// The answer to a request; `None` when it is not complete.
fn upgrade(request: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Request::new(&mut headers);
    let complete = parsed
        .parse(request)
        .map_err(|_| io::Error::from(ErrorKind::InvalidData))?
        .is_complete();
    if !complete {
        return Ok(None);
    }
    let key = parsed
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"))
        .ok_or(ErrorKind::InvalidData)?;
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.value)
    )
    .into_bytes();
    frame(&[WELCOME.as_bytes()], &mut answer);
    Ok(Some(answer))
}

impl Client {
    /// Reads until the socket ends; every message goes to the room.
    async fn relay(&mut self) -> io::Result<()> {
        let mut partial = Vec::new();
        loop {
            self.stream.readable().await?;
            if !read_some(&self.stream, &mut partial)? {
                continue;
            }
            let mut turn = Turn::default();
            let used = texts(&mut partial, |text| self.text(text, &mut turn))?;
            partial.drain(..used);
            if partial.is_empty() {
                // nothing is held while idle
                partial = Vec::new();
            }
            if !turn.answers.is_empty() {
                if let Some(room) = &self.room {
                    room.lock().await.push(Arc::clone(&self.stream));
                }
                write_all(&self.stream, &turn.answers).await?;
            }
            if let Some(room) = self.room.as_ref().filter(|_| !turn.messages.is_empty()) {
                for member in room.lock().await.iter() {
                    // its own task finds out that it is gone
                    let _ = write_all(member, &turn.messages).await;
                }
            }
        }
    }

    /// Joins, or passes a message on.
    fn text(&mut self, text: &[u8], turn: &mut Turn) {
        if let Some((name, rest)) = text.strip_prefix(MESSAGE).and_then(name) {
            message(name, rest, &mut turn.messages);
        } else if let Some((name, _)) = text.strip_prefix(JOIN).and_then(name) {
            self.room = Some(Arc::clone(self.rooms.lock().entry(name.to_vec()).or_default()));
            let behind = br#"","epoch":"0123456789abcdef","offset":0}"#;
            frame(
                &[br#"{"type":"joined","room":""#, name, behind],
                &mut turn.answers,
            );
        }
    }
}

/// The room's name, and what is behind it.
fn name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'"')?;
    Some((&text[..end], &text[end + 1..]))
}

/// Appends what members get of a message, whose payload is what is left of it: `,"payload":...}`.
fn message(room: &[u8], rest: &[u8], out: &mut Vec<u8>) {
    let payload = rest.strip_suffix(b"}").unwrap_or(rest);
    let parts: [&[u8]; 5] = [
        br#"{"type":"room_message","roomId":""#,
        room,
        br#"","userId":"user-0""#,
        payload,
        br#","timestamp":1795341249962,"serverId":"vm","offset":1}"#,
    ];
    frame(&parts, out);
}

/// Appends what one read brings; false when there was nothing to read. The end of the stream is an error.
fn read_some(stream: &TcpStream, to: &mut Vec<u8>) -> io::Result<bool> {
    SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(read) => {
            to.extend_from_slice(&scratch[..read]);
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    })
}

/// Unmasks the complete frames of `bytes` and gives each text to `each`; the bytes they took. A close frame is the end.
fn texts(bytes: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<usize> {
    let mut at = 0;
    loop {
        let rest = &mut bytes[at..];
        let Some((start, length)) = extent(rest) else {
            return Ok(at);
        };
        if length > READ_MOST {
            return Err(ErrorKind::InvalidData.into());
        }
        let opcode = rest[0] & 0x0F;
        let Some((mask, payload)) = rest
            .get_mut(start..start + 4 + length)
            .and_then(|masked| masked.split_first_chunk_mut::<4>())
        else {
            return Ok(at);
        };
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        match opcode {
            1 => each(payload),
            8 => return Err(ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        at += start + 4 + length;
    }
}

/// Where a frame's mask begins, and how long its payload is (RFC 6455 §5.2).
fn extent(frame: &[u8]) -> Option<(usize, usize)> {
    let [_, second, rest @ ..] = frame else {
        return None;
    };
    match second & 0x7F {
        126 => Some((4, u16::from_be_bytes(*rest.first_chunk()?).into())),
        127 => Some((10, u64::from_be_bytes(*rest.first_chunk()?) as usize)),
        short => Some((2, short.into())),
    }
}

/// Appends a text of these parts.
fn frame(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(0x81);
    match parts.iter().map(|part| part.len()).sum() {
        length @ 0..126 => out.push(length as u8),
        length @ 126..65_536 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wsfleet_load::wire::frame::{decode, encode, opcode};

    use super::*;

    #[test]
    fn masked_frames_come_out_unmasked_and_a_partial_one_is_left() {
        for length in [5, 300, 66_000] {
            let text = vec![b'x'; length];
            let mut bytes = Vec::new();
            encode(opcode::TEXT, &text, [1, 2, 3, 4], &mut bytes);
            let whole = bytes.len();
            bytes.extend_from_slice(&[0x81, 0x85, 1, 2]);
            let mut seen = Vec::new();
            let used = texts(&mut bytes, |text| seen.push(text.to_vec())).unwrap();
            assert_eq!((used, seen), (whole, vec![text]));
        }
    }

    #[test]
    fn the_answer_carries_the_welcome() {
        let request = wsfleet_load::wire::handshake::request("/ws", "localhost", "a2V5");
        assert!(upgrade(&request.as_bytes()[..40]).unwrap().is_none());
        let answer = upgrade(request.as_bytes()).unwrap().unwrap();
        assert!(answer.ends_with(WELCOME.as_bytes()));
    }

    #[test]
    fn a_message_is_what_the_gateway_makes_of_it() {
        let text = br#"{"type":"room_message","room":"r7","payload":"p"}"#;
        let (room, rest) = name(&text[MESSAGE.len()..]).unwrap();
        let mut out = Vec::new();
        message(room, rest, &mut out);
        let (frame, used) = decode(&out, READ_MOST).unwrap().unwrap();
        assert_eq!(used, out.len());
        assert_eq!(
            String::from_utf8_lossy(frame.payload),
            r#"{"type":"room_message","roomId":"r7","userId":"user-0","payload":"p","timestamp":1795341249962,"serverId":"vm","offset":1}"#
        );
    }
}
