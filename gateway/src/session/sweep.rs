//! Everything that happens to a connection by the passing of time, for all of them in one task: pings, missing pongs,
//! closes that are not answered, tokens that expire. So no connection has a timer. What is due is spread over the time until
//! the next sweep: a thousand connections that end at once would hold up all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::conn::Conn;
use super::env::{ConnId, Env};
use super::registry::Connections;
use super::seat;
use crate::clock::Tick;
use crate::config::Limit;
use crate::gateway::Gateway;
use crate::protocol::{CloseReason, ServerMessage};
use crate::websocket;

/// Time between pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the peer has to send anything after a ping.
pub const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// What is due is done in so many portions at most ...
const PORTIONS: usize = 225;
/// ... with so much time between them ...
const PORTION_INTERVAL: Duration = Duration::from_millis(4);
/// ... of so many connections at least.
const SMALLEST_PORTION: usize = 4;
/// A connection without a message for so long is idle.
pub const IDLE_AFTER: Duration = Duration::from_mins(1);

/// From the notice to a connection that has become too old to its close: long enough for a handshake and some joins.
const NOTICE: Duration = Duration::from_secs(2);

/// What time has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Ping,
    /// It is told that it will be closed.
    Notice,
    Close(CloseReason),
    Cut,
}

/// The times of one connection.
#[derive(Clone, Copy, Debug)]
struct Times {
    closing: bool,
    /// When it is cut; of one that is not closing yet, when it is closed, if it was told so.
    close_deadline: Tick,
    expires: Tick,
    /// When it is too old.
    aged: Tick,
    last_inbound: Tick,
    ping_due: Tick,
    ping_sent: Option<Tick>,
}

impl Times {
    fn due(self, now: Tick) -> Due {
        if self.closing {
            return if now >= self.close_deadline {
                Due::Cut
            } else {
                Due::Nothing
            };
        }
        if now >= self.expires {
            return Due::Close(CloseReason::TokenExpired);
        }
        if now >= self.aged {
            if self.close_deadline == Tick::NEVER {
                return Due::Notice;
            } else if now >= self.close_deadline {
                return Due::Close(CloseReason::Aged);
            }
        }
        let unanswered = self.ping_sent.filter(|sent| self.last_inbound < *sent);
        if unanswered.is_some_and(|sent| now.since(sent) >= PONG_TIMEOUT) {
            return Due::Close(CloseReason::NoPong);
        }
        if now >= self.ping_due {
            Due::Ping
        } else {
            Due::Nothing
        }
    }
}

impl Conn {
    fn times(&self) -> Times {
        let sent = self.ping_sent.load(Relaxed);
        Times {
            closing: self.closed().is_some(),
            close_deadline: Tick::from_bits(self.close_deadline.load(Relaxed)),
            expires: Tick::from_bits(self.expires.load(Relaxed)),
            aged: aged(self.id, self.connected, self.env.connection_age),
            last_inbound: Tick::from_bits(self.last_inbound.load(Relaxed)),
            ping_due: Tick::from_bits(self.ping_due.load(Relaxed)),
            ping_sent: (sent != 0).then(|| Tick::from_bits(sent)),
        }
    }

    fn ping(self: &Arc<Self>, now: Duration) {
        let tick = Tick::from_duration(now);
        self.ping_sent.store(tick.to_bits().max(1), Relaxed);
        self.ping_due.store(tick.after(PING_INTERVAL).to_bits(), Relaxed);
        self.send_control(&websocket::ping_frame(&ping_payload(now)));
    }
}

/// When a connection is too old: at a time of its own, so that those that came together do not go together.
fn aged(id: ConnId, connected: Tick, age: Limit) -> Tick {
    // Fibonacci hashing: ids are numbers in a row
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let Some(seconds) = age.get() else {
        return Tick::NEVER;
    };
    let draw = (id.0.wrapping_mul(GOLDEN) >> 32) as f64 / f64::from(u32::MAX);
    connected.after(Duration::from_secs(seconds.into()).mul_f64(0.9 + 0.2 * draw))
}

/// Tells a client to open its next connection now, while this one is served.
fn give_notice(gateway: &Gateway, conn: &Arc<Conn>, now: Duration) {
    let notice = ServerMessage::ServerShutdown {
        reason: "rebalance",
        reconnect_delay: 0,
        deadline: None,
        resume: gateway.resumes_elsewhere(),
    };
    let deadline = Tick::from_duration(now.saturating_add(NOTICE));
    conn.close_deadline.store(deadline.to_bits(), Relaxed);
    gateway.env.metrics.sent(1);
    conn.send_control(&conn.format.frame(&notice));
    // the next one must not be one too many
    seat::give(gateway, conn);
}

/// When the ping was sent, in microseconds of the gateway's clock: its answer needs no table.
fn ping_payload(now: Duration) -> [u8; 8] {
    (now.as_micros() as u64).to_be_bytes()
}

/// From the ping to now; `None` when it is not an answer to a ping of ours.
pub(super) fn pong_latency(payload: &[u8], now: Duration) -> Option<Duration> {
    let sent = Duration::from_micros(u64::from_be_bytes(payload.try_into().ok()?));
    now.checked_sub(sent).filter(|latency| *latency <= PING_INTERVAL)
}

/// What the last sweep counted.
#[derive(Debug, Default)]
pub struct Census {
    idle: AtomicU64,
}

impl Census {
    /// Connections without a message for [`IDLE_AFTER`].
    pub fn idle(&self) -> u64 {
        self.idle.load(Relaxed)
    }
}

/// Sweeps until dropped.
pub async fn sweep_forever(gateway: &Gateway) {
    let (connections, env) = (&gateway.connections, &gateway.env);
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let due = sweep(connections, env, &gateway.census);
        env.metrics.active.set(connections.len() as i64);
        act_on(due, gateway).await;
    }
}

/// Those for which something is due.
fn sweep(connections: &Connections, env: &Env, census: &Census) -> Vec<Arc<Conn>> {
    let tick = env.clock.tick();
    let (mut idle, mut queued) = (0, 0);
    let mut due = Vec::new();
    connections.for_each(|_, conn| {
        idle += u64::from(tick.since(conn.last_message()) >= IDLE_AFTER);
        queued += conn.queued().0 as i64;
        if conn.times().due(tick) != Due::Nothing {
            due.push(Arc::clone(conn));
        }
    });
    census.idle.store(idle, Relaxed);
    env.metrics.send_queue_bytes.set(queued);
    due
}

async fn act_on(due: Vec<Arc<Conn>>, gateway: &Gateway) {
    let portion = due.len().div_ceil(PORTIONS).max(SMALLEST_PORTION);
    let mut portions = due.chunks(portion).peekable();
    while let Some(portion) = portions.next() {
        let now = gateway.env.clock.now();
        for conn in portion {
            // it may have changed since it was swept
            match conn.times().due(Tick::from_duration(now)) {
                Due::Nothing => {}
                Due::Ping => conn.ping(now),
                Due::Notice => give_notice(gateway, conn, now),
                Due::Close(reason) => drop(conn.close(reason)),
                Due::Cut => conn.cut(),
            }
        }
        if portions.peek().is_some() {
            tokio::time::sleep(PORTION_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Times = Times {
        closing: false,
        close_deadline: Tick::NEVER,
        expires: Tick::NEVER,
        aged: Tick::NEVER,
        last_inbound: Tick::from_bits(0),
        ping_due: Tick::from_bits(100),
        ping_sent: None,
    };

    fn at(seconds: u64) -> Tick {
        Tick::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn a_silent_peer_is_pinged_and_closed_within_forty_seconds_of_its_last_frame() {
        assert_eq!(START.due(at(9)), Due::Nothing);
        assert_eq!(START.due(at(10)), Due::Ping);
        let pinged = Times {
            ping_sent: Some(at(10)),
            ping_due: at(40),
            ..START
        };
        assert_eq!(pinged.due(at(19)), Due::Nothing);
        assert_eq!(pinged.due(at(20)), Due::Close(CloseReason::NoPong));
        let answered = Times {
            last_inbound: at(11),
            ..pinged
        };
        assert_eq!(answered.due(at(20)), Due::Nothing);
        assert_eq!(answered.due(at(40)), Due::Ping);
    }

    #[test]
    fn a_frame_in_the_same_tick_as_the_ping_counts_as_its_answer() {
        let pinged = Times {
            ping_sent: Some(at(10)),
            ping_due: at(40),
            last_inbound: at(10),
            ..START
        };
        assert_eq!(pinged.due(at(20)), Due::Nothing);
    }

    #[test]
    fn an_expired_token_closes_and_an_unanswered_close_is_cut() {
        let expired = Times {
            expires: at(5),
            ..START
        };
        assert_eq!(expired.due(at(5)), Due::Close(CloseReason::TokenExpired));
        let closing = Times {
            closing: true,
            close_deadline: at(10),
            ..expired
        };
        assert_eq!(closing.due(at(9)), Due::Nothing);
        assert_eq!(closing.due(at(10)), Due::Cut);
    }

    #[test]
    fn an_old_connection_is_told_once_and_closed_a_little_later() {
        let old = Times { aged: at(5), ..START };
        assert_eq!(old.due(at(4)), Due::Nothing);
        assert_eq!(old.due(at(5)), Due::Notice);
        let told = Times {
            close_deadline: at(7),
            ..old
        };
        assert_eq!(told.due(at(6)), Due::Nothing);
        assert_eq!(told.due(at(7)), Due::Close(CloseReason::Aged));
    }

    #[test]
    fn connections_that_came_together_are_too_old_at_times_spread_over_a_fifth_of_the_age() {
        let ages: Vec<_> = (1..=1_000)
            .map(|id| {
                aged(ConnId(id), at(100), Limit::new(1_000))
                    .since(at(100))
                    .as_secs()
            })
            .collect();
        assert!(ages.iter().all(|age| (900..=1_100).contains(age)), "{ages:?}");
        for tenth in 0..10 {
            let (from, to) = (900 + tenth * 20, 900 + (tenth + 1) * 20);
            let here = ages.iter().filter(|age| (from..to).contains(*age)).count();
            assert!((80..=120).contains(&here), "{here} from {from} s on");
        }
        assert_eq!(aged(ConnId(1), at(100), Limit::OFF), Tick::NEVER);
    }

    #[test]
    fn a_pong_tells_its_latency_and_anything_else_tells_nothing() {
        let sent = Duration::from_secs(100);
        let payload = ping_payload(sent);
        let millis = Duration::from_millis(20);
        assert_eq!(pong_latency(&payload, sent + millis), Some(millis));
        assert_eq!(pong_latency(&payload, Duration::from_secs(99)), None);
        assert_eq!(pong_latency(b"", sent), None);
        assert_eq!(pong_latency(&[0xFF; 8], sent), None);
    }
}
