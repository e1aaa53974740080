//! What the links of a cluster's nodes tell the task that knows the cluster.

use tokio::sync::{Notify, watch};

/// Told when what is known of a cluster may be wrong: a link was lost or made, a node says that a slot is not its.
#[derive(Debug)]
pub(in super::super) struct Alert {
    wake: Notify,
    up: watch::Sender<bool>,
}

impl Alert {
    pub(in super::super) fn new() -> Self {
        Self {
            wake: Notify::new(),
            up: watch::Sender::new(false),
        }
    }

    /// It is time to look who has what.
    pub(in super::super) fn look(&self) {
        self.wake.notify_one();
    }

    /// A command link is lost.
    pub(in super::super) fn lost(&self) {
        self.up.send_replace(false);
        self.wake.notify_one();
    }

    /// Something that was to be done in order was not done.
    pub(in super::super) fn missed(&self) {
        // the value stays: who watches it sees that something happened
        self.up.send_modify(|_| ());
    }

    /// Whether every node's command link is up, and every slot has a node.
    pub(super) fn set_up(&self, up: bool) {
        // not a change when it is the same: that would say that something was missed
        self.up
            .send_if_modified(|before| std::mem::replace(before, up) != up);
    }

    /// What [`Alert::set_up`] said, until a link is lost.
    pub(in super::super) fn watch_up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    pub(in super::super) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Until it is time to look. Cancel-safe.
    pub(super) async fn wakes(&self) {
        self.wake.notified().await;
    }
}
