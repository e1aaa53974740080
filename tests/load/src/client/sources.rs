//! Local ports for sockets with a given source address.
//!
//! `bind` with port 0 looks for a port that no socket at all holds, one after the other: beyond half of the range that
//! takes milliseconds a socket, in the worker's thread. Ports of the same range are taken in turn here instead, and
//! may be held by sockets to other servers or in TIME_WAIT (`SO_REUSEADDR`).
//!
//! A connect without a source address takes no port that some socket was bound to, whatever its address is, so the end of
//! the range is left to those: the more sources there are, the more of the range is bound.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rand::Rng as _;
use tokio::net::{TcpSocket, TcpStream};

/// Ports tried for one connection.
const TRIES: u32 = 256;
/// The kernel's range, and its default.
const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RANGE: RangeInclusive<u16> = 32_768..=60_999;
/// One in so many ports of the range is left to connects without a source address.
const LEFT_ONE_IN: u16 = 16;

/// The source addresses of a run, each with its next port.
#[derive(Debug)]
pub struct Sources {
    range: RangeInclusive<u16>,
    addresses: Vec<(IpAddr, AtomicU32)>,
}

impl Sources {
    /// Ports are taken from the kernel's range for outgoing connections, but for its last sixteenth.
    pub fn new(addresses: &[IpAddr]) -> Self {
        let range = std::fs::read_to_string(RANGE_FILE)
            .ok()
            .and_then(|text| parse(&text))
            .unwrap_or(RANGE);
        // processes that start together begin at different places
        let begin = || AtomicU32::new(rand::rng().random_range(0..1 << 16));
        Self {
            range: but_the_last(range),
            addresses: addresses.iter().map(|address| (*address, begin())).collect(),
        }
    }

    /// The next port of client `index`'s source address, to be tried with `SO_REUSEADDR`; none when there are no addresses.
    pub fn take(&self, index: u32) -> Option<SocketAddr> {
        let (source, next) = self.addresses.get(index as usize % self.addresses.len().max(1))?;
        let width = u32::from(self.range.end() - self.range.start()) + 1;
        let port = self.range.start() + (next.fetch_add(1, Relaxed) % width) as u16;
        Some((*source, port).into())
    }

    /// Connects from client `index`'s source address; from any when there are none. Cancel-safe.
    pub(super) async fn connect(&self, index: u32, to: SocketAddr) -> io::Result<TcpStream> {
        for _ in 0..TRIES {
            let Some(from) = self.take(index) else {
                return socket(to)?.connect(to).await;
            };
            let socket = socket(to)?;
            socket.set_reuseaddr(true)?;
            let connected = match socket.bind(from) {
                Ok(()) => socket.connect(to).await,
                Err(error) => Err(error),
            };
            match connected {
                Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) => {}
                connected => return connected,
            }
        }
        Err(ErrorKind::AddrNotAvailable.into())
    }
}

fn socket(to: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn but_the_last(range: RangeInclusive<u16>) -> RangeInclusive<u16> {
    let (first, last) = range.into_inner();
    first..=last - (last - first) / LEFT_ONE_IN
}

fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernels_range_is_read_and_nonsense_is_not() {
        assert_eq!(parse("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse("9 1"), None);
        assert_eq!(parse("many"), None);
    }

    #[test]
    fn the_end_of_the_range_is_left_to_connects_without_a_source() {
        assert_eq!(but_the_last(32_768..=60_999), 32_768..=59_235);
        assert_eq!(but_the_last(40_000..=40_003), 40_000..=40_003);
        assert_eq!(but_the_last(65_535..=65_535), 65_535..=65_535);
    }

    #[tokio::test]
    async fn sources_are_dealt_out_and_ports_in_use_are_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let mut sources = Sources::new(&["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()]);
        sources.range = 40_000..=40_003;
        let mut held = Vec::new();
        for index in 0..8 {
            held.push((
                sources.connect(index, to).await.unwrap(),
                listener.accept().await.unwrap(),
            ));
        }
        let mut local: Vec<SocketAddr> = held
            .iter()
            .map(|(stream, _)| stream.local_addr().unwrap())
            .collect();
        local.sort_unstable();
        local.dedup();
        assert_eq!(local.len(), 8);
        assert_eq!(
            local
                .iter()
                .filter(|at| at.ip().to_string() == "127.0.0.2")
                .count(),
            4,
            "{local:?}"
        );
        let error = sources.connect(0, to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "all four are taken");
    }
}
