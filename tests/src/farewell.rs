//! What the clients of a gateway that drains are told, and what they see then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::client::Client;

/// What one client saw.
#[derive(Clone, Debug)]
pub struct Farewell {
    /// The whole `server_shutdown`.
    pub notice: Value,
    /// Its `reconnectDelay`.
    pub delay: Duration,
    /// From the notice to the close.
    pub waited: Duration,
    /// From the beginning to the close.
    pub closed: Duration,
    /// The close's code.
    pub code: u16,
}

/// Waits until every client was told to go and closed; times are counted from `begin`.
pub async fn farewells(clients: &mut [Client], begin: Instant) -> Result<Vec<Farewell>> {
    let each = clients.iter_mut().map(|client| async move {
        let notice = client.expect("server_shutdown").await?;
        let told = Instant::now();
        let delay = notice["reconnectDelay"].as_u64();
        let delay = Duration::from_millis(delay.with_context(|| notice.to_string())?);
        let code = client.closed().await?;
        anyhow::Ok(Farewell {
            notice,
            delay,
            waited: told.elapsed(),
            closed: begin.elapsed(),
            code,
        })
    });
    futures::future::try_join_all(each).await
}

/// How many different delays were told.
pub fn delays(farewells: &[Farewell]) -> usize {
    let delays: BTreeSet<Duration> = farewells.iter().map(|farewell| farewell.delay).collect();
    delays.len()
}

/// When half of them were closed. A pause of the machine makes it later, never sooner.
pub fn half_closed(farewells: &[Farewell]) -> Duration {
    let mut times: Vec<Duration> = farewells.iter().map(|farewell| farewell.closed).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
