//! A gateway's lease: begun, with all connections added under it, renewed, and ended.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{sleep, timeout};

use super::super::lease;
use super::{LEASE, Lease, PATIENCE, PAUSE, Seats, Standing, given_up};
use crate::broker::BrokerError;

/// Time between renewals of the lease; with each, one part of the connections is added again, so that none is forgotten.
const RENEWAL: Duration = Duration::from_secs(LEASE.as_secs() / 3);

impl Seats {
    /// Ends the lease: what is counted under it is void at once.
    pub(in super::super) async fn end(&self) {
        // unreachable, NATS ends it by itself
        let _ = self.end_lease().await;
    }

    async fn end_lease(&self) -> Result<(), BrokerError> {
        let name = {
            let lease = self.lease.lock();
            if lease.number == 0 {
                return Ok(());
            }
            Arc::clone(&lease.name)
        };
        let letter = given_up(self.core.config.names.lease(&name));
        self.submit(letter, Box::new(|_| {}));
        self.flush().await
    }

    /// Keeps this gateway's connections counted until dropped.
    pub(in super::super) async fn run(&self) {
        let mut up = self.core.up.subscribe();
        loop {
            if up.wait_for(|up| *up).await.is_err() {
                return;
            }
            let ended = tokio::select! {
                ended = self.hold() => ended,
                // any change: a link that is back already was lost meanwhile
                _ = up.changed() => Err(BrokerError::Unavailable),
            };
            let standing = if let Err(BrokerError::Refused(error)) = ended {
                tracing::warn!(%error, "NATS refuses the lease: users' connections are not counted in the fleet");
                Standing::Refused
            } else {
                Standing::Settling
            };
            self.standing.send_replace(standing);
            sleep(if standing == Standing::Refused {
                RENEWAL
            } else {
                PAUSE
            })
            .await;
        }
    }

    /// Begins a lease, adds all connections under it, and renews it until that fails.
    async fn hold(&self) -> Result<(), BrokerError> {
        // what was missed before is made good by this one
        let _ = self.missed.notified().now_or_never();
        // else what it had left behind would count beside what is added now
        self.end_lease().await?;
        let number = self.lease.lock().number + 1;
        let name: Arc<str> = format!("{}-{number}", self.core.instance).into();
        let Some(mut renewed) = self.renew(&name, 0).await? else {
            return Err(BrokerError::Unavailable);
        };
        // not before it is there: what is under a lease that is not there may be removed by anybody
        *self.lease.lock() = Lease {
            number,
            name: Arc::clone(&name),
        };
        let mut part = 0;
        while self.add_part(part) {
            // those that come now must not wait behind all of them
            self.flush().await?;
            part += 1;
        }
        self.standing.send_replace(Standing::Counted);
        loop {
            tokio::select! {
                () = sleep(RENEWAL) => {}
                () = self.missed.notified() => return Err(BrokerError::Unavailable),
            }
            match self.renew(&name, renewed).await? {
                Some(again) => renewed = again,
                None => return Ok(()),
            }
            part = if self.add_part(part) { part + 1 } else { 0 };
        }
    }

    /// Prolongs a lease by this renewal of it, 0 for a new one; nothing when it has run out, or was taken away.
    async fn renew(&self, name: &str, last: u64) -> Result<Option<u64>, BrokerError> {
        let subject = self.core.config.names.lease(name);
        lease::renew(&self.core, &subject, self.gateway.as_bytes(), (last, LEASE)).await
    }

    /// Adds one part of what is there, each while it cannot leave, so that its removal comes later; false when there is
    /// no such part.
    fn add_part(&self, part: usize) -> bool {
        self.core.sink.each_device(part, &mut |user, connection| {
            self.add(&self.lease.lock(), user, connection);
        })
    }

    /// Waits until this gateway's connections are counted.
    pub(super) async fn settled(&self) -> Result<(), BrokerError> {
        self.core.link()?;
        let mut standing = self.standing.subscribe();
        let settled = standing.wait_for(|standing| *standing != Standing::Settling);
        match timeout(PATIENCE, settled).await {
            Ok(Ok(standing)) if *standing == Standing::Counted => Ok(()),
            _ => Err(BrokerError::Unavailable),
        }
    }
}
