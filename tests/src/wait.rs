//! Waiting for conditions with a deadline.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Longest wait for something that should happen soon, on a machine that may be busy.
pub const SOON: Duration = Duration::from_mins(1);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until `condition` holds; an error that names `what` when it does not within [`SOON`].
pub async fn until(what: &str, condition: impl FnMut() -> bool) -> Result<()> {
    until_within(SOON, what, condition).await
}

/// Looks until `condition` holds; an error that names `what` when it does not within `limit`.
pub async fn until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain: {what}");
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Awaits `work`; an error that names `what` when it does not end within [`SOON`].
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> Result<T> {
    within(SOON, what, work).await
}

/// Awaits `work`; an error that names `what` when it does not end within `limit`.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> Result<T> {
    let Ok(value) = tokio::time::timeout(limit, work).await else {
        bail!("waited {limit:?} in vain: {what}");
    };
    Ok(value)
}

/// As [`until`], for conditions that take asking; errors of the asking count as "not yet".
pub async fn until_async<F: Future<Output = Result<bool>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let look = condition().await;
        if matches!(look, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("waited {SOON:?} in vain: {what} (last look: {look:?})");
        }
        sleep(LOOK).await;
    }
}
