//! How many connections, and how many upgrades per second, one address has.

use ahash::RandomState;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::address::IpKey;
use super::bucket::{Moment, Rate, RetryAfter, TokenBucket};
use crate::config::{Limit, Limits};

/// Addresses without connections that are remembered at a time, at most: about 4 MiB.
const CAPACITY: usize = 65_536;

/// Why an address gets no connection; answered with 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpRefusal {
    /// It has `connectionsPerIp` connections.
    TooMany,
    /// More than `handshakesPerSecondPerIp`; come back after this time.
    TooFast(RetryAfter),
}

/// The table. Its lock is held for one lookup, once per upgrade and once per end of a connection.
#[derive(Debug)]
pub struct PerIp {
    connections: Limit,
    handshakes: Rate,
    capacity: usize,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    addresses: HashMap<IpKey, Address, RandomState>,
    /// Addresses at which room is made.
    full_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    bucket: TokenBucket,
    connections: u32,
}

impl PerIp {
    /// An empty table with the limits that are set.
    pub fn new(limits: &Limits) -> Self {
        Self::with_capacity(limits, CAPACITY)
    }

    fn with_capacity(limits: &Limits, capacity: usize) -> Self {
        Self {
            connections: limits.connections_per_ip,
            handshakes: Rate::with_double_burst(limits.handshakes_per_second_per_ip),
            capacity,
            table: Mutex::new(Table {
                addresses: HashMap::default(),
                full_at: capacity,
            }),
        }
    }

    /// Counts one more connection of an address, or refuses it. Each success must be followed by one
    /// [`PerIp::release`], when the connection (or its upgrade) has ended.
    pub fn admit(&self, key: IpKey, now: Moment) -> Result<(), IpRefusal> {
        if self.is_off() {
            return Ok(());
        }
        let mut table = self.table.lock();
        if table.addresses.len() >= table.full_at && !table.addresses.contains_key(&key) {
            self.make_room(&mut table, now);
        }
        let fresh = || Address {
            bucket: TokenBucket::full(self.handshakes, now),
            connections: 0,
        };
        let address = table.addresses.entry(key).or_insert_with(fresh);
        // the rate first: an address at its connection limit that keeps trying is slowed down, too
        address
            .bucket
            .take(now, 1, self.handshakes)
            .map_err(IpRefusal::TooFast)?;
        if !self.connections.allows(address.connections as usize + 1) {
            return Err(IpRefusal::TooMany);
        }
        address.connections += 1;
        Ok(())
    }

    /// A connection of an address has ended.
    pub fn release(&self, key: IpKey, now: Moment) {
        if self.is_off() {
            return;
        }
        if let Entry::Occupied(mut entry) = self.table.lock().addresses.entry(key) {
            let address = entry.get_mut();
            address.connections = address.connections.saturating_sub(1);
            if address.connections == 0 && address.bucket.is_full(now, self.handshakes) {
                entry.remove();
            }
        }
    }

    /// Addresses in the table.
    pub fn len(&self) -> usize {
        self.table.lock().addresses.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    const fn is_off(&self) -> bool {
        self.connections.get().is_none() && self.handshakes.is_off()
    }

    /// Forgets addresses without connections: those whose rate has recovered and, when that frees less than an eighth,
    /// all. So a flood from ever new addresses costs bounded memory and, over time, constant work each; what it can win
    /// is its own burst again. Addresses with connections stay: there are at most `--max-connections` of them.
    fn make_room(&self, table: &mut Table, now: Moment) {
        let Table { addresses, full_at } = table;
        addresses
            .retain(|_, address| address.connections > 0 || !address.bucket.is_full(now, self.handshakes));
        if addresses.len() > *full_at - *full_at / 8 {
            addresses.retain(|_, address| address.connections > 0);
        }
        // as many again may come before the next look at all of them, however many are connected
        *full_at = self.capacity.max(addresses.len() + addresses.len() / 4 + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::*;

    fn key(n: u32) -> IpKey {
        IpAddr::V4(Ipv4Addr::from_bits(n)).into()
    }

    fn limits(connections: u32, handshakes: u32) -> Limits {
        Limits {
            connections_per_ip: Limit::new(connections),
            handshakes_per_second_per_ip: Limit::new(handshakes),
            ..Limits::default()
        }
    }

    #[test]
    fn an_address_gets_its_connections_and_one_again_for_each_that_ends() {
        let table = PerIp::new(&limits(2, 0));
        let now = Moment::default();
        assert_eq!(table.admit(key(1), now), Ok(()));
        assert_eq!(table.admit(key(1), now), Ok(()));
        assert_eq!(table.admit(key(1), now), Err(IpRefusal::TooMany));
        assert_eq!(
            table.admit(key(2), now),
            Ok(()),
            "another address is not concerned"
        );
        table.release(key(1), now);
        assert_eq!(table.admit(key(1), now), Ok(()));
    }

    #[test]
    fn an_address_gets_twice_its_rate_at_once_and_is_told_when_to_come_back() {
        let table = PerIp::new(&limits(0, 20));
        let now = Moment::default();
        for _ in 0..40 {
            assert_eq!(table.admit(key(1), now), Ok(()));
        }
        let wait = RetryAfter(Duration::from_millis(50));
        assert_eq!(table.admit(key(1), now), Err(IpRefusal::TooFast(wait)));
        assert_eq!(table.admit(key(1), now.after(wait.0)), Ok(()));
    }

    #[test]
    fn an_address_is_forgotten_when_its_last_connection_has_ended_and_its_rate_has_recovered() {
        let table = PerIp::new(&limits(10, 20));
        let now = Moment::default();
        table.admit(key(1), now).unwrap();
        table.release(key(1), now.after(Duration::from_secs(1)));
        assert!(table.is_empty());
    }

    #[test]
    fn a_flood_from_ever_new_addresses_does_not_grow_the_table_nor_evict_live_connections() {
        let table = PerIp::with_capacity(&limits(1, 20), 64);
        let now = Moment::default();
        for n in 0..16 {
            table.admit(key(n), now).unwrap();
        }
        for n in 1_000..100_000 {
            table.admit(key(n), now).unwrap();
            table.release(key(n), now);
            assert!(table.len() <= 64);
        }
        for n in 0..16 {
            assert_eq!(table.admit(key(n), now), Err(IpRefusal::TooMany), "still counted");
        }
    }

    #[test]
    fn more_connected_addresses_than_the_table_was_made_for_are_all_counted() {
        let table = PerIp::with_capacity(&limits(1, 20), 64);
        let now = Moment::default();
        for n in 0..50_000 {
            table.admit(key(n), now).unwrap();
        }
        assert_eq!(table.len(), 50_000);
        for n in 0..50_000 {
            assert_eq!(table.admit(key(n), now), Err(IpRefusal::TooMany));
            table.release(key(n), now.after(Duration::from_secs(2)));
        }
        assert!(table.is_empty());
    }

    #[test]
    fn with_both_limits_off_nothing_is_remembered() {
        let table = PerIp::new(&limits(0, 0));
        table.admit(key(1), Moment::default()).unwrap();
        table.release(key(1), Moment::default());
        assert!(table.is_empty());
    }
}
