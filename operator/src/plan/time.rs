//! Arithmetic on times that are passed in; nothing here reads a clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `seconds` after `at`; the end of time when that is past it.
pub(crate) fn after(at: Timestamp, seconds: u32) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(i64::from(seconds)))
        .unwrap_or(Timestamp::MAX)
}

/// Whether `at` is known and not in the future.
pub(crate) fn has_passed(at: Option<Timestamp>, now: Timestamp) -> bool {
    at.is_some_and(|at| at <= now)
}

/// From `now` until `at`; zero when that is past.
pub(crate) fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// The text of a marker: RFC 3339, to the second where there is no fraction.
pub(crate) fn text(at: Timestamp) -> String {
    at.to_string()
}
