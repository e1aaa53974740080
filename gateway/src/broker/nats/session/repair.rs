//! Messages that did not come by the subscription: found, read from the streams, and delivered.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::super::jetstream::JetStream;
use super::{BATCH, Purpose, READS, Session};
use crate::broker::table::{Hole, Ticket};
use crate::broker::{BrokerError, Kept, Position};

/// What was read of a hole.
type Filled = (Hole, Result<Vec<Kept>, BrokerError>);

/// What is to be read, and what is being read.
pub(super) struct Repairs<'a> {
    holes: VecDeque<Hole>,
    pub(super) reads: FuturesUnordered<BoxFuture<'a, Filled>>,
    /// Streams of which nothing was heard, still to be compared.
    silent: Vec<(Ticket, Option<Position>)>,
    pub(super) compare_at: Instant,
}

impl Repairs<'_> {
    pub(super) fn new(compare_at: Instant) -> Self {
        Self {
            holes: VecDeque::new(),
            reads: FuturesUnordered::new(),
            silent: Vec::new(),
            compare_at,
        }
    }

    pub(super) fn add(&mut self, holes: Vec<Hole>) {
        self.holes.extend(holes);
    }

    /// Whether what was read may be taken: members keep up, and something is being read.
    pub(super) fn is_due(&self, takes: bool) -> bool {
        takes && !self.reads.is_empty()
    }
}

impl Session<'_> {
    /// Begins to read the next holes, and to compare the next streams, a few at a time.
    pub(super) fn repair_next(&mut self) {
        let core = self.core;
        while self.repairs.reads.len() < READS
            && let Some(hole) = self.repairs.holes.pop_front()
        {
            let link = Arc::clone(&self.link);
            let fill = async move {
                let streams = JetStream {
                    config: &core.config,
                    link: &link,
                };
                let read = streams.fill(&hole).await;
                (hole, read)
            };
            self.repairs.reads.push(fill.boxed());
        }
        if self.reads.is_empty() && !self.repairs.silent.is_empty() {
            let rest = self.repairs.silent.len().saturating_sub(BATCH);
            let batch = self.repairs.silent.split_off(rest);
            self.read_positions(batch, Purpose::Compare);
        }
    }

    /// A hole was read, or could not be: what waited behind it goes on.
    pub(super) fn filled(&mut self, (hole, read): Filled) {
        let core = self.core;
        if let Err(error) = &read {
            tracing::warn!(%error, "missed messages cannot be read");
        }
        let (deliveries, lost) = core.table.filled(&hole, read.unwrap_or_default());
        let result = if lost == 0 { "filled" } else { "gap" };
        core.stats.repairs.with_label_values(&[result]).inc();
        if !deliveries.is_empty() {
            self.crowded = core.sink.deliver(deliveries);
        }
    }

    /// It is time to compare the streams of which nothing was heard.
    pub(super) fn compare_silent(&mut self) {
        self.repairs.compare_at = Instant::now() + self.core.config.timing.compare;
        if self.repairs.silent.is_empty() {
            self.repairs.silent = self.core.table.silent();
        }
    }

    /// Where they stand. What cannot be read is compared the next time.
    pub(super) fn compared(&mut self, positions: Vec<(Ticket, Result<Position, BrokerError>)>) {
        let read: Vec<_> = positions
            .into_iter()
            .filter_map(|(ticket, position)| Some((ticket, position.ok()?)))
            .collect();
        let (seen, holes) = self.core.table.compare(&read);
        self.repairs.add(holes);
        self.count(&seen);
    }
}
