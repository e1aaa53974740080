//! Who gets in: capacity, the rate of upgrades, and what one address may have.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::Limits;
use crate::gateway::Gateway;
use crate::limits::{IpKey, IpRefusal, Moment, PerIp, Rate, RetryAfter, TokenBucket};
use crate::metrics::Rejection;

/// Seconds over which accepted upgrades are averaged.
const WINDOW: usize = 10;

/// Nobody is told to wait longer.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Counts and rates of one gateway.
#[derive(Debug)]
pub struct Admission {
    capacity: u32,
    admitted: AtomicU32,
    rate: Rate,
    bucket: Mutex<TokenBucket>,
    per_ip: PerIp,
    recent: Recent,
}

/// An upgrade that was let in, or the connection it became. Gives its place back when dropped.
#[derive(Debug)]
pub struct Permit {
    gateway: Arc<Gateway>,
    ip: IpKey,
}

impl Permit {
    /// Who let it in.
    pub const fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &self.gateway.admission;
        admission.admitted.fetch_sub(1, Relaxed);
        admission.per_ip.release(self.ip, moment(&self.gateway.env.clock));
    }
}

/// The clock's time as the limits count it.
pub fn moment(clock: &Clock) -> Moment {
    Moment::default().after(clock.now())
}

/// An upgrade that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Rejection,
    /// When to come back, at the earliest.
    pub retry_after: Duration,
}

impl Admission {
    /// Nobody is in.
    pub fn new(limits: &Limits, capacity: u32) -> Self {
        let rate = Rate::smooth(limits.handshakes_per_second);
        Self {
            capacity,
            admitted: AtomicU32::new(0),
            rate,
            bucket: Mutex::new(TokenBucket::full(rate, Moment::default())),
            per_ip: PerIp::new(limits),
            recent: Recent::default(),
        }
    }

    /// Connections that may be open.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Whether neither a connection nor an upgrade is open.
    pub fn is_empty(&self) -> bool {
        self.admitted.load(Relaxed) == 0
    }

    /// Whether one more would be let in, rates aside.
    pub fn has_room(&self) -> bool {
        self.admitted.load(Relaxed) < self.capacity
    }

    /// Lets one more in, or says why not.
    pub fn admit(gateway: &Arc<Gateway>, address: IpAddr) -> Result<Permit, Refused> {
        let admission = &gateway.admission;
        let refused = |reason, seconds| Refused {
            reason,
            retry_after: Duration::from_secs(seconds),
        };
        if !gateway.drain.accepting() {
            return Err(refused(Rejection::Draining, 1));
        }
        let now = moment(&gateway.env.clock);
        let ip = IpKey::from(address);
        // the address first: one that floods must not use up what all share
        admission.per_ip.admit(ip, now).map_err(|refusal| match refusal {
            IpRefusal::TooMany => refused(Rejection::IpConnections, 5),
            IpRefusal::TooFast(RetryAfter(wait)) => Refused {
                reason: Rejection::IpRate,
                retry_after: wait.min(LONGEST_WAIT),
            },
        })?;
        admission.admitted.fetch_add(1, Relaxed);
        // from here on a refusal gives the place back
        let permit = Permit {
            gateway: Arc::clone(gateway),
            ip,
        };
        if admission.admitted.load(Relaxed) > admission.capacity {
            return Err(refused(Rejection::Capacity, 5));
        }
        admission
            .bucket
            .lock()
            .take(now, 1, admission.rate)
            .map_err(|RetryAfter(wait)| Refused {
                reason: Rejection::HandshakeRate,
                retry_after: wait.min(LONGEST_WAIT),
            })?;
        admission.recent.count(gateway.env.clock.now());
        Ok(permit)
    }

    /// Upgrades let in per second, averaged over the last ten whole seconds.
    pub fn handshakes_per_second(&self, now: Duration) -> f64 {
        self.recent.sum(now) as f64 / WINDOW as f64
    }
}

/// Counts of the last seconds: each slot holds its second (upper 32 bits) and that second's count.
#[derive(Debug, Default)]
struct Recent([AtomicU64; WINDOW + 1]);

impl Recent {
    fn count(&self, now: Duration) {
        let second = now.as_secs();
        let slot = &self.0[second as usize % self.0.len()];
        let stamp = second << 32;
        let bump = |value: u64| {
            Some(if value >> 32 == second {
                value + 1
            } else {
                stamp | 1
            })
        };
        let _ = slot.fetch_update(Relaxed, Relaxed, bump);
    }

    fn sum(&self, now: Duration) -> u64 {
        let second = now.as_secs();
        let recent = second.saturating_sub(WINDOW as u64)..second;
        let values = self.0.iter().map(|slot| slot.load(Relaxed));
        values
            .filter(|value| recent.contains(&(value >> 32)))
            .map(|value| value & 0xFFFF_FFFF)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_per_second_are_averaged_over_the_last_ten_whole_seconds() {
        let recent = Recent::default();
        for second in 0..30 {
            for _ in 0..second {
                recent.count(Duration::from_secs(second));
            }
        }
        assert_eq!(recent.sum(Duration::from_secs(30)), (20..30).sum::<u64>());
        assert_eq!(recent.sum(Duration::from_secs(35)), (25..30).sum::<u64>());
        assert_eq!(recent.sum(Duration::from_secs(100)), 0);
    }
}
