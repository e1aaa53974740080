//! The writing half of a socket, shared by its session and the publisher. A frame goes out in the caller's thread;
//! only what the kernel does not take at once is kept, up to a bound, and written by the session.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::wire::frame;

/// Bytes that may wait for the server to read.
const MOST_PENDING: usize = 256 * 1024;
/// Publishes that may wait for their answer.
const MOST_IN_FLIGHT: usize = 4096;

pub(crate) struct Socket {
    half: OwnedWriteHalf,
    outbox: Mutex<Outbox>,
    /// Wakes the session: something to flush, or time to go.
    wake: Notify,
    retired: AtomicBool,
}

#[derive(Default)]
struct Outbox {
    pending: Vec<u8>,
    /// A close frame went out (RFC 6455 §5.5.1: nothing may follow it).
    closed: bool,
    in_flight: VecDeque<InFlight>,
}

/// A publish without an answer yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) sequence: u64,
    /// Which of the client's rooms.
    pub(crate) room: u32,
    /// For the first time.
    pub(crate) sent: Duration,
    /// How often it was refused for the moment.
    pub(crate) refusals: u32,
}

/// The frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// More waits than may: the server does not read, or does not answer.
    Full,
    /// The socket is closing or dead.
    Closed,
}

impl Socket {
    pub(super) fn new(half: OwnedWriteHalf) -> Self {
        Self {
            half,
            outbox: Mutex::default(),
            wake: Notify::new(),
            retired: AtomicBool::new(false),
        }
    }

    /// Sends one frame. An I/O error is left for the reading side to find.
    pub(super) fn send(&self, opcode: u8, payload: &[u8]) -> Result<(), NotSent> {
        self.send_in(&mut self.outbox.lock(), opcode, payload)
    }

    /// Sends a publish that will be answered with its sequence.
    pub(crate) fn publish(&self, publish: InFlight, message: &[u8]) -> Result<(), NotSent> {
        let mut outbox = self.outbox.lock();
        if outbox.in_flight.len() >= MOST_IN_FLIGHT {
            return Err(NotSent::Full);
        }
        self.send_in(&mut outbox, frame::opcode::TEXT, message)?;
        outbox.in_flight.push_back(publish);
        Ok(())
    }

    fn send_in(&self, outbox: &mut Outbox, opcode: u8, payload: &[u8]) -> Result<(), NotSent> {
        if outbox.closed {
            return Err(NotSent::Closed);
        }
        if outbox.pending.len() + payload.len() > MOST_PENDING {
            return Err(NotSent::Full);
        }
        outbox.closed = opcode == frame::opcode::CLOSE;
        let mask = rand::rng().random();
        if !outbox.pending.is_empty() {
            frame::encode(opcode, payload, mask, &mut outbox.pending);
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        frame::encode(opcode, payload, mask, &mut bytes);
        let written = self.half.try_write(&bytes).unwrap_or(0);
        if written < bytes.len() {
            outbox.pending = bytes.split_off(written);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Sends a close frame, once; false when one had gone out before.
    pub(super) fn close(&self, code: u16) -> bool {
        self.send(frame::opcode::CLOSE, &code.to_be_bytes()).is_ok()
    }

    /// Takes the publish that was answered.
    pub(super) fn answered(&self, sequence: u64) -> Option<InFlight> {
        let in_flight = &mut self.outbox.lock().in_flight;
        let index = in_flight
            .iter()
            .position(|publish| publish.sequence == sequence)?;
        in_flight.remove(index)
    }

    /// Takes nothing any more; gives the publishes that will not be answered.
    pub(super) fn shut(&self) -> VecDeque<InFlight> {
        let mut outbox = self.outbox.lock();
        outbox.closed = true;
        std::mem::take(&mut outbox.in_flight)
    }

    /// Its successor has joined: the session closes it.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
        self.wake.notify_one();
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// Waits for something to do. Cancel-safe.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.outbox.lock().pending.is_empty()
    }

    /// Waits until the kernel takes more. Cancel-safe.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.half.writable().await
    }

    /// Writes what is pending, as far as the kernel takes it.
    pub(super) fn flush(&self) -> io::Result<()> {
        let pending = &mut self.outbox.lock().pending;
        while !pending.is_empty() {
            match self.half.try_write(pending) {
                Ok(written) => drop(pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        *pending = Vec::new();
        Ok(())
    }
}
