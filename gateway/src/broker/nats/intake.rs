//! Where a link puts messages until they are handed on, everything that is there at once.
//!
//! The link's reader must not wait, so this cannot push back; it is bounded instead: beyond the bound the link is given up,
//! and everything is subscribed again and compared.

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::Frame;
use super::jetstream::Stored;
use super::presence::is_sign;
use super::wire::Message;
use crate::broker::message::Raw;

/// Bytes that may wait.
const BYTES: usize = 64 << 20;
/// Kept per message besides its bytes.
const OVERHEAD: usize = 64;

/// Everything that was there.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) messages: Vec<Raw>,
    /// The frames that they were in, without their events: channel and frame.
    pub(super) frames: Vec<(Bytes, Stored)>,
    /// What was said of rooms' members, and of leases.
    pub(super) presence: Vec<Message>,
    /// Why the link is gone, if it is.
    pub(super) gone: Option<String>,
    /// Messages were dropped because too many waited.
    pub(super) overflow: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    taken: Taken,
    bytes: usize,
}

/// Shared by a link's reader and the task that hands messages on.
#[derive(Debug, Default)]
pub(super) struct Intake {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Intake {
    /// Takes a message; [`Intake::wake`] tells of it.
    pub(super) fn put(&self, message: &Message) {
        let mut waiting = self.waiting.lock();
        let size = message.subscription.len() + message.payload.len() + message.headers.len() + OVERHEAD;
        if waiting.bytes + size > BYTES {
            waiting.taken.overflow = true;
            return;
        }
        waiting.bytes += size;
        if is_sign(&message.payload) {
            waiting.taken.presence.push(message.clone());
            return;
        }
        let channel = &message.subscription[..];
        let messages = &mut waiting.taken.messages;
        match Frame::decode(&message.payload) {
            None => messages.push(raw(channel, message.payload.to_vec())),
            Some(frame) => {
                messages.extend(frame.placed().map(|(offset, event)| {
                    let mut payload = format!("{} {offset} ", frame.epoch).into_bytes();
                    payload.extend_from_slice(event);
                    raw(channel, payload)
                }));
                let sequence = message.header("Nats-Sequence").and_then(|text| text.parse().ok());
                let stored = sequence.map(|sequence| Stored { sequence, frame }.without_events());
                let heard = stored.map(|stored| (Bytes::copy_from_slice(channel), stored));
                waiting.taken.frames.extend(heard);
            }
        }
    }

    /// Whatever was put is there.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// The link is gone.
    pub(super) fn end(&self, reason: String) {
        self.waiting.lock().taken.gone.get_or_insert(reason);
        self.wake.notify_one();
    }

    /// Waits until there is something, and takes all of it. Cancel-safe.
    pub(super) async fn take(&self) -> Taken {
        loop {
            {
                let mut waiting = self.waiting.lock();
                let taken = &waiting.taken;
                if taken.gone.is_some()
                    || taken.overflow
                    || !taken.messages.is_empty()
                    || !taken.frames.is_empty()
                    || !taken.presence.is_empty()
                {
                    waiting.bytes = 0;
                    return std::mem::take(&mut waiting.taken);
                }
            }
            self.wake.notified().await;
        }
    }
}

fn raw(channel: &[u8], payload: Vec<u8>) -> Raw {
    Raw {
        channel: channel.to_vec(),
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Message {
        Message {
            subscription: Bytes::from_static(b"r.lobby"),
            headers: Bytes::from_static(b"NATS/1.0\r\nNats-Sequence: 9\r\n\r\n"),
            payload: Bytes::copy_from_slice(payload),
            ..Message::default()
        }
    }

    #[tokio::test]
    async fn a_frame_is_its_messages_and_a_birth_is_none() {
        let intake = Intake::default();
        for payload in [&b"e 1 0"[..], b"e 7 5\x1e{\"a\":1}\x1e{}", b"{\"l\":{}}"] {
            intake.put(&message(payload));
        }
        let taken = intake.take().await;
        let payloads: Vec<_> = taken.messages.iter().map(|raw| &raw.payload[..]).collect();
        assert_eq!(payloads, [&b"e 7 {\"a\":1}"[..], b"e 8 {}", b"{\"l\":{}}"]);
        assert!(taken.messages.iter().all(|raw| raw.channel == b"r.lobby"));
        let frames: Vec<_> = taken
            .frames
            .iter()
            .map(|(_, stored)| stored.frame.position().offset)
            .collect();
        assert_eq!((frames, taken.frames[0].1.sequence), (vec![0, 8], 9));
        assert!(taken.gone.is_none() && !taken.overflow);
    }

    #[tokio::test]
    async fn the_end_and_too_much_waiting_are_told() {
        let intake = Intake::default();
        for _ in 0..2 {
            intake.put(&message(&vec![b'{'; BYTES / 2]));
        }
        intake.end("closed".into());
        intake.end("later".into());
        let taken = intake.take().await;
        assert_eq!((taken.messages.len(), taken.overflow), (1, true));
        assert_eq!(taken.gone.as_deref(), Some("closed"));
    }
}
