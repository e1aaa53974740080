//! How many descriptors this process may have, and so how many sockets.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not client sockets: listeners, the broker's links, probes, scrapes, handshakes.
const RESERVE: u64 = 200;

/// Raises the soft limit to the hard one and tells what it is now; `None` is no limit.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the soft descriptor limit");
            current
        }
    }
}

/// Sockets that can be held: what is wanted, or what the descriptor limit allows if that is less.
pub fn capacity(wanted: u32, limit: Option<u64>) -> u32 {
    let Some(limit) = limit else { return wanted };
    // a tiny limit must not leave nothing for sockets
    let room = limit.saturating_sub(RESERVE.min(limit / 4)).max(1);
    u32::try_from(room).map_or(wanted, |room| room.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_leaves_a_reserve_below_the_descriptor_limit() {
        assert_eq!(capacity(20_000, None), 20_000);
        assert_eq!(capacity(10_000, Some(20_000)), 10_000);
        assert_eq!(capacity(20_000, Some(20_000)), 19_800);
        assert_eq!(capacity(20_000, Some(64)), 48);
        assert_eq!(capacity(20_000, Some(u64::MAX)), 20_000);
    }
}
