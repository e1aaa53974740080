//! What is pending goes out to the members, block by block.
//!
//! Behind a full block the next one waits until every member has taken what was written, for [`PATIENCE`] at most: after an
//! outage of the broker there are many blocks at once, and each is half of what may wait for a member. One that reads well
//! takes them as they come; one that does not read at all is too slow after some blocks all the same.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::super::batch::Batch;
use super::super::fanout::Fanout;
use super::{Room, State};
use crate::config::SlowPolicy;
use crate::session::Env;

/// How long a full block waits for members that have not taken the last one.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(10);

impl Room {
    /// Writes what is pending, unless somebody does; goes on until nothing is. A large room is written to by tasks, and
    /// this comes back at once.
    pub(in crate::room) fn flush(self: &Arc<Self>, env: &Arc<Env>) {
        let mut state = self.state.lock();
        state.lingering = false;
        if !state.flushing {
            self.go_on(state, env);
        }
    }

    /// The tasks have written to everybody.
    pub(in crate::room) fn written(self: &Arc<Self>, env: &Arc<Env>) {
        let mut state = self.state.lock();
        state.flushing = false;
        self.go_on(state, env);
    }

    fn go_on(self: &Arc<Self>, mut state: MutexGuard<'_, State>, env: &Arc<Env>) {
        loop {
            if let Some(runtime) = state.wait() {
                state.flushing = true;
                runtime.spawn(Arc::clone(self).go_on_later(Arc::clone(env)));
                return;
            }
            let Some(block) = state.pending.as_mut().and_then(|pending| pending.take()) else {
                break;
            };
            let batch = Batch::new(self.key.clone(), block);
            let fanout = Fanout::new(env, batch, state.members.clone(), state.policy);
            state.flushing = true;
            if let Some(runtime) = fanout.spreads() {
                return MutexGuard::unlocked(&mut state, || fanout.spread(self, &runtime));
            }
            MutexGuard::unlocked(&mut state, || fanout.run());
            state.flushing = false;
        }
        state.pending = state.pending.take().filter(|pending| pending.holds());
        state.settled = None;
    }

    async fn go_on_later(self: Arc<Self>, env: Arc<Env>) {
        let until = Instant::now() + PATIENCE;
        loop {
            sleep(LOOK).await;
            // not under the lock: there may be ten thousand
            let members = self.state.lock().members.clone();
            let lags = members.as_slice().iter().any(|member| member.lags());
            if !lags || Instant::now() >= until {
                break;
            }
        }
        self.written(&env);
    }
}

impl State {
    /// Where to wait for members before the next block is written, if that is to be.
    fn wait(&mut self) -> Option<Handle> {
        let backlog = self.pending.as_mut().filter(|pending| pending.is_backlog())?;
        if self.policy != SlowPolicy::Disconnect || !self.members.as_slice().iter().any(|it| it.lags()) {
            return None;
        }
        backlog.waited();
        Handle::try_current().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::broker::{Delivery, Position, Sink as _};
    use crate::room::tests::{local_with, message};
    use crate::test_support::env;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_member_that_reads_takes_a_backlog_of_any_size() {
        const MESSAGES: u64 = 2_000;
        let local = local_with(env());
        let (_member, mut peer, ..) = local.member(1, "reads").await;
        // 16 MB at once, where the system takes four and the queue a quarter
        let message = message(&format!("\"{}\"", "x".repeat(8_000)));
        let event = Arc::new(message.event);
        let delivery = |offset| Delivery {
            stream: message.stream.clone(),
            event: Arc::clone(&event),
            position: Some(Position {
                epoch: "after the outage".into(),
                offset,
            }),
        };
        drop(local.rooms.deliver((1..=MESSAGES).map(delivery).collect()));
        for offset in 1..=MESSAGES {
            assert_eq!(peer.next_of("room_message").await["offset"], offset);
        }
    }
}
