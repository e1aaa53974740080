//! Kubernetes events, through one shared recorder: repeats within six minutes become a series of one event.
//!
//! An event that cannot be published is logged and forgotten; nothing depends on it.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::apply::CALL_TIMEOUT;
use crate::plan::action::EventDraft;

/// Longest note that the API server takes, in bytes (events.k8s.io/v1).
const NOTE_LIMIT: usize = 1024;

/// Publishes events; cheap to clone.
#[derive(Clone)]
pub struct Events(Recorder);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events(..)")
    }
}

impl Events {
    /// Events reported by this process.
    pub fn new(client: Client, identity: &str) -> Self {
        let controller = format!("{}/operator", wsfleet_crds::labels::GROUP);
        Self(Recorder::new(
            client,
            Reporter {
                controller,
                instance: Some(identity.to_owned()),
            },
        ))
    }

    /// Says `draft` about `regarding`.
    pub async fn publish(&self, draft: EventDraft, regarding: &ObjectReference) {
        info!(
            cluster = regarding.name,
            reason = draft.reason,
            note = draft.note,
            "event"
        );
        let event = Event {
            type_: if draft.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: draft.reason.to_owned(),
            note: Some(clip(draft.note)),
            action: draft.action.to_owned(),
            secondary: None,
        };
        match timeout(CALL_TIMEOUT, self.0.publish(&event, regarding)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "event not published"),
            Err(_) => warn!("event not published: no answer in time"),
        }
    }
}

fn clip(mut note: String) -> String {
    if note.len() > NOTE_LIMIT {
        let end = (0..=NOTE_LIMIT - '…'.len_utf8())
            .rev()
            .find(|end| note.is_char_boundary(*end))
            .unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_clipped_at_a_character() {
        assert_eq!(clip("short".into()), "short");
        let clipped = clip("ü".repeat(NOTE_LIMIT));
        assert!(
            clipped.len() <= NOTE_LIMIT && clipped.ends_with("ü…"),
            "{}",
            clipped.len()
        );
    }
}
