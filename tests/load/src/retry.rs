//! Publishes that were not acknowledged, until they are sent again: by the same user, with the same `msgId`.

use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;

use crate::client::InFlight;
use crate::stats::Stats;

/// Publishes that may wait; more than that are given up.
const MOST: usize = 100_000;

/// Smallest and largest bound of the full jitter after which a publish that was refused for the moment is sent again. The
/// largest is a fraction of what a run's end waits for answers.
const JITTER_FIRST: Duration = Duration::from_secs(1);
const JITTER_MOST: Duration = Duration::from_secs(8);

/// When a publish is sent again that was refused so often before: full jitter, so that those who wait for a broker neither
/// come back at one moment nor keep it busy meanwhile.
pub(crate) fn again_after(refusals: u32, rng: &mut impl Rng) -> Duration {
    let bound = JITTER_FIRST
        .saturating_mul(1 << refusals.min(10))
        .min(JITTER_MOST);
    bound.mul_f64(rng.random())
}

/// A publish without an acknowledgement, that is on no socket.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    pub(crate) client: u32,
    pub(crate) publish: InFlight,
    /// Not sent again before this time of the run.
    pub(crate) at: Duration,
    /// The code of the latest `error` that answered it; without one its socket ended first.
    pub(crate) refused: Option<Box<str>>,
}

/// All of a run.
#[derive(Debug)]
pub(crate) struct Retries {
    waiting: Mutex<Vec<Retry>>,
    /// How long after it was first sent a publish is sent again.
    keep: Duration,
}

impl Retries {
    pub(crate) const fn new(keep: Duration) -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
            keep,
        }
    }

    /// Whether publishes are sent again at all; then they have a `msgId`.
    pub(crate) const fn is_on(&self) -> bool {
        !self.keep.is_zero()
    }

    /// Keeps a publish until it can be sent again, or gives it up when it is too old.
    pub(crate) fn keep(&self, retry: Retry, now: Duration, stats: &Stats) {
        let mut waiting = self.waiting.lock();
        if retry.publish.sent + self.keep > now && waiting.len() < MOST {
            waiting.push(retry);
        } else {
            give_up(&retry, stats);
        }
    }

    /// Takes what may be sent again now.
    pub(crate) fn take_due(&self, now: Duration) -> Vec<Retry> {
        let mut waiting = self.waiting.lock();
        waiting.extract_if(.., |retry| retry.at <= now).collect()
    }

    /// Gives up all that wait.
    pub(crate) fn end(&self, stats: &Stats) {
        for retry in std::mem::take(&mut *self.waiting.lock()) {
            give_up(&retry, stats);
        }
    }
}

fn give_up(retry: &Retry, stats: &Stats) {
    match &retry.refused {
        Some(code) => stats.refused_publishes.add(code),
        None => stats.unconfirmed.add(1),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn retry(sent: u64, again: u64, refused: Option<&str>) -> Retry {
        Retry {
            client: 1,
            publish: InFlight {
                sequence: sent,
                room: 0,
                sent: at(sent),
                refusals: 0,
            },
            at: at(again),
            refused: refused.map(Box::from),
        }
    }

    #[test]
    fn refusals_in_a_row_are_answered_by_longer_waits_each_for_its_own() {
        let mut rng = StdRng::seed_from_u64(5);
        for (refusals, bound) in [(0, 1), (1, 2), (2, 4), (3, 8), (40, 8)] {
            let mut waits: Vec<Duration> = (0..500).map(|_| again_after(refusals, &mut rng)).collect();
            waits.sort_unstable();
            assert!(waits[0] < at(bound) / 50 && waits[499] > at(bound) / 50 * 49);
            assert!(waits[499] <= at(bound), "{refusals}");
        }
    }

    #[test]
    fn a_publish_waits_for_its_time_and_is_given_up_when_it_is_too_old() {
        let (retries, stats) = (Retries::new(at(60)), Stats::new().unwrap());
        retries.keep(retry(0, 10, None), at(5), &stats);
        retries.keep(retry(1, 8, None), at(5), &stats);
        let due: Vec<u64> = retries
            .take_due(at(8))
            .iter()
            .map(|retry| retry.publish.sequence)
            .collect();
        assert_eq!(due, [1]);
        retries.keep(retry(2, 70, Some("overloaded")), at(62), &stats);
        retries.keep(retry(2, 70, None), at(62), &stats);
        assert_eq!(
            (
                stats.refused_publishes.get()["overloaded"],
                stats.unconfirmed.get()
            ),
            (1, 1)
        );
        retries.end(&stats);
        assert_eq!(stats.unconfirmed.get(), 2);
        assert!(retries.take_due(at(100)).is_empty());
    }
}
