//! The rules of the election, without I/O or clock: what a Lease says, when it may be taken, what is written to it.
//!
//! The Lease is used as Kubernetes' own components use it (client-go `leaderelection`): a follower trusts no other
//! machine's clock, it counts from the moment at which *it* saw the record change. `leaseTransitions` grows with every
//! acquisition and is the fencing epoch of everything that the leader sends.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

/// The times of an election.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a leader that no longer renews is still believed in.
    pub duration: Duration,
    /// How often the leader renews.
    pub renew: Duration,
    /// How long before the end of its lease a leader starts no further write: the longest that one call may take.
    pub margin: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew: Duration::from_secs(5),
            margin: Duration::from_secs(5),
        }
    }
}

/// A term of office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Fencing epoch: the Lease's transitions when this process acquired it.
    pub epoch: u64,
    /// When this process acquired the Lease.
    pub since: Timestamp,
    /// When the others may take over, counted from before the last renewal was sent.
    pub until: Instant,
}

/// The last record that a follower saw, and when it saw it first.
#[derive(Clone, Debug)]
pub struct Sighting {
    lease: Lease,
    seen_at: Instant,
}

impl Sighting {
    /// A record seen at `now`; keeps the time of `before` when it is the same record.
    pub fn of(lease: Lease, before: Option<&Self>, now: Instant) -> Self {
        let same = before.filter(|old| {
            old.lease.metadata.resource_version.is_some()
                && old.lease.metadata.resource_version == lease.metadata.resource_version
        });
        Self {
            seen_at: same.map_or(now, |old| old.seen_at),
            lease,
        }
    }

    /// From when on the record may be taken over.
    pub fn free_at(&self) -> Instant {
        let spec = self.lease.spec.as_ref();
        let held = spec
            .and_then(|spec| spec.holder_identity.as_deref())
            .is_some_and(|holder| !holder.is_empty());
        if !held {
            return self.seen_at;
        }
        let seconds = spec
            .and_then(|spec| spec.lease_duration_seconds)
            .unwrap_or(0)
            .max(0);
        self.seen_at + Duration::from_secs(seconds.unsigned_abs().into())
    }

    /// The record, as it was read.
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// Whether `identity` holds the lease.
pub fn is_held_by(lease: &Lease, identity: &str) -> bool {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        == Some(identity)
}

/// The fencing epoch that a record stands for.
pub fn epoch_of(lease: &Lease) -> u64 {
    let transitions = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or(0);
    u64::from(transitions.max(0).unsigned_abs())
}

/// The record by which `identity` acquires: a new one, or `old` with one transition more.
pub fn acquired(name: &str, old: Option<&Lease>, identity: &str, timing: Timing, now: Timestamp) -> Lease {
    let transitions = old.map_or(0, |lease| epoch_of(lease).saturating_add(1));
    Lease {
        metadata: old.map_or_else(
            || ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            |lease| carried_over(&lease.metadata),
        ),
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: Some(timing.duration.as_secs() as i32),
            lease_transitions: Some(as_transitions(transitions)),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// The record by which the holder renews; its epoch is raised when a gateway has seen a higher one.
pub fn renewed(old: &Lease, at_least: u64, now: Timestamp) -> Lease {
    let mut spec = old.spec.clone().unwrap_or_default();
    spec.lease_transitions = Some(as_transitions(epoch_of(old).max(at_least)));
    spec.renew_time = Some(MicroTime(now));
    Lease {
        metadata: carried_over(&old.metadata),
        spec: Some(spec),
    }
}

/// The record by which the holder gives the lease back, so that nobody has to wait for its end.
pub fn released(old: &Lease, now: Timestamp) -> Lease {
    let mut spec = old.spec.clone().unwrap_or_default();
    spec.holder_identity = None;
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(MicroTime(now));
    Lease {
        metadata: carried_over(&old.metadata),
        spec: Some(spec),
    }
}

/// Name, labels and, as the precondition of the write, the version; what the server manages stays with it.
fn carried_over(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        managed_fields: None,
        ..metadata.clone()
    }
}

fn as_transitions(epoch: u64) -> i32 {
    i32::try_from(epoch).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Timing {
        Timing::default()
    }

    fn stored(mut lease: Lease, version: &str) -> Lease {
        lease.metadata.resource_version = Some(version.to_owned());
        lease
    }

    #[test]
    fn a_follower_counts_the_lease_from_when_it_saw_the_record_change() {
        let start = Instant::now();
        let first = stored(acquired("l", None, "a", timing(), Timestamp::UNIX_EPOCH), "1");
        let seen = Sighting::of(first.clone(), None, start);
        assert_eq!(
            seen.free_at(),
            start + Duration::from_secs(15),
            "the record's own, ancient times do not count"
        );

        let again = Sighting::of(first.clone(), Some(&seen), start + Duration::from_secs(9));
        assert_eq!(
            again.free_at(),
            seen.free_at(),
            "the same record seen again is no renewal"
        );

        let renewal = stored(renewed(&first, 0, Timestamp::UNIX_EPOCH), "2");
        let later = Sighting::of(renewal, Some(&again), start + Duration::from_secs(9));
        assert_eq!(later.free_at(), start + Duration::from_secs(24));
    }

    #[test]
    fn a_released_lease_is_free_at_once_and_keeps_its_epoch() {
        let held = stored(acquired("l", None, "a", timing(), Timestamp::UNIX_EPOCH), "1");
        let free = stored(released(&held, Timestamp::UNIX_EPOCH), "2");
        let now = Instant::now();
        assert_eq!(Sighting::of(free.clone(), None, now).free_at(), now);
        let next = acquired("l", Some(&free), "b", timing(), Timestamp::UNIX_EPOCH);
        assert_eq!((epoch_of(&held), epoch_of(&free), epoch_of(&next)), (0, 0, 1));
        assert!(is_held_by(&next, "b") && !is_held_by(&next, "a"));
    }

    #[test]
    fn every_acquisition_raises_the_epoch_even_by_the_same_name_and_no_renewal_does() {
        let first = stored(acquired("l", None, "a", timing(), Timestamp::UNIX_EPOCH), "1");
        let renewal = renewed(&first, 0, Timestamp::UNIX_EPOCH);
        assert_eq!(epoch_of(&renewal), 0);
        assert_eq!(
            epoch_of(&acquired(
                "l",
                Some(&renewal),
                "a",
                timing(),
                Timestamp::UNIX_EPOCH
            )),
            1
        );
        assert_eq!(
            epoch_of(&renewed(&first, 41, Timestamp::UNIX_EPOCH)),
            41,
            "a Lease made anew catches up"
        );
    }

    #[test]
    fn writes_carry_the_version_that_was_read_as_their_precondition() {
        let read = stored(acquired("l", None, "a", timing(), Timestamp::UNIX_EPOCH), "77");
        for lease in [
            renewed(&read, 0, Timestamp::UNIX_EPOCH),
            released(&read, Timestamp::UNIX_EPOCH),
            acquired("l", Some(&read), "b", timing(), Timestamp::UNIX_EPOCH),
        ] {
            assert_eq!(lease.metadata.resource_version.as_deref(), Some("77"));
        }
    }
}
