//! Where a subscription link puts its pushes until they are handed on, everything that is there at once.
//!
//! The link's driver reads until the socket is empty and must not block, so this cannot push back; it is bounded
//! instead: beyond the bound the link is given up (Redis itself cuts subscribers that lag, by
//! `client-output-buffer-limit pubsub`), and everything is resubscribed and compared.

use std::convert::Infallible;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::broker::message::Raw;

/// Bytes that may wait.
const BYTES: usize = 64 << 20;
/// Kept per message besides its bytes.
const OVERHEAD: usize = 64;

/// Everything that was there.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) messages: Vec<Raw>,
    /// Channels of a cluster whose subscription ended, as was asked for, or because their slot moved.
    pub(super) ended: Vec<Vec<u8>>,
    /// The link is gone.
    pub(super) gone: bool,
    /// Messages were dropped because too many waited.
    pub(super) overflow: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    taken: Taken,
    bytes: usize,
}

/// Shared by a link's driver and the task that hands messages on. One per link: nothing of an old link is mistaken for
/// something of its successor.
#[derive(Debug, Default)]
pub(super) struct Intake {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Intake {
    /// Takes a push; to be given to the link.
    pub(super) fn sender(
        self: &Arc<Self>,
    ) -> impl Fn(PushInfo) -> Result<(), Infallible> + Send + Sync + 'static {
        let intake = Arc::clone(self);
        move |info| {
            intake.put(info);
            Ok(())
        }
    }

    fn put(&self, info: PushInfo) {
        let mut waiting = self.waiting.lock();
        match info.kind {
            PushKind::Message | PushKind::SMessage => {
                let mut parts = info.data.into_iter();
                let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
                    (parts.next(), parts.next())
                else {
                    return;
                };
                let size = channel.len() + payload.len() + OVERHEAD;
                if waiting.bytes + size > BYTES {
                    waiting.taken.overflow = true;
                } else {
                    waiting.bytes += size;
                    waiting.taken.messages.push(Raw { channel, payload });
                }
            }
            PushKind::SUnsubscribe => {
                let Some(Value::BulkString(channel)) = info.data.into_iter().next() else {
                    return;
                };
                waiting.taken.ended.push(channel);
            }
            PushKind::Disconnection => waiting.taken.gone = true,
            _ => return,
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Waits until there is something, and takes all of it. Cancel-safe.
    pub(super) async fn take(&self) -> Taken {
        loop {
            {
                let mut waiting = self.waiting.lock();
                let taken = &waiting.taken;
                if taken.gone || taken.overflow || !(taken.messages.is_empty() && taken.ended.is_empty()) {
                    waiting.bytes = 0;
                    return std::mem::take(&mut waiting.taken);
                }
            }
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: Vec<u8>) -> PushInfo {
        let data = vec![Value::BulkString(b"c".to_vec()), Value::BulkString(payload)];
        PushInfo {
            kind: PushKind::Message,
            data,
        }
    }

    #[tokio::test]
    async fn everything_that_is_ready_is_taken_at_once_in_order() {
        let intake = Arc::new(Intake::default());
        let put = intake.sender();
        for i in 0..3_u8 {
            put(message(vec![i])).unwrap();
        }
        put(PushInfo {
            kind: PushKind::Subscribe,
            data: vec![],
        })
        .unwrap();
        let taken = intake.take().await;
        let payloads: Vec<_> = taken.messages.iter().map(|m| m.payload[0]).collect();
        assert_eq!(payloads, [0, 1, 2]);
        assert!(!taken.gone && !taken.overflow);
    }

    #[tokio::test]
    async fn the_loss_of_the_link_and_too_much_waiting_are_told() {
        let intake = Arc::new(Intake::default());
        let put = intake.sender();
        put(message(vec![0; BYTES / 2])).unwrap();
        put(message(vec![0; BYTES / 2])).unwrap();
        put(PushInfo {
            kind: PushKind::Disconnection,
            data: vec![],
        })
        .unwrap();
        let taken = intake.take().await;
        assert_eq!(taken.messages.len(), 1);
        assert!(taken.gone && taken.overflow);
    }
}
