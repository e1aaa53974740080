//! Proof that a subscription link delivers: a message of our own that has to come back by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::queue::{Item, OnAnswer};
use super::super::script::Request;
use super::Session;
use crate::broker::message::Raw;

/// How often a probe that could not be published is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// A probe on its way.
pub(super) struct Probe {
    number: u64,
    pub(super) sent: Instant,
    /// Set when it could not be published: then its absence proves nothing.
    unsent: Arc<AtomicBool>,
    /// Whether its arrival ends the resubscription.
    pub(super) proves_resync: bool,
}

impl Session<'_> {
    pub(super) fn send_probe(&mut self, proves_resync: bool) {
        self.probes += 1;
        let payload = Bytes::from(self.probes.to_string());
        let channel = Arc::clone(&self.probe_channel);
        let request = Request::Announce { channel, payload };
        let unsent = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&unsent);
        let on_answer: OnAnswer = Box::new(move |result| flag.store(result.is_err(), Ordering::Relaxed));
        self.subscriber.commands.submit_own(Item {
            request,
            on_answer: Some(on_answer),
        });
        self.subscriber.stats.probes.inc();
        self.probe = Some(Probe {
            number: self.probes,
            sent: Instant::now(),
            unsent,
            proves_resync,
        });
    }

    /// The link was silent for long, or a probe is overdue; true when the link is to be given up.
    pub(super) fn alarm(&mut self) -> bool {
        match self.probe.take() {
            // positions are old by the time the command link is back
            Some(probe) if probe.proves_resync => true,
            // nothing can be proven without the command link: asked again, at short intervals, until it is back
            Some(probe) if probe.unsent.load(Ordering::Relaxed) => {
                self.silent_at = Instant::now() + RETRY;
                false
            }
            Some(_) => {
                self.subscriber.stats.probes_missed.inc();
                true
            }
            None if self.subscriber.commands.is_up() => {
                self.send_probe(false);
                false
            }
            None => {
                self.silent_at = Instant::now() + RETRY;
                false
            }
        }
    }

    /// Messages were left where they are for a while, and a probe's may be among them: its time begins anew.
    pub(super) fn listen_again(&mut self) {
        let now = Instant::now();
        self.silent_at = now + self.subscriber.config.timing.silence;
        if let Some(probe) = &mut self.probe {
            probe.sent = now;
        }
    }

    pub(super) fn take_seen_probe(&mut self, messages: &[Raw]) -> Option<Probe> {
        let number = self.probe.as_ref()?.number.to_string();
        let own = &self.probe_channel[..];
        messages
            .iter()
            .find(|m| m.channel[..] == *own && m.payload[..] == *number.as_bytes())?;
        self.probe.take()
    }
}
