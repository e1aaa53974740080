//! What each gateway does by itself: it finds gateways that have ended, announces users that have been away for too long,
//! and removes what ended gateways have left behind. Two that do so at once are not in each other's way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Presence, THERE_TTL};
use crate::broker::BrokerError;

/// Longest time between two looks for what is to be done.
const TICK: Duration = Duration::from_secs(1);

impl Presence {
    /// Does what is to be done until that fails.
    pub(super) async fn sweep(&self) -> Result<(), BrokerError> {
        let lasts = self.core.views.times().lasts;
        let tick = TICK.min(lasts / 5);
        loop {
            sleep(tick.mul_f64(rand::random::<f64>() + 0.5)).await;
            self.end_silent().await?;
            self.core.views.expire();
            // not all gateways at once
            let wait = lasts.mul_f64(rand::random::<f64>().mul_add(0.3, 0.2));
            let due = self
                .core
                .views
                .leases(|leases| leases.left_behind(wait, THERE_TTL, Instant::now()));
            for lease in due {
                match self.clear(&lease).await {
                    Err(BrokerError::Refused(error)) => {
                        tracing::warn!(%error, "presence cannot be cleared up");
                    }
                    other => other?,
                }
            }
        }
    }

    /// Gateways that were not heard in time have ended, unless JetStream still has their leases: then it was we who did not
    /// hear.
    async fn end_silent(&self) -> Result<(), BrokerError> {
        let views = &self.core.views;
        let silent = views.leases(|leases| leases.overdue(views.times(), Instant::now()));
        for (lease, gone) in silent {
            let link = self.core.link()?;
            if self.streams(&link).lives(&lease).await? {
                views.leases(|leases| leases.heard(&lease, Instant::now()));
            } else {
                tracing::info!(lease = &*lease, "a gateway has ended without a word");
                views.end(&lease, gone);
            }
        }
        Ok(())
    }

    async fn clear(&self, lease: &Arc<str>) -> Result<(), BrokerError> {
        let link = self.core.link()?;
        let removed = self.streams(&link).clear(lease).await?;
        self.core.views.leases(|leases| leases.cleared(lease));
        if removed > 0 {
            self.core.stats.presence_cleared.inc();
            tracing::info!(
                lease = &**lease,
                removed,
                "the members of a gateway that has ended are cleared away"
            );
        }
        Ok(())
    }
}
