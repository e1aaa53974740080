//! Pacing of a drain: who is told when, who is closed when. Pure: time is passed in.
//!
//! Sockets stand in line. The k-th of those still there has its slot k/rate from now; it is told (`server_shutdown`) its
//! own random time before that slot to come a [`handover`] before it, so that it can open its next connection while
//! this one is served, and is closed at its slot if it has not gone by itself. Closes are gated by credit that grows
//! with the granted rate only while the lease lasts, so a cut rate or a lease that ran out pauses closes even for those
//! that were told. A told socket that goes by itself uses its slot up: departures caused by the drain never exceed the
//! rate. One that goes untold is ordinary churn: the others move up.
//!
//! A gateway that sheds only some of its sockets says each time how many may still go: so many are told, or closed, at most.

use std::collections::VecDeque;
use std::time::Duration;

/// What happens to one socket now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step<K> {
    /// Send `server_shutdown` with this delay.
    Tell {
        /// Who.
        key: K,
        /// From now to the time at which it shall connect anew: a handover before its slot.
        delay: Duration,
    },
    /// Close it. A socket that was never told is told first, with the delay 0, by a `Tell` before this step.
    Close {
        /// Who.
        key: K,
    },
}

/// How fast, and until when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grant {
    /// Closes per second; positive and finite.
    pub rate: f64,
    /// No close at or after this time (on the clock of `tick`).
    pub until: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Place<K> {
    key: K,
    /// Distinguishes the delays of sockets whose slots lie close together; 0 to 1.
    jitter: f64,
    /// How long before its slot this socket is told.
    lead: Duration,
    /// Its slot as told to it.
    told: Option<Duration>,
}

/// What one tick may do, when not all have to go.
struct Most {
    closed: usize,
    /// So many more.
    told: usize,
}

/// The line of sockets of one drain.
#[derive(Debug)]
pub struct Pacer<K> {
    line: VecDeque<Place<K>>,
    grant: Grant,
    /// Longest lead.
    window: Duration,
    credit: f64,
    last_tick: Duration,
}

/// Credit that a stalled process may make up at once, in seconds of the rate.
const BURST_SECONDS: f64 = 0.5;

/// Most that a socket is told to come too early, so that no two are told the same.
const JITTER: Duration = Duration::from_millis(50);

/// Most that a socket is served beyond the time at which it was told to connect anew.
const HANDOVER: Duration = Duration::from_secs(1);

/// How long a socket is served beyond the time at which it was told to connect anew: long enough for a handshake and
/// some joins, at most half of the window.
pub(super) fn handover(window: Duration) -> Duration {
    HANDOVER.min(window / 2)
}

impl<K: Copy> Pacer<K> {
    /// A line in the given order. `draw` gives random numbers from 0 to 1. The first close comes after a handover.
    pub fn new(
        keys: impl IntoIterator<Item = K>,
        grant: Grant,
        window: Duration,
        now: Duration,
        mut draw: impl FnMut() -> f64,
    ) -> Self {
        let handover = handover(window);
        let mut place = |key| Place {
            key,
            jitter: draw().clamp(0.0, 1.0),
            lead: handover + window.saturating_sub(handover).mul_f64(draw().clamp(0.0, 1.0)),
            told: None,
        };
        let line = keys.into_iter().map(&mut place).collect();
        Self {
            line,
            grant,
            window,
            credit: -grant.rate * handover.as_secs_f64(),
            last_tick: now,
        }
    }

    /// A renewed lease, another rate. Credit of the time before is settled at the old rate.
    pub fn renew(&mut self, grant: Grant, now: Duration) {
        self.earn(now);
        self.grant = grant;
    }

    /// Sockets not yet closed, those included that went unnoticed.
    pub fn remaining(&self) -> usize {
        self.line.len()
    }

    /// What is due at `now`, when `may_go` sockets are to go at most. `alive` tells whether a socket is still open.
    pub fn tick(&mut self, now: Duration, may_go: usize, mut alive: impl FnMut(K) -> bool) -> Vec<Step<K>> {
        self.earn(now);
        // how many of them were told counts when not all are to go, wherever they stand
        self.forget_departed(may_go < self.line.len(), &mut alive);
        let mut steps = Vec::new();
        if now >= self.grant.until {
            return steps;
        }
        let mut most = self.most(may_go);
        self.close_due(now, &mut most, &mut steps);
        self.tell_due(now, &mut most, &mut steps);
        steps
    }

    fn most(&self, may_go: usize) -> Most {
        if may_go >= self.line.len() {
            return Most {
                closed: usize::MAX,
                told: usize::MAX,
            };
        }
        // whoever was told goes by itself; when others went meanwhile, that is more than had to
        let told = self.line.iter().filter(|place| place.told.is_some()).count();
        Most {
            closed: may_go,
            told: may_go.saturating_sub(told),
        }
    }

    fn earn(&mut self, now: Duration) {
        let end = now.min(self.grant.until);
        let granted = end.saturating_sub(self.last_tick).as_secs_f64();
        let most = (self.grant.rate * BURST_SECONDS).max(1.0);
        self.credit = (self.credit + granted * self.grant.rate).min(most);
        self.last_tick = self.last_tick.max(now);
    }

    /// Places whose turn could come within the window.
    fn horizon(&self) -> usize {
        let reach = self.grant.rate * (self.window.as_secs_f64() + 1.0) + self.credit.max(0.0) + 1.0;
        (reach.ceil() as usize).min(self.line.len())
    }

    /// Takes those out of the line who went; the slot of one who was told is used up. Others move up into the horizon
    /// then, so it is looked at again.
    fn forget_departed(&mut self, all: bool, alive: &mut impl FnMut(K) -> bool) {
        let mut debit = 0.0;
        loop {
            let horizon = if all { self.line.len() } else { self.horizon() };
            let rest = self.line.split_off(horizon);
            self.line.retain(|place| {
                let there = alive(place.key);
                if !there && place.told.is_some() {
                    debit += 1.0;
                }
                there
            });
            let all_there = self.line.len() == horizon;
            self.line.extend(rest);
            if all_there {
                break;
            }
        }
        // more than a second in debt would punish the rest of the line for a burst of departures that is over
        self.credit = (self.credit - debit).max(-self.grant.rate.max(1.0));
    }

    fn close_due(&mut self, now: Duration, most: &mut Most, steps: &mut Vec<Step<K>>) {
        let mut at = 0;
        while self.credit >= 1.0 && most.closed > 0 && at < self.line.len() {
            let place = self.line[at];
            match place.told {
                Some(slot) if slot > now => {
                    at += 1;
                    continue;
                }
                Some(_) => {}
                None if most.told == 0 => {
                    at += 1;
                    continue;
                }
                None => {
                    most.told -= 1;
                    steps.push(Step::Tell {
                        key: place.key,
                        delay: Duration::ZERO,
                    });
                }
            }
            steps.push(Step::Close { key: place.key });
            self.line.remove(at);
            self.credit -= 1.0;
            most.closed -= 1;
        }
    }

    fn tell_due(&mut self, now: Duration, most: &mut Most, steps: &mut Vec<Step<K>>) {
        let horizon = self.horizon();
        let spread = Duration::from_secs_f64(1.0 / self.grant.rate).min(JITTER);
        let handover = handover(self.window);
        for (index, place) in self.line.iter_mut().take(horizon).enumerate() {
            if most.told == 0 {
                break;
            }
            if place.told.is_some() {
                continue;
            }
            let wait = ((index + 1) as f64 - self.credit).max(0.0) / self.grant.rate;
            let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
            if wait <= place.lead {
                let wait = wait.saturating_sub(spread.mul_f64(place.jitter));
                place.told = Some(now.saturating_add(wait));
                most.told -= 1;
                steps.push(Step::Tell {
                    key: place.key,
                    delay: wait.saturating_sub(handover),
                });
            }
        }
    }
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
