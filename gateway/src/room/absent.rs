//! Users that have left a room, and may be back before anybody is told: for a gateway that is alone. A fleet's are kept by
//! its broker.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

use crate::broker::Event;

/// A user, and the room.
pub(super) type Gone = (Arc<str>, Arc<str>);

/// All of them.
#[derive(Debug, Default)]
pub struct Absent {
    state: Mutex<State>,
    /// Told when there is something to wait for.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By room: until when each may be away.
    rooms: HashMap<Arc<str>, BTreeMap<Arc<str>, Instant>, ahash::RandomState>,
    /// In the order of time. One whose time is not that in `rooms` has come back.
    queue: VecDeque<(Instant, Gone)>,
    /// Those that are being announced as gone; a join of theirs waits for that.
    telling: HashMap<Gone, Option<Event>, ahash::RandomState>,
}

impl Absent {
    /// A user's last connection has left.
    pub(super) fn leaves(&self, room: &Arc<str>, user: &Arc<str>, hold: Duration) {
        let mut state = self.state.lock();
        let gone = (Arc::clone(user), Arc::clone(room));
        if let Some(back) = state.telling.get_mut(&gone) {
            *back = None;
            return;
        }
        let until = Instant::now() + hold;
        let room = state.rooms.entry(Arc::clone(room)).or_default();
        room.insert(Arc::clone(user), until);
        state.queue.push_back((until, gone));
        drop(state);
        self.wake.notify_one();
    }

    /// A user's first connection has joined; true when `joined` is to be announced by the caller, now.
    pub(super) fn returns(&self, room: &Arc<str>, user: &Arc<str>, joined: impl FnOnce() -> Event) -> bool {
        let mut state = self.state.lock();
        if !state.telling.is_empty()
            && let Some(back) = state.telling.get_mut(&(Arc::clone(user), Arc::clone(room)))
        {
            *back = Some(joined());
            return false;
        }
        let Some(users) = state.rooms.get_mut(room) else {
            return true;
        };
        let known = users.remove(user).is_some();
        if users.is_empty() {
            state.rooms.remove(room);
        }
        !known
    }

    /// How many there are of a room, and the first that are behind this one.
    pub(super) fn of(&self, room: &str, after: Option<&str>, limit: usize) -> (usize, Vec<Arc<str>>) {
        let state = self.state.lock();
        let Some(users) = state.rooms.get(room) else {
            return (0, Vec::new());
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = users.range::<str, _>((from, Bound::Unbounded));
        (
            users.len(),
            behind.map(|(user, _)| user).take(limit).cloned().collect(),
        )
    }

    /// Waits until some have been away for too long, and takes them; to be followed by [`Absent::told`]. Cancel-safe.
    pub(super) async fn next(&self) -> Vec<Gone> {
        loop {
            let first = {
                let mut state = self.state.lock();
                let gone = state.take_due(Instant::now());
                if !gone.is_empty() {
                    return gone;
                }
                state.queue.front().map(|(until, _)| *until)
            };
            match first {
                Some(until) => sleep_until(until).await,
                None => self.wake.notified().await,
            }
        }
    }

    /// They were announced as gone; gives what those that came back meanwhile are announced with.
    pub(super) fn told(&self, gone: &[Gone]) -> Vec<(Arc<str>, Event)> {
        let mut state = self.state.lock();
        let back = gone.iter().filter_map(|gone| {
            let joined = state.telling.remove(gone)??;
            Some((Arc::clone(&gone.1), joined))
        });
        back.collect()
    }
}

impl State {
    fn take_due(&mut self, now: Instant) -> Vec<Gone> {
        let mut due = Vec::new();
        while let Some((until, gone)) = self.queue.pop_front_if(|(until, _)| *until <= now) {
            let (user, room) = &gone;
            let Some(users) = self.rooms.get_mut(room) else {
                continue;
            };
            if users.get(user) != Some(&until) {
                continue;
            }
            users.remove(user);
            if users.is_empty() {
                self.rooms.remove(room);
            }
            self.telling.insert(gone.clone(), None);
            due.push(gone);
        }
        if self.queue.is_empty() {
            self.queue.shrink_to_fit();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined() -> Event {
        Event::UserJoined {
            user_id: "u".into(),
            server_id: "s".into(),
            connection: "c".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_back_in_time_is_not_told_of_and_who_is_not_is_told_of_once() {
        let absent = Absent::default();
        let (room, a, b): (Arc<str>, Arc<str>, Arc<str>) = ("r".into(), "a".into(), "b".into());
        assert!(absent.returns(&room, &a, joined), "new");
        absent.leaves(&room, &a, Duration::from_secs(15));
        absent.leaves(&room, &b, Duration::from_secs(15));
        assert_eq!(absent.of("r", None, 9), (2, vec![Arc::clone(&a), Arc::clone(&b)]));
        assert_eq!(absent.of("r", Some("a"), 9), (2, vec![Arc::clone(&b)]));
        assert!(!absent.returns(&room, &a, joined), "back");
        let gone = absent.next().await;
        assert_eq!(gone, [(b, Arc::clone(&room))]);
        assert!(absent.told(&gone).is_empty());
        assert!(absent.state.lock().rooms.is_empty() && absent.state.lock().telling.is_empty());
        absent.leaves(&room, &a, Duration::from_secs(15));
        absent.returns(&room, &a, joined);
        absent.leaves(&room, &a, Duration::from_secs(20));
        let before = Instant::now();
        assert_eq!(absent.next().await.len(), 1);
        assert!(
            before.elapsed() >= Duration::from_secs(20),
            "the later leave counts"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_while_it_is_announced_as_gone_is_announced_behind_that() {
        let absent = Absent::default();
        let (room, a): (Arc<str>, Arc<str>) = ("r".into(), "a".into());
        absent.leaves(&room, &a, Duration::ZERO);
        let gone = absent.next().await;
        assert!(!absent.returns(&room, &a, joined), "not yet");
        let back = absent.told(&gone);
        assert!(matches!(&back[..], [(_, Event::UserJoined { .. })]));
        assert!(absent.told(&gone).is_empty());
    }
}
