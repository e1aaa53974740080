//! Where streams stand, and what is kept of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::frame::Frame;
use super::jetstream::{Append, Appended, JetStream, Stored};
use crate::broker::table::{Hole, Ticket};
use crate::broker::{BrokerError, Event, Kept, Page, Position, Span};
use crate::clock::Clock;
use crate::config::Retention;
use crate::room::{PAGE_BYTES, PAGE_MESSAGES};

/// Pause before something is asked again that another gateway was in the way of.
const PAUSE: Duration = Duration::from_millis(5);

/// Random text for a stream's life.
pub(super) fn new_epoch() -> Arc<str> {
    format!("{:016x}", rand::random::<u64>()).into()
}

/// A question for what is kept of a channel.
pub(super) struct Read<'a> {
    pub(super) channel: &'a [u8],
    pub(super) span: Span,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) retention: Retention,
    /// Nothing before this message of JetStream is of interest.
    pub(super) from: u64,
}

/// What was read, and behind which message of JetStream the next page begins.
pub(super) struct Pages {
    pub(super) page: Page,
    pub(super) next: u64,
}

/// Takes messages until a page is full.
struct Filling {
    span: Span,
    messages: usize,
    bytes: usize,
    out: VecDeque<(u64, u64, Bytes)>,
    size: usize,
    more: bool,
}

impl JetStream<'_> {
    /// The last frame; a stream that has none begins with it.
    pub(super) async fn head(self, channel: &[u8]) -> Result<Stored, BrokerError> {
        let deadline = Instant::now() + self.config.timing.answer;
        loop {
            if let Some(last) = self.last(channel).await? {
                return Ok(last);
            }
            if let Some(first) = self.begin(channel, 0).await? {
                return Ok(first);
            }
            self.pause(deadline).await?;
        }
    }

    /// A new epoch behind this message, unless there is another one by now.
    async fn begin(self, channel: &[u8], behind: u64) -> Result<Option<Stored>, BrokerError> {
        let frame = Frame::birth(new_epoch(), Clock::unix_millis());
        let append = Append {
            channel,
            behind,
            id: None,
            alone: true,
            frame: &frame,
        };
        Ok(match self.append(append).await? {
            Appended::At(sequence) => Some(Stored { sequence, frame }),
            Appended::Duplicate(_) | Appended::Conflict => None,
        })
    }

    /// Another gateway was in the way: a moment later it may not be.
    pub(super) async fn pause(self, deadline: Instant) -> Result<(), BrokerError> {
        if Instant::now() >= deadline {
            return Err(BrokerError::Overloaded);
        }
        sleep(PAUSE.mul_f64(rand::random())).await;
        Ok(())
    }

    /// Where a stream stands; one in whose epoch NATS went back behind what was delivered gets a new epoch.
    pub(super) async fn position(
        self,
        ticket: &Ticket,
        delivered: Option<&Position>,
    ) -> Result<Position, BrokerError> {
        if ticket.retention == Retention::Ephemeral {
            return Ok(Position::none());
        }
        let deadline = Instant::now() + self.config.timing.answer;
        loop {
            let head = self.head(&ticket.channel).await?;
            let position = head.frame.position();
            let went_back = |last: &Position| last.epoch == position.epoch && last.offset > position.offset;
            if !delivered.is_some_and(went_back) {
                return Ok(position);
            }
            if let Some(anew) = self.begin(&ticket.channel, head.sequence).await? {
                return Ok(anew.frame.position());
            }
            self.pause(deadline).await?;
        }
    }

    /// A page of what is kept.
    pub(super) async fn read(self, read: &Read<'_>) -> Result<Pages, BrokerError> {
        let head = self.head(read.channel).await?;
        let position = head.frame.position();
        let mut filling = Filling {
            span: read.span,
            messages: read.messages,
            bytes: read.bytes,
            out: VecDeque::new(),
            size: 0,
            more: false,
        };
        let has_all = matches!(read.span, Span::After(offset) if offset >= position.offset);
        if let Retention::Keep { messages, age } = read.retention
            && position.offset > 0
            && !has_all
        {
            let oldest = position.offset.saturating_sub(u64::from(messages));
            let since =
                Clock::unix_millis().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            let kept = |frame: &Frame| frame.epoch == position.epoch && frame.millis > since;
            self.walk(read, head.sequence, |stored| {
                if !kept(&stored.frame) {
                    return true;
                }
                let mut placed = stored.frame.placed().filter(|(offset, _)| *offset > oldest);
                placed.all(|(offset, event)| filling.take(stored.sequence, offset, event))
            })
            .await?;
        }
        let next = filling.out.back().map_or(read.from, |(sequence, ..)| *sequence);
        let event = |json: &[u8]| serde_json::from_slice::<Event>(json).ok().map(Arc::new);
        let messages = filling.out.iter().filter_map(|(_, offset, json)| {
            Some(Kept {
                offset: *offset,
                event: event(json)?,
            })
        });
        Ok(Pages {
            page: Page {
                position,
                messages: messages.collect(),
                more: filling.more,
            },
            next,
        })
    }

    /// Shows frames up to that of a number, until `take` has enough. A server that does not have them all yet is asked
    /// again.
    async fn walk(
        self,
        read: &Read<'_>,
        last: u64,
        mut take: impl FnMut(&Stored) -> bool,
    ) -> Result<(), BrokerError> {
        let deadline = Instant::now() + self.config.timing.answer;
        let mut from = read.from;
        loop {
            let (frames, more) = self.range(read.channel, from).await?;
            for stored in frames {
                if stored.sequence > last || !take(&stored) || stored.sequence == last {
                    return Ok(());
                }
                from = stored.sequence + 1;
            }
            if !more {
                self.pause(deadline).await.map_err(|_| BrokerError::Unavailable)?;
            }
        }
    }

    /// Reads what is missing, page by page; less of it when it is not kept.
    pub(super) async fn fill(self, hole: &Hole) -> Result<Vec<Kept>, BrokerError> {
        let mut read = Vec::new();
        let (mut after, mut from) = (hole.after.offset, 0);
        while after < hole.to && matches!(hole.ticket.retention, Retention::Keep { .. }) {
            let question = Read {
                channel: &hole.ticket.channel,
                span: Span::After(after),
                messages: PAGE_MESSAGES,
                bytes: PAGE_BYTES,
                retention: hole.ticket.retention,
                from,
            };
            let pages = self.read(&question).await?;
            let Some(last) = pages.page.messages.last().map(|kept| kept.offset) else {
                break;
            };
            if pages.page.position.epoch != hole.after.epoch {
                break;
            }
            from = pages.next;
            read.extend(
                pages
                    .page
                    .messages
                    .into_iter()
                    .filter(|kept| kept.offset <= hole.to),
            );
            after = last;
        }
        Ok(read)
    }
}

impl Filling {
    /// Takes a message; false when there is enough.
    fn take(&mut self, sequence: u64, offset: u64, event: &Bytes) -> bool {
        let wanted = match self.span {
            Span::After(after) => offset > after,
            Span::Before(before) => before.is_none_or(|before| offset < before),
        };
        if !wanted {
            // behind the last one that is asked for, nothing is
            return matches!(self.span, Span::After(_));
        }
        let full = |filling: &Self| {
            filling.out.len() > filling.messages.max(1)
                || (filling.size > filling.bytes && filling.out.len() > 1)
        };
        self.size += event.len();
        self.out.push_back((sequence, offset, event.clone()));
        while full(self) {
            self.more = true;
            if matches!(self.span, Span::After(_)) {
                self.out.pop_back();
                return false;
            }
            if let Some((_, _, event)) = self.out.pop_front() {
                self.size -= event.len();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(span: Span, messages: usize, bytes: usize) -> (Vec<u64>, bool) {
        let mut filling = Filling {
            span,
            messages,
            bytes,
            out: VecDeque::new(),
            size: 0,
            more: false,
        };
        let event = Bytes::from_static(b"0123456789");
        let _enough = (1..=10).all(|offset| filling.take(offset, offset, &event));
        (
            filling.out.iter().map(|(_, offset, _)| *offset).collect(),
            filling.more,
        )
    }

    #[test]
    fn a_page_ends_with_its_messages_or_its_bytes_and_says_whether_there_are_more() {
        assert_eq!(page(Span::After(0), 100, 1_000), ((1..=10).collect(), false));
        assert_eq!(page(Span::After(8), 2, 1_000), (vec![9, 10], false));
        assert_eq!(page(Span::After(7), 2, 1_000), (vec![8, 9], true));
        assert_eq!(page(Span::After(7), 100, 0), (vec![8], true), "one in any case");
        assert_eq!(page(Span::After(10), 100, 0), (vec![], false));
        assert_eq!(page(Span::Before(None), 2, 1_000), (vec![9, 10], true));
        assert_eq!(page(Span::Before(None), 9, 25), (vec![9, 10], true));
        assert_eq!(page(Span::Before(Some(5)), 2, 1_000), (vec![3, 4], true));
        assert_eq!(page(Span::Before(Some(3)), 2, 1_000), (vec![1, 2], false));
    }
}
