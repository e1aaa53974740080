//! How a connection ends: by a close frame from either side (RFC 6455 §7), or cut.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::conn::{Conn, Out, flush_when_writable};
use super::env::Closed;
use crate::protocol::{CloseCode, CloseReason, Initiator};
use crate::websocket;

/// How long the peer has to answer our close frame before the connection is cut.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Conn {
    /// Begins a close from our side: the close frame goes behind what waits, nothing goes behind it. True when
    /// nobody had closed before.
    pub fn close(self: &Arc<Self>, reason: CloseReason) -> bool {
        self.close_with(reason.code(), reason)
    }

    /// [`Conn::close`] with another code than the reason's own.
    pub fn close_with(self: &Arc<Self>, code: CloseCode, reason: CloseReason) -> bool {
        self.close_saying(code, reason, reason.text())
    }

    /// [`Conn::close_with`], saying something else than the reason does: 123 bytes at most (RFC 6455 §5.5).
    pub fn close_saying(self: &Arc<Self>, code: CloseCode, reason: CloseReason, text: &str) -> bool {
        self.begin_close(&mut self.out.lock(), code, reason, text)
    }

    pub(super) fn begin_close(
        self: &Arc<Self>,
        out: &mut Out,
        code: CloseCode,
        reason: CloseReason,
        text: &str,
    ) -> bool {
        if !self.mark(Closed {
            code: code.get(),
            reason,
            initiator: Initiator::Server,
        }) {
            return false;
        }
        let deadline = self.env.clock.tick().after(CLOSE_TIMEOUT);
        self.close_deadline.store(deadline.to_bits(), Relaxed);
        if !out.sealed {
            let frame = websocket::close_frame(Some(code), text);
            self.write_locked(out, &frame, 0, None);
            out.sealed = true;
        }
        true
    }

    /// The peer's close frame came: answers it unless ours went first, and ends.
    pub fn peer_closed(self: &Arc<Self>, code: Option<CloseCode>) {
        let on_wire = code.unwrap_or(CloseCode::NO_STATUS).get();
        let first = self.mark(Closed {
            code: on_wire,
            reason: CloseReason::Client,
            initiator: Initiator::Client,
        });
        let mut out = self.out.lock();
        if first && !out.sealed {
            let deadline = self.env.clock.tick().after(CLOSE_TIMEOUT);
            self.close_deadline.store(deadline.to_bits(), Relaxed);
            self.write_locked(&mut out, &websocket::close_frame(code, ""), 0, None);
        }
        self.finish(&mut out, Shutdown::Both);
    }

    /// Nothing is sent any more, and the peer is told so behind the close frame that went before; what it sent is still
    /// read, so that a reset does not overtake the frame.
    pub fn finish_writing(self: &Arc<Self>) {
        self.finish(&mut self.out.lock(), Shutdown::Write);
    }

    /// With `Both`, the session's read ends by this: it sees the end of the stream.
    fn finish(self: &Arc<Self>, out: &mut Out, how: Shutdown) {
        out.sealed = true;
        if out.queue.is_some() {
            out.finish = Some(how);
        } else if self.socket.try_end() {
            self.socket.shut_down(how);
        } else {
            out.finish = Some(how);
            out.queue = Some(Box::default());
            tokio::spawn(flush_when_writable(Arc::clone(self)));
        }
    }

    /// Ends the connection at once. What waits for a peer that does not read is dropped, here and in the system.
    pub fn cut(&self) {
        let mut out = self.out.lock();
        out.sealed = true;
        if out.queue.take().is_some() {
            self.socket.abort_when_closed();
        }
        self.socket.shut_down(Shutdown::Both);
    }

    fn mark(&self, closed: Closed) -> bool {
        self.close
            .compare_exchange(0, closed.to_bits(), Relaxed, Relaxed)
            .is_ok()
    }

    /// How it was closed; `None` while open.
    pub fn closed(&self) -> Option<Closed> {
        Closed::from_bits(self.close.load(Relaxed))
    }

    /// How it was closed, once its stream has ended: cut by the peer unless a close frame went before.
    pub(super) fn ended(&self) -> Closed {
        let cut = Closed {
            code: CloseCode::ABNORMAL.get(),
            reason: CloseReason::Cut,
            initiator: Initiator::Client,
        };
        self.mark(cut);
        self.closed().unwrap_or(cut)
    }
}
