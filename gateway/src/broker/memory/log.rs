//! What a stream keeps in memory: its last messages, and the `msgId`s of late. All streams of a broker share one
//! [`Budget`]; when it is spent, the oldest of the stream that wants to grow give way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::broker::{Event, Kept, MSG_ID_TTL, Span};

/// Bytes that all streams keep together.
const KEPT_BYTES: usize = 64 << 20;
/// Kept with a message or a `msgId` besides its texts, about.
const OVERHEAD: usize = 200;

/// How much is kept.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    /// What all streams keep now.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn is_spent(&self) -> bool {
        self.0.load(Relaxed) > KEPT_BYTES
    }
}

/// What a stream keeps.
#[derive(Debug)]
pub(super) struct Log {
    messages: VecDeque<Message>,
    /// Offset of each message that had a `msgId`.
    ids: HashMap<Arc<str>, u64, ahash::RandomState>,
    /// The same, the oldest first.
    recent: VecDeque<(Instant, Arc<str>)>,
    bytes: usize,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Message {
    at: Instant,
    size: usize,
    kept: Kept,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Relaxed);
    }
}

/// A `msgId` and whose it is, as one text.
pub(super) fn name((sender, msg_id): (&str, &str)) -> Arc<str> {
    format!("{}:{sender}:{msg_id}", sender.len()).into()
}

fn size(event: &Event) -> usize {
    OVERHEAD + event.payload().map_or(0, |payload| payload.get().len())
}

impl Log {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            messages: VecDeque::new(),
            ids: HashMap::default(),
            recent: VecDeque::new(),
            bytes: 0,
            budget,
        }
    }

    /// The offset of the message that had this `msgId`.
    pub(super) fn find(&mut self, name: &str, now: Instant) -> Option<u64> {
        self.forget_ids(now);
        self.ids.get(name).copied()
    }

    pub(super) fn remember(&mut self, name: Arc<str>, offset: u64, now: Instant) {
        self.grow(name.len() + OVERHEAD);
        self.recent.push_back((now, Arc::clone(&name)));
        self.ids.insert(name, offset);
        self.give_way();
    }

    pub(super) fn append(&mut self, offset: u64, event: Arc<Event>, most: usize, now: Instant) {
        let size = size(&event);
        self.grow(size);
        self.messages.push_back(Message {
            at: now,
            size,
            kept: Kept { offset, event },
        });
        while self.messages.len() > most {
            self.drop_oldest();
        }
        self.give_way();
    }

    /// Drops what is too old; true when nothing is left.
    pub(super) fn expire(&mut self, age: Duration, now: Instant) -> bool {
        let old = |message: &Message| now.saturating_duration_since(message.at) >= age;
        while self.messages.front().is_some_and(old) {
            self.drop_oldest();
        }
        self.forget_ids(now);
        self.messages.is_empty() && self.ids.is_empty()
    }

    /// The messages of a span that are not too old, in order, and whether there were more than fit.
    pub(super) fn read(
        &self,
        span: Span,
        most: usize,
        bytes: usize,
        age: Duration,
        now: Instant,
    ) -> (Vec<Kept>, bool) {
        let young = |message: &&Message| now.saturating_duration_since(message.at) < age;
        let mut left = bytes;
        let mut out = Vec::new();
        let mut take = |message: &Message| {
            let fits = out.is_empty() || (out.len() < most && message.size <= left);
            if fits {
                left = left.saturating_sub(message.size);
                out.push(message.kept.clone());
            }
            fits
        };
        let all = match span {
            Span::After(offset) => self
                .messages
                .iter()
                .filter(|message| message.kept.offset > offset)
                .filter(young)
                .all(&mut take),
            Span::Before(before) => self
                .messages
                .iter()
                .rev()
                .filter(|message| before.is_none_or(|before| message.kept.offset < before))
                .filter(young)
                .all(&mut take),
        };
        if matches!(span, Span::Before(_)) {
            out.reverse();
        }
        (out, !all)
    }

    fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.0.fetch_add(bytes, Relaxed);
    }

    fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.0.fetch_sub(bytes, Relaxed);
    }

    fn drop_oldest(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.shrink(message.size);
        }
    }

    fn forget_ids(&mut self, now: Instant) {
        let old = |(at, _): &(Instant, Arc<str>)| now.saturating_duration_since(*at) >= MSG_ID_TTL;
        while self.recent.front().is_some_and(old) {
            self.forget_oldest_id();
        }
    }

    fn forget_oldest_id(&mut self) {
        if let Some((_, name)) = self.recent.pop_front() {
            self.ids.remove(&name);
            self.shrink(name.len() + OVERHEAD);
        }
    }

    /// A message that is not kept can be told; one that is accepted twice cannot: messages give way first.
    fn give_way(&mut self) {
        while self.budget.is_spent() && !self.messages.is_empty() {
            self.drop_oldest();
        }
        while self.budget.is_spent() && !self.recent.is_empty() {
            self.forget_oldest_id();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const AGE: Duration = Duration::from_mins(1);

    fn event(bytes: usize) -> Arc<Event> {
        Arc::new(Event::RoomMessage {
            user_id: "u".into(),
            payload: RawValue::from_string("1".repeat(bytes)).unwrap(),
            timestamp: 0,
            server_id: "s".into(),
        })
    }

    fn log(count: u64, most: usize, now: Instant) -> Log {
        let mut log = Log::new(Arc::default());
        for offset in 1..=count {
            log.append(offset, event(1), most, now);
        }
        log
    }

    fn offsets(read: &(Vec<Kept>, bool)) -> (Vec<u64>, bool) {
        (read.0.iter().map(|kept| kept.offset).collect(), read.1)
    }

    #[test]
    fn a_page_ends_with_its_messages_or_its_bytes_and_says_whether_there_are_more() {
        let now = Instant::now();
        let log = log(10, 8, now);
        let read = |span, most, bytes| offsets(&log.read(span, most, bytes, AGE, now));
        assert_eq!(read(Span::After(0), 100, 1 << 20), ((3..=10).collect(), false));
        assert_eq!(read(Span::After(8), 2, 1 << 20), (vec![9, 10], false));
        assert_eq!(read(Span::After(7), 2, 1 << 20), (vec![8, 9], true));
        assert_eq!(read(Span::After(7), 100, 0), (vec![8], true), "one in any case");
        assert_eq!(read(Span::After(10), 100, 0), (vec![], false));
        assert_eq!(read(Span::Before(None), 2, 1 << 20), (vec![9, 10], true));
        assert_eq!(read(Span::Before(Some(5)), 2, 1 << 20), (vec![3, 4], false));
        assert_eq!(read(Span::Before(Some(3)), 2, 1 << 20), (vec![], false));
    }

    #[test]
    fn what_is_too_old_is_not_read_and_then_dropped() {
        let now = Instant::now();
        let mut log = log(3, 8, now);
        log.append(4, event(1), 8, now + AGE / 2);
        assert_eq!(log.read(Span::After(0), 9, 1 << 20, AGE, now + AGE).0.len(), 1);
        assert!(!log.expire(AGE, now + AGE));
        assert_eq!(log.messages.len(), 1);
        assert!(log.expire(AGE, now + AGE * 2));
        assert_eq!((log.bytes, log.budget.0.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_msg_id_is_known_for_its_time() {
        let now = Instant::now();
        let mut log = log(0, 8, now);
        let (ann, bob) = (name(("u", "1")), Arc::<str>::from("3:bob:1"));
        log.remember(Arc::clone(&ann), 1, now);
        log.remember(Arc::clone(&bob), 2, now + Duration::from_secs(1));
        assert_eq!(log.find(&ann, now), Some(1));
        assert_eq!(log.find(&ann, now + MSG_ID_TTL), None);
        assert_eq!(log.find(&bob, now + MSG_ID_TTL), Some(2));
    }

    #[test]
    fn all_logs_together_keep_no_more_than_their_budget() {
        let now = Instant::now();
        let budget = Arc::<Budget>::default();
        let mut logs: Vec<_> = (0..100).map(|_| Log::new(Arc::clone(&budget))).collect();
        for offset in 1..=20 {
            for log in &mut logs {
                log.append(offset, event(60_000), 300, now);
                assert!(!budget.is_spent());
            }
        }
        let kept: Vec<_> = logs.iter().map(|log| log.messages.len()).collect();
        assert!(budget.0.load(Relaxed) > KEPT_BYTES - 100_000, "{kept:?}");
        assert!(
            kept.iter().all(|kept| *kept > 5),
            "each keeps its latest: {kept:?}"
        );
        drop(logs);
        assert_eq!(budget.0.load(Relaxed), 0);
    }
}
