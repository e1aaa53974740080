//! Requests to the ports on which gateways and load generators are steered.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// How long an answer may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The body of the answer; an error unless its status says that all went well.
pub(crate) fn ask(to: SocketAddr, method: &str, path: &str, body: &str) -> Result<String> {
    let connected = TcpStream::connect_timeout(&to, PATIENCE);
    let mut stream = connected.with_context(|| format!("{method} {path}: {to} cannot be reached"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{method} {path}: no answer: {answer}"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "{method} {path}: {head}: {body}");
    Ok(body.to_owned())
}
