//! Rooms are read from JetStream when the first member comes, and whenever something may have been missed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use super::views::Wanted;
use super::{PAUSE, Presence, channel};
use crate::broker::BrokerError;

/// Rooms that are read at a time.
const READS: usize = 64;
/// How long a server may be behind before what it has is taken.
const PATIENCE: Duration = Duration::from_secs(2);

impl Presence {
    /// Reads what is to be read until that fails.
    pub(super) async fn read_views(&self) -> Result<(), BrokerError> {
        let mut reads = FuturesUnordered::new();
        loop {
            while reads.len() < READS
                && let Some(wanted) = self.core.views.next_unread()
            {
                reads.push(self.read_view(wanted));
            }
            tokio::select! {
                Some(read) = reads.next(), if !reads.is_empty() => read?,
                () = self.core.views.unread.notified(), if reads.len() < READS => {}
            }
        }
    }

    /// Reads a room. A server that does not have our own last message yet is asked again.
    async fn read_view(&self, wanted: Wanted) -> Result<(), BrokerError> {
        // the message of whoever comes first tells how far what is read must go
        self.flush().await?;
        let need = wanted.need.max(self.core.views.need(&wanted));
        let deadline = Instant::now() + PATIENCE;
        let link = self.core.link()?;
        loop {
            let (stored, last) = self.streams(&link).there(&wanted.channel).await?;
            if last >= need || Instant::now() >= deadline {
                self.core.views.was_read(&wanted, &stored);
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    /// Looks whether everything was heard that is stored of these rooms.
    pub(super) async fn compare(&self, rooms: &[Arc<str>]) -> Result<(), BrokerError> {
        let link = self.core.link()?;
        let mut behind = Vec::new();
        for some in rooms.chunks(READS) {
            let streams = self.streams(&link);
            let last = some.iter().map(|room| async move {
                let channel = channel(room);
                let last = streams.last_there(&channel).await?;
                Ok::<_, BrokerError>((channel, last))
            });
            let last = try_join_all(last).await?;
            behind.extend(self.core.views.behind(&last));
        }
        if behind.is_empty() {
            return Ok(());
        }
        // it may be on its way
        sleep(PAUSE).await;
        for (channel, _) in self.core.views.behind(&behind) {
            tracing::debug!("a room's members were not heard in full; they are read again");
            self.core.views.doubt_one(&channel);
        }
        Ok(())
    }
}
