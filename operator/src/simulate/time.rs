//! Virtual time: milliseconds since the simulation began.

use jiff::Timestamp;

/// A moment, or a span, of virtual time.
pub(crate) type Millis = u64;

/// One second.
pub(crate) const SECOND: Millis = 1_000;

/// What the planner is told for the moment 0: the same in every run, so that names and markers are too.
const START_SECOND: i64 = 1_800_000_000;

/// `at` as the planner reads it.
pub(crate) fn stamp(at: Millis) -> Timestamp {
    Timestamp::from_millisecond(START_SECOND * 1_000 + at as i64).unwrap_or(Timestamp::MAX)
}

/// `at` as the API server writes it into metadata and conditions: whole seconds.
pub(crate) fn whole(at: Millis) -> Timestamp {
    stamp(at / SECOND * SECOND)
}

/// Seconds as virtual time.
pub(crate) fn seconds(seconds: u32) -> Millis {
    Millis::from(seconds) * SECOND
}
