//! The leases of all gateways, as one gateway hears of them. No I/O; time is passed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::change::Stamp;

/// How long users may be away, and gateways silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How long a user who has left may be away before it is told.
    pub(super) hold: Duration,
    /// How long a lease lives without being renewed.
    pub(super) lasts: Duration,
}

impl Times {
    /// When the users of a gateway are gone that was last heard of then: they had the time since that at the latest.
    fn gone(self, heard: Instant) -> Instant {
        heard + self.lasts.max(self.hold + self.lasts / 3)
    }
}

/// What is known of a lease.
#[derive(Clone, Copy, Debug)]
struct Known {
    heard: Instant,
    /// It has ended: when the users are gone that were there under it.
    gone: Option<Instant>,
    /// What is stored under it was removed.
    cleared: bool,
}

/// All leases of which this gateway has heard.
#[derive(Debug, Default)]
pub(super) struct Leases {
    known: HashMap<Arc<str>, Known>,
    /// JetStream's clock, and ours, when something was last heard.
    clock: Option<(Stamp, Instant)>,
}

impl Leases {
    /// A lease was renewed.
    pub(super) fn heard(&mut self, lease: &Arc<str>, now: Instant) {
        let known = self.of(lease, now);
        if known.gone.is_none() {
            known.heard = now;
        }
    }

    /// JetStream's clock shows this.
    pub(super) const fn set_clock(&mut self, at: Stamp, now: Instant) {
        self.clock = Some((at, now));
    }

    /// How long ago something was stored; not at all when that cannot be told.
    pub(super) fn age(&self, at: Option<Stamp>, now: Instant) -> Duration {
        let (Some(at), Some((stamp, heard))) = (at, self.clock) else {
            return Duration::ZERO;
        };
        let before = Duration::from_millis(at.until(stamp).into());
        if before.is_zero() {
            let since = Duration::from_millis(stamp.until(at).into());
            return (now - heard).saturating_sub(since);
        }
        now - heard + before
    }

    /// A lease has ended: its users are gone then. The first word counts.
    pub(super) fn end(&mut self, lease: &Arc<str>, gone: Instant, now: Instant) {
        let known = self.of(lease, now);
        known.gone.get_or_insert(gone);
        // it may have said more since that was done
        known.cleared = false;
    }

    /// When the users of a lease are gone, if it has ended. One that is not known lives from now on.
    pub(super) fn gone(&mut self, lease: &Arc<str>, now: Instant) -> Option<Instant> {
        self.of(lease, now).gone
    }

    /// Nothing was heard for some time, which may be our fault: all have their full time from now on.
    pub(super) fn spare(&mut self, now: Instant) {
        for known in self.known.values_mut() {
            known.heard = now;
        }
    }

    /// Leases that were not renewed in time, and when their users are gone.
    pub(super) fn overdue(&self, times: Times, now: Instant) -> Vec<(Arc<str>, Instant)> {
        let silent = |known: &Known| known.gone.is_none() && known.heard + times.lasts <= now;
        let overdue = self.known.iter().filter(|(_, known)| silent(known));
        overdue
            .map(|(lease, known)| (Arc::clone(lease), times.gone(known.heard)))
            .collect()
    }

    /// Leases whose users have been gone for so long that what is stored under them can be removed; those that ended long
    /// before are forgotten.
    pub(super) fn left_behind(&mut self, wait: Duration, forget: Duration, now: Instant) -> Vec<Arc<str>> {
        self.known
            .retain(|_, known| !known.cleared || known.gone.is_none_or(|gone| now < gone + forget));
        let due = |known: &Known| !known.cleared && known.gone.is_some_and(|gone| gone + wait <= now);
        let due = self.known.iter().filter(|(_, known)| due(known));
        due.map(|(lease, _)| Arc::clone(lease)).collect()
    }

    /// What is stored under a lease was removed.
    pub(super) fn cleared(&mut self, lease: &str) {
        if let Some(known) = self.known.get_mut(lease) {
            known.cleared = true;
        }
    }

    fn of(&mut self, lease: &Arc<str>, now: Instant) -> &mut Known {
        self.known.entry(Arc::clone(lease)).or_insert(Known {
            heard: now,
            gone: None,
            cleared: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        hold: Duration::from_secs(15),
        lasts: Duration::from_secs(15),
    };

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_users_of_a_gateway_that_is_killed_are_gone_within_twenty_seconds() {
        let begun = Instant::now();
        let (mut leases, lease) = (Leases::default(), Arc::from("i-1"));
        leases.heard(&lease, begun);
        leases.heard(&lease, begun + seconds(5));
        assert_eq!(leases.overdue(TIMES, begun + seconds(19)), []);
        let overdue = leases.overdue(TIMES, begun + seconds(20));
        assert_eq!(overdue, [(Arc::clone(&lease), begun + seconds(5 + 20))]);
        let brief = Times {
            hold: seconds(1),
            ..TIMES
        };
        assert_eq!(
            brief.gone(begun),
            begun + seconds(15),
            "not before the lease has run out"
        );
    }

    #[test]
    fn a_lease_ends_once_and_what_is_not_known_lives() {
        let now = Instant::now();
        let (mut leases, lease) = (Leases::default(), Arc::from("i-1"));
        assert_eq!(leases.gone(&lease, now), None);
        leases.spare(now + seconds(14));
        assert_eq!(leases.overdue(TIMES, now + seconds(28)), [], "spared");
        leases.end(&lease, now + seconds(15), now);
        leases.end(&lease, now + seconds(99), now);
        leases.heard(&lease, now + seconds(30));
        assert_eq!(leases.gone(&lease, now), Some(now + seconds(15)));
        assert_eq!(leases.overdue(TIMES, now + seconds(99)), [], "known already");
    }

    #[test]
    fn what_an_ended_lease_has_left_is_removed_once_and_then_it_is_forgotten() {
        let now = Instant::now();
        let (mut leases, lease) = (Leases::default(), Arc::from("i-1"));
        leases.end(&lease, now, now);
        let left_behind = |after, leases: &mut Leases| {
            let due = leases.left_behind(seconds(2), seconds(60), now + seconds(after));
            due.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left_behind(1, &mut leases), [""; 0]);
        assert_eq!(left_behind(2, &mut leases), ["i-1"]);
        leases.cleared(&lease);
        assert_eq!(left_behind(59, &mut leases), [""; 0]);
        assert_eq!(leases.known.len(), 1);
        assert_eq!(left_behind(60, &mut leases), [""; 0]);
        assert_eq!(leases.known.len(), 0);
    }
}
