//! The floor: what a WebSocket fan-out costs at least on tokio. One task per socket, no HTTP library, no tokens, no limits,
//! no queue. What one read of a publisher brings is concatenated, and written to each member of its room in one call; a
//! member that is slow holds up its room.
//!
//! `wsfleet-bench-floor PORT`; clients connect to `/?room=NAME`.

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

type Room = Arc<Mutex<Vec<Arc<TcpStream>>>>;
type Rooms = Arc<parking_lot::Mutex<HashMap<String, Room>>>;

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
            let _ = serve(stream, &rooms).await;
        });
    }
}

async fn serve(stream: TcpStream, rooms: &Rooms) -> io::Result<()> {
    let stream = Arc::new(stream);
    let room = handshake(&stream, rooms).await?;
    let served = relay(&stream, &room).await;
    room.lock().await.retain(|member| !Arc::ptr_eq(member, &stream));
    served
}

/// Answers the request, and says `joined` in the same write.
async fn handshake(stream: &Arc<TcpStream>, rooms: &Rooms) -> io::Result<Room> {
    let mut request = Vec::new();
    let (answer, name) = loop {
        stream.readable().await?;
        if !read_some(stream, &mut request)? {
            continue;
        }
        if let Some(found) = upgrade(&request)? {
            break found;
        }
    };
    let room = Arc::clone(rooms.lock().entry(name).or_default());
    room.lock().await.push(Arc::clone(stream));
    write_all(stream, &answer).await?;
    Ok(room)
}

/// The answer to a request, and the room that it names; `None` when it is not complete.
fn upgrade(request: &[u8]) -> io::Result<Option<(Vec<u8>, String)>> {
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
    let room = parsed
        .path
        .and_then(|path| path.split_once("room="))
        .ok_or(ErrorKind::InvalidData)?;
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.value)
    )
    .into_bytes();
    frame(b"joined", &mut answer);
    Ok(Some((answer, room.1.to_owned())))
}

/// Reads until the socket ends; every text goes to the room.
async fn relay(stream: &TcpStream, room: &Room) -> io::Result<()> {
    let mut partial = Vec::new();
    loop {
        stream.readable().await?;
        if !read_some(stream, &mut partial)? {
            continue;
        }
        let mut out = Vec::new();
        let used = texts(&mut partial, &mut out)?;
        partial.drain(..used);
        if partial.is_empty() {
            // nothing is held while idle
            partial = Vec::new();
        }
        if !out.is_empty() {
            for member in room.lock().await.iter() {
                // its own task finds out that it is gone
                let _ = write_all(member, &out).await;
            }
        }
    }
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

/// Unmasks the complete frames of `bytes` and appends each as a server's frame; the bytes they took. A close frame is the end.
fn texts(bytes: &mut [u8], out: &mut Vec<u8>) -> io::Result<usize> {
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
            1 => frame(payload, out),
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

fn frame(text: &[u8], out: &mut Vec<u8>) {
    out.push(0x81);
    match text.len() {
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
    out.extend_from_slice(text);
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
            let mut out = Vec::new();
            assert_eq!(texts(&mut bytes, &mut out).unwrap(), whole);
            let (frame, used) = decode(&out, READ_MOST).unwrap().unwrap();
            assert_eq!((frame.payload, used), (&text[..], out.len()));
        }
    }

    #[test]
    fn the_answer_names_the_room_and_carries_joined() {
        let request = wsfleet_load::wire::handshake::request("/?room=r7", "localhost", "a2V5");
        assert!(upgrade(&request.as_bytes()[..40]).unwrap().is_none());
        let (answer, room) = upgrade(request.as_bytes()).unwrap().unwrap();
        assert_eq!(room, "r7");
        assert!(answer.ends_with(b"\x81\x06joined"));
    }
}
