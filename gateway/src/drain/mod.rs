//! Whether the gateway accepts, and whom it closes when (§7 of the design: lease, fencing, uniform closes).
//!
//! [`Control`] decides what a request means, [`Pacer`] who is due, `Line` keeps the one to the other; all are pure. [`run`]
//! is the task between them and the sockets. A close is announced (`server_shutdown`) to each client a random time before its slot, so that it can
//! connect elsewhere first, and happens at its slot even if the client does nothing.

mod control;
mod line;
mod pacer;
mod task;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use wsfleet_crds::admin::{DrainRequest, GatewayPhase};

pub use control::{Control, Order, Refusal};
pub use pacer::{Grant, Pacer, Step};
pub use task::run;

/// Drain state of one gateway, shared by its interfaces and its sessions.
#[derive(Debug, Default)]
pub struct Drain {
    control: Mutex<Control>,
    refusing: AtomicBool,
    closing: AtomicBool,
    forced: AtomicU64,
    natural: AtomicU64,
    changed: Notify,
}

impl Drain {
    /// Whether an upgrade would be accepted now.
    pub fn accepting(&self) -> bool {
        !self.refusing.load(Relaxed)
    }

    /// Does what an operator asks. `now` is on the gateway's clock.
    pub fn apply(&self, request: &DrainRequest, now: Duration) -> Result<(), Refusal> {
        let mut control = self.control.lock();
        let before = control.drain_id().map(str::to_owned);
        control.apply(request, now)?;
        if control.drain_id().is_some() && control.drain_id() != before.as_deref() {
            self.forced.store(0, Relaxed);
            self.natural.store(0, Relaxed);
        }
        self.publish(&control);
        Ok(())
    }

    /// SIGTERM: closes all by `window` from now. Again with a shorter window, that one counts.
    pub fn terminate(&self, window: Duration, now: Duration) {
        let mut control = self.control.lock();
        control.terminate(window, now);
        self.publish(&control);
    }

    fn publish(&self, control: &Control) {
        self.refusing
            .store(control.phase() != GatewayPhase::Serving, Relaxed);
        self.closing.store(control.order().is_some(), Relaxed);
        self.changed.notify_one();
    }

    /// A client has gone by itself: counted when a drain is under way, which is the answer.
    pub fn departed(&self) -> bool {
        let closing = self.closing.load(Relaxed);
        if closing {
            self.natural.fetch_add(1, Relaxed);
        }
        closing
    }

    /// Where the gateway is in its life.
    pub fn phase(&self) -> GatewayPhase {
        self.control.lock().phase()
    }

    /// The highest fencing epoch seen, and the drain in force.
    pub fn fence(&self) -> (u64, Option<String>) {
        let control = self.control.lock();
        (control.epoch(), control.drain_id().map(str::to_owned))
    }

    /// Sockets closed by the drain, and by their clients during it.
    pub fn closed(&self) -> (u64, u64) {
        (self.forced.load(Relaxed), self.natural.load(Relaxed))
    }
}
