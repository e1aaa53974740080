//! A client that writes frames bit by bit: what no well-behaved one sends, and permessage-deflate, which the other client
//! does not have. It reads frames as they are, too.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::CUT;
use crate::wait::soon;

/// Masks what is sent (RFC 6455 §5.3).
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
/// Ends every compressed message; left out on the wire (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// RSV1: compressed (RFC 7692 §6).
const COMPRESSED: u8 = 0x40;

/// A frame of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV bits and opcode.
    pub first: u8,
    /// As it came.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it is marked as compressed.
    pub const fn is_compressed(&self) -> bool {
        self.first & COMPRESSED != 0
    }

    /// Its JSON, inflated if need be.
    pub fn json(&self) -> Result<Value> {
        Ok(if self.is_compressed() {
            serde_json::from_slice(&inflated(&self.payload)?)?
        } else {
            serde_json::from_slice(&self.payload)?
        })
    }
}

/// A connection after its upgrade.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
    head: String,
}

impl Raw {
    /// Connects as a user of `insecure-token`, offering these extensions.
    pub async fn open(to: SocketAddr, name: &str, extensions: Option<&str>) -> Result<Self> {
        let mut stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let extensions = extensions.map_or_else(String::new, |offer| {
            format!("Sec-WebSocket-Extensions: {offer}\r\n")
        });
        let request = format!(
            "GET /ws?token={name} HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut raw = Self {
            stream,
            buffer: Vec::new(),
            head: String::new(),
        };
        let end = loop {
            if let Some(end) = raw.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            ensure!(raw.read().await? > 0, "the upgrade was cut");
        };
        raw.head = String::from_utf8(raw.buffer.drain(..end + 4).collect())?;
        ensure!(raw.head.starts_with("HTTP/1.1 101 "), "{}", raw.head);
        Ok(raw)
    }

    /// What the gateway agreed to.
    pub fn extensions(&self) -> Option<&str> {
        let header = |line: &'_ str| -> Option<usize> {
            let (name, _) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-extensions")
                .then_some(name.len() + 1)
        };
        self.head
            .lines()
            .find_map(|line| Some(line[header(line)?..].trim()))
    }

    async fn read(&mut self) -> Result<usize> {
        let read = soon("bytes of the gateway", self.stream.read_buf(&mut self.buffer)).await?;
        // a reset says no more than an end
        Ok(read.unwrap_or(0))
    }

    /// Sends any bytes. That the gateway has hung up meanwhile is no error: why is to be read.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let _ = soon("room to write", self.stream.write_all(bytes)).await?;
        Ok(())
    }

    /// Sends one masked frame.
    pub async fn send(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        self.write(&frame(first, payload)).await
    }

    /// Sends one compressed text.
    pub async fn send_deflated(&mut self, text: &str) -> Result<()> {
        self.send(0x81 | COMPRESSED, &deflated(text.as_bytes())?).await
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            if self.read().await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>> {
        let [first, second, ..] = self.buffer[..] else {
            return Ok(None);
        };
        ensure!(second & 0x80 == 0, "the gateway must not mask");
        let wide = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let start = match second {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if self.buffer.len() < start {
            return Ok(None);
        }
        let length = if start == 2 {
            usize::from(second)
        } else {
            wide(&self.buffer[2..start])
        };
        if self.buffer.len() < start + length {
            return Ok(None);
        }
        let payload = self.buffer.drain(..start + length).skip(start).collect();
        Ok(Some(Frame { first, payload }))
    }

    /// The next message of a type; others are passed over.
    pub async fn expect(&mut self, kind: &str) -> Result<Frame> {
        while let Some(frame) = self.frame().await? {
            match frame.first & 0x0F {
                0x1 if frame.json()?["type"] == kind => return Ok(frame),
                0x8 => bail!("closed while `{kind}` was expected: {frame:?}"),
                _ => {}
            }
        }
        bail!("cut while `{kind}` was expected")
    }

    /// Reads to the end of the stream; the code of the close frame, or [`CUT`].
    pub async fn closed(&mut self) -> Result<u16> {
        let mut code = CUT;
        while let Some(frame) = self.frame().await? {
            if frame.first == 0x88 {
                let bytes = frame.payload.first_chunk().context("a code")?;
                code = u16::from_be_bytes(*bytes);
            }
        }
        Ok(code)
    }
}

/// One masked frame with this first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        long @ 126..=0xFFFF => {
            out.push(0x80 | 0x7E);
            out.extend((long as u16).to_be_bytes());
        }
        longer => {
            out.push(0x80 | 0x7F);
            out.extend((longer as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    out.extend(masked.map(|(byte, key)| byte ^ key));
    out
}

/// The payload of a compressed message.
pub fn deflated(data: &[u8]) -> Result<Vec<u8>> {
    let mut deflater = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(data.len() / 8 + 1_024);
    loop {
        let taken = deflater.total_in() as usize;
        deflater.compress_vec(&data[taken..], &mut out, FlushCompress::Sync)?;
        if deflater.total_in() as usize == data.len() && out.len() < out.capacity() {
            break;
        }
        out.reserve(1_024);
    }
    ensure!(out.ends_with(&TAIL), "a flushed stream");
    out.truncate(out.len() - TAIL.len());
    Ok(out)
}

/// What a compressed payload says; it must need nothing of any message before it.
pub fn inflated(payload: &[u8]) -> Result<Vec<u8>> {
    let whole = [payload, &TAIL].concat();
    let mut inflater = Decompress::new(false);
    let mut out = Vec::with_capacity(1 << 20);
    inflater.decompress_vec(&whole, &mut out, FlushDecompress::Sync)?;
    ensure!(
        inflater.total_in() as usize == whole.len(),
        "larger than any message of these tests"
    );
    Ok(out)
}
