//! Conditions awaited with a deadline, instead of fixed sleeps.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(200);

/// What a look found: the value that was waited for, or in words what is there instead.
pub type Seen<T> = Result<T, String>;

/// Something did not happen in time.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not within {within:?}; last seen: {last}{report}")]
pub struct Deadline {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub within: Duration,
    /// What the last look found instead.
    pub last: String,
    /// The state of the namespace, when the wait knows one.
    pub report: String,
}

/// Looks every 200 ms until `look` succeeds; its error says what it found instead.
///
/// Cancel safe: looks are dropped between or within, nothing else is held.
pub async fn until<T, E, F, Fut>(what: &str, within: Duration, mut look: F) -> Result<T, Deadline>
where
    E: fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let end = Instant::now() + within;
    let mut last = "nothing".to_owned();
    loop {
        match timeout_at(end, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen.to_string(),
            Err(_) => last.push_str(" (and the last look did not end)"),
        }
        if Instant::now() + PERIOD >= end {
            return Err(Deadline {
                what: what.to_owned(),
                within,
                last,
                report: String::new(),
            });
        }
        sleep(PERIOD).await;
    }
}

/// Whether an object's `status.conditions` has the type with the status (`"True"`, `"False"`, `"Unknown"`); the error
/// lists the conditions that are there.
pub fn has_condition<K: Serialize>(object: &K, kind: &str, status: &str) -> Seen<()> {
    let object = serde_json::to_value(object).map_err(|e| e.to_string())?;
    let conditions = object["status"]["conditions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if conditions
        .iter()
        .any(|c| c["type"] == kind && c["status"] == status)
    {
        return Ok(());
    }
    let text = |c: &serde_json::Value, key: &str| c[key].as_str().unwrap_or_default().to_owned();
    let list = conditions.iter().map(|c| {
        format!(
            "{}={} {} {}",
            text(c, "type"),
            text(c, "status"),
            text(c, "reason"),
            text(c, "message")
        )
    });
    Err(format!("conditions [{}]", list.collect::<Vec<_>>().join("; ")))
}
