//! What a gateway says of itself beside what the kernel says of it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use crate::http::Ask;
use crate::process::Process;

/// One gateway at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Census {
    /// `ws_active_connections`.
    pub connections: f64,
    /// Established TCP connections of its port for clients, in the kernel's table.
    pub sockets: f64,
    /// `ws_rooms`.
    pub rooms: f64,
    /// `ws_users`.
    pub users: f64,
    /// `ws_send_queue_bytes`.
    pub queued: f64,
    /// `ws_connections_total`.
    pub opened: f64,
    /// `ws_closes_total`, of all codes.
    pub closed: f64,
    /// `ws_tasks`.
    pub tasks: f64,
    /// Descriptors, without those of connections of clients.
    pub descriptors: f64,
    /// Bytes of resident memory.
    pub resident: f64,
}

impl Census {
    /// Takes it.
    pub async fn of(gateway: &Process) -> Result<Self> {
        let text = Ask::get("/metrics").send(gateway.ports.admin).await?.body;
        let sum = |name: &str| sum(&text, name);
        let sockets = established(&std::fs::read_to_string("/proc/net/tcp")?, gateway.ports.clients);
        Ok(Self {
            connections: sum("ws_active_connections")?,
            sockets: sockets as f64,
            rooms: sum("ws_rooms")?,
            users: sum("ws_users")?,
            queued: sum("ws_send_queue_bytes")?,
            opened: sum("ws_connections_total")?,
            closed: sum("ws_closes_total").unwrap_or_default(),
            tasks: sum("ws_tasks")?,
            descriptors: sum("process_open_fds")?,
            resident: sum("process_resident_memory_bytes")?,
        })
    }
}

/// Sum of the series of a metric.
fn sum(text: &str, name: &str) -> Result<f64> {
    let mut sum = None;
    for line in text.lines() {
        let rest = line.strip_prefix(name);
        if rest.is_some_and(|rest| rest.starts_with(['{', ' '])) {
            let value = line.rsplit_once(' ').context("a value")?.1;
            sum = Some(sum.unwrap_or_default() + value.parse::<f64>()?);
        }
    }
    sum.with_context(|| format!("no metric {name}"))
}

/// Connections of a local IPv4 address that are established (state 01), in the form of proc_net_tcp(5).
fn established(table: &str, address: SocketAddr) -> usize {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u32::from_ne_bytes(ip.octets()),
        IpAddr::V6(_) => return 0,
    };
    let local = format!("{ip:08X}:{:04X}", address.port());
    let rows = table.lines().skip(1);
    rows.filter(|row| {
        let mut fields = row.split_ascii_whitespace().skip(1);
        let (address, state) = (fields.next(), fields.nth(1));
        address == Some(&*local) && state == Some("01")
    })
    .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_connections_of_a_port_are_counted() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
                     1: 0100007F:1F90 0100007F:B0D2 01 00000000:00000000\n\
                     2: 0100007F:B0D2 0100007F:1F90 01 00000000:00000000\n\
                     3: 0100007F:1F90 0100007F:B0D4 06 00000000:00000000\n\
                     4: 0100000A:1F90 0100007F:B0D4 01 00000000:00000000\n";
        assert_eq!(established(table, "127.0.0.1:8080".parse().unwrap()), 1);
    }

    #[test]
    fn series_are_summed_by_whole_names() {
        let text = "# HELP ws_rooms Rooms.\nws_rooms{a=\"b\"} 3\nws_rooms 4\nws_rooms_x 9\n";
        assert!((sum(text, "ws_rooms").unwrap() - 7.0).abs() < f64::EPSILON);
        assert!(sum(text, "ws_room").is_err());
    }
}
