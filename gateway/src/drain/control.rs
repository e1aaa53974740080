//! What a drain request means in each phase. Pure: time is passed in.

use std::time::Duration;

use wsfleet_crds::admin::{DrainMode, DrainOrder, DrainRequest, GatewayPhase};

use super::pacer::Grant;
use crate::protocol::CloseCode;

/// Lease when the request names none.
const LEASE: Duration = Duration::from_secs(30);
/// Longest id of a drain, in bytes.
const DRAIN_ID_BYTES: usize = 128;
/// Most closes per second that may be asked for; faster than any machine closes.
const RATE_MAX: f64 = 1_000_000.0;
/// Longest lead of a client's notice after SIGTERM.
const TERMINATE_LEAD: Duration = Duration::from_secs(15);

/// Why a request changes nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A newer leader has spoken (409). The sender has been deposed and must stop.
    #[error(
        "epoch {sent} is lower than {seen}, the highest one seen: another leader steers this gateway now"
    )]
    Fenced {
        /// The request's epoch.
        sent: u64,
        /// The highest one seen.
        seen: u64,
    },
    /// The process is ending (409): nothing can be taken back.
    #[error("the gateway is terminating: it received SIGTERM and will not accept again")]
    Terminating,
    /// A field has a value that means nothing (422).
    #[error("{0}")]
    Invalid(&'static str),
}

/// Closes that are to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order {
    /// Changes when a new line of sockets is to be formed.
    pub line: u64,
    /// How fast, until when.
    pub grant: Grant,
    /// Everything is to be closed by this time; `None` when the grant's rate says how fast.
    pub close_by: Option<Duration>,
    /// Sockets that stay, when not all are to go.
    pub keep: Option<usize>,
    /// Sockets that have been open for less stay.
    pub min_age: Duration,
    /// Longest notice.
    pub window: Duration,
    /// Who comes first.
    pub order: DrainOrder,
    /// What clients see.
    pub close_code: CloseCode,
    /// Told to the clients, in milliseconds since 1970-01-01 UTC.
    pub deadline: Option<u64>,
}

/// Phase, fencing and what is to be closed.
#[derive(Clone, Debug)]
pub struct Control {
    phase: GatewayPhase,
    epoch: u64,
    drain_id: Option<String>,
    order: Option<Order>,
    lines: u64,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            phase: GatewayPhase::Serving,
            epoch: 0,
            drain_id: None,
            order: None,
            lines: 0,
        }
    }
}

impl Control {
    /// Where the gateway is in its life.
    pub const fn phase(&self) -> GatewayPhase {
        self.phase
    }

    /// The highest fencing epoch seen.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The drain in force.
    pub fn drain_id(&self) -> Option<&str> {
        self.drain_id.as_deref()
    }

    /// What is to be closed.
    pub const fn order(&self) -> Option<&Order> {
        self.order.as_ref()
    }

    /// Takes a request. A refused one changes nothing.
    pub fn apply(&mut self, request: &DrainRequest, now: Duration) -> Result<(), Refusal> {
        if request.epoch < self.epoch {
            return Err(Refusal::Fenced {
                sent: request.epoch,
                seen: self.epoch,
            });
        }
        let order = self.read(request, now)?;
        if self.phase == GatewayPhase::Terminating {
            if request.mode == DrainMode::Resume {
                return Err(Refusal::Terminating);
            }
            // it drains itself already, and faster than it must not
            self.epoch = request.epoch;
            return Ok(());
        }
        self.epoch = request.epoch;
        if let Some(order) = &order {
            self.lines = order.line;
        }
        self.order = order;
        (self.phase, self.drain_id) = match request.mode {
            DrainMode::Cordon => (GatewayPhase::Cordoned, Some(request.drain_id.clone())),
            DrainMode::Drain => (GatewayPhase::Draining, Some(request.drain_id.clone())),
            DrainMode::Resume => (GatewayPhase::Serving, None),
        };
        Ok(())
    }

    fn read(&self, request: &DrainRequest, now: Duration) -> Result<Option<Order>, Refusal> {
        if !(1..=DRAIN_ID_BYTES).contains(&request.drain_id.len()) {
            return Err(Refusal::Invalid("drainId must have 1 to 128 bytes"));
        }
        if request.mode != DrainMode::Drain {
            return Ok(None);
        }
        let rate = request
            .rate_per_second
            .ok_or(Refusal::Invalid("mode drain needs ratePerSecond"))?;
        if !(rate > 0.0 && rate <= RATE_MAX) {
            return Err(Refusal::Invalid(
                "ratePerSecond must be above 0 and at most 1000000",
            ));
        }
        let close_code = CloseCode::from_wire(request.close_code).ok_or(Refusal::Invalid(
            "closeCode must be one that may be sent: 1001, 1012 or 3000 to 4999",
        ))?;
        let lease = request
            .lease_seconds
            .map_or(LEASE, |seconds| Duration::from_secs(seconds.into()));
        // the same drain in the same order goes on with its line; anything else forms a new one
        let same = self.order.filter(|order| {
            self.drain_id.as_deref() == Some(&*request.drain_id) && order.order == request.order
        });
        Ok(Some(Order {
            line: same.map_or(self.lines + 1, |order| order.line),
            grant: Grant {
                rate,
                until: now.saturating_add(lease),
            },
            close_by: None,
            keep: request
                .keep_connections
                .map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
            min_age: Duration::from_secs(request.min_age_seconds.unwrap_or_default().into()),
            window: Duration::from_secs(request.reconnect_window_seconds.into()),
            order: request.order,
            close_code,
            deadline: request.deadline.map(|seconds| seconds.saturating_mul(1_000)),
        }))
    }

    /// The process is to end: all sockets are closed by `window` from now, evenly. A second call can only shorten that.
    pub fn terminate(&mut self, window: Duration, now: Duration) {
        let asked = now.saturating_add(window);
        let close_by = match self.order.and_then(|order| order.close_by) {
            Some(before) => before.min(asked),
            None => asked,
        };
        self.phase = GatewayPhase::Terminating;
        self.lines += 1;
        let deadline = crate::clock::Clock::unix_millis() + close_by.saturating_sub(now).as_millis() as u64;
        self.order = Some(Order {
            line: self.lines,
            grant: Grant {
                rate: 1.0,
                until: Duration::MAX,
            },
            close_by: Some(close_by),
            keep: None,
            min_age: Duration::ZERO,
            window: TERMINATE_LEAD.min(window),
            order: DrainOrder::Random,
            close_code: CloseCode::SERVICE_RESTART,
            deadline: Some(deadline),
        });
    }
}

/// The rate that closes `remaining` sockets by `close_by`, evenly.
pub(super) fn rate_to_close(remaining: usize, close_by: Duration, now: Duration) -> f64 {
    let left = close_by.saturating_sub(now).as_secs_f64();
    if left < 0.05 {
        RATE_MAX
    } else {
        (remaining as f64 / left).max(0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str, epoch: u64, mode: DrainMode) -> DrainRequest {
        DrainRequest {
            drain_id: id.to_owned(),
            epoch,
            mode,
            rate_per_second: Some(10.0),
            lease_seconds: Some(10),
            deadline: None,
            order: DrainOrder::IdleFirst,
            close_code: 1012,
            reconnect_window_seconds: 15,
            keep_connections: None,
            min_age_seconds: None,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lower_epoch_is_fenced_and_changes_nothing() {
        let mut control = Control::default();
        control
            .apply(&request("a", 5, DrainMode::Drain), seconds(0))
            .unwrap();
        let refused = control.apply(&request("a", 4, DrainMode::Resume), seconds(1));
        assert_eq!(refused, Err(Refusal::Fenced { sent: 4, seen: 5 }));
        assert_eq!(control.phase(), GatewayPhase::Draining);
        assert_eq!(control.epoch(), 5);
    }

    #[test]
    fn the_same_drain_again_renews_the_lease_and_keeps_its_line() {
        let mut control = Control::default();
        control
            .apply(&request("a", 5, DrainMode::Drain), seconds(0))
            .unwrap();
        let before = *control.order().unwrap();
        control
            .apply(&request("a", 5, DrainMode::Drain), seconds(7))
            .unwrap();
        control
            .apply(&request("a", 6, DrainMode::Drain), seconds(8))
            .unwrap();
        let after = *control.order().unwrap();
        assert_eq!(
            after.line, before.line,
            "a new leader goes on with the same drain"
        );
        assert_eq!(after.grant.until, seconds(18));
        control
            .apply(&request("b", 6, DrainMode::Drain), seconds(8))
            .unwrap();
        assert_ne!(
            control.order().unwrap().line,
            after.line,
            "another drain is another line"
        );
    }

    #[test]
    fn cordon_closes_nothing_and_resume_takes_everything_back() {
        let mut control = Control::default();
        control
            .apply(&request("a", 1, DrainMode::Cordon), seconds(0))
            .unwrap();
        assert_eq!((control.phase(), control.order()), (GatewayPhase::Cordoned, None));
        control
            .apply(&request("a", 1, DrainMode::Drain), seconds(1))
            .unwrap();
        let first = control.order().unwrap().line;
        control
            .apply(&request("a", 1, DrainMode::Resume), seconds(2))
            .unwrap();
        assert_eq!((control.phase(), control.order()), (GatewayPhase::Serving, None));
        assert_eq!(control.drain_id(), None);
        control
            .apply(&request("a", 1, DrainMode::Drain), seconds(3))
            .unwrap();
        assert_ne!(
            control.order().unwrap().line,
            first,
            "sockets accepted meanwhile are in a new line"
        );
    }

    #[test]
    fn requests_that_mean_nothing_are_refused_with_what_to_send() {
        let mut control = Control::default();
        for (change, words) in [
            (
                (|r: &mut DrainRequest| r.rate_per_second = None) as fn(&mut DrainRequest),
                "needs ratePerSecond",
            ),
            (|r| r.rate_per_second = Some(0.0), "above 0"),
            (|r| r.rate_per_second = Some(f64::NAN), "above 0"),
            (|r| r.close_code = 1006, "closeCode"),
            (|r| r.drain_id = String::new(), "drainId"),
            (|r| r.drain_id = "x".repeat(129), "drainId"),
        ] {
            let mut bad = request("a", 9, DrainMode::Drain);
            change(&mut bad);
            let refused = control.apply(&bad, seconds(0)).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!(control.epoch(), 0, "a refused request does not fence");
    }

    #[test]
    fn termination_cannot_be_taken_back_nor_slowed_down_only_shortened() {
        let mut control = Control::default();
        control.terminate(seconds(60), seconds(100));
        let close_by = |control: &Control| control.order().unwrap().close_by;
        assert_eq!(close_by(&control), Some(seconds(160)));
        assert_eq!(
            control.apply(&request("a", 1, DrainMode::Resume), seconds(101)),
            Err(Refusal::Terminating)
        );
        control
            .apply(&request("a", 1, DrainMode::Drain), seconds(101))
            .unwrap();
        assert_eq!(close_by(&control), Some(seconds(160)));
        control.terminate(seconds(5), seconds(110));
        assert_eq!(close_by(&control), Some(seconds(115)));
        control.terminate(seconds(60), seconds(111));
        assert_eq!(close_by(&control), Some(seconds(115)));
    }
}
