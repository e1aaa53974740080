//! Whose connection it is: the client's address behind trusted proxies, and the key it is counted by.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What addresses are counted by: an IPv4 address, or the /64 of an IPv6 address (the least that a site is given, so
/// that a client cannot multiply itself). 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpKey(u64);

/// Marks IPv4 keys. As a prefix this is 0:1::/32, in a block that is reserved (RFC 4291 §2.4) and never routed.
const V4: u64 = 1 << 32;

impl From<IpAddr> for IpKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(V4 | u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

/// The client's address when `hops` proxies in front of the gateway are trusted, each of which appended the address it
/// saw to `X-Forwarded-For`: the entry that is `hops`-th from the right. `forwarded` are the header's values in their
/// order. What clients write themselves stands further left and is never looked at. When there are fewer entries than
/// hops, or one cannot be read, the last readable one counts.
pub fn client_address<'h, I>(peer: IpAddr, forwarded: I, hops: u8) -> IpAddr
where
    I: IntoIterator<Item = &'h str>,
    I::IntoIter: DoubleEndedIterator,
{
    forwarded
        .into_iter()
        .rev()
        .flat_map(|value| value.rsplit(','))
        .take(usize::from(hops))
        .map_while(|entry| parse_entry(entry.trim()))
        .last()
        .unwrap_or(peer)
        .to_canonical()
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`: all are seen in the wild.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = entry.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let bare = entry.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_trusted_hops_the_header_is_not_looked_at() {
        assert_eq!(
            client_address(ip("192.0.2.9"), ["203.0.113.7"], 0),
            ip("192.0.2.9")
        );
    }

    #[test]
    fn the_entry_that_the_outermost_trusted_proxy_wrote_counts_whatever_the_client_wrote() {
        let header = ["10.9.9.9, 198.51.100.4", "203.0.113.7"];
        assert_eq!(client_address(ip("10.0.0.1"), header, 1), ip("203.0.113.7"));
        assert_eq!(client_address(ip("10.0.0.1"), header, 2), ip("198.51.100.4"));
    }

    #[test]
    fn too_few_or_unreadable_entries_fall_back_to_the_last_readable_one() {
        assert_eq!(client_address(ip("10.0.0.1"), [], 2), ip("10.0.0.1"));
        assert_eq!(
            client_address(ip("10.0.0.1"), ["203.0.113.7"], 5),
            ip("203.0.113.7")
        );
        assert_eq!(client_address(ip("10.0.0.1"), ["unknown"], 1), ip("10.0.0.1"));
        assert_eq!(
            client_address(ip("10.0.0.1"), ["1.2.3.4, unknown, 203.0.113.7"], 3),
            ip("203.0.113.7")
        );
        assert_eq!(client_address(ip("10.0.0.1"), [",,,"], 1), ip("10.0.0.1"));
    }

    #[test]
    fn entries_may_have_ports_and_brackets() {
        for entry in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:8080"] {
            assert_eq!(
                client_address(ip("10.0.0.1"), [entry], 1),
                ip("2001:db8::1"),
                "{entry}"
            );
        }
        assert_eq!(
            client_address(ip("10.0.0.1"), ["203.0.113.7:4711"], 1),
            ip("203.0.113.7")
        );
    }

    #[test]
    fn an_ipv6_site_is_one_client_and_a_mapped_ipv4_address_is_that_ipv4_address() {
        let key = |text| IpKey::from(ip(text));
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::9"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(key("::1"), key("0.0.0.0"));
    }
}
