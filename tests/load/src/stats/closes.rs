//! Closes by code and initiator, and how they were spread over time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// Seconds kept: a day. The sums go on.
const MOST_SECONDS: usize = 86_400;

/// Who ended a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Initiator {
    /// Its close frame came first.
    Server,
    /// This tool's close frame went first.
    Client,
    /// Nobody said goodbye: 1006, a cut.
    None,
}

/// Closes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CloseCount {
    /// Close code (RFC 6455 §7.4); 1005 is a close frame without one, 1006 no close frame.
    pub code: u16,
    /// Who began it.
    pub initiator: Initiator,
    /// How many.
    pub count: u64,
    /// How many in the busiest second of this kind.
    pub busiest_second: u64,
}

/// Closes in one second of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecondCloses {
    /// Seconds since the run began.
    pub second: u64,
    /// Close code.
    pub code: u16,
    /// Who began it.
    pub initiator: Initiator,
    /// How many.
    pub count: u64,
}

/// Closes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Closes {
    /// Sums by code and initiator.
    pub by_code: Vec<CloseCount>,
    /// Most closes in one second that this tool did not begin.
    pub busiest_second: u64,
    /// Which second that was, since the run began.
    pub busiest_at: u64,
    /// Every second with closes.
    pub per_second: Vec<SecondCloses>,
}

type Kinds = BTreeMap<(u16, Initiator), u64>;

/// Counts closes as they happen.
#[derive(Debug, Default)]
pub(crate) struct CloseLog(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sums: Kinds,
    busiest: Kinds,
    seconds: VecDeque<(u64, Kinds)>,
}

impl CloseLog {
    pub(crate) fn add(&self, code: u16, initiator: Initiator, now: Duration) {
        let (second, kind) = (now.as_secs(), (code, initiator));
        let mut guard = self.0.lock();
        let inner = &mut *guard;
        if inner.seconds.back().is_none_or(|(last, _)| *last < second) {
            if inner.seconds.len() == MOST_SECONDS {
                inner.seconds.pop_front();
            }
            inner.seconds.push_back((second, Kinds::new()));
        }
        *inner.sums.entry(kind).or_default() += 1;
        // two threads may arrive out of order by a moment: the later second takes both
        if let Some((_, kinds)) = inner.seconds.back_mut() {
            let count = kinds.entry(kind).or_default();
            *count += 1;
            let busiest = inner.busiest.entry(kind).or_default();
            *busiest = (*busiest).max(*count);
        }
    }

    /// Cuts: closes without a close frame.
    pub(crate) fn cut(&self) -> u64 {
        self.0
            .lock()
            .sums
            .get(&(1006, Initiator::None))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn get(&self) -> Closes {
        let inner = self.0.lock();
        let by_code = inner.sums.iter().map(|(kind, count)| CloseCount {
            code: kind.0,
            initiator: kind.1,
            count: *count,
            busiest_second: inner.busiest.get(kind).copied().unwrap_or_default(),
        });
        let not_ours = |kinds: &Kinds| -> u64 {
            kinds
                .iter()
                .filter(|((_, by), _)| *by != Initiator::Client)
                .map(|(_, count)| count)
                .sum()
        };
        let seconds = inner
            .seconds
            .iter()
            .map(|(second, kinds)| (*second, not_ours(kinds)));
        let (busiest_at, busiest_second) = seconds
            .rev()
            .max_by_key(|(_, count)| *count)
            .filter(|(_, count)| *count > 0)
            .unwrap_or_default();
        let per_second = inner.seconds.iter().flat_map(|(second, kinds)| {
            kinds.iter().map(|((code, initiator), count)| SecondCloses {
                second: *second,
                code: *code,
                initiator: *initiator,
                count: *count,
            })
        });
        Closes {
            by_code: by_code.collect(),
            busiest_second,
            busiest_at,
            per_second: per_second.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_are_counted_by_code_initiator_and_second() {
        let log = CloseLog::default();
        for (millis, code, by) in [
            (100, 1012, Initiator::Server),
            (1100, 1012, Initiator::Server),
            (1900, 1012, Initiator::Server),
            (1950, 1006, Initiator::None),
            (2100, 1000, Initiator::Client),
            (2200, 1000, Initiator::Client),
            (2300, 1000, Initiator::Client),
            (2400, 1000, Initiator::Client),
        ] {
            log.add(code, by, Duration::from_millis(millis));
        }
        let closes = log.get();
        assert_eq!(
            (closes.busiest_at, closes.busiest_second),
            (1, 3),
            "this tool's own closes do not count"
        );
        let drain = closes.by_code.iter().find(|c| c.code == 1012).unwrap();
        assert_eq!((drain.count, drain.busiest_second), (3, 2));
        assert_eq!(closes.per_second.len(), 4);
        assert_eq!(log.cut(), 1);
    }

    #[test]
    fn without_closes_there_is_no_busiest_second() {
        assert_eq!(CloseLog::default().get(), Closes::default());
    }
}
