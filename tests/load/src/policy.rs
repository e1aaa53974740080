//! When a client comes back: (what happened, when, chance) -> what it does. Pure; the rules are those of the wire
//! protocol's close codes (RFC 6455 §7.4 and the 4000 range), of `server_shutdown`, and of `Retry-After`
//! (RFC 9110 §10.2.3). "Full jitter" is uniform from zero to a bound that doubles with each failure in a row.
//!
//! Times are durations since the run began.

use std::time::Duration;

use rand::Rng;

use crate::config::Reconnect;

/// Smallest and largest bound of the full jitter after a cut, a failed connect or an error of the server.
const JITTER_FIRST: Duration = Duration::from_secs(1);
const JITTER_MOST: Duration = Duration::from_secs(30);
/// Close codes 4100–4199 ask for at least this much.
const BACK_OFF_LEAST: Duration = Duration::from_secs(1);
/// Added to a `Retry-After`, which has whole seconds only: without it all clients refused in one second return in one.
const RETRY_AFTER_SPREAD: Duration = Duration::from_secs(1);

/// What happened to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `server_shutdown`, with its `reconnectDelay`.
    ServerShutdown {
        /// The client's own delay.
        reconnect_delay: Option<Duration>,
    },
    /// The socket ended; 1006 when it was cut without a close frame, 1005 when the frame had no code.
    Closed {
        /// Close code.
        code: u16,
    },
    /// The upgrade was answered with another status than 101.
    Refused {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, when given in seconds.
        retry_after: Option<Duration>,
    },
    /// No connection, or none that got as far as an answer.
    ConnectFailed,
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet: it keeps its socket.
    Stay,
    /// Opens the next socket at this time while it keeps the old one.
    OpenBeside {
        /// When.
        at: Duration,
    },
    /// Opens the next socket at this time.
    Reconnect {
        /// When.
        at: Duration,
    },
    /// Does not come back.
    Stop(StopReason),
}

/// Why a client does not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Closed with a code that forbids it.
    Closed(u16),
    /// Refused with a status that will not change.
    Refused(u16),
}

/// What a policy is made from.
#[derive(Clone, Copy, Debug)]
pub struct PolicySettings {
    /// Whether the old socket is kept until the new one has joined.
    pub reconnect: Reconnect,
    /// Window of a reconnect without a told delay.
    pub window: Duration,
}

/// One client's memory of failures and of what it was told.
#[derive(Clone, Debug)]
pub struct Policy {
    settings: PolicySettings,
    /// Failures in a row.
    failures: u32,
    /// The time the server told this client to come back.
    told: Option<Duration>,
}

impl Policy {
    /// A client without a past.
    pub const fn new(settings: PolicySettings) -> Self {
        Self {
            settings,
            failures: 0,
            told: None,
        }
    }

    /// The client is connected and joined again: its failures are forgotten.
    pub const fn joined(&mut self) {
        self.failures = 0;
        self.told = None;
    }

    /// What to do about `event`, at `now`.
    pub fn decide(&mut self, event: &Event, now: Duration, rng: &mut impl Rng) -> Decision {
        match *event {
            Event::ServerShutdown { reconnect_delay } => self.told_to_leave(reconnect_delay, now, rng),
            Event::Closed { code } => self.closed(code, now, rng),
            Event::Refused { status, retry_after } => self.refused(status, retry_after, now, rng),
            Event::ConnectFailed => Decision::Reconnect {
                at: now + self.full_jitter(rng),
            },
        }
    }

    fn told_to_leave(&mut self, delay: Option<Duration>, now: Duration, rng: &mut impl Rng) -> Decision {
        let delay = delay.unwrap_or_else(|| within(self.settings.window, rng));
        let at = now + delay;
        self.told = Some(at);
        match self.settings.reconnect {
            Reconnect::MakeBeforeBreak => Decision::OpenBeside { at },
            Reconnect::BreakBeforeMake => Decision::Stay,
        }
    }

    fn closed(&mut self, code: u16, now: Duration, rng: &mut impl Rng) -> Decision {
        let told = self.told.take();
        let at = match code {
            1001 | 1012 | 4200..=4299 => {
                told.map_or_else(|| now + within(self.settings.window, rng), |told| told.max(now))
            }
            1013 => (now + self.full_jitter(rng)).max(told.unwrap_or(now)),
            4100..=4199 => now + (BACK_OFF_LEAST + self.full_jitter(rng)).min(JITTER_MOST),
            // cut, no code, the server's own error, its gateway's, a TLS failure: the server may be well again
            1005 | 1006 | 1011 | 1014 | 1015 => now + self.full_jitter(rng),
            _ => return Decision::Stop(StopReason::Closed(code)),
        };
        Decision::Reconnect { at }
    }

    fn refused(
        &mut self,
        status: u16,
        after: Option<Duration>,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Decision {
        if status != 429 && status < 500 {
            return Decision::Stop(StopReason::Refused(status));
        }
        let jitter = self.full_jitter(rng);
        let delay = after.map_or(jitter, |after| after + within(RETRY_AFTER_SPREAD, rng));
        Decision::Reconnect { at: now + delay }
    }

    fn full_jitter(&mut self, rng: &mut impl Rng) -> Duration {
        let bound = JITTER_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(JITTER_MOST);
        self.failures = self.failures.saturating_add(1);
        within(bound, rng)
    }
}

fn within(bound: Duration, rng: &mut impl Rng) -> Duration {
    bound.mul_f64(rng.random::<f64>())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const WINDOW: Duration = Duration::from_secs(15);

    fn delay(at: Duration) -> Duration {
        at.checked_sub(NOW).unwrap()
    }

    fn policy(reconnect: Reconnect) -> Policy {
        Policy::new(PolicySettings {
            reconnect,
            window: WINDOW,
        })
    }

    /// The delays that 500 clients draw for one event, sorted.
    fn delays(event: &Event) -> Vec<Duration> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut delays: Vec<Duration> = (0..500)
            .map(
                |_| match policy(Reconnect::MakeBeforeBreak).decide(event, NOW, &mut rng) {
                    Decision::Reconnect { at } => delay(at),
                    other => panic!("{event:?} gave {other:?}"),
                },
            )
            .collect();
        delays.sort_unstable();
        delays
    }

    fn decide(policy: &mut Policy, event: &Event, now: Duration) -> Decision {
        policy.decide(event, now, &mut StdRng::seed_from_u64(1))
    }

    fn told(seconds: u64) -> Event {
        Event::ServerShutdown {
            reconnect_delay: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn a_client_told_to_leave_opens_its_next_socket_beside_the_old_one_at_the_told_time() {
        let decision = decide(&mut policy(Reconnect::MakeBeforeBreak), &told(9), NOW);
        assert_eq!(
            decision,
            Decision::OpenBeside {
                at: NOW + Duration::from_secs(9)
            }
        );
    }

    #[test]
    fn a_naive_client_waits_for_the_close_and_for_the_rest_of_its_told_delay() {
        for code in [1001, 1012, 4200] {
            let mut naive = policy(Reconnect::BreakBeforeMake);
            assert_eq!(decide(&mut naive, &told(9), NOW), Decision::Stay);
            let early = NOW + Duration::from_secs(2);
            let decision = decide(&mut naive, &Event::Closed { code }, early);
            assert_eq!(
                decision,
                Decision::Reconnect {
                    at: NOW + Duration::from_secs(9)
                }
            );
        }
        let mut late = policy(Reconnect::BreakBeforeMake);
        decide(&mut late, &told(1), NOW);
        let after = NOW + Duration::from_secs(3);
        let decision = decide(&mut late, &Event::Closed { code: 1012 }, after);
        assert_eq!(decision, Decision::Reconnect { at: after });
    }

    #[test]
    fn a_drain_or_a_rebalance_without_a_told_delay_is_spread_over_the_window() {
        for code in [1001, 1012, 4200, 4202] {
            let delays = delays(&Event::Closed { code });
            assert!(delays[0] < WINDOW / 20 && delays[499] > WINDOW / 20 * 19 && delays[499] <= WINDOW);
        }
    }

    #[test]
    fn terminal_codes_and_statuses_stop_the_client() {
        for code in [1000, 1002, 1003, 1007, 1008, 1009, 4000, 4001, 4003, 4099, 4300] {
            let decision = decide(
                &mut policy(Reconnect::MakeBeforeBreak),
                &Event::Closed { code },
                NOW,
            );
            assert_eq!(decision, Decision::Stop(StopReason::Closed(code)));
        }
        for status in [200, 301, 400, 401, 403, 404, 426] {
            let event = Event::Refused {
                status,
                retry_after: None,
            };
            let decision = decide(&mut policy(Reconnect::MakeBeforeBreak), &event, NOW);
            assert_eq!(decision, Decision::Stop(StopReason::Refused(status)));
        }
    }

    #[test]
    fn overload_is_given_at_least_the_told_time() {
        for seed in 0..100 {
            let mut policy = policy(Reconnect::BreakBeforeMake);
            let mut rng = StdRng::seed_from_u64(seed);
            policy.decide(&told(7), NOW, &mut rng);
            let decision = policy.decide(&Event::Closed { code: 1013 }, NOW, &mut rng);
            assert!(matches!(decision, Decision::Reconnect { at } if at >= NOW + Duration::from_secs(7)));
        }
    }

    #[test]
    fn the_4100s_back_off_for_one_to_thirty_seconds_each_for_its_own() {
        let first = delays(&Event::Closed { code: 4101 });
        assert!(first[499] > first[0] + Duration::from_millis(900));
        for code in [4100, 4101, 4102, 4104, 4199] {
            let mut policy = policy(Reconnect::MakeBeforeBreak);
            let mut rng = StdRng::seed_from_u64(u64::from(code));
            for _ in 0..50 {
                let Decision::Reconnect { at } = policy.decide(&Event::Closed { code }, NOW, &mut rng) else {
                    panic!("{code} must reconnect");
                };
                assert!((Duration::from_secs(1)..=Duration::from_secs(30)).contains(&delay(at)));
            }
        }
    }

    #[test]
    fn a_cut_client_comes_back_with_full_jitter_whose_bound_doubles_until_it_has_joined() {
        let first = delays(&Event::Closed { code: 1006 });
        assert!(first[0] < Duration::from_millis(50) && first[499] > Duration::from_millis(950));
        assert!(first[499] <= Duration::from_secs(1));
        let mut policy = policy(Reconnect::MakeBeforeBreak);
        let mut rng = StdRng::seed_from_u64(3);
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            if let Decision::Reconnect { at } = policy.decide(&Event::ConnectFailed, NOW, &mut rng) {
                longest = longest.max(delay(at));
            }
        }
        assert!(longest > Duration::from_secs(25) && longest <= Duration::from_secs(30));
        policy.joined();
        let Decision::Reconnect { at } = policy.decide(&Event::Closed { code: 1006 }, NOW, &mut rng) else {
            panic!("a cut client must reconnect");
        };
        assert!(delay(at) <= Duration::from_secs(1));
    }

    #[test]
    fn retry_after_is_obeyed_and_spread_over_one_second() {
        for status in [429, 503] {
            let delays = delays(&Event::Refused {
                status,
                retry_after: Some(Duration::from_secs(4)),
            });
            assert!(delays[0] >= Duration::from_secs(4) && delays[499] <= Duration::from_secs(5));
            assert!(delays[499] > delays[0] + Duration::from_millis(900));
        }
        let without = delays(&Event::Refused {
            status: 502,
            retry_after: None,
        });
        assert!(without[499] <= Duration::from_secs(1));
    }
}
