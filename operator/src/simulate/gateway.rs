//! The model's gateway process: who is connected, and what it was told. Fencing, leases, the pace of a drain and of
//! SIGTERM are as in the gateway's admin API.

use wsfleet_crds::admin::{DrainMode, DrainRequest, GatewayHealth, GatewayPhase, GatewayState};

use super::time::{Millis, SECOND, seconds};

/// Credit that a gateway may make up at once, in seconds of its rate.
const BURST_SECONDS: f64 = 0.5;
/// What a request without `leaseSeconds` grants.
const LEASE_SECONDS: u32 = 30;

/// A client, by number.
pub(crate) type ClientId = u32;

/// The process in a pod.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    /// The pod that it runs in.
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) revision: String,
    /// It runs and answers.
    pub(crate) alive: bool,
    /// It runs, and cannot be reached by the operator.
    pub(crate) silent: bool,
    pub(crate) sockets: Vec<ClientId>,
    pub(crate) phase: GatewayPhase,
    pub(crate) epoch: u64,
    pub(crate) drain_id: Option<String>,
    /// In a drain, so many sockets stay.
    pub(crate) keep: usize,
    /// In a drain, sockets that are younger stay.
    pub(crate) min_age: Millis,
    rate: f64,
    until: Millis,
    /// By when the last socket is closed, once SIGTERM came.
    close_by: Option<Millis>,
    credit: f64,
    /// Handshakes accepted per second, averaged over ten seconds.
    pub(crate) handshakes: f64,
    /// Handshakes accepted in this tick.
    pub(crate) accepted: u32,
    pub(crate) forced_closed: u64,
    pub(crate) natural_closed: u64,
    /// Share of the handshakes that it fails.
    pub(crate) fails: f64,
    pub(crate) health: GatewayHealth,
}

/// The request is of a leader that has been followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fenced;

impl Gateway {
    /// The process of a pod that is started.
    pub(crate) fn new(pod: String, uid: String, revision: String) -> Self {
        Self {
            pod,
            uid,
            revision,
            alive: false,
            silent: false,
            sockets: Vec::new(),
            phase: GatewayPhase::Serving,
            epoch: 0,
            drain_id: None,
            keep: 0,
            min_age: 0,
            rate: 0.0,
            until: 0,
            close_by: None,
            credit: 0.0,
            handshakes: 0.0,
            accepted: 0,
            forced_closed: 0,
            natural_closed: 0,
            fails: 0.0,
            health: GatewayHealth::default(),
        }
    }

    /// The process begins anew: nobody is connected, nothing was told.
    pub(crate) fn start(&mut self) {
        *self = Self {
            alive: true,
            fails: self.fails,
            ..Self::new(self.pod.clone(), self.uid.clone(), self.revision.clone())
        };
    }

    /// Whether an upgrade would be accepted.
    pub(crate) fn accepts(&self) -> bool {
        self.alive && self.phase == GatewayPhase::Serving
    }

    /// `PUT drain`. A refused request changes nothing.
    pub(crate) fn told(&mut self, request: &DrainRequest, now: Millis) -> Result<(), Fenced> {
        if request.epoch < self.epoch {
            return Err(Fenced);
        }
        self.epoch = request.epoch;
        if self.phase == GatewayPhase::Terminating {
            return Ok(());
        }
        let again = self.phase == GatewayPhase::Draining
            && self.drain_id.as_deref() == Some(request.drain_id.as_str());
        self.drain_id = (request.mode != DrainMode::Resume).then(|| request.drain_id.clone());
        (self.phase, self.rate) = match request.mode {
            DrainMode::Cordon => (GatewayPhase::Cordoned, 0.0),
            DrainMode::Drain => (GatewayPhase::Draining, request.rate_per_second.unwrap_or(0.0)),
            DrainMode::Resume => (GatewayPhase::Serving, 0.0),
        };
        if self.phase == GatewayPhase::Draining {
            self.keep = request.keep_connections.unwrap_or(0) as usize;
            self.min_age = seconds(request.min_age_seconds.unwrap_or(0));
            self.until = now + seconds(request.lease_seconds.unwrap_or(LEASE_SECONDS));
            if !again {
                // the first close comes a handover after the order
                let handover = (f64::from(request.reconnect_window_seconds) / 2.0).min(1.0);
                self.credit = -self.rate * handover;
            }
        }
        Ok(())
    }

    /// SIGTERM: whoever is connected is closed by `window` from now, evenly.
    pub(crate) fn terminate(&mut self, window: Millis, now: Millis) {
        let asked = now + window;
        self.close_by = Some(self.close_by.map_or(asked, |before| before.min(asked)));
        self.phase = GatewayPhase::Terminating;
        self.credit = 0.0;
    }

    /// How many sockets it closes at the end of a span `step` that ends `now`.
    pub(crate) fn due(&mut self, step: Millis, now: Millis) -> usize {
        let began = now.saturating_sub(step);
        let (rate, end) = match (self.phase, self.close_by) {
            (GatewayPhase::Terminating, Some(close_by)) => {
                let left = close_by.saturating_sub(began).max(step);
                (self.sockets.len() as f64 * SECOND as f64 / left as f64, now)
            }
            (GatewayPhase::Draining, _) => (self.rate, self.until.min(now)),
            _ => return 0,
        };
        let earned = end.saturating_sub(began) as f64 / SECOND as f64 * rate;
        self.credit = (self.credit + earned).min((rate * BURST_SECONDS).max(1.0));
        let may = self.phase == GatewayPhase::Terminating || now < self.until;
        if self.credit < 1.0 || !may {
            return 0;
        }
        let some = (self.credit as usize).min(self.surplus());
        self.credit -= some as f64;
        some
    }

    /// Sockets that it may close, as far as their number goes.
    pub(crate) fn surplus(&self) -> usize {
        let keep = if self.phase == GatewayPhase::Draining {
            self.keep
        } else {
            0
        };
        self.sockets.len().saturating_sub(keep)
    }

    /// `GET state`.
    pub(crate) fn state(&self, capacity: u64) -> GatewayState {
        GatewayState {
            server_id: self.pod.clone(),
            phase: self.phase,
            accepting: self.accepts(),
            connections: self.sockets.len() as u64,
            idle: 0,
            handshakes_per_second: self.handshakes,
            forced_closed: self.forced_closed,
            natural_closed: self.natural_closed,
            capacity,
            revision: self.revision.clone(),
            epoch: self.epoch,
            drain_id: self.drain_id.clone(),
            broker_degraded: false,
            health: self.health,
        }
    }
}

#[cfg(test)]
impl Gateway {
    /// Closes per second that its lease allows now.
    pub(crate) fn granted(&self, now: Millis) -> f64 {
        if self.phase == GatewayPhase::Draining && self.until > now && self.alive {
            self.rate
        } else {
            0.0
        }
    }

    /// Its lease, if one is in force: closes per second, in thousandths, and until when.
    pub(crate) fn lease(&self, now: Millis) -> Option<(u64, Millis)> {
        let rate = self.granted(now);
        (rate > 0.0).then(|| ((rate * 1_000.0).round() as u64, self.until))
    }

    /// Lets `span` pass while the clock stands still.
    pub(crate) fn age(&mut self, span: Millis) {
        self.until = self.until.saturating_sub(span);
    }
}
