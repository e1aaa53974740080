//! How patient links to a broker's servers are, and how they come back.

use std::time::Duration;

/// How patient the links are. A link that went silent is found dead after `silence + answer` at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A link on which nothing was heard for so long is probed.
    pub silence: Duration,
    /// A command or probe that is not answered within this time condemns its link.
    pub answer: Duration,
    /// Where Sentinels know the master: how often one is asked whether it still is.
    pub watch: Duration,
    /// A stream of which nothing was heard for so long is compared with what is kept: its last message may be lost.
    pub compare: Duration,
    /// Time for connecting, greeting and authentication together.
    pub connect: Duration,
    /// How long the members of a gateway that is gone count as being in their rooms.
    pub lease: Duration,
    /// First wait after a failed connect; doubled each time, jittered by half.
    pub backoff_min: Duration,
    /// Longest wait after a failed connect.
    pub backoff_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(5),
            answer: Duration::from_secs(3),
            watch: Duration::from_secs(2),
            compare: Duration::from_secs(30),
            connect: Duration::from_secs(3),
            lease: Duration::from_secs(15),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
        }
    }
}

/// Waits between attempts: doubling up to a cap, and jittered so that a fleet that lost its broker at one moment does
/// not come back at one moment.
#[derive(Debug)]
pub(in crate::broker) struct Backoff {
    timing: Timing,
    next: Duration,
}

impl Backoff {
    pub(in crate::broker) const fn new(timing: Timing) -> Self {
        Self {
            timing,
            next: timing.backoff_min,
        }
    }

    pub(in crate::broker) const fn reset(&mut self) {
        self.next = self.timing.backoff_min;
    }

    /// The next wait: between half of the current step and all of it; `random` is uniform in 0..1.
    pub(in crate::broker) fn step(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(random.clamp(0.0, 1.0).mul_add(0.5, 0.5));
        self.next = (self.next * 2).min(self.timing.backoff_max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_keep_half_of_the_step_as_jitter() {
        let timing = Timing::default();
        let mut backoff = Backoff::new(timing);
        assert_eq!(backoff.step(0.0), timing.backoff_min / 2);
        assert_eq!(backoff.step(1.0), timing.backoff_min * 2);
        for _ in 0..20 {
            let wait = backoff.step(1.0);
            assert!(wait <= timing.backoff_max);
        }
        assert_eq!(backoff.step(1.0), timing.backoff_max);
        backoff.reset();
        assert_eq!(backoff.step(1.0), timing.backoff_min);
    }
}
